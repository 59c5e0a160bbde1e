"""The log: a line a request on stdout, a line an event on stderr."""

from __future__ import annotations

import functools
import json
import logging
import sys
import threading
import time
from typing import Any

from served.settings import Settings

events = logging.Logger("served", logging.INFO)
"""What the service itself has to say.

It stands beside the tree of loggers, in which the application may change anything.
"""

_DATE = "%Y-%m-%dT%H:%M:%S"


_to_json = json.JSONEncoder(separators=(",", ":")).encode


@functools.lru_cache(maxsize=2)
def _stamp(second: int) -> str:
    """A time since 1970 as the lines have it."""
    return time.strftime(f"{_DATE}Z", time.gmtime(second))


def _json_line(fields: dict[str, Any]) -> str:
    return _to_json(fields) + "\n"


def _plain_line(fields: dict[str, Any]) -> str:
    return " ".join(map(str, fields.values())) + "\n"


class AccessLog:
    """Writes the line of a request that was answered."""

    def __init__(self, settings: Settings) -> None:
        self._line = _json_line if settings.log_format == "json" else _plain_line

    def write(self, **fields: Any) -> None:
        """One line of these fields, in their order; plain lines have no names."""
        line = self._line({"time": _stamp(int(time.time())), **fields})
        # One write: lines of several threads never mix.
        sys.stdout.write(line)
        sys.stdout.flush()


class _PlainFormatter(logging.Formatter):
    """Keeps a message on its line: it may hold what a client has sent, a path say."""

    converter = time.gmtime  # type: ignore[assignment]

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = record.message.encode("unicode_escape").decode()
        return super().formatMessage(record)


class _JsonFormatter(logging.Formatter):
    converter = time.gmtime  # type: ignore[assignment]

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record, f"{_DATE}Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return _to_json(fields)


class _Console(logging.StreamHandler[Any]):
    """Writes what no handler of the application's own writes to the console."""

    def filter(self, record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger:
            for handler in logger.handlers:
                if self._twin(handler) and record.levelno >= handler.level:
                    return False
            logger = logger.parent if logger.propagate else None
        return bool(super().filter(record))

    def _twin(self, handler: logging.Handler) -> bool:
        if handler is self or not isinstance(handler, logging.StreamHandler):
            return False
        try:
            return handler.stream.fileno() in (1, 2)
        except (AttributeError, OSError, ValueError):  # no file, or a closed one
            return False


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is not SystemExit:
        name = failed.thread.name if failed.thread else "?"
        events.error("thread %s has failed", name, exc_info=failed.exc_value)


def configure(settings: Settings) -> None:
    """Send what any library or the application logs to stderr, in the log's form.

    To be called before the application is imported. What it gives handlers of its own
    then comes by them alone, all the rest in our form.
    """
    from flask.logging import default_handler

    if settings.log_format == "json":
        form: logging.Formatter = _JsonFormatter()
    else:
        form = _PlainFormatter("%(asctime)s %(levelname)s %(message)s", f"{_DATE}Z")
    console = _Console(sys.stderr)
    for handler in (console, default_handler):
        handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=[console], force=True)
    own = logging.StreamHandler(sys.stderr)
    own.setFormatter(form)
    events.handlers = [own]
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed
