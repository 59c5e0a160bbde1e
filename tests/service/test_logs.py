"""What a live container writes to its log, and what it never writes."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from containerize.build import Image
from containerize.engines import container
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.settings import Settings
from tests.service import raw
from tests.service.raw import Service

SECRET = "hunter2"
MADE = re.compile(r"[0-9a-f]{16}")


@pytest.fixture(scope="module")
def plain(using: Engine, project: Settings, built: Image) -> Iterator[Service]:
    with raw.serving(
        project, using, built, "log-plain", SERVED_LOG_QUERRY="true", SERVED_XYZ=SECRET
    ) as started:
        yield started


@pytest.fixture(scope="module")
def as_json(using: Engine, project: Settings, built: Image) -> Iterator[Service]:
    with raw.serving(
        project,
        using,
        built,
        "log-json",
        SERVED_LOG_FORMAT="json",
        SERVED_LOG_QUERY="true",
        SERVED_LOG_HEALTH="true",
    ) as started:
        yield started


def line_of(service: Service, method: str, path: str, *lines: str) -> str:
    """The line that a request adds to stdout."""
    (line,) = service.lines(service.request(method, path, *lines))
    return line


def test_plain_line(plain: Service) -> None:
    line = line_of(plain, "GET", "/wait/30", "X-Request-ID: from-the-proxy:1")
    stamp, _, *fields, duration, request_id = line.split(" ")
    when = datetime.datetime.fromisoformat(stamp)
    assert abs(when.timestamp() - datetime.datetime.now().timestamp()) < 60
    assert fields == ["GET", "/wait/30", "200", str(len('{"waited":30}\n'))]
    assert 30 <= float(duration) < 30_000  # in ms, then
    assert request_id == "from-the-proxy:1"


def test_json_line(as_json: Service) -> None:
    line = line_of(as_json, "GET", "/nowhere?a=1&b=%0a", "X-Request-ID: taken-42")
    record: dict[str, Any] = json.loads(line)
    assert list(record) == [
        "time", "client", "method", "path", "status", "bytes", "duration_ms",
        "request_id",
    ]  # fmt: skip
    assert record["method"] == "GET"
    assert record["path"] == "/nowhere?a=1&b=%0a"
    assert (record["status"], record["request_id"]) == (404, "taken-42")
    assert record["bytes"] > 100
    assert 0 < record["duration_ms"] < 30_000


@pytest.mark.parametrize(
    "sent", ["", "a b", "a\tb", '"', "a" * 129, "\xe9", "<script>", "${jndi:x}"]
)
def test_request_id_is_made(plain: Service, sent: str) -> None:
    response = plain.request("GET", "/", f"X-Request-ID: {sent}")
    made = response.get("x-request-id")
    assert made
    assert MADE.fullmatch(made)
    (line,) = plain.lines(response)
    assert line.endswith(f" {made}")


def test_request_id_is_taken(plain: Service) -> None:
    response = plain.request("GET", "/", "X-Request-ID: 0af7651916cd43dd+a/b=")
    assert response.get("x-request-id") == "0af7651916cd43dd+a/b="


def test_secrets_stay_out(plain: Service) -> None:
    headers = (
        f"Authorization: Bearer {SECRET}",
        f"Cookie: session={SECRET}",
        f"Referer: http://a.example/?token={SECRET}",
        f"User-Agent: {SECRET}",
    )
    for path in ("/", "/nowhere", "/fail", "/%zz"):
        line = line_of(plain, "GET", f"{path}?token={SECRET}", *headers)
        assert "?" not in line
    line_of(plain, "GET", f"/?token={SECRET}", f"no header {SECRET}")
    out, events = plain.logs("RuntimeError")
    assert any("RuntimeError" in line for line in events)
    assert SECRET not in "\n".join([*out, *events])


def test_typos_are_named(plain: Service) -> None:
    _, events = plain.logs("SERVED_XYZ")
    warnings = [line for line in events if " WARNING " in line]
    assert [line.split(" ", 2)[2] for line in warnings] == [
        "SERVED_LOG_QUERRY is no setting: did you mean SERVED_LOG_QUERY?",
        "SERVED_XYZ is no setting: python -m served --help lists them",
    ]


def test_no_client_writes_a_line(plain: Service, as_json: Service) -> None:
    forged = "%0A2026-01-01T00:00:00Z%20ERROR%20forged%0D%1b[31m%e2%80%a8"
    for service in (plain, as_json):
        line = line_of(service, "GET", f"/fail/{forged}")
        assert "/fail/%0A2026-01-01T00:00:00Z%20ERROR%20forged%0D%1B" in line
        everything = [*service.logs()[0], *service.logs()[1]]
        assert not [line for line in everything if line.startswith("2026-01-01")]
        assert not [line for line in everything if "\x1b" in line]


def test_failure_has_its_traceback_in_the_log(as_json: Service) -> None:
    as_json.request("GET", "/fail")
    (line,) = (line for line in as_json.logs("/fail [GET]")[1] if "/fail [GET]" in line)
    record = json.loads(line)
    assert list(record) == ["time", "level", "message", "traceback"]
    assert (record["level"], record["message"]) == ("error", "Exception on /fail [GET]")
    assert "RuntimeError: only the log may hold this" in record["traceback"]


def test_every_json_line_parses(as_json: Service) -> None:
    for data in (b"\x16\x03\x01\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"):
        as_json.lines(*as_json.send(data))
    out, events = as_json.logs()
    records = [json.loads(line) for line in [*out, *events]]
    refused = [record for record in records if record.get("status") == 400]
    assert [(record["method"], record["path"]) for record in refused] == [
        ("-", "-")
    ] * 2


def test_health_checks(plain: Service, as_json: Service) -> None:
    """Passing ones every few seconds would drown the rest."""
    assert plain.request("GET", "/health/live").status == 200
    assert plain.request("GET", "/health/ready").status == 200
    assert json.loads(line_of(as_json, "GET", "/health/live"))["status"] == 200
    assert " 404 " in line_of(plain, "POST", "/health/live")
    assert not [line for line in plain.logs()[0] if " GET /health/" in line]


def test_client_that_leaves(plain: Service) -> None:
    with plain.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.0\r\nX-Request-ID: left\r\n\r\n")
        assert connection.recv(9) == b"HTTP/1.0 "
    out, _ = plain.logs(" /large ")
    (line,) = (line for line in out if " /large " in line)
    assert line.endswith(" left aborted")


def test_bad_setting_ends_the_start(
    using: Engine, project: Settings, built: Image
) -> None:
    line = "served: SERVED_THREADS must be a whole number from 1 to 256, not 'many'"
    environment = {"SERVED_THREADS": "many"}
    name = f"{project.image}-bad-setting"
    with pytest.raises(Problem) as raised:
        container.run(
            project,
            using,
            built.references[0],
            name=name,
            port=0,
            environment=environment,
        )
    wanted = f"container {name} ended with exit code 2; the end of its log:\n{line}"
    assert str(raised.value) == wanted
    assert container.state(project, using, name) is None
