"""From locked inputs to canonical layers."""

LAYERS = ("rootfs", "deps", "service", "large", "app")
"""The packed layers, from what changes least to what changes most."""
