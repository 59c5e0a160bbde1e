"""What a browser makes of the service: new files after a build, CORS."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from containerize import build
from containerize.engines import container
from containerize.engines.container import Container
from tests.conftest import PATIENCE, until
from tests.service.browser import Browser

PAGE = '<!doctype html><link rel="stylesheet" href="style.css"><p>text</p>'
COLOUR = "getComputedStyle(document.querySelector('p')).color"
RED, TAN = "rgb(255, 0, 0)", "rgb(210, 180, 140)"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with contextlib.closing(Browser(tmp_path / "profile")) as opened:
        yield opened


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The URL of a page of another origin."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def build_and_run(using, clone, built, free_port):
    """Build the clone and serve it in the place of what served it before."""
    name = f"{clone.image}-browser"

    def remove() -> None:
        using.discard(name)

    def again() -> Container:
        remove()
        made = build.build(clone, using, tags=["browser"])
        reference = made.references[0]
        return container.run(clone, using, reference, name=name, port=free_port)

    yield again
    print(container.log_tail(using, name))
    remove()


def get(url: str, **headers: str) -> tuple[int, bytes, str | None]:
    """Status, body and ETag of an answer; headers are given with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        asked = urllib.request.Request(url, headers=named)
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return answer.status, answer.read(), answer.headers["ETag"]
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers["ETag"]


def test_a_reload_shows_what_the_new_image_holds(build_and_run, clone, using, browser):
    static = clone.root / "app" / "static"
    static.mkdir()
    (static / "page.html").write_text(PAGE)
    style = static / "style.css"
    style.write_text("p { color: red }")
    running = build_and_run()
    url = f"{running.url}static/style.css"
    browser.open(f"{running.url}static/page.html")
    assert browser.evaluate(COLOUR) == RED
    # The browser has a copy, and asks whether it is current.
    browser.reload()
    assert browser.evaluate(COLOUR) == RED
    # The line comes after the answer.
    asked = "/static/style.css 304"
    until(lambda: asked in container.log_tail(using, running.name))
    _, old, tag = get(url)
    assert get(url, If_None_Match=tag) == (304, b"", tag)
    # At equal size, with the time that every packed file has.
    style.write_text("p { color: tan }")
    assert build_and_run().url == running.url
    browser.reload()
    assert browser.evaluate(COLOUR) == TAN
    new = style.read_bytes()
    assert len(new) == len(old)
    date = "Fri, 01 Jan 2100 00:00:00 GMT"
    for asked in (
        {"If_None_Match": tag},
        {"If_Modified_Since": date},
        {"If_None_Match": tag, "If_Modified_Since": date},
        {"Range": "bytes=0-3", "If_Range": tag},
        {"Range": "bytes=0-3", "If_Range": date},
    ):
        assert get(url, **asked)[:2] == (200, new), asked
    now = get(url)[2]
    assert get(url, Range="bytes=0-3", If_Range=now) == (206, new[:4], now)


def test_a_page_of_another_origin_reads_the_service(start, browser, elsewhere):
    """By the tutorial's two headers: PUT needs both, and DELETE is in neither."""
    url = start().url
    browser.open(elsewhere)
    read = "fetch('{}', {{method: '{}'}}).then(r => r.text()).catch(e => e.name)"
    hello = {"message": "Hello World from Flask"}
    assert json.loads(browser.evaluate(read.format(url, "GET"))) == hello
    assert "405 Method Not Allowed" in browser.evaluate(read.format(url, "PUT"))
    assert browser.evaluate(read.format(url, "DELETE")) == "TypeError"
