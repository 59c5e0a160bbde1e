"""The one exception the package raises for what a user can mend, and its words."""

from __future__ import annotations

from collections.abc import Sequence


class Problem(Exception):
    """Something a user can mend.

    Its text is one line that says what is wrong and what to do; callers print it
    and exit non-zero, never with a traceback.
    """


def some(names: Sequence[str], most: int = 5) -> str:
    """The names, or the first of many and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
