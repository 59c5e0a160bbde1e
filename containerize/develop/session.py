"""A run of the app from the working tree: its container, what leads there, its end."""

from __future__ import annotations

import contextlib
import os
import secrets
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from containerize import signals
from containerize.develop import program
from containerize.develop.forward import Forward
from containerize.engines import container, volumes
from containerize.engines.container import Launch
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.settings import Settings

PROGRAM = "/containerize-dev.py"
"""Where the container has the program that serves."""
_BEAT = 30
"""Seconds after which the first connection has a byte: some proxies cut idle ones."""


def launch(
    settings: Settings,
    reference: str,
    *,
    name: str,
    user: str,
    environment: Mapping[str, str],
    key: str = "",
) -> Launch:
    """The container: as the service's, with the working tree in the app's place.

    It starts as root, with what `program` needs to become the image's `user` and read
    what only the tree's owner may. Raises Problem if the tree's path cannot be mounted.
    """
    terminal = ["--interactive", "--tty"] if _on_terminal() else []
    return Launch(
        settings=settings,
        reference=reference,
        name=name,
        port=0,
        environment={**environment, program.KEY: key},
        options=(
            "--rm",
            *terminal,
            "--user=0:0",
            *("--cap-add=SETUID", "--cap-add=SETGID", "--cap-add=DAC_OVERRIDE"),
            # A label of SELinux's would be written to each file of the tree.
            "--security-opt=label=disable",
            volumes.bound(settings.root, program.TREE),
            volumes.bound(Path(program.__file__), PROGRAM),
        ),
        words=("python3", PROGRAM, user, str(settings.container_port)),
    )


def start_words() -> tuple[str, ...]:
    """The subcommand that starts what was created, and its options."""
    return ("start", "--attach", *(["--interactive"] if _on_terminal() else []))


def _on_terminal() -> bool:
    return os.isatty(0) and os.isatty(1)


def see_free(settings: Settings, engine: Engine, *, name: str, port: int) -> None:
    """Raises Problem if `serve` could not begin, whatever the image is.

    That is if the engine is on another machine, which lacks the tree, or if the port
    or the container's name is taken. A container of the name that has ended goes.
    """
    if where := engine.elsewhere():
        raise Problem(
            f"dev mounts the working tree, which {where} does not have: use an engine "
            "of this machine, or `invoke up`"
        )
    known = container.state(settings, engine, name)
    if known == "running":
        raise Problem(
            f"container {name} runs already: `invoke stop --name {name}` ends it"
        )
    if known:
        engine.discard(name)
    listen(settings, engine, port, "").server_close()


def listen(settings: Settings, engine: Engine, port: int, key: str) -> Forward:
    """Take the port on 127.0.0.1. Raises Problem if that is taken."""
    try:
        return Forward(port, key)
    except OSError as error:
        by = engine.publisher(port)
        said = f"is taken by the container {by}: free it" if by else "is taken: free it"
        if by and container.state(settings, engine, by):  # the project's own
            said = f"is taken by the container {by}: end it (`invoke stop --name {by}`)"
        if isinstance(error, PermissionError):
            said = "is not for this user: take one above 1023"
        raise Problem(f"port {port} {said}, or choose another (--port)") from None


def serve(
    settings: Settings,
    engine: Engine,
    reference: str,
    *,
    name: str,
    port: int,
    environment: Mapping[str, str],
    look: Callable[[], Mapping[str, str]],
    on_line: Callable[[str], None],
) -> None:
    """Serve the app from the working tree until Ctrl-C, then leave nothing.

    `look` says what the image stands on, by name; `on_line` is told if that changes.
    Raises Problem if the container cannot be started or ends by itself.
    """
    key = secrets.token_hex(32)
    user = _user(engine, reference)
    coming = launch(
        settings, reference, name=name, user=user, environment=environment, key=key
    )
    with listen(settings, engine, port, key) as forward, _terminal() as told:
        volumes.prepare(settings, engine, reference, on_line)
        with _places(settings), _discarded(engine, name):
            coming.start(engine, ("create",))
            host = _Host(settings, engine, name, forward, look, _lines(on_line, told))
            with host:
                code, said = engine.call(*start_words(), name)
    if code == program.NO_TREE:
        raise Problem(
            f"the engine shows {settings.root} empty, or may not read it: share it "
            "with the machine that the engine is on"
        )
    if code and not host.reached:
        raise engine.problem(("start",), said or f"exit code {code}: see above")
    if code:
        perhaps = ", perhaps for memory" if code == container.KILLED else ""
        raise Problem(f"{name} ended with exit code {code}{perhaps}")


def _user(engine: Engine, reference: str) -> str:
    form = ("image", "inspect", "--format", "{{.Config.User}}")
    return engine.run(*form, reference, echo=False).stdout.strip() or "0"


class _Host(contextlib.AbstractContextManager["_Host"]):
    """What this machine does while the container runs: pass on, look, tell."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        name: str,
        forward: Forward,
        look: Callable[[], Mapping[str, str]],
        on_line: Callable[[str], None],
    ) -> None:
        self._settings, self._engine, self._name = settings, engine, name
        self._forward, self._look, self._on_line = forward, look, on_line
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.reached = False

    def __enter__(self) -> _Host:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5)

    def _work(self) -> None:
        connection = None
        while not connection:
            if self._over.wait(0.05):
                return
            if to := _published(self._settings, self._engine, self._name):
                connection = self._forward.reach(to)
        self.reached = True
        port = self._forward.server_address[1]
        threading.Thread(
            target=self._forward.serve_forever, args=(0.1,), daemon=True
        ).start()
        self._on_line(
            f"{self._name} answers at http://127.0.0.1:{port}/ from the working tree; "
            "Ctrl-C ends it"
        )
        with connection:
            self._watch(connection.sendall)
        self._forward.shutdown()

    def _watch(self, beat: Callable[[bytes], None]) -> None:
        start = self._seen()
        told: frozenset[tuple[str, str]] = frozenset()
        last = time.monotonic()
        while not self._over.wait(1):
            if time.monotonic() - last > _BEAT:
                last = time.monotonic()
                with contextlib.suppress(OSError):
                    beat(b".")
            if (seen := self._seen()) is None:
                continue
            start = seen if start is None else start
            news = seen - start
            if news and news != told:
                self._on_line(f"{changes(news)}: build again (Ctrl-C, `invoke dev`)")
            told = news

    def _seen(self) -> frozenset[tuple[str, str]] | None:
        """What the image stands on; None half-way through an edit."""
        try:
            return frozenset(self._look().items())
        except (Problem, OSError, ValueError):
            return None


def changes(news: frozenset[tuple[str, str]]) -> str:
    """What is new of `build.wants_build`, in words."""
    lines = [name for name, state in news if not state]
    files = [f"{name} changed" for name, state in news if state]
    return ", ".join(sorted([*lines, *files]))


def _published(settings: Settings, engine: Engine, name: str) -> int:
    """The port on 127.0.0.1 that leads into the container; 0 if it does not run."""
    port = f"{settings.container_port}/tcp"
    answer = engine.run("port", name, port, check=False, echo=False)
    found = answer.stdout.split()
    return int(found[0].rpartition(":")[2]) if found and not answer.returncode else 0


@contextlib.contextmanager
def _discarded(engine: Engine, name: str) -> Iterator[None]:
    try:
        yield
    finally:
        with signals.undisturbed():
            engine.discard(name, echo=False)


@contextlib.contextmanager
def _places(settings: Settings) -> Iterator[None]:
    """Have the directories of the tree that volumes are mounted on.

    An engine could not make them, since the tree is mounted read-only. Those that are
    empty go in the end, if they were made here.
    """
    made: list[Path] = []
    try:
        for mount in volumes.mounts(settings):
            below = Path(mount.path)
            if below.is_relative_to(program.TREE) and below != Path(program.TREE):
                made += _made(settings.root / below.relative_to(program.TREE))
        yield
    finally:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir()


def _made(path: Path) -> Sequence[Path]:
    """Make a directory; returns it and those above it that were not there."""
    missing = [each for each in (path, *path.parents) if not each.exists()][::-1]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(
            f"{path}, where a volume is to be, cannot be made: {error.strerror}"
        ) from None
    return missing


@contextlib.contextmanager
def _terminal() -> Iterator[bool]:
    """Whether the engine's client has this process's terminal; given back as it was."""
    if not _on_terminal():
        yield False
        return
    before = termios.tcgetattr(0)
    try:
        yield True
    finally:
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _lines(on_line: Callable[[str], None], raw: bool) -> Callable[[str], None]:
    """`on_line` for a terminal whose lines the container ends itself."""
    return (lambda text: on_line(f"\r{text}\r")) if raw else on_line
