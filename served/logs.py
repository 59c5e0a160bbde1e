"""The log: a line a request on stdout, a line an event on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from app.settings import Settings

events = logging.getLogger("app")
"""What the service itself has to say."""

_DATE = "%Y-%m-%dT%H:%M:%S"


def _json_line(fields: dict[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":")) + "\n"


def _plain_line(fields: dict[str, Any]) -> str:
    return " ".join(map(str, fields.values())) + "\n"


class AccessLog:
    """Writes the line of a request that was answered."""

    def __init__(self, settings: Settings) -> None:
        self._line = _json_line if settings.log_format == "json" else _plain_line

    def write(self, **fields: Any) -> None:
        """One line of these fields, in their order; plain lines have no names."""
        stamp = time.strftime(f"{_DATE}Z", time.gmtime())
        # One write: lines of several threads never mix.
        sys.stdout.write(self._line({"time": stamp, **fields}))
        sys.stdout.flush()


class _PlainFormatter(logging.Formatter):
    """Keeps a message on its line: it may hold what a client has sent, a path say."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = record.message.encode("unicode_escape").decode()
        return super().formatMessage(record)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record, f"{_DATE}Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, separators=(",", ":"))


def configure(settings: Settings) -> None:
    """Send what any library or the application logs to stderr, in the log's form."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        form = "%(asctime)s %(levelname)s %(message)s"
        handler.setFormatter(_PlainFormatter(form, f"{_DATE}Z"))
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Each request beyond the threads would give a warning.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
