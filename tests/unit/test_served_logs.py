"""The form of the log's lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from served import logs, settings
from tests.conftest import ROOT
from tests.service import raw

FORGED = "no such page: /a\n2026-01-01T00:00:00Z ERROR forged\x1b[31m\u2028x"


def last_words(form: str, say: str) -> list[str]:
    """What a process that is configured so writes to stderr."""
    code = f"""
import logging
from served import logs, settings
logs.configure(settings.load({{"SERVED_LOG_FORMAT": {form!r}}}))
{say}
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True
    )
    return answer.stderr.decode().splitlines()


@pytest.mark.parametrize("form", ["plain", "json"])
def test_event_is_one_line(form: str) -> None:
    lines = last_words(form, f"logs.events.warning({FORGED!r})")
    assert len(lines) == 1
    if form == "json":
        record = json.loads(lines[0])
        assert list(record) == ["time", "level", "message"]
        assert (record["level"], record["message"]) == ("warning", FORGED)
    else:
        _, level, message = lines[0].split(" ", 2)
        assert level == "WARNING"
        assert message == FORGED.encode("unicode_escape").decode()


@pytest.mark.parametrize("form", ["plain", "json"])
def test_traceback(form: str) -> None:
    fails = """
try:
    raise RuntimeError("why")
except RuntimeError:
    logging.getLogger("other").exception("failed")
"""
    lines = last_words(form, fails)
    if form == "json":
        assert len(lines) == 1
        assert json.loads(lines[0])["traceback"].endswith("RuntimeError: why")
    else:
        assert lines[0].endswith("Z ERROR failed")
        assert lines[-1] == "RuntimeError: why"


def test_request_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("plain", "json"):
        configured = settings.load({"SERVED_LOG_FORMAT": form})
        logs.AccessLog(configured).write(method="GET", path="/", status=200)
    plain, as_json = capsys.readouterr().out.splitlines()
    stamp, rest = plain.split(" ", 1)
    assert stamp[-1] == "Z"
    assert rest == "GET / 200"
    record = json.loads(as_json)
    assert record.pop("time")[-1] == "Z"
    assert record == {"method": "GET", "path": "/", "status": 200}


SETUPS = {
    "none": "",
    "basic": "logging.basicConfig()",
    "name": "app = Flask('app')",
    "level": "app.logger.setLevel('DEBUG')",
    "default": "logging.getLogger().addHandler(default_handler)",
    "early": "logging.getLogger('shop').warning('early')",
    "disabled": "logging.config.dictConfig({'version': 1})",
    "captured": "warnings.warn('no key')",
    "thread": "threading.Thread(target=lambda: 1 / 0).start()",
    "time": "logging.Formatter.converter = time.localtime",
}
OWN = {
    # What the application gives a handler of its own comes by it, and not twice.
    "forced": "logging.basicConfig(force=True, format='OWN %(message)s')",
    "handler": "h = logging.StreamHandler(); app.logger.addHandler(h)\n"
    "h.setFormatter(logging.Formatter('OWN %(message)s'))",
    "dict": "logging.config.dictConfig({'version': 1, 'root': {'handlers': ['w']},"
    "'formatters': {'f': {'format': 'OWN %(message)s'}}, 'handlers': {'w': {'class':"
    "'logging.StreamHandler', 'formatter': 'f',"
    "'stream': 'ext://flask.logging.wsgi_errors_stream'}}})",
}
APP = """
import logging, logging.config, threading, time, warnings
from flask import Flask
from flask.logging import default_handler

def create_app():
    app = Flask("shop")
    {}
    app.logger.warning("no key")
    @app.get("/")
    def hello():
        app.logger.error("at request time")
        return ""
    return app
"""


def said(form: str, setup: str, directory: Path) -> list[str]:
    """What an application with this setup has on stderr after one request."""
    lines = setup.replace("\n", "\n    ") or "pass"
    (directory / "shop.py").write_text(APP.format(lines))
    with raw.running(
        directory, directory, FLASK_APP="shop", SERVED_LOG_FORMAT=form
    ) as service:
        assert service.request("GET", "/").status == 200
        assert service.stop() == 0
        return service.err.read_text().splitlines()


@pytest.mark.parametrize("setup", SETUPS)
def test_each_line_once_and_in_form(setup: str, tmp_path: Path) -> None:
    records = [json.loads(line) for line in said("json", SETUPS[setup], tmp_path)]
    messages = [record["message"] for record in records]
    assert messages.count("draining: requests in flight have 25 s") == 1
    assert messages.count("stopped") == 1
    assert messages.count("at request time") == 1
    assert messages.count("no key") == 1
    assert all(record["time"].endswith("Z") for record in records)


@pytest.mark.parametrize("setup", OWN)
def test_own_handlers_of_the_application(setup: str, tmp_path: Path) -> None:
    lines = said("plain", OWN[setup], tmp_path)
    assert lines[:2] == ["OWN no key", "OWN at request time"]
    assert [line.split(" ", 1)[1] for line in lines[2:]] == [
        "INFO draining: requests in flight have 25 s",
        "INFO stopped",
    ]


def test_removed_headers_are_said_once(tmp_path: Path) -> None:
    with raw.running(tmp_path) as service:
        for _ in range(3):
            service.request("GET", "/who", "X-Forwarded-For: 1.2.3.4", "Forwarded: a=b")
        (line,) = service.err.read_text().splitlines()
    assert (
        " WARNING Forwarded of 127.0.0.1 was removed, and all such headers are" in line
    )
    assert "SERVED_TRUSTED_PROXIES" in line
