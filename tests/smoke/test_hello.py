"""What the app promises over HTTP, asked of a live container."""

import http.client
import json
import urllib.parse

import pytest

ALLOWED = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS, POST, PUT",
}


@pytest.fixture
def ask(url):
    """Send a request over one connection; returns status, headers and body."""
    connection = http.client.HTTPConnection(
        urllib.parse.urlsplit(url).netloc, timeout=5
    )

    def ask(method, path, body=None, headers=None):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    yield ask
    connection.close()


def test_the_tutorials_answer(ask):
    status, headers, body = ask("GET", "/")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"message": "Hello World from Flask"}
    assert ask("HEAD", "/")[0] == 200
    assert ask("HEAD", "/")[1]["Content-Length"] == str(len(body))


def test_every_response_of_the_app_allows_any_origin(ask):
    origin = {"Origin": "https://example.org"}
    preflight = {**origin, "Access-Control-Request-Method": "POST"}
    for method, path, sent, expected in (
        ("GET", "/", {}, 200),
        ("GET", "/", origin, 200),
        ("HEAD", "/", {}, 200),
        ("OPTIONS", "/", {}, 200),
        ("OPTIONS", "/", preflight, 200),
        ("GET", "/nowhere", origin, 404),
        ("HEAD", "/nowhere", {}, 404),
        ("OPTIONS", "/nowhere", preflight, 404),
        ("POST", "/", origin, 405),
        ("PUT", "/", origin, 405),
    ):
        status, headers, _ = ask(method, path, headers=sent)
        assert (method, path, status) == (method, path, expected)
        for name, value in ALLOWED.items():
            assert headers.get_all(name) == [value], (method, path, name)


def test_health(ask):
    for state in ("live", "ready"):
        status, _, body = ask("GET", f"/health/{state}")
        assert (status, json.loads(body)) == (200, {"status": state})


def test_errors_are_flasks(ask):
    for method, path, expected in (("GET", "/nowhere", 404), ("DELETE", "/", 405)):
        status, headers, body = ask(method, path)
        assert status == expected
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert body.startswith(b"<!doctype html>")
    assert {*headers["Allow"].split(", ")} == {"GET", "HEAD", "OPTIONS"}


def test_a_body_too_large_is_refused_and_the_next_request_answered(ask):
    status, _, body = ask("POST", "/", b"x" * (1 << 20 | 1))
    assert (status, body[:3]) == (413, b"413")
    assert ask("GET", "/")[0] == 200


def test_the_server_does_not_name_itself(ask):
    for path in ("/", "/nowhere"):
        assert "Server" not in ask("GET", path)[1]
