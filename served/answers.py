# waitress has no types, and the stubs there are describe it wrongly.
# mypy: disallow-subclassing-any=False, disable-error-code="import-untyped"
"""How requests are answered: by the application, or by the server itself."""

from __future__ import annotations

import json
import re
import secrets
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from waitress.channel import ClientDisconnected
from waitress.task import ErrorTask, Task, WSGITask

from served.logs import events
from served.parser import make_error

PART = 1 << 15
"""Bytes of a response that are passed on at once."""


class _Logged(Task):
    """Adds to a response what every one carries, and writes its log line."""

    request_id = ""
    body_start = 0
    finished = False
    """Whether all of the answer has been given."""
    quiet = False
    """Whether the log needs no line."""
    _safe_id = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)

    def service(self) -> None:
        taken = self.request.headers.get("X_REQUEST_ID", "")
        made = taken if self._safe_id.fullmatch(taken) else secrets.token_hex(8)
        self.request_id = self.request_id or made
        self.body_start = self.channel.written
        try:
            # waitress's own `service` would take an application's OSError for a
            # client that has left, and answer nothing.
            self.start()
            self.execute()
            self.finish()
        except ClientDisconnected:
            self._log()
            raise
        except BaseException as error:  # of a thread, which has to go on
            self._fail(error)
        else:
            self._log()

    def _fail(self, error: BaseException) -> None:
        """Log what the application has not caught; answer 500 if that is possible."""
        events.error(
            "%s %s failed outside Flask, request %s",
            self._method(),
            self._path(),
            self.request_id,
            exc_info=error,
        )
        self.close_on_finish = True
        if self.wrote_header:
            self._log()
            return
        self.request.error = make_error(
            HTTPStatus.INTERNAL_SERVER_ERROR, "The server could not answer"
        )
        refusal = Refusal(self.channel, self.request)
        refusal.request_id = self.request_id
        refusal.service()

    def write(self, data: bytes) -> None:
        # waitress would pass on what an application gives to HEAD.
        data = b"" if self._method() == "HEAD" else data
        # Each part may have to wait for its reader, before the next is copied.
        for start in range(0, len(data) or 1, PART):
            super().write(data[start : start + PART])

    def finish(self) -> None:
        super().finish()
        self.finished = True

    def build_response_header(self) -> bytes:
        if self.channel.server.draining and len(self.channel.requests) == 1:
            # waitress reads the client's wish here and answers alike.
            self.request.headers["CONNECTION"] = "close"
        names = {name.lower() for name, _ in self.response_headers}
        if "x-request-id" not in names:
            self.response_headers.append(("X-Request-ID", self.request_id))
        # With a Server among them waitress would add a Via that names itself.
        servers = [
            item for item in self.response_headers if item[0].lower() == "server"
        ]
        for item in servers:
            self.response_headers.remove(item)
        header: bytes = super().build_response_header()
        lines = "".join(f"Server: {value}\r\n" for _, value in servers)
        header = header[:-2] + lines.encode("latin-1") + b"\r\n"
        if self._method() == "HEAD":
            self.chunked_response = False  # not even the last chunk
        self.body_start += len(header)
        return header

    def _method(self) -> str:
        return getattr(self.request, "command", "-")

    def _path(self) -> str:
        path = getattr(self.request, "path", "")
        return quote(path.encode("latin-1"), safe="/!$&'()*+,;=:@~") or "-"

    def _client(self) -> str:
        """The client's address, or what a trusted proxy says it is."""
        environ = getattr(self, "environ", None) or {}
        address = str(environ.get("REMOTE_ADDR") or self.channel.addr[0])
        return quote(address, safe=":.%[]")

    def _log(self) -> None:
        if self.quiet:
            return
        server = self.channel.server
        path = self._path()
        query = getattr(self.request, "query", "")
        if server.settings.log_query and query:
            path += f"?{query}"
        server.access_log.write(
            client=self._client(),
            method=self._method(),
            path=path,
            status=int(self.status[:3]),
            bytes=self.channel.written - self.body_start,
            duration_ms=round((time.monotonic() - self.channel.queued) * 1000, 1),
            request_id=self.request_id,
            **({} if self.finished else {"aborted": "aborted"}),
        )


class Answer(_Logged, WSGITask):
    """The application's answer."""

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ["HTTP_X_REQUEST_ID"] = self.request_id
        environ["SERVER_SOFTWARE"] = "served"  # WSGI wants text
        if self._method() == "HEAD":
            environ.pop("wsgi.file_wrapper", None)  # its file would go past `write`
        return environ


class Own(_Logged, Task):
    """The answer to what is asked of the server, not of the application.

    That is its health, and `OPTIONS *`:
    https://www.rfc-editor.org/rfc/rfc9110#section-9.3.7
    """

    complete = True

    def execute(self) -> None:
        server = self.channel.server
        body = b""
        if self.request.path != "*":
            status, word = server.health.answer(self.request.path, server.draining)
            self.status = f"{status.value} {status.phrase}"
            self.quiet = status == HTTPStatus.OK and not server.settings.log_health
            self.response_headers += [
                ("Content-Type", "application/json"),
                ("Cache-Control", "no-store"),
            ]
            body = json.dumps({"status": word}).encode()
        self.content_length = len(body)
        self.write(body)


class Refusal(_Logged, ErrorTask):
    """The server's own error, which the application has no part in."""

    def _fail(self, error: BaseException) -> None:
        raise error

    def execute(self) -> None:
        error = self.request.error
        text = error.body.partition('"')[0].rstrip()  # what the client sent comes then
        body = f"{error.code} {error.reason}: {text}\n".encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "text/plain; charset=utf-8"))
        self.channel.refused = True
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)
