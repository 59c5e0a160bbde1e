"""Rebuild, compare, explain."""
