"""What a caller shows of work that takes its time; `terminal.Meter` is one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Progress(Protocol):
    """Is told of each step that begins, goes on and ends."""

    def start(self, name: str, total: int | None) -> None:
        """Something begins; `total` is its size in bytes, where that is known."""

    def advance(self, size: int) -> None:
        """So many bytes more are done."""

    def done(self) -> None:
        """What began last has ended."""

    def note(self, text: str) -> None:
        """One line that the user should see."""


@contextlib.contextmanager
def step(progress: Progress, name: str, total: int | None = None) -> Iterator[None]:
    """A step that is shown as long as the context lasts."""
    progress.start(name, total)
    try:
        yield
    finally:
        progress.done()
