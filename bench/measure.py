"""What the figures share: timing in turns, tables, and the rows of the goals."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from containerize.errors import Problem

RUNS = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure in the table of goals."""

    figure: str
    ours: str
    peer: str = ""
    """The peer's name, and what it took."""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None
    """None: there is no goal for it."""
    failed: bool = False

    def cells(self) -> tuple[str, ...]:
        said = {True: "met", False: "**missed**", None: ""}[self.met]
        return (self.figure, self.ours, self.peer, self.ratio, self.goal, said)


HEADER = ("figure", "ours", "peer", "ratio", "goal", "")


def attempt(name: str, rows: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of a part; if it fails, a last one that says why, and no error."""
    try:
        yield from rows()
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        yield Row(name, f"failed: {said}", failed=True)


def judged(
    figure: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    *,
    most: float | None = None,
    factor: float | None = None,
) -> Row:
    """The medians of seconds, met if they are at most `most`, or so much of the peer's.

    With neither the figure is printed and not judged.
    """
    mine, other = statistics.median(ours), statistics.median(theirs)
    ratio = mine / other
    goal, met = "print", None
    if most is not None:
        goal, met = f"≤ {most:g} s", mine <= most
    elif factor is not None:
        goal, met = f"≤ {factor:g} ×", ratio <= factor
    return Row(
        figure, f"{mine:.2f} s", f"{peer}: {other:.2f} s", f"{ratio:.2f}", goal, met
    )


def require(program: str, package: str) -> None:
    """Have a program of a Debian package. Raises Problem if it cannot be had."""
    if not shutil.which(program) and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "--yes", "-qq", package],
            stdout=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    if not shutil.which(program):
        raise Problem(f"{program} is missing: apt-get install {package}")


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
