"""`verify`: two rebuilds from nothing, compared."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.copy import NAME, Builder, Copy, Started, builders, copy
from bench.measure import (
    Row,
    attempt,
    interleaved,
    judged,
    quiet,
    seconds,
    table,
    timed,
)
from containerize import build as building

GOALS = {"BuildKit": 8.0, "legacy": 12.0, "Podman": 12.0}
"""In seconds, on a quiet machine."""
RUNS = 2
EVERY = 0.02
"""Seconds between two looks at the processes of a verify."""


def main() -> Iterator[Row]:
    """Print what `verify` takes, against two plain builds of the same context."""
    for builder in builders():
        name = f"`verify`, {builder.name}"
        yield from attempt(name, functools.partial(rebuilds, builder, name))


def rebuilds(builder: Builder, figure: str) -> Iterator[Row]:
    with copy(builder) as made:
        made.invoke("build")
        with quiet():
            found = interleaved(
                {"ours": timed(lambda: made.invoke("verify")), "peer": peer(made)},
                RUNS,
            )
        row = judged(
            figure, found["ours"],
            "two plain builds, no cache", found["peer"], most=GOALS[builder.name],
        )  # fmt: skip
        yield row
        if row.met is False:
            timeline(made)


def peer(made: Copy) -> Callable[[], float]:
    """Two plain builds of the context that was built last, one after the other."""
    using = made.builder.engine
    command = building.build_command(
        made.settings, using.kind, [f"{NAME}:plain"], cache=False
    )

    def run() -> float:
        return sum(
            seconds(lambda: using.stream(*command, cwd=made.root)) for _ in range(2)
        )

    return run


def timeline(made: Copy) -> None:
    """Print what each rebuild of one more `verify` does, from when to when."""
    began = time.perf_counter()
    running = made.start("verify")
    spans: dict[tuple[str, str], list[float]] = {}
    while running.popen.poll() is None:
        now = time.perf_counter() - began
        for at in sorted(set(seen(running))):
            spans.setdefault(at, [now, now])[1] = now
        time.sleep(EVERY)
    running.finish()
    rows = [
        (rebuild, step, f"{first:.1f}", f"{last:.1f}")
        for (rebuild, step), (first, last) in sorted(spans.items(), key=_when)
    ]
    whole = time.perf_counter() - began
    header = ("rebuild", "process", "from s", "to s")
    table(f"`verify` on {made.builder.name}, {whole:.1f} s", header, rows)


def _when(item: tuple[tuple[str, str], list[float]]) -> tuple[str, float]:
    return item[0][0], item[1][0]


def seen(running: Started) -> Iterator[tuple[str, str]]:
    """The processes below a verify: whose rebuild each is of, and what it does."""
    parents = dict(_processes())
    below = {running.popen.pid}
    while more := {p for p, above in parents.items() if above in below} - below:
        below |= more
    for pid in below - {running.popen.pid}:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace")
            home = os.readlink(f"/proc/{pid}/cwd")
            rebuild = re.search(r"/verify-\w+/(.)", home)
            program, *rest = words.split("\0")
            kind = {"docker", "podman"} & {Path(program).name}
            if kind:
                step = next((w for w in rest if w.isalpha()), "")
                doing = f"{kind.pop()} {step}"
            elif log := re.search(r"/(\w+)\.log$", os.readlink(f"/proc/{pid}/fd/1")):
                doing = f"Python, {log[1]}"
            else:
                continue
            name = {"c": "plain", "e": "varied"}.get(rebuild[1]) if rebuild else ""
            yield name or "", doing


def _processes() -> Iterator[tuple[int, int]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
            yield int(stat.parent.name), int(fields[1])  # its parent, proc(5)
