"""A Swarm of three nodes: what an update loses, by edge and drain delay; how it scales.

All nodes, the edge and the load share this machine's CPUs.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Row, interleaved, require, table
from tests.scale import proof
from tests.scale.cluster import wait
from tests.scale.images import CADDY, HAPROXY, NGINX, Edge
from tests.scale.proof import Proof

DRAINS = (0, 5, 15)
"""Seconds."""
ENOUGH = 5000
"""Requests at least, for each cell of the table."""
REPLICAS = (1, 2, 4)
ROUNDS = 3
SECONDS = 8
"""Of a run of wrk."""
CONNECTIONS = 16
CHECKS = "check inter 500ms fall 2 rise 1 "


@dataclasses.dataclass(frozen=True)
class Case:
    """An edge, and what it does to know the replicas."""

    name: str
    edge: Edge


def main() -> Iterator[Row]:
    """Print the tables; a row for each goal."""
    require("wrk", "wrk")
    with (
        tempfile.TemporaryDirectory() as scratch,
        proof.ready((HAPROXY, CADDY, NGINX)) as made,
    ):
        yield from updates(made, cases(Path(scratch)))
        yield from throughput(made)


def cases(scratch: Path) -> tuple[Case, ...]:
    """The edges, all of which ask DNS each 10 s: so it is seen what the checks do."""
    return (
        Case("HAProxy, checks each 0.5 s", _haproxy(scratch / "checks.cfg")),
        Case("HAProxy, no checks", _haproxy(scratch / "unchecked.cfg", CHECKS)),
        Case("nginx, no checks", NGINX),
        Case("Caddy, no checks", CADDY),
    )


def _haproxy(path: Path, without: str = "") -> Edge:
    """HAProxy with DNS each 10 s, and without a part of its settings."""
    text = HAPROXY.config.read_text("utf-8")
    changed = text
    for setting in ("timeout resolve", "hold valid"):
        assert f"{setting} 1s" in changed
        changed = changed.replace(f"{setting} 1s", f"{setting} 10s")
    assert without in changed
    path.write_text(changed.replace(without, "") if without else changed, "utf-8")
    return dataclasses.replace(HAPROXY, config=path)


def updates(made: Proof, found: tuple[Case, ...]) -> Iterator[Row]:
    """What an update of three replicas loses, and how long it takes."""
    rows: list[tuple[object, ...]] = []
    for case in found:
        for drain in DRAINS:
            made.deploy("1", case.edge, drain_delay=str(drain))
            try:
                made.wait_running(3, "1")
                made.wait_answers()
                with made.load(case.edge.name) as load:
                    began = time.monotonic()
                    made.deploy("2", case.edge, drain_delay=str(drain))
                    state = made.converge()
                    seconds = time.monotonic() - began
                    load.more(max(1000, ENOUGH - load.sent))
                    result = load.end()
            finally:
                made.remove()
            posts = sum(one.kind.startswith("POST") for one in result.lost)
            why = sorted({one.why for one in result.lost})
            rows.append(
                (
                    case.name, f"{drain} s", f"{result.total}", len(result.lost),
                    posts, "; ".join(why), f"{result.p50:g}", f"{result.p99:g}",
                    f"{seconds:.0f} s", "" if state == "completed" else state,
                )
            )  # fmt: skip
            if case is found[0]:
                yield Row(
                    f"an update of 3 replicas, drain delay {drain} s",
                    f"{seconds:.0f} s, {len(result.lost)} of {result.total} lost",
                    goal="0 lost" if drain else "print",
                    met=not result.lost if drain else None,
                )
    header = (
        "edge", "drain delay", "requests", "lost", "POSTs", "how", "p50 ms",
        "p99 ms", "the update took", "",
    )  # fmt: skip
    table(
        "An update of three replicas under load; DNS is asked each 10 s", header, rows
    )


def throughput(made: Proof) -> Iterator[Row]:
    """Requests a second by the number of replicas, through the edge of one node."""
    made.deploy("1")
    try:
        made.wait_running(3, "1")
        found = interleaved(
            {str(count): functools.partial(_rate, made, count) for count in REPLICAS},
            ROUNDS,
        )
    finally:
        made.remove()
    rates = {count: statistics.median(found[str(count)]) for count in REPLICAS}
    first = rates[REPLICAS[0]]
    for count, rate in rates.items():
        yield Row(
            f"requests/s through the edge, {count} replica{'s' if count > 1 else ''}",
            f"{rate:.0f}",
            f"1 replica: {first:.0f}",
            f"{rate / first:.2f}",
        )


def _rate(made: Proof, count: int) -> float:
    """Requests a second with so many replicas, the earlier ones gone."""
    made.cluster.run("service", "scale", "--detach", f"{proof.SERVICE}={count}")
    made.wait_running(count)
    wait(lambda: made.containers() == count)
    made.wait_answers()
    return _wrk(made)


def _wrk(made: Proof) -> float:
    url = f"http://{made.cluster.nodes[0].address}:{proof.PORT}/"
    options = (f"--connections={CONNECTIONS}", f"--duration={SECONDS}s", "--threads=1")
    done = subprocess.run(
        ["wrk", *options, url], check=True, capture_output=True, text=True
    )
    found = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])
