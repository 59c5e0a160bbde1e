"""The tool as a stranger has it: its wheel, installed in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, taking_turns


@pytest.fixture(scope="session")
def installed(common: Path) -> Path:
    """The directory of the commands that the wheel brings."""
    top = common / "tool"
    with taking_turns():
        if not top.exists():
            top.mkdir()
            _install(top)
    return top / "venv/bin"


def _install(top: Path) -> None:
    nox = [sys.executable, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py")]
    _run([*nox, "-s", "wheel", "--", str(top)])
    subprocess.run([sys.executable, "-m", "venv", str(top / "venv")], check=True)
    (wheel,) = top.glob("flask_containerize-*.whl")
    # What it needs, at the versions of the tools' lock, as far as that names them.
    pip = [str(top / "venv/bin/python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, f"--constraint={_constraints(top)}", str(wheel)])


def _constraints(top: Path) -> Path:
    """The versions of tools.txt, without its hashes, which a local wheel has not."""
    lines = (ROOT / "tools.txt").read_text("utf-8").splitlines()
    pins = [line.removesuffix(" \\") for line in lines if "==" in line]
    file = top / "constraints.txt"
    file.write_text("\n".join(pins) + "\n", "utf-8")
    return file


class Adopter:
    """A repository that knows nothing of ours, and the tool in it."""

    def __init__(self, root: Path, commands: Path) -> None:
        self.root = root
        self.commands = commands
        path = os.pathsep.join([str(commands), os.environ["PATH"]])
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CONTAINERIZE_", "FLASK_", "PYTHON", "VIRTUAL_ENV"))
        }
        self.environ = kept | {"PATH": path}

    def run(self, *command: str, **environ: str) -> str:
        """What a command wrote; it must succeed."""
        return _run(command, cwd=self.root, env=self.environ | environ)


def _run(command: list[str] | tuple[str, ...], **options: object) -> str:
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,  # type: ignore[call-overload]
    )
    print("$", *command, done.stdout, sep="\n")
    assert done.returncode == 0, f"{command} ended with {done.returncode}"
    return str(done.stdout)


@pytest.fixture
def adopter(
    installed: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Adopter]:
    """A directory for a repository, whose containers and images go afterwards."""
    root = tmp_path / f"adopted-{os.getpid()}"
    root.mkdir()
    made = Adopter(root, installed)
    yield made
    if (root / "pyproject.toml").exists():
        for engine in ("docker", "podman"):
            made.run("containerize", "clean", "--engine", engine, "--volumes", "--yes")
