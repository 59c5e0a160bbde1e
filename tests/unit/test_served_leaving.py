"""Clients that leave while their request is worked on."""

from __future__ import annotations

import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import until
from tests.service import raw
from tests.service.raw import Process

APP = """
import threading
from flask import Flask, Response

app = Flask("shop")
closed = []

def quiet():
    yield "data: hello\\n\\n"
    threading.Event().wait(600)

def ticking():
    try:
        while True:
            yield "data: tick\\n\\n"
            threading.Event().wait(0.1)
    finally:
        closed.append("ticking")

@app.get("/quiet")
def get_quiet():
    return Response(quiet(), mimetype="text/event-stream")

@app.get("/ticking")
def get_ticking():
    return Response(ticking(), mimetype="text/event-stream")

@app.get("/slow")
def slow():
    threading.Event().wait(600)

@app.get("/sleep/<float:seconds>")
def sleep(seconds):
    threading.Event().wait(seconds)
    return "slept"

@app.get("/closed")
def get_closed():
    return closed
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "app.py").write_text(APP)
    given = {"SERVED_THREADS": "2", "SERVED_GRACE_PERIOD": "3"}
    with raw.running(tmp_path, tmp_path, **given) as started:
        yield started


def close(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


def leave(
    service: Process, path: str, count: int, how: Callable[[socket.socket], None]
) -> None:
    """Ask, and leave while the answer is on its way."""
    opened = []
    for _ in range(count):
        connection = service.connect()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        opened.append(connection)
    time.sleep(0.3)
    for connection in opened:
        how(connection)


@pytest.mark.parametrize("how", [close, reset])
@pytest.mark.parametrize("path", ["/quiet", "/slow"])
def test_others_are_served_and_nothing_is_unfinished(
    service: Process, path: str, how: Callable[[socket.socket], None]
) -> None:
    for _ in range(3):
        leave(service, path, 2, how)
        assert service.request("GET", "/closed").status == 200
    assert service.stop() == 0
    assert service.err.read_text().endswith("INFO stopped\n")


@pytest.mark.parametrize("how", [close, reset])
def test_a_stream_that_writes_ends(
    service: Process, how: Callable[[socket.socket], None]
) -> None:
    leave(service, "/ticking", 2, how)
    until(lambda: service.request("GET", "/closed").json == ["ticking", "ticking"])


def test_a_client_that_only_ends_its_side_gets_its_answer(service: Process) -> None:
    """RFC 9112 9.6: it may, and no byte tells it from one that has left."""
    with service.connect() as connection:
        connection.sendall(b"GET /sleep/2.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        time.sleep(1.5)
        service.process.send_signal(signal.SIGTERM)
        (answer,) = raw.parse(raw.read(connection))
    assert answer.body == b"slept"
    assert service.process.wait(raw.TIMEOUT) == 0


def test_who_waits_is_unfinished(service: Process) -> None:
    with service.connect() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        leave(service, "/slow", 1, close)
        assert service.stop() == 1
    assert "stopped with 1 request(s) unfinished" in service.err.read_text()
