"""The form of the log's lines."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from served import logs, settings
from tests.conftest import ROOT

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
