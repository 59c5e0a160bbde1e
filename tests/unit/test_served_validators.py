"""Conditional requests for packed files: no 304 for a file that changed.

Section numbers are RFC 9110's.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import flask
import pytest
import werkzeug.utils
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from werkzeug.http import http_date
from werkzeug.test import TestResponse

from served import validators

OLD, NEW, LONGER = b"p { color: red }", b"p { color: tan }", b"p { color: orange }"
PACKED = validators.IMAGE_TIME
ELSEWHERE = PACKED + 60 * 10**9
DATE = http_date(PACKED / 1e9)
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    original = werkzeug.utils.send_file
    validators.install()
    yield
    werkzeug.utils.send_file = original


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of static/, as packing does: all with one time."""
    (tmp_path / "static").mkdir()

    def write(content: bytes, name: str = "style.css", time: int = PACKED) -> Path:
        path = tmp_path / "static" / name
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
        return path

    return write


@pytest.fixture
def application(tmp_path: Path) -> Flask:
    app = Flask("shop", root_path=str(tmp_path))
    pages = Blueprint("pages", "pages", root_path=str(tmp_path), static_folder="static")
    app.register_blueprint(pages, url_prefix="/pages")
    views = {
        "file": lambda: flask.send_file("static/style.css"),
        "absolute": lambda: flask.send_file(tmp_path / "static" / "style.css"),
        "directory": lambda: flask.send_from_directory("static", "style.css"),
        "gone": lambda: flask.send_file("gone.css"),
        "werkzeug": lambda: werkzeug.utils.send_file(
            "static/style.css", flask.request.environ, _root_path=tmp_path
        ),
    }
    for name, view in views.items():
        app.add_url_rule(f"/{name}", name, view)
    return app


@pytest.fixture
def client(application: Flask) -> FlaskClient:
    return application.test_client()


def etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()}"'


def answer(response: TestResponse) -> tuple[int, bytes]:
    return response.status_code, response.data


@pytest.mark.parametrize(
    "path",
    [
        *("/static/style.css", "/pages/static/style.css", "/file", "/absolute"),
        *("/directory", "/werkzeug"),
    ],
)
@pytest.mark.parametrize("changed", [NEW, LONGER])
def test_a_changed_file_is_sent(
    client: FlaskClient, write: Write, path: str, changed: bytes
) -> None:
    write(OLD)
    first = client.get(path)
    assert answer(first) == (200, OLD)
    assert first.headers["ETag"] == etag(OLD)
    assert "Last-Modified" not in first.headers
    same = {"If-None-Match": first.headers["ETag"], "If-Modified-Since": DATE}
    assert answer(client.get(path, headers=same)) == (304, b"")
    write(changed)
    assert answer(client.get(path, headers=same)) == (200, changed)
    assert answer(client.get(path, headers={"If-Modified-Since": DATE}))[0] == 200
    assert client.get(path).headers["ETag"] == etag(changed)


def test_a_date_alone_is_no_validator(client: FlaskClient, write: Write) -> None:
    """A copy that an earlier server gave a date may be of any version."""
    write(OLD)
    for seconds in (0, 10**9):
        later = {"If-Modified-Since": http_date(PACKED / 1e9 + seconds)}
        assert answer(client.get("/file", headers=later)) == (200, OLD)


def test_equal_content_has_one_tag(client: FlaskClient, write: Write) -> None:
    write(OLD)
    write(OLD, "copy.css")
    tags = [client.get(f"/static/{n}.css").headers["ETag"] for n in ("style", "copy")]
    assert tags == [etag(OLD)] * 2


def test_another_time_is_left_to_werkzeug(client: FlaskClient, write: Write) -> None:
    """Files of a volume have times of their own, which do change."""
    write(OLD, time=ELSEWHERE)
    response = client.get("/static/style.css")
    assert response.last_modified is not None
    assert response.headers["ETag"] != etag(OLD)
    date = {"If-Modified-Since": response.headers["Last-Modified"]}
    assert client.get("/static/style.css", headers=date).status_code == 304
    write(NEW, time=ELSEWHERE + 10**9)
    assert answer(client.get("/static/style.css", headers=date)) == (200, NEW)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        # 13.1.2: any version will do; weak comparison; one of several.
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": f"W/{etag(OLD)}"}, 304),
        ({"If-None-Match": f'"other", {etag(OLD)}'}, 304),
        # 13.2.2: If-None-Match is asked before If-Modified-Since and before a range,
        ({"If-None-Match": etag(NEW), "If-Modified-Since": DATE}, 200),
        ({"If-None-Match": etag(OLD), "Range": "bytes=0-1"}, 304),
        # and If-Match before all.
        ({"If-Match": etag(NEW)}, 412),
        ({"If-Match": etag(NEW), "Range": "bytes=0-1"}, 412),
        ({"If-Match": etag(OLD), "Range": "bytes=0-1"}, 206),
        # 13.1.5: If-Range is the very tag; a weak one, an old one or a date is not.
        ({"If-Range": etag(OLD), "Range": "bytes=0-1"}, 206),
        ({"If-Range": etag(NEW), "Range": "bytes=0-1"}, 200),
        ({"If-Range": f"W/{etag(OLD)}", "Range": "bytes=0-1"}, 200),
        ({"If-Range": DATE, "Range": "bytes=0-1"}, 200),
        ({"If-Range": DATE, "If-None-Match": etag(NEW), "Range": "bytes=0-1"}, 200),
        ({"If-Range": "", "Range": "bytes=0-1"}, 200),
        ({"If-Range": etag(OLD)}, 200),
        ({"Range": "bytes=0-1"}, 206),
        ({"Range": "bytes=99-"}, 416),
        ({"If-Range": etag(NEW), "Range": "bytes=99-"}, 200),
    ],
)
def test_preconditions(
    client: FlaskClient, write: Write, headers: dict[str, str], status: int
) -> None:
    write(OLD)
    response = client.get("/static/style.css", headers=headers)
    assert response.status_code == status
    if status == 200:
        assert response.data == OLD
    if status == 206:
        assert response.data == OLD[:2]
        assert response.headers["Content-Range"] == f"bytes 0-1/{len(OLD)}"
    if status in (200, 206, 304):
        assert response.headers["ETag"] == etag(OLD)
        assert response.headers["Cache-Control"] == "no-cache"


def test_head_is_get_without_a_body(client: FlaskClient, write: Write) -> None:
    write(OLD)
    response = client.head("/file")
    assert answer(response) == (200, b"")
    assert response.headers["ETag"] == etag(OLD)
    assert response.content_length == len(OLD)
    same = {"If-None-Match": etag(OLD)}
    assert client.head("/file", headers=same).status_code == 304
    # 14.2: a range is for GET alone.
    response = client.head("/file", headers={"Range": "bytes=0-1"})
    assert (response.status_code, response.content_length) == (200, len(OLD))


def test_an_empty_file(client: FlaskClient, write: Write) -> None:
    write(b"")
    response = client.get("/static/style.css", headers={"Range": "bytes=0-1"})
    assert answer(response) == (200, b"")
    assert response.headers["ETag"] == etag(b"")


def test_a_compressed_variant_has_its_own_tag(
    client: FlaskClient, write: Write
) -> None:
    packed = gzip.compress(OLD, mtime=0)
    write(OLD)
    write(packed, "style.css.gz")
    response = client.get("/static/style.css.gz")
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["ETag"] == etag(packed)


@pytest.mark.parametrize(
    ("arguments", "tag", "date"),
    [
        ({"etag": "v1"}, '"v1"', None),
        ({"etag": False}, None, None),
        ({"last_modified": 1_700_000_000}, etag(OLD), http_date(1_700_000_000)),
        ({"etag": "v1", "last_modified": 1e9}, '"v1"', http_date(1e9)),
        ({"conditional": False}, etag(OLD), None),
        ({"max_age": 60}, etag(OLD), None),
    ],
)
def test_what_the_application_says_stands(
    application: Flask,
    write: Write,
    arguments: dict[str, object],
    tag: str | None,
    date: str | None,
) -> None:
    path = write(OLD)
    application.add_url_rule(
        "/own", view_func=lambda: flask.send_file(path, **arguments), endpoint="own"
    )
    client = application.test_client()
    first = client.get("/own")
    assert answer(first) == (200, OLD)
    assert first.headers.get("ETag") == tag
    assert first.headers.get("Last-Modified") == date
    assert first.cache_control.max_age == arguments.get("max_age")
    asked = {"If-None-Match": tag or "*", "If-Modified-Since": date or DATE}
    modified = not tag or not arguments.get("conditional", True)
    code = client.get("/own", headers=asked).status_code
    assert code == (200 if modified else 304)
    dated = client.get("/own", headers={"If-Modified-Since": date or DATE})
    assert dated.status_code == (304 if date else 200)
    part = {"Range": "bytes=0-1", "If-Range": date or tag or DATE}
    ranged = (date or tag) and arguments.get("conditional", True)
    assert client.get("/own", headers=part).status_code == (206 if ranged else 200)


def test_a_file_object_has_no_path(application: Flask, write: Write) -> None:
    path = write(OLD)
    application.add_url_rule(
        "/open",
        view_func=lambda: flask.send_file(path.open("rb"), download_name="x.css"),
        endpoint="open",
    )
    application.add_url_rule(
        "/memory",
        view_func=lambda: flask.send_file(io.BytesIO(OLD), download_name="x.css"),
        endpoint="memory",
    )
    for where in ("/open", "/memory"):
        response = application.test_client().get(where)
        assert answer(response) == (200, OLD)
        assert not {"ETag", "Last-Modified"} & set(response.headers.keys())


def test_a_missing_file_is_the_applications_error(
    application: Flask, write: Write
) -> None:
    client = application.test_client()
    assert client.get("/static/style.css").status_code == 404
    application.testing = True
    with pytest.raises(FileNotFoundError):
        client.get("/gone")


def test_a_file_is_read_for_its_tag_once(
    client: FlaskClient, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda *args: read.append(args) or digest(*args)
    )
    write(OLD)
    for _ in range(3):
        client.get("/static/style.css")
    assert len(read) == 1
    # Written in place, at the same size and time: it is another content.
    path = write(OLD)
    path.write_bytes(NEW)
    os.utime(path, ns=(PACKED, PACKED))
    assert client.get("/static/style.css").headers["ETag"] == etag(NEW)


def test_a_web_server_that_sends_the_file(application: Flask, write: Write) -> None:
    path = write(OLD)
    application.config["USE_X_SENDFILE"] = True
    client = application.test_client()
    response = client.get("/static/style.css")
    assert response.headers["X-Sendfile"] == str(path)
    assert response.headers["ETag"] == etag(OLD)
    same = client.get("/static/style.css", headers={"If-None-Match": etag(OLD)})
    assert same.status_code == 304
    assert "X-Sendfile" not in same.headers
