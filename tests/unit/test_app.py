"""The application and what the service adds to it, without a server."""

from __future__ import annotations

import flask
import pytest
from flask import Flask
from flask.testing import FlaskClient

import app as app_module
from app import settings
from app.cors import Policy
from app.service import DRAINING, extend

TUTORIAL = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS, POST, PUT",
}


def cors(response: flask.wrappers.Response) -> dict[str, str]:
    return {
        name: value
        for name, value in response.headers.items()
        if name.startswith("Access-Control-") or name == "Vary"
    }


def policy(**texts: str) -> Policy:
    environ = {f"APP_CORS_{name.upper()}": text for name, text in texts.items()}
    return Policy(settings.load(environ))


@pytest.fixture
def client() -> FlaskClient:
    return app_module.create_app().test_client()


def test_hello(client: FlaskClient) -> None:
    response = client.get("/")
    assert response.json == {"message": "Hello World from Flask"}
    assert cors(response) == TUTORIAL


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/", 405)]
)
def test_errors_are_json(
    client: FlaskClient, method: str, path: str, status: int
) -> None:
    response = client.open(path, method=method)
    assert response.status_code == status
    assert response.json.keys() == {"code", "name", "description"}
    assert response.json["code"] == status
    assert cors(response) == TUTORIAL
    if status == 405:
        assert set(response.allow) == {"GET", "HEAD", "OPTIONS"}


def test_health(client: FlaskClient) -> None:
    assert client.get("/health/live").json == {"status": "live"}
    assert client.get("/health/ready").json == {"status": "ready"}


def test_draining_is_live_and_not_ready(client: FlaskClient) -> None:
    draining = {DRAINING: True}
    assert client.get("/health/live", environ_overrides=draining).status_code == 200
    response = client.get("/health/ready", environ_overrides=draining)
    assert (response.status_code, response.json) == (503, {"status": "draining"})
    assert client.get("/", environ_overrides=draining).status_code == 200


def other() -> Flask:
    """An application that knows nothing of the service."""
    app = Flask("other")

    @app.get("/fail")
    def fail() -> str:
        raise RuntimeError("what nobody outside may read")

    @app.get("/health/live")
    def live() -> str:
        return "its own"

    @app.get("/own")
    def own() -> flask.Response:
        headers = {"Access-Control-Allow-Origin": "https://own.example", "Vary": "A"}
        return flask.Response("", headers=headers)

    return app


def test_another_application_is_extended() -> None:
    client = extend(other(), settings.load({})).test_client()
    failed = client.get("/fail")
    assert failed.status_code == 500
    assert failed.json["name"] == "Internal Server Error"
    assert b"nobody" not in failed.data
    assert cors(failed) == TUTORIAL
    assert client.get("/health/ready").json == {"status": "ready"}


def test_what_the_application_has_itself_stands() -> None:
    configured = settings.load({"APP_CORS_ORIGINS": "https://a.example"})
    client = extend(other(), configured).test_client()
    assert client.get("/health/live").text == "its own"
    response = client.get("/own", headers={"Origin": "https://a.example"})
    assert response.headers.getlist("Access-Control-Allow-Origin") == [
        "https://own.example"
    ]
    assert response.headers.getlist("Vary") == ["A", "Origin"]


def test_extended_twice() -> None:
    client = extend(extend(other(), settings.load({}))).test_client()
    response = client.get("/nowhere")
    assert response.headers.getlist("Access-Control-Allow-Origin") == ["*"]


def test_policy_default() -> None:
    for origin in (None, "null", "https://any.example"):
        assert dict(policy().headers(origin, preflight=False)) == TUTORIAL
        assert dict(policy().headers(origin, preflight=True)) == TUTORIAL


def test_policy_off() -> None:
    assert policy(origins="").headers("https://a.example", preflight=True) == []


def test_policy_of_one_origin() -> None:
    strict = policy(
        origins="https://a.example,https://b.example",
        methods="GET,POST",
        headers="Content-Type, X-Own",
        max_age="600",
    )
    simple = [
        ("Access-Control-Allow-Origin", "https://b.example"),
        ("Vary", "Origin"),
        ("Access-Control-Allow-Methods", "GET, POST"),
    ]
    assert strict.headers("https://b.example", preflight=False) == simple
    assert strict.headers("https://b.example", preflight=True) == [
        *simple,
        ("Access-Control-Allow-Headers", "Content-Type, X-Own"),
        ("Access-Control-Max-Age", "600"),
    ]
    for denied in (None, "null", "https://c.example", "https://a.example:8443"):
        assert strict.headers(denied, preflight=True) == [("Vary", "Origin")]
