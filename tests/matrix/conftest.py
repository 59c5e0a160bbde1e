"""One engine a row of the matrix, and the table of what each has built."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from containerize import settings
from containerize.engines.engine import Description, Engine
from containerize.fetch import inputs
from containerize.settings import Settings
from containerize.verify import rebuild
from tests.conftest import ROOT, Quiet, scheduler, taking_turns
from tests.matrix import releases
from tests.matrix.releases import BOOKWORM, PODMAN, Release

TRIXIE = Release("trixie", ("docker.io", "docker-cli", "docker-buildx", "iptables"))
FORKY = Release("forky", (*TRIXIE.packages, "crun", "netavark", *PODMAN))


@dataclasses.dataclass(frozen=True)
class Row:
    """An engine of the matrix, and what it must say that it is."""

    release: Release
    kind: str
    version: str
    builder: str
    store: str = ""
    buildkit: str = ""
    """DOCKER_BUILDKIT."""
    rootless: bool = False

    def __str__(self) -> str:
        user = "-rootless" if self.rootless else ""
        store = "-containerd" if self.store == "containerd" else ""
        return f"{self.kind}{self.version}-{self.builder}{store}{user}"


ROWS = (
    Row(BOOKWORM, "docker", "20.10", "legacy", "classic"),
    Row(BOOKWORM, "docker", "20.10", "BuildKit", "classic", buildkit="1"),
    Row(TRIXIE, "docker", "26.1", "BuildKit", "classic"),
    Row(TRIXIE, "docker", "26.1", "BuildKit", "containerd"),
    Row(FORKY, "docker", "28.5", "BuildKit", "classic"),
    Row(FORKY, "docker", "28.5", "BuildKit", "containerd"),
    Row(BOOKWORM, "podman", "4.3", "buildah"),
    Row(BOOKWORM, "podman", "4.3", "buildah", rootless=True),
    Row(FORKY, "podman", "5.8", "buildah"),
    Row(FORKY, "podman", "5.8", "buildah", rootless=True),
)


@dataclasses.dataclass(frozen=True)
class Built:
    """What the engine of a row has built of the repository."""

    row: Row
    engine: Engine
    description: Description
    rebuild: rebuild.Rebuild
    foreign: tuple[rebuild.Rebuild, ...]
    """The images for other processors."""
    reference: str
    """The canonical image, loaded into the engine."""


TABLE = pytest.StashKey[list[tuple[str, ...]]]()


@pytest.fixture(scope="session")
def repository() -> Settings:
    """This repository, under its own name: no engine here is a user's."""
    loaded = settings.load(ROOT)
    for architecture in loaded.image_architectures:
        inputs.fetch(loaded.for_architecture(architecture), progress=Quiet())
    return loaded


@pytest.fixture(scope="session")
def unpacked(repository: Settings) -> dict[Release, Path]:
    """Where each release is."""
    found = {row.release for row in ROWS}
    with taking_turns(), ThreadPoolExecutor() as pool:
        paths = pool.map(lambda release: release.unpacked(repository), found)
        return dict(zip(found, paths, strict=True))


@pytest.fixture(scope="module", params=ROWS, ids=str)
def built(
    request: pytest.FixtureRequest,
    repository: Settings,
    unpacked: dict[Release, Path],
    pytestconfig: pytest.Config,
) -> Iterator[Built]:
    row: Row = request.param
    usr = unpacked[row.release]
    with contextlib.ExitStack() as stack:
        # Not pytest's own directory, which only root may enter.
        scratch = tempfile.TemporaryDirectory(prefix="engines-")
        top = Path(stack.enter_context(scratch))
        top.chmod(0o755)
        builds = top / "builds"
        builds.mkdir()
        if row.kind == "podman":
            engine = releases.podman(usr, top, rootless=row.rootless)
        else:
            store = row.store == "containerd"
            docker = releases.docker(usr, top, containerd_store=store)
            engine = Engine("docker", stack.enter_context(docker).client)
        if row.buildkit:
            variables = {"DOCKER_BUILDKIT": row.buildkit}
            engine = dataclasses.replace(engine, environment=variables)
        description = engine.describe()
        built = rebuild.rebuild(repository, engine, builds, varied=False)
        foreign = tuple(
            rebuild.rebuild(
                repository.for_architecture(name), engine, builds, varied=False
            )
            for name in repository.image_architectures
            if name != repository.image_architecture
        )
        reference = load(repository, engine, built)
        result = Built(row, engine, description, built, foreign, reference)
        pytestconfig.stash.setdefault(TABLE, []).append(_told(result))
        yield result


def load(repository: Settings, engine: Engine, built: rebuild.Rebuild) -> str:
    """Load the archive as anyone would; the name that the image then has."""
    engine.run("load", "--input", str(built.archive))
    name = repository.reference("matrix")
    for digest in (built.digests.config, built.digests.manifest):
        if engine.run("tag", digest, name, check=False).returncode == 0:
            return name
    raise AssertionError("the engine does not know the image that it loaded")


def _told(built: Built) -> tuple[str, ...]:
    """The line of the table for what was built."""
    found = built.description
    rootless = ", rootless" if found.rootless else ""
    return (
        f"{found.kind} {found.server}{rootless}",
        found.builder,
        found.store,
        built.rebuild.digests.manifest,
        f"{built.rebuild.seconds:.1f}",
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the table to the process that prints it, where that is another."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["matrix"] = session.config.stash.get(TABLE, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the table that another process hands over."""
    table = getattr(node, "workeroutput", {}).get("matrix", [])
    node.config.stash.setdefault(TABLE, []).extend(map(tuple, table))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the matrix."""
    table = config.stash.get(TABLE, [])
    if not table:
        return
    rows = [("engine", "builder", "image store", "manifest digest", "seconds")]
    rows += sorted(table)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    terminalreporter.section("matrix")
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a row, which its parameter names, together in one process.

    And those that play the same images.
    """

    def group(nodeid: str) -> str:
        file, _, parameter = nodeid.partition("[")
        return "play" if "test_play" in file else parameter

    return scheduler(config, log, group)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0 and any("engines/" in item.nodeid for item in items):
        raise pytest.UsageError("tests/matrix starts engines: run `nox -s matrix`")
