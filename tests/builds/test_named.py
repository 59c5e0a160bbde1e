"""An engine that the environment names is asked, and no other in its place."""

import dataclasses
import http.server
import json
import os
import shutil
import threading

import pytest

from containerize.engines import engine, provision
from containerize.engines.complaints import NoEngine
from containerize.errors import Problem

WEB = "a web server that is no engine"
CASES = [
    (
        "docker",
        {"DOCKER_HOST": "tcp://127.0.0.1:9"},
        "no Docker daemon answers at tcp://127.0.0.1:9, which DOCKER_HOST=",
    ),
    ("docker", {"DOCKER_HOST": "unix:///nope.sock"}, "at unix:///nope.sock, which"),
    ("docker", {"DOCKER_HOST": "foo://x"}, "DOCKER_HOST=foo://x is no address"),
    (
        "docker",
        {"DOCKER_HOST": "tcp://nowhere.invalid:2375"},
        "there is no host nowhere.invalid, which DOCKER_HOST=tcp://nowhere.inv",
    ),
    (
        "docker",
        {"DOCKER_HOST": "ssh://nobody@127.0.0.1:9"},
        "the engine cannot be reached, DOCKER_HOST=ssh://nobody@127.0.0.1:9: ssh: ",
    ),
    (
        "docker",
        {"DOCKER_HOST": "ssh://nobody@127.0.0.1", "PATH": ""},
        "asks for ssh, which is not installed",
    ),
    (
        "docker",
        {"DOCKER_HOST": "tcp://127.0.0.1:9", "DOCKER_TLS_VERIFY": "1"},
        "cannot be reached by TLS: open ",
    ),
    ("docker", {"DOCKER_HOST": WEB}, "what answers is no engine, DOCKER_HOST="),
    ("docker", {"DOCKER_CONTEXT": "nope"}, "docker has no context nope, which DOCKER_"),
    ("docker", {"DOCKER_API_VERSION": "1.99"}, "asks for API 1.99, but the daemon has"),
    ("docker", {"DOCKER_API_VERSION": "1.2"}, "asks for API 1.2, but the daemon wants"),
    (
        "podman",
        {"CONTAINER_HOST": "tcp://127.0.0.1:9"},
        "no engine answers, CONTAINER_HOST=tcp://127.0.0.1:9: dial tcp 127.0.0.1:9",
    ),
    (
        "podman",
        {"CONTAINER_HOST": "garbage"},
        "CONTAINER_HOST=garbage is no address of an engine",
    ),
    (
        "podman",
        {"CONTAINER_HOST": "ssh://nobody@127.0.0.1/x.sock"},
        "CONTAINER_HOST=ssh://nobody@127.0.0.1/x.sock",
    ),
    ("podman", {"CONTAINER_CONNECTION": "nope"}, "CONTAINER_CONNECTION=nope"),
]


@pytest.fixture
def web():
    """The address of a web server."""
    served = http.server.SimpleHTTPRequestHandler
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("kind", "variables", "said"), CASES, ids=lambda x: str(x) if x else ""
)
def test_it_is_told_what_is_wrong(
    project, monkeypatch, tmp_path, web, kind, variables, said
):
    # A client out of the PATH too.
    command = shutil.which(kind) if "PATH" in variables else kind
    for name, value in variables.items():
        monkeypatch.setenv(name, web if value == WEB else value)
    monkeypatch.setenv("DOCKER_CONFIG", os.fspath(tmp_path))
    ran = []
    with pytest.raises(Problem) as caught:
        provision.install(
            dataclasses.replace(project, engine=command), ran.append, ran.append
        )
    assert not isinstance(caught.value, NoEngine)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ran == []


def test_what_is_named_goes_before_what_answers(project, monkeypatch):
    monkeypatch.setenv("CONTAINER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(Problem, match="no engine answers, CONTAINER_HOST="):
        engine.find(project)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(Problem, match="no Docker daemon answers at tcp://127"):
        provision.install(project)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Problem, match="docker is not installed, and DOCKER_HOST="):
        engine.find(project)


def test_a_context_in_use_names_an_engine(project, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", os.fspath(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "away"}))
    with pytest.raises(Problem, match="no context away, which `docker context use aw"):
        engine.find(project)


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("tcp://build.example:2375", "build.example"),
        ("ssh://me@build.example", "build.example"),
        ("tcp://127.0.0.1:2375", ""),
        ("unix:///run/docker.sock", ""),
        ("", ""),
    ],
)
def test_an_engine_elsewhere_publishes_its_ports_there(monkeypatch, address, where):
    monkeypatch.setenv("DOCKER_HOST", address)
    assert engine.Engine("docker", ("docker",)).elsewhere() == where
