"""What the tests share: real engines, an image built once on each, free ports.

Where several processes share the tests out (`pytest -n`), those of an engine are all
one process's, which builds the image for them; two engines have nothing in common.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containerize import build, settings
from containerize.engines import container, provision
from containerize.engines.container import Container
from containerize.engines.engine import Engine
from containerize.fetch import inputs
from containerize.pack import sources
from containerize.settings import Settings

ROOT = settings.find_root(Path(__file__).parent)
PATIENCE = 60.0
"""Seconds that a test waits for what has to happen: a busy machine takes its time."""


def pytest_configure(config: pytest.Config) -> None:
    """Listen to Ctrl-C, which jobs in the background of a shell are made to ignore.

    SIGTERM, as of `timeout`, is the same: what was started is removed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        # GNU readline has put them there, in the process that began this one.
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of an engine together in one process."""
    return scheduler(config, log, lambda nodeid: engine_of(nodeid) or nodeid)


def engine_of(nodeid: str) -> str:
    """The engine that a test is run with, as the test's name has it; or nothing."""
    found = re.search(r"\[.*\b(docker|podman)\b", nodeid)
    return found[1] if found else ""


def scheduler(config: pytest.Config, log: Any, group: Callable[[str], str]) -> Any:
    """What hands out tests with `--dist loadscope`: those of a group to one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return ByGroup(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory of this run that all its processes have."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@contextlib.contextmanager
def taking_turns() -> Iterator[None]:
    """Do what only one process of the tests may do at a time, such as run apt."""
    checkout = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(checkout, fcntl.LOCK_EX)
        yield
    finally:
        os.close(checkout)


def until(true: Callable[[], object]) -> None:
    """Wait for what has to become true; fails if it does not."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class Quiet:
    """Download progress that nobody watches."""

    def start(self, name: str, total: int | None) -> None: ...
    def advance(self, size: int) -> None: ...
    def done(self) -> None: ...
    def note(self, text: str) -> None: ...


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A copy of this repository under a name of its own.

    So no user's images and layers are touched, and no other process's of the tests.
    """
    loaded = settings.load(ROOT)
    name = f"containerize-test-{os.getpid()}"
    named = dataclasses.replace(loaded, image=name, container="", tags=("test",))
    return copied(named, tmp_path_factory.mktemp("project") / "repository")


def copied(project: Settings, root: Path) -> Settings:
    """A copy of the repository, whose layers may be packed anew and app changed."""
    for file in sources.read(project.root).files:
        file.write(root)
    return dataclasses.replace(project, root=root)


@pytest.fixture
def clone(
    project: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> Settings:
    """The repository in a directory of the test's own, to be broken.

    Where it has been built, with the layers that were packed for that.
    """
    made = copied(project, tmp_path / "clone")
    if "built" in request.fixturenames:
        staged = shutil.ignore_patterns("context")
        shutil.copytree(project.build_dir, made.build_dir, ignore=staged)
    return made


@pytest.fixture(scope="session", params=["docker", "podman"])
def using(request: pytest.FixtureRequest, project: Settings) -> Iterator[Engine]:
    """A real engine, installed and started where it is missing."""
    named = dataclasses.replace(project, engine=request.param)
    with taking_turns():
        found = provision.install(
            named, lambda command: print("$", *command, file=sys.stderr)
        )
    yield found
    build.remove(project, found)


@pytest.fixture(scope="session")
def built(
    using: Engine, project: Settings, tmp_path_factory: pytest.TempPathFactory
) -> build.Image:
    """The image of the repository as it is, in that engine."""
    inputs.fetch(project, progress=Quiet())
    archive = tmp_path_factory.mktemp("dist") / "image.tar"
    return build.build(project, using, output=archive)


def in_no_network(*command: str) -> list[str]:
    """A command as this user's in a network namespace that has nothing."""
    ids = (f"--reuid={os.geteuid()}", f"--regid={os.getegid()}", "--init-groups")
    kept = [f"{name}={os.environ[name]}" for name in ("PATH", "HOME")]
    ours = ["setpriv", *ids, "env", *kept] if os.geteuid() else []
    root = ["sudo", "--preserve-env"] if os.geteuid() else []
    return [*root, "unshare", "--net", *ours, *command]


def unused_port() -> int:
    """A port on 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def free_port() -> int:
    return unused_port()


@pytest.fixture
def start(
    using: Engine, project: Settings, built: build.Image, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Container]]:
    """Start containers of the image that are removed, whatever happens.

    Takes what `container.run` takes; the log of each is shown if the test fails.
    """
    started: list[str] = []

    def run(**options: object) -> Container:
        name = f"{project.image}-{len(started)}"
        started.append(name)
        options = {"port": 0, "name": name, **options}
        return container.run(project, using, built.references[0], **options)  # type: ignore[arg-type]

    yield run
    for name in started:
        print(f"log of {name}:\n{container.log_tail(using, name)}")
        using.discard(name)
