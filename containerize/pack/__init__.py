"""From locked inputs to canonical layers."""
