"""What a registry receives after an edit, by what was edited."""

from __future__ import annotations

import dataclasses
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.measure import quiet, table
from containerize import build as building
from containerize.engines import engine
from containerize.engines.engine import Engine
from containerize.fetch import inputs
from containerize.settings import Settings, find_root, load
from tests.conftest import Quiet, copied

NAME = "containerize-bench"


def main() -> None:
    """Print the bytes that a push after each edit sends."""
    project = dataclasses.replace(load(find_root(Path(__file__).parent)), image=NAME)
    inputs.fetch(project, progress=Quiet())
    using = engine.find(project)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o755)
        ours = copied(project, scratch / "clone")
        try:
            rows = [("a line of app/", after(ours, using, scratch, edit))]
            static = ours.root / "app" / "static"
            static.mkdir()
            for number in range(40):  # what no compressor makes smaller
                (static / f"{number}.jpg").write_bytes(os.urandom(500_000))
                (static / f"{number}.svg").write_bytes(os.urandom(1_000))
            for what, change in (
                ("a line of app/, beside 20 MB of static files", edit),
                ("a static file of 1 kB beside them", small),
                ("a static file of 500 kB among them", large),
            ):
                rows.append((what, after(ours, using, scratch, change)))
        finally:
            building.remove(ours, using)
    table("A push after an edit", ("edited", "bytes"), rows)


def edit(root: Path) -> None:
    with (root / "app" / "__init__.py").open("a") as file:
        file.write("\nEDITED = True\n")


def small(root: Path) -> None:
    (root / "app" / "static" / "0.svg").write_bytes(os.urandom(1_000))


def large(root: Path) -> None:
    (root / "app" / "static" / "0.jpg").write_bytes(os.urandom(500_000))


def after(
    project: Settings, using: Engine, scratch: Path, change: Callable[[Path], None]
) -> int:
    """The bytes that a push after a change sends, if the image before is there."""
    old, new = scratch / "old.tar", scratch / "new.tar"
    with quiet():
        building.build(project, using, output=old)
        change(project.root)
        building.build(project, using, output=new)
    return pushed(old, new)


def pushed(old: Path, new: Path) -> int:
    """The size of the blobs of an OCI archive, in bytes, that another one lacks.

    They are what a registry that has the other receives: layers, config, manifest.
    """
    known = _blobs(old)
    return sum(size for name, size in _blobs(new).items() if name not in known)


def _blobs(archive: Path) -> dict[str, int]:
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.name.startswith("blobs/")]
    return {member.name: member.size for member in members if member.isfile()}
