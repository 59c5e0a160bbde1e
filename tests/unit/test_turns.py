"""Builds of one checkout come one after the other: they pack into the same files."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from containerize import build, disk
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.settings import Settings
from tests.conftest import PATIENCE


def test_a_build_waits_for_the_other_and_says_so(tmp_path):
    settings = Settings(root=tmp_path, image="shop")
    said, waits, ended = [], threading.Event(), threading.Event()

    def on_line(line):
        said.append(line)
        waits.set()

    def second():
        try:
            build.build(settings, Engine("docker", ("docker",)), on_line=on_line)
        except Problem as problem:
            said.append(str(problem))
        ended.set()

    with disk.turn(settings.build_dir, pytest.fail):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(PATIENCE)
        assert not ended.is_set()
    thread.join(PATIENCE)
    assert said[0] == build.WAITS
    assert "has nothing to pack" in said[1]
    build.clean(settings)
    assert not settings.build_dir.exists()


def test_a_directory_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "build").write_text("")
    turn = disk.turn(tmp_path / "build", pytest.fail)
    with pytest.raises(Problem, match=r"cannot write to .*build: File exists"), turn:
        pass


def test_a_directory_that_takes_none_is_one_line():
    # It says "No such file or directory", as one does that another process removed.
    with (
        pytest.raises(Problem, match=r"cannot write to /proc: "),
        disk.scratch(Path("/proc")),
    ):
        pass


def test_a_build_whose_cache_goes_meanwhile_is_repeated(tmp_path):
    """As Podman's fails if another's image goes, of which it looks at each."""
    podman, tries = tmp_path / "podman", tmp_path / "tries"
    failing = "Error: checking if cached image exists from a previous build: gone"
    podman.write_text(
        f"#!/bin/sh\n[ $1 = build ] || {{ echo 71; exit; }}\necho . >>{tries}\n"
        f"[ $(wc -l <{tries}) = 2 ] || {{ echo '{failing}' >&2; exit 125; }}\n"
    )
    podman.chmod(0o755)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    settings = Settings(root=tmp_path, image="shop")
    engine = Engine("podman", (str(podman),))
    arguments = (settings, engine, ["build", "context"], "shop:x", context, {})
    assert build._run(*arguments) == "sha256:71"
    with pytest.raises(Problem, match="cached image exists"):
        build._run(*arguments)
    assert tries.read_text() == ".\n" * 4
