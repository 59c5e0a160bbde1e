"""A real registry, a project with an archive to push, and nobody logged in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containerize.publish import push as pushing
from containerize.settings import Settings
from tests import registries
from tests.registries import Faults, Registry
from tests.unit.conftest import Record, save  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory in which nobody has logged in."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory / "run"))
    for name in (
        *("DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE"),
        *("XDG_CONFIG_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"),
        *("ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"),
    ):
        monkeypatch.delenv(name, raising=False)
    return directory


@pytest.fixture
def registry() -> Iterator[Registry]:
    with registries.registry() as made:
        yield made


@pytest.fixture
def faults(registry: Registry) -> Iterator[Faults]:
    """A proxy before the registry, which does nothing until it is told to."""
    with registries.serving(Faults(registry.port)) as proxy:
        yield proxy


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    root = tmp_path / "project"
    root.mkdir()
    return Settings(root=root, image="sample", architecture="amd64")


@dataclasses.dataclass
class Push:
    """Pushes an archive, and keeps what was told."""

    settings: Settings
    archive: Path
    progress: Record

    def __call__(self, target: str, *tags: str) -> pushing.Pushed:
        self.progress = Record()
        return pushing.push(
            self.settings,
            self.archive,
            pushing.targets(self.settings, target, tags),
            progress=self.progress,
        )


@pytest.fixture
def push(project: Settings, tmp_path: Path) -> Push:
    made = registries.layout(tmp_path / "image.tar")
    return Push(project, made, Record())


@pytest.fixture
def pushes(project: Settings, tmp_path: Path) -> Callable[..., Push]:
    """Makes pushes of archives of one's own."""

    def make(*architectures: str, **options: object) -> Push:
        name = f"{'-'.join(architectures)}{options.get('seed', '')}.tar"
        made = registries.layout(tmp_path / name, *architectures, **options)  # type: ignore[arg-type]
        return Push(project, made, Record())

    return make
