"""Which application is served: found as the `flask` command finds it."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

from flask import Flask, cli


class LoadError(Exception):
    """The application cannot be had; its text is one line.

    `trace` is the traceback of the application's own code, if that has failed.
    """

    def __init__(self, text: str, trace: str = "") -> None:
        super().__init__(text)
        self.trace = trace


def load(name: str | None) -> Flask:
    """The application that `name`, the value of FLASK_APP, says.

    Without one it is in wsgi.py or app.py of the working directory.
    https://flask.palletsprojects.com/en/stable/cli/#application-discovery
    Raises LoadError.
    """
    shown = f"FLASK_APP={name}" if name else "FLASK_APP is not set"
    try:
        return cli.ScriptInfo(name or None, set_debug_flag=False).load_app()
    except cli.NoAppException as error:
        first, _, trace = error.message.partition("\n\n")
        if trace:
            *_, last = trace.rstrip().splitlines()
            raise LoadError(f"the app failed ({shown}): {last}", trace) from None
        if not name:
            first = f"neither wsgi.py nor app.py in {os.getcwd()} has an app"
        raise LoadError(f"{shown}: {first}") from None
    except Exception as error:
        own = traceback.format_exception(error.with_traceback(_own(error)))
        *_, last = traceback.format_exception_only(error)
        text = f"the app failed ({shown}): {last.strip()}"
        raise LoadError(text, "".join(own)) from None


def _own(error: Exception) -> TracebackType | None:
    """The part of a traceback that begins in the application."""
    loaders = (__name__, cli.__name__)
    found = error.__traceback__
    while found and found.tb_frame.f_globals.get("__name__") in loaders:
        found = found.tb_next
    while found and "importlib" in found.tb_frame.f_code.co_filename:
        found = found.tb_next
    return found


def max_content_length(app: Flask) -> int:
    """Bytes that the application lets a body have, or 0 if it does not say."""
    found = app.config.get("MAX_CONTENT_LENGTH")
    return found if isinstance(found, int) else 0


def hidden() -> str | None:
    """The file of the application's that the name of this package hides, if any."""
    for directory in sys.path:
        for name in ("served.py", "served/__init__.py"):
            path = os.path.join(directory or ".", name)
            ours = os.path.join(os.path.dirname(__file__), "__init__.py")
            if os.path.exists(path) and not os.path.samefile(path, ours):
                return path
    return None
