# waitress has no types, and the stubs there are describe it wrongly.
# mypy: disallow-subclassing-any=False, disable-error-code="import-untyped"
"""How requests are answered: by the application, or by the server itself."""

from __future__ import annotations

import functools
import json
import random
import re
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from waitress.channel import ClientDisconnected
from waitress.task import ErrorTask, Task, WSGITask
from waitress.utilities import build_http_date

from served.logs import events
from served.parser import make_error

PART = 1 << 15
"""Bytes of a response that are passed on at once."""


@functools.lru_cache(maxsize=2)
def _date(second: int) -> str:
    """A time since 1970 as the Date field has it."""
    date: str = build_http_date(second)
    return date


@functools.lru_cache(maxsize=256)
def _spelled(name: str) -> str:
    """A field's name as waitress spells it."""
    return "-".join(part.capitalize() for part in name.split("-"))


class _Logged(Task):
    """Adds to a response what every one carries, and writes its log line."""

    request_id = ""
    body_start = 0
    finished = False
    """Whether all of the answer has been given."""
    quiet = False
    """Whether the log needs no line."""
    wrote_header: bool
    _safe_id = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
    # Most need no quoting, which costs five times as much.
    _plain_path = re.compile(r"[\w./-]+", re.ASCII)
    _plain_address = re.compile(r"[0-9a-fA-F.:]+")

    def service(self) -> None:
        self.request_id = self.request_id or self._id()
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
        if not self.wrote_header and self.complete:
            header = self.build_response_header()
            self.wrote_header = True
            if len(data) == self.content_length <= PART and self.has_body:
                # At once: a packet and a call of the kernel less.
                self.content_bytes_written = len(data)
                self.channel.write_soon(header + data)
                return
            self.channel.write_soon(header)
        # Each part may have to wait for its reader, before the next is copied.
        for start in range(0, len(data) or 1, PART):
            super().write(data[start : start + PART])

    def finish(self) -> None:
        super().finish()
        self.finished = True

    def build_response_header(self) -> bytes:
        """In the place of waitress's, which sorts, and adds a Via where a Server is."""
        headers, has_body = self.response_headers, self.has_body
        if not has_body:
            self.remove_content_length_header()
        names = {name.lower() for name, _ in headers}
        sized = "content-length" in names
        if not sized and has_body and self.content_length is not None:
            headers.append(("Content-Length", str(self.content_length)))
            sized = True
        wish = self._connection()
        if self.version == "1.0" and wish == "keep-alive" and sized:
            headers.append(("Connection", "Keep-Alive"))
        elif self.version == "1.0" or wish == "close" or not sized:
            self.set_close_on_finish()
        if self.version == "1.1" and has_body and not sized:
            headers.append(("Transfer-Encoding", "chunked"))
            self.chunked_response = self._method() != "HEAD"  # not even the last chunk
        if "x-request-id" not in names:
            headers.append(("X-Request-ID", self.request_id))
        if "date" not in names:
            headers.append(("Date", _date(int(self.start_time))))
        lines = [f"HTTP/{self.version} {self.status}"]
        lines += [f"{_spelled(name)}: {value}" for name, value in headers]
        header = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self.body_start += len(header)
        return header

    def _connection(self) -> str:
        """What becomes of the connection if the client has its wish, or we have to."""
        if self.channel.server.draining and len(self.channel.requests) == 1:
            return "close"
        wish: str = self.request.headers.get("CONNECTION", "")
        return wish.lower()

    def _id(self) -> str:
        """The client's own X-Request-ID if it is sane, else a new one."""
        taken: str = self.request.headers.get("X_REQUEST_ID", "")
        if self._safe_id.fullmatch(taken):
            return taken
        return f"{random.getrandbits(64):016x}"  # a name, no secret

    def _method(self) -> str:
        method: str = self.request.command
        return method

    def _path(self) -> str:
        path: str = self.request.path
        if self._plain_path.fullmatch(path):
            return path
        return quote(path.encode("latin-1"), safe="/!$&'()*+,;=:@~") or "-"

    def _client(self) -> str:
        """The client's address, or what a trusted proxy says it is."""
        environ = getattr(self, "environ", None) or {}
        address = str(environ.get("REMOTE_ADDR") or self.channel.addr[0])
        if self._plain_address.fullmatch(address):
            return address
        return quote(address, safe=":.%[]")

    def _log(self) -> None:
        if self.quiet:
            return
        server = self.channel.server
        path = self._path()
        query = self.request.query
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
