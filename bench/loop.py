"""The day's loop: a line of the app is edited, is in an image, and answers."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.copy import (
    NAME,
    Builder,
    Copy,
    Started,
    begin,
    builders,
    copy,
    peer_build,
    peer_context,
    steps,
    wait,
    write_edit,
)
from bench.measure import (
    Row,
    attempt,
    compared,
    interleaved,
    judged,
    quiet,
    seconds,
    timed,
)
from containerize import build as building
from containerize.engines import container
from tests.conftest import unused_port

RUNS = 3
BUILD = {"BuildKit": 1.5, "legacy": 2.5}
"""Goals for a build after an edit, in seconds."""


def main() -> Iterator[Row]:
    """Print the figures of the loop, for each builder that is here."""
    for builder in builders():
        name = f"loop, {builder.name}"
        yield from attempt(name, functools.partial(image, builder))
    yield from attempt("dev", lambda: dev(builders()[0]))


def image(builder: Builder) -> Iterator[Row]:
    """The rows of `build` and `up`."""
    with copy(builder) as made:
        made.invoke("build")
        with quiet():
            peer = Peer(made)
            peer.build()
        yield from build(made, peer)
        yield from up(made, peer)


class Peer:
    """A plain `COPY . .` of the app onto the same image, and its container."""

    def __init__(self, made: Copy) -> None:
        self.made = made
        self.using = made.builder.engine
        self.context = peer_context(made)
        self.build = peer_build(made, self.context)
        self.parts: dict[str, list[float]] = {}
        self._saved = made.root.with_name("peer.tar")
        self._edits = 0
        self._port = unused_port()

    def edit(self) -> str:
        self._edits += 1
        app = self.context / self.made.settings.app / "__init__.py"
        return write_edit(app, self._edits)

    def round_trip(self) -> float:
        """Build, save and load, each of which is kept in `parts`."""
        self.edit()
        self._saved.unlink(missing_ok=True)
        kind = self.using.kind
        save = building.save_command(kind, f"{NAME}:peer", self._saved)
        load = building.load_command(kind, self._saved)
        found = {
            "build": seconds(self.build),
            "save": seconds(lambda: self.using.run(*save)),
            "load": seconds(lambda: self.using.run(*load)),
        }
        for name, part in found.items():
            self.parts.setdefault(f"the peer's {name}", []).append(part)
        return sum(found.values())

    def up(self) -> float:
        """Build, then a new container in the place of the old one, until it answers."""
        answer = self.edit()
        launch = container.Launch(
            settings=self.made.settings,
            reference=f"{NAME}:peer",
            name=f"{NAME}-peer",
            port=self._port,
        )

        def run() -> None:
            self.build()
            self.using.discard(launch.name, echo=False)
            self.using.run(*launch.command(), echo=False)
            wait(f"http://127.0.0.1:{self._port}/", answer)

        return seconds(run)


def build(made: Copy, peer: Peer) -> Iterator[Row]:
    """An edit, then `build`, against a cached build, a save and a load."""

    def ours() -> float:
        made.edit()
        return seconds(lambda: made.invoke("build"))

    with quiet():
        ours(), peer.round_trip()  # what the first edit alone has to do
        found = interleaved({"ours": ours, "peer": peer.round_trip}, RUNS)
    name = made.builder.name
    figure = f"one line of app/ → `build` done, {name}"
    peer_name = "cached `COPY . .`, save, load"
    times = (found["ours"], peer_name, found["peer"])
    rows = [judged(figure, *times, factor=1.5)]
    if limit := BUILD.get(name):
        rows.append(judged(f"{figure}, seconds", *times, most=limit))
    yield from rows
    if any(row.met is False for row in rows):
        made.edit()
        made.profile("build")
        steps(f"The engine's own limit, {name}", peer.parts)


def up(made: Copy, peer: Peer) -> Iterator[Row]:
    """An edit, then `up`, until the answer has it; and `up` with nothing to do."""
    silent: list[float] = []

    def ours() -> float:
        answer = made.edit()
        began = made.start("up")

        def answering() -> None:
            silent.append(wait(made.url, answer, began))

        took = seconds(answering)
        began.finish()
        return took

    with quiet():
        ours(), peer.up()
        silent.clear()
        found = interleaved({"ours": ours, "peer": peer.up}, RUNS)
        idle = interleaved(
            {
                "ours": timed(lambda: made.invoke("up")),
                "peer": timed(lambda: made.invoke("--version")),
            }
        )
        made.invoke("stop")
    name = made.builder.name
    goal = 2.5 if name == "BuildKit" else None
    row = judged(
        f"one line → `up` answering with it, {name}", found["ours"],
        "cached `COPY . .`, rm, run", found["peer"], most=goal,
    )  # fmt: skip
    still = judged(
        f"`up` when nothing changed, {name}", idle["ours"],
        "`invoke --version`", idle["peer"], most=0.4,
    )  # fmt: skip
    yield row
    yield Row(
        f"… and nothing answered for, {name}",
        f"{sorted(silent)[len(silent) // 2] * 1000:.0f} ms",
        goal="print",
    )
    yield still
    if row.met is False:
        made.edit()
        made.profile("up")
    if still.met is False:
        made.invoke("up")
        made.profile("up")


def dev(builder: Builder) -> Iterator[Row]:
    """An edit, until `dev` answers with it, against Flask's own server on the host."""
    with copy(builder) as made:
        made.invoke("build")
        app = made.settings.app
        theirs = made.root.with_name("host")
        shutil.copytree(made.root / app, theirs / app)
        port = unused_port()
        flask = [sys.executable, "-m", "flask", f"--app={app}"]
        flask += ["run", "--debug", f"--port={port}"]
        edits = iter(range(1000))

        def edited(root: Path, url: str) -> Callable[[], float]:
            def run() -> float:
                answer = write_edit(root / app / "__init__.py", next(edits))
                return seconds(lambda: wait(url, answer))

            return run

        with (
            serving(made.start("dev"), made.url),
            serving(
                begin(flask, theirs, os.environ), host := f"http://127.0.0.1:{port}/"
            ),
        ):
            # A reloader looks once a second: more runs than elsewhere.
            found = interleaved(
                {"ours": edited(made.root, made.url), "peer": edited(theirs, host)}, 9
            )
            row = judged(
                f"one line → `dev` answering with it, {builder.name}", found["ours"],
                "`flask run --debug` on the host", found["peer"], factor=1,
            )  # fmt: skip
            yield row
            if row.met is False:
                restart(made, theirs, found)


@contextlib.contextmanager
def serving(server: Started, url: str) -> Iterator[None]:
    """A server that has answered; Ctrl-C ends it on leaving."""
    try:
        wait(url, "Hello", server)
        yield
    finally:
        server.popen.send_signal(signal.SIGINT)
        try:
            server.popen.wait(30)
        except subprocess.TimeoutExpired:
            server.popen.kill()


def restart(made: Copy, host: Path, found: Mapping[str, Sequence[float]]) -> None:
    """Print what a reload is made of: a look once a second, and Python's start."""
    using, app = made.builder.engine, made.settings.app
    inside = ("exec", f"{made.settings.container_name}-dev", "python3", "-c")
    on_host = [sys.executable, "-c", f"import {app}"]
    runs = {
        f"`{using.kind} exec`, Python, nothing": timed(
            lambda: using.run(*inside, "pass", echo=False)
        ),
        f"`{using.kind} exec`, Python, the app imported": timed(
            lambda: using.run(*inside, f"import {app}", echo=False)
        ),
        "Python on the host, the app imported": timed(
            lambda: subprocess.run(on_host, cwd=host, check=True)
        ),
    }
    names = {"ours": "edit to answer, `dev`", "peer": "edit to answer, the host"}
    compared(
        "A reloader looks once a second, then starts Python again",
        {names[name]: times for name, times in found.items()} | interleaved(runs),
    )
