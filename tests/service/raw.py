"""Live services with the tests' own routes, and HTTP byte by byte."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from containerize.build import Image
from containerize.engines import container
from containerize.engines.container import Container
from containerize.engines.engine import Engine
from containerize.settings import Settings
from tests.conftest import PATIENCE, unused_port

ROUTES = Path(__file__).with_name("routes.py")
TIMEOUT = PATIENCE
"""Seconds after which a server that is silent has failed the test."""


@dataclasses.dataclass(frozen=True)
class Response:
    """An HTTP response, its header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a header that comes once at most."""
        values = self.all(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    @property
    def json(self) -> Any:
        assert self.get("content-type") == "application/json"
        return json.loads(self.body)


def parse(data: bytes) -> list[Response]:
    """The responses that a connection gave, each whole; none to a HEAD among them."""
    found = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"half a response: {head!r}"
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version in ("HTTP/1.0", "HTTP/1.1")
        headers = [line.split(": ", 1) for line in lines]
        fields = [(name.lower(), value) for name, value in headers]
        size = int(dict(fields).get("content-length", 0))
        assert len(data) >= size, f"half a body: {data!r}"
        body, data = data[:size], data[size:]
        found.append(Response(int(status), fields, body))
    return found


@dataclasses.dataclass(frozen=True)
class Client:
    """Speaks to what listens on a port of 127.0.0.1."""

    port: int

    def connect(self, timeout: float = TIMEOUT) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def send(self, data: bytes) -> list[Response]:
        """Each response to these bytes, up to the server's closing the connection."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
            return parse(read(connection))

    def request(
        self, method: str, path: str, *lines: str, body: bytes = b""
    ) -> Response:
        """The response to one request with these header lines more."""
        length = [f"Content-Length: {len(body)}"] if body else []
        first = f"{method} {path} HTTP/1.1"
        head = [first, "Host: test", "Connection: close", *length, *lines, "", ""]
        (response,) = self.send("\r\n".join(head).encode("latin-1") + body)
        return response


@dataclasses.dataclass(frozen=True)
class Process(Client):
    """A running process of this host."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def opened(self) -> dict[str, int]:
        """What it has open, by names that nothing else gets, and how large each is."""
        found = {}
        for path in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found[os.readlink(path)] = path.stat().st_size
        return found

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)


@dataclasses.dataclass(frozen=True)
class Service(Client):
    """A running container."""

    container: Container

    def memory(self) -> tuple[int, int, int]:
        """Bytes: resident now, at the peak, and of the files in /tmp."""
        code = (
            "import os; fs = os.statvfs('/tmp');"
            "print(open('/proc/1/status').read(), (fs.f_blocks-fs.f_bfree)*fs.f_frsize)"
        )
        answer = self.container.engine.run(
            "exec", self.container.name, "python3", "-ISc", code, echo=False
        )
        *lines, used = answer.stdout.splitlines()
        sizes = dict(line.split(":", 1) for line in lines if ":" in line)
        now, peak = (int(sizes[name].split()[0]) << 10 for name in ("VmRSS", "VmHWM"))
        return now, peak, int(used)

    def logs(self, *texts: str) -> tuple[list[str], list[str]]:
        """The lines of stdout and of stderr, once these texts are among them."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            answer = self.container.engine.run("logs", self.container.name, echo=False)
            if all(text in answer.stdout + answer.stderr for text in texts):
                return answer.stdout.splitlines(), answer.stderr.splitlines()
            assert time.monotonic() < deadline, (texts, answer)
            time.sleep(0.02)

    def lines(self, *responses: Response) -> list[str]:
        """The line of stdout that belongs to each of these responses."""
        ids = [response.get("x-request-id") or "" for response in responses]
        out, _ = self.logs(*ids)
        found = []
        for id_ in ids:
            (line,) = (line for line in out if id_ in line)
            found.append(line)
        return found


def read(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    found = bytearray()
    # A server that closes with bytes unread resets; its answer came before.
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
    return bytes(found)


@contextlib.contextmanager
def running(
    directory: Path, app: Path = ROUTES.parent, **environment: str
) -> Iterator[Process]:
    """A process that serves, by default, the tests' routes.

    It works in the directory `app`; its two logs go to `directory`.
    """
    out, err = directory / "out", directory / "err"
    port = unused_port()
    repository = str(ROUTES.parents[2])
    given = {
        "SERVED_HOST": "127.0.0.1",
        "SERVED_PORT": str(port),
        "PYTHONPATH": repository,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
        **({"FLASK_APP": "routes"} if app == ROUTES.parent else {}),
    }
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "served"],
            cwd=app,
            env={**clean, **given, **environment},
            stdout=stdout,
            stderr=stderr,
        )
        service = Process(port, process, out, err)
        try:
            deadline = time.monotonic() + TIMEOUT
            while True:
                # It listens a moment before it is whole, so it has to answer.
                with contextlib.suppress(ConnectionError):
                    service.request("GET", "/health/live")
                    break
                assert process.poll() is None, err.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield service
        finally:
            process.kill()
            process.wait()
            print(f"log:\n{out.read_text()}\n{err.read_text()}")


@contextlib.contextmanager
def serving(
    project: Settings, engine: Engine, image: Image, name: str, **environment: str
) -> Iterator[Service]:
    """A container with the tests' routes under the production flags; then none."""
    name = f"{project.image}-{name}"
    given = {"FLASK_APP": "routes", **environment}
    started = container.run(
        project,
        engine,
        image.references[0],
        name=name,
        port=0,
        environment=given,
        options=[f"--volume={ROUTES}:/srv/routes.py:ro"],
    )
    try:
        yield Service(started.port, started)
    finally:
        print(f"log of {name}:\n{container.log_tail(engine, name)}")
        engine.discard(name)
