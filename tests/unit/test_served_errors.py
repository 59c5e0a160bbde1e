"""What fails outside Flask: 500, and a log that knows which request it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import raw
from tests.service.raw import Process

APP = """
import sys
from flask import Flask, Response, abort, request

app = Flask("shop")

def fails(error):
    raise error
    yield b""

def fails_late():
    yield b"half"
    raise RuntimeError("late")

@app.get("/hop")
def hop():
    return Response("", headers={"Connection": "keep-alive"})

@app.get("/generator")
def generator():
    return Response(fails(RuntimeError("first")))

@app.get("/oserror")
def oserror():
    return Response(fails(FileNotFoundError("no such file")))

@app.get("/exit")
def exit():
    sys.exit("a view may not")

@app.get("/teardown")
def teardown():
    return "fine"

@app.teardown_request
def fail(error):
    if request.path == "/teardown":
        raise RuntimeError("teardown")

@app.get("/late")
def late():
    return Response(fails_late())

@app.get("/own/<int:status>")
def own(status):
    abort(status, response=Response("my own", status, {"X-Request-ID": "mine"}))

@app.get("/raises")
def raises():
    raise KeyError("view")

class Middleware:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/middleware":
            raise RuntimeError("middleware")
        return self.inner(environ, start_response)

app.wsgi_app = Middleware(app.wsgi_app)
"""
OUTSIDE = ("hop", "generator", "oserror", "exit", "teardown", "middleware")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    directory = tmp_path_factory.mktemp("errors")
    (directory / "app.py").write_text(APP)
    with raw.running(directory, directory, SERVED_LOG_FORMAT="json") as started:
        yield started


def lines(file: Path, word: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [record for record in found if word in str(record)]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_outside_flask(service: Process, path: str, method: str) -> None:
    id_ = f"{method}-{path}"
    with service.connect() as connection:
        head = f"{method} /{path} HTTP/1.1\r\nHost: a\r\nX-Request-ID: {id_}\r\n\r\n"
        connection.sendall(head.encode())
        answer = raw.read(connection)
    first, _, body = answer.partition(b"\r\n\r\n")
    if method == "HEAD" and path in ("generator", "oserror"):
        assert first.startswith(b"HTTP/1.1 200 ")  # Werkzeug asks for no byte of it
        return
    assert first.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert f"X-Request-Id: {id_}".encode() in first
    text = b"500 Internal Server Error: The server could not answer\n"
    assert body == (text if method == "GET" else b"")
    (event,) = lines(service.err, id_)
    assert event["message"] == f"{method} /{path} failed outside Flask, request {id_}"
    assert "Traceback" in str(event["traceback"])
    (line,) = lines(service.out, id_)
    assert (line["method"], line["path"], line["status"]) == (method, f"/{path}", 500)


def test_after_the_first_byte(service: Process) -> None:
    with service.connect() as connection:
        connection.sendall(
            b"GET /late HTTP/1.1\r\nHost: a\r\nX-Request-ID: half\r\n\r\n"
        )
        answer = raw.read(connection)
    assert answer.endswith(b"4\r\nhalf\r\n")  # and no last chunk: it is cut
    (event,) = lines(service.err, "half")
    assert event["message"] == "GET /late failed outside Flask, request half"
    (line,) = lines(service.out, "half")
    assert line["aborted"] == "aborted"


@pytest.mark.parametrize("status", [401, 404, 500])
def test_the_applications_own_answer_stands(service: Process, status: int) -> None:
    answer = service.request("GET", f"/own/{status}")
    assert (answer.status, answer.body) == (status, b"my own")
    assert answer.get("x-request-id") == "mine"


def test_flasks_own_errors_stand(service: Process) -> None:
    for path, status in (("/nowhere", 404), ("/raises", 500)):
        answer = service.request("GET", path)
        assert answer.status == status
        assert answer.get("content-type") == "text/html; charset=utf-8"
        assert not [n for n, _ in answer.headers if n.startswith("access-control")]
