"""What the figures share: tools, timing, and tables of it."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

RUNS = 5


def require(program: str, package: str) -> None:
    """Have a program of a Debian package, or exit with one line."""
    if not shutil.which(program) and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "--yes", "-qq", package],
            stdout=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    if not shutil.which(program):
        sys.exit(f"bench: {program} is missing: apt-get install {package}")


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


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """A call that returns how long it has taken."""
    return functools.partial(seconds, run)


def interleaved(
    runs: Mapping[str, Callable[[], float]], count: int = RUNS
) -> dict[str, list[float]]:
    """What each call returns, `count` times, in turns: noise meets all alike."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            found[name].append(run())
    return found


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def compared(title: str, found: Mapping[str, Sequence[float]], *peers: str) -> None:
    """Print the seconds of each, and its ratios to the peers' medians."""
    medians = {name: statistics.median(times) for name, times in found.items()}
    rows = [
        (
            name,
            f"{medians[name]:.2f}",
            f"{min(times):.2f}–{max(times):.2f}",
            *(f"{medians[name] / medians[peer]:.2f}" for peer in peers),
        )
        for name, times in found.items()
    ]
    header = ("", "median s", "min–max", *(f"× {peer}" for peer in peers))
    table(title, header, rows)
