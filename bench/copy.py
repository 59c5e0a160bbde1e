"""What is measured: a copy of this repository, and each builder of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench import profile
from bench.measure import table
from containerize import build as building
from containerize.engines import engine
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.settings import PREFIX, Settings, find_root, load
from tests.conftest import copied, unused_port

NAME = f"containerize-bench-{os.getpid()}"
"""The image: another run of the bench has another."""
NAMES = {"BuildKit": "BuildKit", "legacy": "legacy", "buildah": "Podman"}
"""Builders by the first word of `Description.builder`."""


@dataclasses.dataclass(frozen=True)
class Builder:
    """An engine with one of its builders."""

    name: str
    engine: Engine
    variables: Mapping[str, str]
    """What makes a verb use it."""


@functools.cache
def builders() -> tuple[Builder, ...]:
    """Each kind of builder that some client on PATH has here."""
    base = load(find_root(Path(__file__).parent), {})
    found: dict[str, Builder] = {}
    for path in _clients():
        for chosen in ("1", "0"):
            asked = {"DOCKER_BUILDKIT": chosen}
            with contextlib.suppress(Problem):
                using = engine.find(dataclasses.replace(base, engine=path))
                if using.kind == "docker":
                    using = dataclasses.replace(using, environment=asked)
                name = NAMES.get(using.describe().builder.split()[0])
                if name and name not in found:
                    variables = {**using.environment, f"{PREFIX}ENGINE": path}
                    found[name] = Builder(name, using, variables)
    if not found:
        raise Problem("no engine answers: `invoke engine --install` sees to it")
    return tuple(found[name] for name in NAMES.values() if name in found)


def _clients() -> Iterator[str]:
    """The engine that the environment names, or else all on PATH."""
    if named := os.environ.get(f"{PREFIX}ENGINE"):
        yield named
        return
    for program in ("docker", "podman"):
        for directory in os.get_exec_path():
            if path := shutil.which(program, path=directory):
                yield path


@dataclasses.dataclass(frozen=True)
class Started:
    """A process of another program, and what it wrote."""

    popen: subprocess.Popen[bytes]
    log: Path

    def finish(self) -> None:
        """Wait for its end. Raises Problem, with its last words, if it fails."""
        try:
            code = self.popen.wait()
        except BaseException:
            self.popen.terminate()  # or it writes on where all is removed
            self.popen.wait()
            raise
        if code:
            lines = self.log.read_text("utf-8", "replace").split("\n")
            said = next((line for line in reversed(lines) if line.strip()), "no word")
            raise Problem(f"`{shlex.join(list(self.popen.args)[1:])}` failed: {said}")  # type: ignore[arg-type]


def begin(command: Sequence[str], cwd: Path, variables: Mapping[str, str]) -> Started:
    """Start a program in `cwd`, which writes to a log beside that."""
    log = cwd.with_name(f"{cwd.name}.log")
    with log.open("wb") as out:
        popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    return Started(popen, log)


class Copy:
    """A copy of this repository with an image, containers and a port of its own."""

    def __init__(self, builder: Builder, root: Path) -> None:
        self.builder = builder
        self.port = unused_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        settings = load(find_root(Path(__file__).parent), {})
        settings = dataclasses.replace(settings, image=NAME, port=self.port)
        self.settings: Settings = copied(settings, root)
        # It is of an image with another name.
        (root / "digests.json").unlink(missing_ok=True)
        self.variables: dict[str, str] = {}
        self._edits = 0

    @property
    def root(self) -> Path:
        return self.settings.root

    @property
    def archive(self) -> Path:
        return building.archive_path(self.settings)

    def start(self, *verb: str, module: str = "invoke") -> Started:
        """Begin a verb in the copy."""
        own = {f"{PREFIX}IMAGE": NAME, f"{PREFIX}PORT": str(self.port)}
        variables = {**os.environ, **own, **self.builder.variables, **self.variables}
        command = [sys.executable, "-m", module, *verb]
        return begin(command, self.root, variables)

    def invoke(self, *verb: str, module: str = "invoke") -> None:
        """Run a verb to its end. Raises Problem, with its last words, if it fails."""
        self.start(*verb, module=module).finish()

    def edit(self) -> str:
        """Change one line of the app; returns what it answers from then on."""
        self._edits += 1
        return write_edit(self.root / self.settings.app / "__init__.py", self._edits)

    def profile(self, *verb: str) -> None:
        """Run a verb once more, and print where its time went."""
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            began = time.time()
            out = ("bench.profile", str(began), file.name)
            self.invoke(*out[1:], *verb, module=out[0])
            found = json.loads(Path(file.name).read_bytes())
        profile.show(f"`{' '.join(verb)}`, {self.builder.name}", found)


def write_edit(file: Path, number: int) -> str:
    """Change what the app answers, in one line of it; returns the new answer."""
    lines = file.read_text("utf-8").splitlines(keepends=True)
    [place] = [n for n, line in enumerate(lines) if '{"message":' in line]
    answer = f"edit {number}"
    indent = lines[place].partition("return")[0]
    lines[place] = f'{indent}return {{"message": "{answer}"}}\n'
    file.write_text("".join(lines), "utf-8")
    return answer


@contextlib.contextmanager
def copy(builder: Builder) -> Iterator[Copy]:
    """A copy for a builder; it goes on leaving, with all that was made of it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o755)  # other users' programs read in it
        made = Copy(builder, scratch / "copy")
        try:
            yield made
        finally:
            remove(made.settings, builder.engine)


def remove(settings: Settings, using: Engine) -> None:
    """Remove what the bench has made."""
    building.remove(settings, using)


def wait(url: str, answer: str, process: Started | None = None) -> float:
    """Wait until `url` answers with a text; returns for how long nothing answered.

    That is from the last answer before to the first one after, in seconds. Raises
    Problem if it takes more than 90 s, or `process` fails meanwhile.
    """
    silent, failed = 0.0, False
    last = time.perf_counter()
    deadline = last + 90
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(url, timeout=2) as response:
                text = response.read().decode()
            now = time.perf_counter()
            if failed:
                silent += now - last
            last, failed = now, False
            if answer in text:
                return silent
            time.sleep(0.005)
            continue
        failed = True
        if process and process.popen.poll() is not None:
            process.finish()
        time.sleep(0.005)
    raise Problem(f"{url} did not answer with {answer!r} within 90 s")


def peer_context(made: Copy) -> Path:
    """A `COPY . .` of the app onto the image that the copy has built."""
    context = made.root.with_name("peer")
    shutil.copytree(made.root / made.settings.app, context / made.settings.app)
    (context / "Dockerfile").write_text(
        f"FROM {made.settings.reference()}\nWORKDIR /srv\nCOPY . .\n"
    )
    return context


def peer_build(made: Copy, context: Path, *options: str) -> Callable[[], None]:
    """A plain build of that context, with the builder's cache, as NAME:peer."""
    using = made.builder.engine
    form = ["--format", "docker"] if using.kind == "podman" else []
    command = ["build", *form, *options, "--tag", f"{NAME}:peer", "."]
    return lambda: using.stream(*command, cwd=context)


def steps(title: str, found: Mapping[str, list[float]]) -> None:
    """Print the parts of a peer: the limit that the engine itself sets."""
    rows = [(name, f"{sorted(s)[len(s) // 2]:.2f}") for name, s in found.items()]
    table(title, ("step", "median s"), rows)
