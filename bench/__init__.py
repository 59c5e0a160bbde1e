"""Figures, as ratios measured in one run against a named peer; nothing is asserted."""
