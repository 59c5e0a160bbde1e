"""What a container makes of its environment and of the app's directory."""

from __future__ import annotations

import http.client
import re
from pathlib import Path

import pytest

from containerize.errors import Problem
from tests.conftest import PATIENCE

WSGI = """

from flask import Flask
application = Flask("shop")
application.add_url_rule("/", "hello", lambda: "shop")
"""


def ask(running, path="/"):
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
    connection.request("GET", path)
    return connection.getresponse().read()


def log(running):
    return running.engine.run("logs", running.name, merge=True).stdout


def test_both_families_are_published(start):
    running = start(environment={"SERVED_HOST": "::"})
    assert b"Hello World" in ask(running)


def test_service_links_are_no_settings(start):
    links = {"SERVED_PORT": "tcp://10.96.0.7:80", "SERVED_SERVICE_HOST": "10.96.0.7"}
    running = start(environment=links)
    assert b"Hello World" in ask(running)
    (line,) = log(running).splitlines()[:1]
    assert "SERVED_PORT=tcp://10.96.0.7:80 is a link to a service called served" in line


def test_more_threads_than_the_container_may_have(start, project):
    with pytest.raises(Problem) as raised:
        start(environment={"SERVED_THREADS": str(project.pids)})
    *_, line = str(raised.value).splitlines()
    found = re.fullmatch(
        rf"served: only (\d+) threads can be started, not {project.pids}: lower "
        rf"SERVED_THREADS, or raise the container's limit of {project.pids} processes",
        line,
    )
    assert found, line
    # A health check that runs meanwhile counts too, and so do, on its way into the
    # container, the threads of the engine's own program.
    assert project.pids - 12 <= int(found[1]) < project.pids


def test_another_app_and_its_modules(start, tmp_path: Path):
    """A module of Python's own name takes no one's place."""
    (tmp_path / "wsgi.py").write_text(WSGI)
    for name in ("secrets.py", "queue.py", "tempfile.py"):
        (tmp_path / name).write_text("raise SystemExit('a foreign module ran')\n")
    tmp_path.chmod(0o755)
    running = start(
        environment={"FLASK_APP": ""}, options=[f"--volume={tmp_path}:/srv:ro"]
    )
    assert ask(running) == b"shop"


def test_the_flask_command_knows_the_app(start):
    running = start()
    done = running.engine.run("exec", running.name, "flask", "routes")
    assert "hello" in done.stdout
