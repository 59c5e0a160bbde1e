"""Timing, and tables of it."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

RUNS = 5


class Silent:
    """Download progress that nobody watches."""

    def start(self, name: str, total: int | None) -> None: ...
    def advance(self, size: int) -> None: ...
    def done(self) -> None: ...
    def note(self, text: str) -> None: ...


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What the engine writes goes nowhere."""
    sys.stdout.flush()
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    try:
        yield
    finally:
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(nowhere)


def seconds(run: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def interleaved(
    runs: Mapping[str, Callable[[], object]], count: int = RUNS
) -> dict[str, list[float]]:
    """Seconds of each call, `count` times, in turns: noise meets all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            found[name].append(seconds(run))
    return found


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def compared(title: str, found: Mapping[str, Sequence[float]], peer: str) -> None:
    """Print the seconds of each, and its ratio to the peer's median."""
    base = statistics.median(found[peer])
    rows = [
        (
            name,
            f"{statistics.median(times):.2f}",
            f"{min(times):.2f}–{max(times):.2f}",
            f"{statistics.median(times) / base:.2f}",
        )
        for name, times in found.items()
    ]
    table(title, ("", "median s", "min–max", f"× {peer}"), rows)
