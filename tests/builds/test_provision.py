"""Engines installed and started: nothing where one answers, one line where none can."""

import dataclasses
import os
import shutil
import subprocess
import tempfile
import time
import traceback
from pathlib import Path

import pytest

from containerize.engines import provision
from containerize.engines.complaints import NoEngine
from containerize.engines.engine import Engine, find
from containerize.errors import Problem

NOBODY = 65534


def as_user(function):
    """What a call returns or raises, as text, where no root's rights can be had."""
    if os.geteuid() != 0:
        return function()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            said = function()
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


def refusal(function, *arguments):
    try:
        return f"it returned {function(*arguments)}"
    except Problem as problem:
        return str(problem)


def test_nothing_is_done_where_an_engine_answers(using, project):
    commands = []
    again = provision.install(
        dataclasses.replace(project, engine=using.kind), commands.append
    )
    assert commands == []
    assert again.command == using.command


@pytest.fixture
def path():
    """A directory that every user may look into."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.parametrize("named", ["docker", "podman"])
def test_without_root_and_sudo_nothing_can_be_installed(
    project, named, monkeypatch, path
):
    """Nothing but apt is on the path; sbin, where dockerd may be, is looked at too."""
    (path / "apt-get").symlink_to(shutil.which("apt-get"))
    monkeypatch.setenv("PATH", str(path))
    asking = dataclasses.replace(project, engine=named)
    said = as_user(lambda: refusal(provision.install, asking))
    assert "\n" not in said
    assert "there is no sudo" in said
    assert "as root" in said


def test_a_daemon_without_its_client_is_not_enough(project, monkeypatch, path):
    """Newer releases have them in packages apart."""
    (path / "dockerd").symlink_to(shutil.which("true"))
    monkeypatch.setenv("PATH", str(path))
    asking = dataclasses.replace(project, engine="docker")
    with pytest.raises(Problem, match="no apt-get: install Docker or Podman"):
        provision.install(asking)


def test_where_no_apt_is_an_engine_must_be_brought(project, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    asking = dataclasses.replace(project, engine="podman")
    with pytest.raises(Problem, match="no apt-get: install Docker or Podman"):
        provision.install(asking)


@pytest.fixture
def daemon(path):
    """What `start` needs for a daemon of the test's own, which ends with the test."""
    # `path` is short: the name of a socket has 107 bytes at most.
    socket = f"--host=unix://{path / 'docker.sock'}"
    pidfile = path / "pid"
    flags = [
        socket, f"--data-root={path / 'data'}", f"--exec-root={path / 'exec'}",
        "--iptables=false", "--ip6tables=false",
    ]  # fmt: skip
    yield {
        "flags": flags,
        "log": path / "log",
        "pidfile": pidfile,
        "client": ("docker", socket),
    }
    if pidfile.exists():
        end = ["kill", pidfile.read_text()]
        subprocess.run(end if os.geteuid() == 0 else ["sudo", *end], check=True)
        while pidfile.exists():
            time.sleep(0.1)


def test_daemon_that_is_not_there(docker, project, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(Problem, match="no Docker daemon answers at unix:") as caught:
        find(dataclasses.replace(project, engine="docker"))
    assert not isinstance(caught.value, NoEngine)


def test_a_daemon_is_started_once(docker, daemon):
    commands = []
    provision.start(commands.append, **daemon)
    assert len(commands) == 1
    Engine("docker", daemon["client"]).run("ps")
    provision.start(commands.append, **daemon)
    assert len(commands) == 1


def test_a_daemon_that_cannot_start_says_why(docker, daemon, path):
    (path / "data").write_text("in the way")
    with pytest.raises(Problem, match=r"does not start: .* points to a file") as caught:
        provision.start(**daemon)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="session")
def docker(project):
    provision.install(dataclasses.replace(project, engine="docker"))
