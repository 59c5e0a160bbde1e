"""CORS on a live container: the tutorial's headers, and a policy that is set.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from containerize.build import Image
from containerize.engines.engine import Engine
from containerize.settings import Settings
from tests.service import raw
from tests.service.raw import Response, Service

TUTORIAL = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, HEAD, OPTIONS, POST, PUT",
}
GOOD = "https://good.example"
OTHER = "https://other.example:8443"
BAD = "https://bad.example"

SIMPLE = {
    "access-control-allow-origin": GOOD,
    "access-control-allow-methods": "GET, POST",
    "vary": "Origin",
}
PREFLIGHT = {
    **SIMPLE,
    "access-control-allow-headers": "Content-Type, X-Own",
    "access-control-max-age": "600",
}
DENIED = {"vary": "Origin"}
ASK = ("Access-Control-Request-Method: POST",)
ASK_JSON = (*ASK, "Access-Control-Request-Headers: content-type")


@pytest.fixture(scope="module")
def default(using: Engine, project: Settings, built: Image) -> Iterator[Service]:
    with raw.serving(project, using, built, "cors-default") as started:
        yield started


@pytest.fixture(scope="module")
def strict(using: Engine, project: Settings, built: Image) -> Iterator[Service]:
    with raw.serving(
        project,
        using,
        built,
        "cors-strict",
        APP_CORS_ORIGINS=f"{GOOD}, {OTHER}",
        APP_CORS_METHODS="GET, POST",
        APP_CORS_HEADERS="Content-Type, X-Own",
        APP_CORS_MAX_AGE="600",
    ) as started:
        yield started


ANSWERS = (
    # What is asked, and the status.
    ("GET", "/", (), 200),
    ("HEAD", "/nowhere", (), 404),
    ("GET", "/nowhere", (), 404),
    ("DELETE", "/", (), 405),
    ("GET", "/fail", (), 500),
    ("POST", "/echo", ("Content-Type: application/json",), 200),
    # The server's own answers, which Flask does not see.
    ("GET", "/", ("no header",), 400),
    ("POST", "/echo", ("Content-Length: 99999999",), 413),
    ("GET", "/", ("X: " + "a" * 20000,), 431),
    ("POST", "/", ("Transfer-Encoding: gzip",), 501),
)


@pytest.mark.parametrize(("method", "path", "lines", "status"), ANSWERS)
@pytest.mark.parametrize("origin", [None, BAD])
def test_default(
    default: Service,
    method: str,
    path: str,
    lines: tuple[str, ...],
    status: int,
    origin: str | None,
) -> None:
    """Every answer has the tutorial's two headers, and no other."""
    asked = [f"Origin: {origin}"] if origin else []
    (response,) = exchange(default, method, path, *asked, *lines)
    assert (response.status, response.cors) == (status, TUTORIAL)


def test_default_preflight(default: Service) -> None:
    (response,) = exchange(default, "OPTIONS", "/echo", f"Origin: {BAD}", *ASK)
    assert (response.status, response.cors) == (200, TUTORIAL)
    assert allows(response, BAD, "POST")
    assert not allows(response, BAD, "POST", "content-type")


@pytest.mark.parametrize(("method", "path", "lines", "status"), ANSWERS)
@pytest.mark.parametrize(
    ("origin", "wanted"),
    [(GOOD, SIMPLE), (BAD, DENIED), ("null", DENIED), (None, DENIED)],
)
def test_strict(
    strict: Service,
    method: str,
    path: str,
    lines: tuple[str, ...],
    status: int,
    origin: str | None,
    wanted: dict[str, str],
) -> None:
    asked = [f"Origin: {origin}"] if origin else []
    (response,) = exchange(strict, method, path, *asked, *lines)
    if response.status == 431:  # its headers, the origin too, are thrown away
        wanted = DENIED
    assert (response.status, response.cors) == (status, wanted)


@pytest.mark.parametrize(
    ("origin", "lines", "wanted"),
    [
        (GOOD, ASK, PREFLIGHT),
        (GOOD, ASK_JSON, PREFLIGHT),
        (OTHER, ASK_JSON, {**PREFLIGHT, "access-control-allow-origin": OTHER}),
        (GOOD, (), SIMPLE),  # a mere OPTIONS is no preflight
        (BAD, ASK_JSON, DENIED),
        (GOOD.upper(), ASK_JSON, DENIED),
        (GOOD + ".evil", ASK_JSON, DENIED),
        (GOOD + ":8080", ASK_JSON, DENIED),
        (GOOD.replace("https", "http"), ASK_JSON, DENIED),
        ("null", ASK_JSON, DENIED),
        ("*", ASK_JSON, DENIED),
        (f"{GOOD}, {BAD}", ASK_JSON, DENIED),
    ],
)
def test_strict_preflight(
    strict: Service, origin: str, lines: tuple[str, ...], wanted: dict[str, str]
) -> None:
    (response,) = exchange(strict, "OPTIONS", "/echo", f"Origin: {origin}", *lines)
    assert (response.status, response.cors, response.body) == (200, wanted, b"")


def test_json_post_of_a_browser(strict: Service) -> None:
    """What a page does with fetch(…, {method: "POST", JSON}), step by step."""
    (preflight,) = exchange(strict, "OPTIONS", "/echo", f"Origin: {GOOD}", *ASK_JSON)
    assert allows(preflight, GOOD, "POST", "content-type")
    assert not allows(preflight, BAD, "POST", "content-type")
    assert not allows(preflight, GOOD, "DELETE")
    assert not allows(preflight, GOOD, "POST", "authorization")
    posted = strict.request(
        "POST",
        "/echo",
        f"Origin: {GOOD}",
        "Content-Type: application/json",
        body=b'{"a": 1}',
    )
    assert posted.json["size"] == 8
    assert posted.get("access-control-allow-origin") == GOOD


def exchange(service: Service, method: str, path: str, *lines: str) -> list[Response]:
    head = [f"{method} {path} HTTP/1.1", "Host: a", "Connection: close", *lines, "", ""]
    data = "\r\n".join(head).encode()
    if method != "HEAD":
        return service.send(data)
    with service.connect() as connection:
        connection.sendall(data)
        head_only = raw.read(connection)
    length = b"Content-Length: "
    assert length in head_only
    return raw.parse(head_only.replace(length, b"Was-" + length))


def allows(response: Response, origin: str, method: str, *headers: str) -> bool:
    """Whether a browser lets a page send this after that preflight (Fetch 4.8)."""

    def listed(name: str) -> list[str]:
        value = response.get(f"access-control-allow-{name}") or ""
        return [part.strip() for part in value.split(",")]

    names = [name.lower() for name in listed("headers")]
    return (
        200 <= response.status < 300
        and response.get("access-control-allow-origin") in ("*", origin)
        and (method in listed("methods") or method in ("GET", "HEAD", "POST"))
        and all(header in names for header in headers)
    )
