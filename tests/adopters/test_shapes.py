"""Apps of any shape, from `init` to answering, with no edits but their shape.toml."""

from __future__ import annotations

import shutil
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from containerize.image import canonical
from tests import privileges
from tests.adopters.conftest import Adopter
from tests.conftest import PATIENCE

SHAPES = Path(__file__).with_name("shapes")
ENGINES = ("docker", "podman")


def answer(url: str) -> tuple[int, str]:
    """Status and text of an answer, whatever it is; redirects are not followed."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    try:
        with urllib.request.build_opener(Stay).open(url, timeout=PATIENCE) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def adopt(adopter: Adopter, name: str) -> dict[str, Any]:
    """Make the repository of a shape and give it what its shape.toml says."""
    shutil.copytree(SHAPES / name, adopter.root, dirs_exist_ok=True)
    shape = tomllib.loads((adopter.root / "shape.toml").read_text("utf-8"))
    (adopter.root / "shape.toml").unlink()
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")
    adopter.run("git", "init", "--quiet")
    adopter.run("git", "add", "--all")
    adopter.run(*git, "commit", "--quiet", "--message=The app")
    for script in shape.get("before", ()):
        adopter.run(sys.executable, script)
    adopter.run("containerize", "init")
    assert len(shape["edits"]) + ("base" in shape) <= 3
    with (adopter.root / "pyproject.toml").open("a") as file:
        file.writelines(f"{line}\n" for line in shape["edits"])
    if "base" in shape:
        with (adopter.root / "base.in").open("a") as file:
            file.write(f"{shape['base']}\n")
    return shape


@pytest.mark.parametrize("name", sorted(path.name for path in SHAPES.iterdir()))
def test_from_init_to_answering(adopter: Adopter, name: str, free_port: int) -> None:
    shape = adopt(adopter, name)
    for engine in ENGINES:
        flags = ("--engine", engine)
        adopter.run("containerize", "up", *flags, "--port", str(free_port))
        for path, text in shape["answers"].items():
            status, body = answer(f"http://127.0.0.1:{free_port}{path}")
            if "exec" not in shape:
                assert (status, text in body) == (shape.get("status", 200), True)
        if "exec" in shape:
            said = adopter.run("containerize", "exec", *flags, "--", *shape["exec"])
            assert shape["says"] in said
            for path, text in shape["answers"].items():
                status, body = answer(f"http://127.0.0.1:{free_port}{path}")
                assert (status, text in body) == (200, True)
        if "worker" in shape:
            worker = f"{adopter.root.name}-worker"
            said = adopter.run("containerize", "logs", *flags, "--name", worker)
            assert shape["worker"] in said
        adopter.run("nox", CONTAINERIZE_ENGINE=engine)
        adopter.run("containerize", "stop", *flags)
    [archive] = (adopter.root / "dist").glob("*.tar")
    assert privileges.gaining(archive) == []
    image = f"registry.example/shop@{canonical.read_digests(archive).manifest}"
    printed = adopter.run("containerize", "manifest", "swarm", f"--image={image}")
    services = YAML(typ="safe", pure=True).load(printed)["services"]
    assert {each["image"] for each in services.values()} == {image}
    assert len(services) == (2 if "worker" in shape else 1)
    # The committed state is what init wrote: a second run has nothing to do.
    assert "nothing to write" in adopter.run("containerize", "init")
    assert "Equal to" in adopter.run("containerize", "verify", "--engine", "docker")


def test_a_hand_typed_docker_build_works_once_the_layers_are_packed(
    adopter: Adopter,
) -> None:
    adopt(adopter, "tutorial")
    adopter.run("containerize", "lock")
    adopter.run("containerize", "build", "--engine", "docker")
    name = f"{adopter.root.name}:by-hand"
    adopter.run("docker", "build", "--tag", name, ".")
    label = f"--label=containerize.project={adopter.root.name}"
    flask = ("docker", "run", "--rm", label, "--entrypoint=flask", name, "routes")
    assert "/static/<path:filename>" in adopter.run(*flask)


def test_a_dockerignore_of_the_users_hides_nothing(adopter: Adopter) -> None:
    (adopter.root / ".dockerignore").write_text("build\n*.tar\n")
    adopt(adopter, "wsgi")
    adopter.run("containerize", "lock")
    adopter.run("containerize", "build", "--engine", "docker")
    assert (adopter.root / ".dockerignore").read_text() == "build\n*.tar\n"
