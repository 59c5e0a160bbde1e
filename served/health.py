"""What the service says of its health, before any code of the application's."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from served.logs import events

if TYPE_CHECKING:
    from flask import Flask

LIVE = "/health/live"
READY = "/health/ready"
STARTED = "/health/started"
"""Ready until that has been so once, then live: for an image's one HEALTHCHECK."""


class Health:
    """The answers at the three paths.

    A route that the application itself has at the first or the second stands, and the
    one at the second is asked whether the application is ready, as `ready_path` is.
    """

    def __init__(self, app: Flask, ready_path: str) -> None:
        own = {rule.rule for rule in app.url_map.iter_rules()}
        self.paths = frozenset({LIVE, READY} - own | {STARTED})
        self.ready_path = ready_path or (READY if READY in own else "")
        self._app = app
        self._started = False
        self._complaint = ""

    def asks(self, path: str) -> bool:
        """Whether the answer at `path` takes code of the application's."""
        return bool(self.ready_path) and not self._lives(path)

    def answer(self, path: str, draining: bool) -> tuple[HTTPStatus, str]:
        """The status at `path`, and its word."""
        if self._lives(path):
            return HTTPStatus.OK, "live"
        if draining and path == READY:
            return HTTPStatus.SERVICE_UNAVAILABLE, "draining"
        complaint = self._ask() if self.ready_path else ""
        if complaint != self._complaint:
            self._complaint = complaint
            if complaint:
                events.warning("not ready: %s", complaint)
            else:
                events.info("ready")
        if complaint:
            return HTTPStatus.SERVICE_UNAVAILABLE, "not ready"
        self._started = True
        return HTTPStatus.OK, "ready"

    def _lives(self, path: str) -> bool:
        return path == LIVE or (path == STARTED and self._started)

    def _ask(self) -> str:
        """What is wrong with the application's own readiness route, or nothing.

        The request comes over HTTPS and for a host that the application knows, so that
        none of its guards turns it away.
        """
        from werkzeug.test import create_environ, run_wsgi_app

        hosts = self._app.config.get("TRUSTED_HOSTS") or [""]
        host = str(hosts[0]).lstrip(".") or self._app.config.get("SERVER_NAME")
        environ = create_environ(
            self.ready_path,
            f"https://{host or 'localhost'}",
            environ_overrides={"REMOTE_ADDR": "127.0.0.1"},
        )
        try:
            _, status, _ = run_wsgi_app(self._app, environ, buffered=True)
        except Exception as error:
            events.error("GET %s failed outside Flask", self.ready_path, exc_info=error)
            return f"GET {self.ready_path} failed"
        return "" if status.startswith("2") else f"GET {self.ready_path} is {status}"
