"""A live server on loopback: raw bytes in, and what comes back."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import pytest

from tests.service import raw
from tests.service.cases import ANSWERED, NEXT, REFUSED, SECTIONS
from tests.service.raw import Process, Response


@pytest.fixture(scope="module", params=["bare", "validated"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """The tests' routes; once under the standard library's checks of PEP 3333."""
    given = {"VALIDATED": "1"} if request.param == "validated" else {}
    directory = tmp_path_factory.mktemp(request.param)
    with raw.running(directory, SERVED_REQUEST_TIMEOUT="2", **given) as started:
        yield started
        assert started.stop() == 0
        assert "AssertionError" not in started.err.read_text()


@pytest.mark.parametrize(("status", "data"), [*REFUSED, *SECTIONS])
def test_refused_and_closed(service: Process, status: int, data: bytes) -> None:
    (response,) = service.send(data + NEXT)
    assert response.status == status
    assert response.get("content-type") == "text/plain; charset=utf-8"
    assert response.body.startswith(f"{status} ".encode())
    assert len(response.body) < 100


@pytest.mark.parametrize(("data", "wanted"), ANSWERED)
def test_answered(service: Process, data: bytes, wanted: list[int]) -> None:
    assert [response.status for response in service.send(data)] == wanted


def test_nothing_was_smuggled(service: Process) -> None:
    assert service.request("GET", "/last").status == 404
    lines = service.out.read_text()
    assert "/last" in lines
    assert "smuggled" not in lines


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"GET / HTTP/1.1\r\nHost: a\n\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\nX: y\n",
    ],
)
def test_bare_lf_is_not_waited_on(service: Process, data: bytes) -> None:
    """9112-2.2: nothing follows that the server could take for the end of it."""
    with service.connect(1) as connection:
        connection.sendall(data)
        (response,) = raw.parse(raw.read(connection))
    assert response.status == 400


def who(service: Process, target: bytes, host: bytes) -> Response:
    (response,) = service.send(
        b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (target, host)
    )
    return response


def test_absolute_target_wins_over_host(service: Process) -> None:
    """9112-3.2.2: «MUST ignore the received Host header field»."""
    asked = who(service, b"http://shop.example:81/who?x", b"other.example")
    assert asked.json["url"] == "http://shop.example:81/who"


def test_head_has_no_body(service: Process) -> None:
    """9110-9.3.2, whatever the application yields, and however."""
    paths = [f"/bare/{name}" for name in ("list", "sized", "unsized", "write", "file")]
    for path in [*paths, "/", "/nowhere", "/large"]:
        answer = whole(service, "HEAD", path)
        assert answer.startswith(b"HTTP/1.1 "), path
        assert answer.index(b"\r\n\r\n") == len(answer) - 4, (path, answer)
    for path in paths:
        assert b"body" in whole(service, "GET", path).replace(b"\r\n2\r\ndy", b"dy")


def whole(service: Process, method: str, path: str) -> bytes:
    with service.connect() as connection:
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        return raw.read(connection)


def test_a_small_answer_is_one_packet(service: Process) -> None:
    """Two may be sent apart, and wake the client twice."""
    with service.connect() as connection:
        for _ in range(100):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(65536).endswith(b'"Hello World from Flask"}\n')


def test_a_slow_reader_gets_all(service: Process) -> None:
    """What the kernel takes at once, what has to wait, and what comes after it."""
    with service.connect() as connection:
        connection.sendall(
            b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        time.sleep(0.5)  # until the kernel takes no more
        found = 0
        while part := connection.recv(1 << 20):
            found += part.count(b"\0")
    assert found == 40 << 20


def test_a_large_chunk_is_not_copied_whole(service: Process) -> None:
    """Neither in memory nor in a file of /tmp, which is memory too."""
    with service.connect() as connection:
        connection.sendall(b"GET /chunk HTTP/1.0\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.0 200"
        time.sleep(0.3)
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        files = service.opened()
        assert len(raw.read(connection)) > 40 << 20
    peak = re.search(r"VmHWM:\s+([0-9]+) kB", status)
    assert peak
    assert 40 << 10 < int(peak[1]) < 100 << 10
    buffers = [size for name, size in files.items() if name.startswith(gettempdir())]
    assert sum(buffers) < 2 << 20


def test_no_via(service: Process) -> None:
    """9110-7.6.3: the server is no proxy of an application that names a Server."""
    response = service.request("GET", "/bare/list")
    assert (response.get("server"), response.get("via")) == ("own", None)


def test_options_of_the_server(service: Process) -> None:
    """9110-9.3.7: the application, which knows no such path, is not asked."""
    response = service.request("OPTIONS", "*")
    assert (response.status, response.body) == (200, b"")
    assert response.get("content-length") == "0"
    assert service.request("OPTIONS", "/*").status == 404
