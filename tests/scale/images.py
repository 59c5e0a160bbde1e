"""The images of the proofs: an app that the tool has adopted, and edges before it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

from containerize.engines.engine import Engine
from containerize.settings import Settings
from tests.conftest import ROOT
from tests.matrix.releases import Release

SHOP = Path(__file__).with_name("shop")
EDGES = Path(__file__).with_name("edges")
VARIABLES = {"SERVED_READY_PATH": "/ready"}
"""Of the app."""
LOCK = Path(__file__).with_name("requirements.txt")


@dataclasses.dataclass
class Project:
    """A repository that `containerize init` has adopted, and its images by digest."""

    root: Path
    environ: dict[str, str]

    def begin(self, *command: str, **environ: str) -> subprocess.Popen[str]:
        """A verb that goes on, with these variables over the project's own."""
        return subprocess.Popen(
            [sys.executable, "-m", "containerize", *command],
            cwd=self.root,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **given: str) -> str:
        """What a verb wrote, with these settings over the project's own."""
        over = {f"CONTAINERIZE_{name.upper()}": text for name, text in given.items()}
        with self.begin(*command, **over) as process:
            out, err = process.communicate()
        assert process.returncode == 0, (command, out, err)
        return out

    def use(self, engine: Engine, host: str) -> None:
        """Build with `engine` from now on, and push to the registry `host`."""
        command = self.root.parent / "docker"
        words = " ".join(f"'{word}'" for word in engine.command)
        command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        command.chmod(0o755)
        self.environ |= {
            "CONTAINERIZE_ENGINE": str(command),
            "CONTAINERIZE_INSECURE_REGISTRIES": host,
        }

    def push(self, host: str, version: str, fault: str = "") -> str:
        """Build a release of the app and push it; its reference by digest."""
        text = f"VERSION = {version!r}\nFAULT = {fault!r}\n"
        (self.root / "release.py").write_text(text)
        self.run("push", f"{host}/team/shop", "--tag", version, "--no-evidence")
        record = json.loads((self.root / "dist/shop.push.json").read_text())
        return str(record["reference"])

    def manifest(self, image: str, **given: str) -> str:
        """The stack file of an image, with its variables by name."""
        variables = (f"--env={name}={text}" for name, text in VARIABLES.items())
        command = ("manifest", "swarm", f"--image={image}", *variables)
        return self.run(*command, **given)


def adopt(top: Path) -> Project:
    """Make a repository of the app, give it to the tool, and lock and fetch it."""
    root = top / "shop"
    shutil.copytree(SHOP, root, ignore=shutil.ignore_patterns("__pycache__"))
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CONTAINERIZE_", "FLASK_", "PYTHON"))
    }
    # What stands beside this Python comes first: the tool runs pip-compile.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    project = Project(root, kept | {"PATH": path, "PYTHONPATH": str(ROOT)})
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")
    for command in (
        ("git", "init", "--quiet"),
        ("git", "add", "--all"),
        (*git, "commit", "--quiet", "--message=The shop"),
    ):
        subprocess.run(command, cwd=root, check=True)
    project.run("init")
    with (root / "pyproject.toml").open("a") as file:
        file.write("replicas = 3\n")
    for verb in ("lock", "fetch"):
        project.run(verb)
    return project


@dataclasses.dataclass(frozen=True)
class Edge:
    """A proxy that stands before the replicas."""

    name: str
    config: Path
    words: tuple[str, ...]
    debian: str = ""
    """The package that has it; nothing if a wheel of the lock does."""


HAPROXY = Edge(
    "haproxy",
    EDGES / "haproxy.cfg",
    ("/usr/sbin/haproxy", "-f", "/edge.conf"),
    "haproxy",
)
NGINX = Edge(
    "nginx", EDGES / "nginx.conf", ("/usr/sbin/nginx", "-c", "/edge.conf"), "nginx"
)
CADDY = Edge(
    "caddy",
    EDGES / "Caddyfile",
    ("/usr/bin/caddy", "run", "--adapter", "caddyfile", "--config", "/edge.conf"),
)


def unpacked(edge: Edge, settings: Settings, scratch: Path) -> Path:
    """The root file system of an edge, downloaded where it is missing."""
    if edge.debian:
        return Release("trixie", (edge.debian,)).unpacked(settings)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--quiet"),
            *("--require-hashes", "--no-deps", "--only-binary=:all:"),
            *(f"--requirement={LOCK}", f"--dest={scratch}"),
        ],
        check=True,
    )
    [wheel] = scratch.glob(f"{edge.name}_bin-*.whl")
    top = scratch / edge.name
    target = top / "usr/bin" / edge.name
    target.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(f"/scripts/{edge.name}")]
        target.write_bytes(archive.read(name))
    target.chmod(target.stat().st_mode | stat.S_IXUSR)
    return top


def push(edge: Edge, top: Path, engine: Engine, host: str) -> str:
    """Make an image of what is in `top` and push it; its reference by digest."""
    name = f"{host}/team/{edge.name}:latest"
    changes = (f"ENTRYPOINT {json.dumps(edge.words)}", "WORKDIR /tmp")
    options = [f"--change={change}" for change in changes]
    with subprocess.Popen(["tar", "-C", top, "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            [*engine.command, "import", *options, "-", name],
            stdin=tar.stdout,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    assert tar.returncode == 0
    engine.run("push", "--quiet", name)
    inspect = ("image", "inspect", "--format={{index .RepoDigests 0}}", name)
    return engine.run(*inspect).stdout.strip()
