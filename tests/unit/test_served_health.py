"""Health is the service's, whatever the application does to requests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, ROOT, until, unused_port
from tests.service import raw
from tests.service.raw import Process

HOOKS = {
    "login": "@app.before_request\ndef guard(): return 'please log in', 401",
    "https": "@app.before_request\ndef guard():\n"
    "    if not request.is_secure: return redirect('https://shop.example')",
    "fails": "@app.before_request\ndef guard(): raise RuntimeError",
    "after": "@app.after_request\ndef guard(response): raise RuntimeError",
    "teardown": "@app.teardown_request\ndef guard(error): raise RuntimeError",
    "trusted": "app.config['TRUSTED_HOSTS'] = ['.shop.example']",
    "server_name": "app.config['SERVER_NAME'] = 'shop.example'",
    "strict": "app.url_map.host_matching = True",
    "everything": "app.add_url_rule('/<path:p>', 'all', lambda p: ('no', 500))",
    "middleware": "app.wsgi_app = None",
}
APP = """
import os, threading
from flask import Flask, redirect, request
app = Flask("shop")
state = {"ready": os.environ.get("READY", "200")}

@app.get("/up")
def up():
    return "up", int(state["ready"])

@app.post("/up/<status>")
def set_up(status):
    state["ready"] = status
    return status

@app.get("/wait")
def wait():
    threading.Event().wait(600)
"""


def check(port: int | str, **environ: str) -> tuple[int, str]:
    """What the image's HEALTHCHECK says: its exit code and its one line."""
    script = ROOT / "served" / "healthcheck.py"
    answer = subprocess.run(
        [sys.executable, "-I", "-S", script],
        env={"SERVED_PORT": str(port), **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert answer.stderr == ""
    assert answer.stdout.count("\n") == answer.returncode
    return answer.returncode, answer.stdout.strip()


def ask(service: Process, path: str, *lines: str) -> tuple[int, bytes]:
    answer = service.request("GET", path, *lines)
    return answer.status, answer.body


@pytest.mark.parametrize("hook", HOOKS)
def test_hook(hook: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(f"{APP}\n{HOOKS[hook]}\n")
    with raw.running(tmp_path, tmp_path) as service:
        assert check(service.port) == (0, "")
        for path in ("live", "ready", "started"):
            for host in ("test", "10.0.0.9", "shop.example"):
                head = f"GET /health/{path} HTTP/1.1\r\nHost: {host}\r\n"
                sent = f"{head}Connection: close\r\n\r\n"
                (answer,) = service.send(sent.encode())
                assert answer.status == 200, (path, host)


def test_the_application_is_asked_past_its_hooks(tmp_path: Path) -> None:
    for hook in ("https", "trusted", "server_name"):
        (tmp_path / "app.py").write_text(f"{APP}\n{HOOKS[hook]}\n")
        with raw.running(tmp_path, tmp_path, SERVED_READY_PATH="/up") as service:
            assert ask(service, "/health/ready") == (200, b'{"status": "ready"}'), hook


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "app.py").write_text(APP)
    given = {"SERVED_READY_PATH": "/up", "READY": "503"}
    with raw.running(tmp_path, tmp_path, **given) as service:
        yield service


def test_the_check_asks_readiness_until_it_was_once(asked: Process) -> None:
    not_ready = (503, b'{"status": "not ready"}')
    for status in ("503", "404", "302", "500"):
        asked.request("POST", f"/up/{status}")
        assert check(asked.port) == (1, "the answer is 'HTTP/1.1 503'")
        assert ask(asked, "/health/ready") == not_ready
        assert ask(asked, "/health/live") == (200, b'{"status": "live"}')
    asked.request("POST", "/up/204")
    assert check(asked.port) == (0, "")
    asked.request("POST", "/up/503")
    assert check(asked.port) == (0, "")
    assert ask(asked, "/health/ready") == not_ready
    said = [line.split(" ", 2)[2] for line in asked.err.read_text().splitlines()]
    assert said[0] == "not ready: GET /up is 503 SERVICE UNAVAILABLE"
    assert said[-2:] == ["ready", "not ready: GET /up is 503 SERVICE UNAVAILABLE"]


def test_a_readiness_that_hangs_piles_nothing_up(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with raw.running(tmp_path, tmp_path, SERVED_READY_PATH="/wait") as service:
        before = service.opened().keys()
        clients = [service.connect() for _ in range(8)]
        for client in clients:
            client.sendall(b"GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: len(service.opened().keys() - before) == len(clients))
        for client in clients:
            client.close()
        until(lambda: service.opened().keys() <= before)
        assert ask(service, "/health/live")[0] == 200
        assert service.stop() == 0


def test_a_busy_service_is_healthy(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with raw.running(tmp_path, tmp_path, SERVED_READY_PATH="/up") as service:
        clients = [service.connect() for _ in range(8)]
        for client in clients:
            client.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        assert check(service.port) == (0, "")
        assert ask(service, "/health/ready")[0] == 200
        assert ask(service, "/health/live")[0] == 200
        for client in clients:
            client.close()


def test_health_behind_an_answer_of_the_same_connection(tmp_path: Path) -> None:
    """In order, though the first has to wait for its reader."""
    with raw.running(tmp_path) as service, service.connect() as connection:
        ask_live = b"GET /health/live HTTP/1.1\r\nHost: a\r\n"
        connection.sendall(
            b"GET /chunk HTTP/1.1\r\nHost: a\r\n\r\n"
            + ask_live + b"\r\n" + ask_live + b"Connection: close\r\n\r\n"
        )  # fmt: skip
        time.sleep(0.5)
        assert check(service.port) == (0, "")
        connection.settimeout(raw.TIMEOUT)
        # Without a length, the first is the last of its connection.
        assert len(raw.read(connection)) > 40 << 20
    with raw.running(tmp_path) as service, service.connect() as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            + ask_live + b"\r\n" + ask_live + b"Connection: close\r\n\r\n"
        )  # fmt: skip
        answers = raw.parse(raw.read(connection))
    assert [answer.body for answer in answers][1:] == [b'{"status": "live"}'] * 2


def test_routes_of_the_application_stand(tmp_path: Path) -> None:
    """Its own readiness is what the check asks, and `started` is always ours."""
    (tmp_path / "app.py").write_text(
        APP
        + "app.add_url_rule('/health/live', 'live', lambda: 'its own')\n"
        + "app.add_url_rule('/health/ready', 'own', up)\n"
        + "app.add_url_rule('/health/started', 'started', lambda: 'its own')\n"
    )
    with raw.running(tmp_path, tmp_path, READY="500") as service:
        assert ask(service, "/health/live") == (200, b"its own")
        assert ask(service, "/health/ready") == (500, b"up")
        assert check(service.port) == (1, "the answer is 'HTTP/1.1 503'")
        service.request("POST", "/up/200")
        assert check(service.port) == (0, "")
        assert ask(service, "/health/started") == (200, b'{"status": "live"}')


def test_other_methods_are_the_applications(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with raw.running(tmp_path, tmp_path) as service:
        for method in ("POST", "DELETE", "OPTIONS"):
            assert service.request(method, "/health/live").status == 404


def test_the_check_is_one_line_whatever_is_wrong() -> None:
    port = unused_port()
    assert check(port) == (1, "nothing listens")
    assert check("http") == (1, "SERVED_PORT is no number: 'http'")
    assert check("99999999999")[0] == 1
    assert check("²")[0] == 1
    assert check(port, SERVED_HOST="no address")[0] == 1
    assert check(port, SERVED_HOST="::1%lo")[0] == 1
    # What Kubernetes sets is no port: it falls back to the default one.
    assert check("tcp://10.96.0.7:80")[1] != ""


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP", b"\xff" * 20, b"HTTP/1.1 302 Found\r\n\r\n", None]
)
def test_the_check_of_something_else(answer: bytes | None) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                if answer is None:
                    over.wait()
                else:
                    connection.recv(1000)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        code, line = check(listener.getsockname()[1])
        over.set()
        thread.join()
    assert code == 1
    assert line == "timed out" if answer is None else line.startswith("the answer is ")


def test_both_families(tmp_path: Path) -> None:
    with raw.running(tmp_path, SERVED_HOST="::") as service:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, service.port), 5) as connection:
                connection.sendall(b"GET /who HTTP/1.0\r\n\r\n")
                (answer,) = raw.parse(raw.read(connection))
                assert answer.json["address"] == host
        assert check(service.port, SERVED_HOST="::") == (0, "")
        assert {line.split()[1] for line in service.out.read_text().splitlines()} == {
            "127.0.0.1",
            "::1",
        }


def test_more_threads_than_there_can_be(tmp_path: Path) -> None:
    """A limit of the address space stands for one of the container's processes."""
    code = (
        "import resource, runpy, threading; threading.stack_size(64 << 20);"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
        "runpy.run_module('served', run_name='__main__')"
    )
    (tmp_path / "app.py").write_text(APP)
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SERVED_THREADS": "200"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert line.startswith("served: only ")
    assert " threads can be started, not 200: lower SERVED_THREADS" in line
