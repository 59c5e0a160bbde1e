"""From nothing but an engine to the first answer, apart from what is downloaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from bench.copy import NAME, Copy, builders, copy, wait
from bench.measure import Row, judged, quiet, seconds
from containerize import build as building
from containerize.engines import container
from containerize.lock import locks
from containerize.settings import PREFIX


def main() -> Iterator[Row]:
    """Print the first `up` on a machine, whose downloads are timed before it."""
    builder = builders()[0]
    with copy(builder) as made:
        made.variables[f"{PREFIX}CACHE"] = str(made.root.with_name("cache"))
        other_bytes(made)
        download = seconds(lambda: made.invoke("fetch"))

        def ours() -> None:
            began = made.start("up")
            wait(made.url, "Hello", began)
            began.finish()

        with quiet():
            took = seconds(ours)
            made.invoke("stop")
            theirs = seconds(lambda: peer(made))
        row = judged(
            f"no image, cold input cache → first 200, without download, {builder.name}",
            [took], "plain build, no cache, and run", [theirs],
        )  # fmt: skip
        yield row
        yield Row("… download, apart", f"{download:.2f} s", goal="print")


def other_bytes(made: Copy) -> None:
    """Give the copy's layers another time: the builder's cache has none of them."""
    path = made.root / "base.lock"
    head, mark, body = path.read_text("utf-8").partition("suite ")
    moved = re.sub(r"(?m)^(date .*:)\d\dZ$", r"\g<1>59Z", mark + body)
    known = hashlib.sha256(moved.encode()).hexdigest()
    head = re.sub(r"(?m)^# content sha256:\w+$", f"# content sha256:{known}", head)
    path.write_text(head + moved, "utf-8")
    locks.read_base(made.settings)  # a Problem if that is no lock any more


def peer(made: Copy) -> None:
    """The same context built by the engine alone, and run until it answers."""
    using = made.builder.engine
    name = f"{NAME}:plain"
    command = building.build_command(made.settings, using.kind, [name], cache=False)
    using.stream(*command, cwd=made.root)
    launch = container.Launch(
        settings=made.settings, reference=name, name=f"{NAME}-plain", port=made.port
    )
    using.run(*launch.command(), echo=False)
    wait(made.url, "Hello")
