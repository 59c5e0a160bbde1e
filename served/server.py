# waitress has no types, and the stubs there are describe it wrongly.
# mypy: disallow-subclassing-any=False, disable-error-code="import-untyped"
"""waitress, with a stop that loses nothing and limits that hold.

What waitress 3.0.2 does well stays its own; each class here says what it adds.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import ipaddress
import json
import re
import secrets
import select
import socket
import termios
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from waitress import wasyncore
from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, Task, WSGITask
from waitress.utilities import BadRequest, Error

from app.cors import Policy
from app.logs import AccessLog, events
from app.service import DRAINING, LIVE, READY, error_body

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from app.settings import Settings

QUIET = 1.0
"""Seconds without a byte after which a draining server takes a connection as idle.

Before that its client may be about to send, not knowing yet that it must not.
"""
LINGER = 8.0
"""Seconds without a byte that a client has to close what the server has ended.

That it closes is the only sign that it has it all: a proxy such as Docker's own
acknowledges what it still holds, and ends with the container.
"""
HANDSHAKE = 0.05
"""Seconds that a stopping server leaves to connections whose handshake is under way."""
_IP_MINTTL, _IPV6_MINHOPCOUNT = (
    21,
    73,
)  # https://man7.org/linux/man-pages/man7/ip.7.html

PART = 1 << 15
"""Bytes of a response that are passed on at once."""
MAX_TRAILER = 8192
"""Bytes of the headers that may follow a chunked body."""


_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)


class Chunks(ChunkedReceiver):
    """Reads a chunked body in the one way that every proxy reads it.

    waitress takes a bare LF for white space, empty lines for nothing and any bytes for
    a trailer, the next request among them; it refuses the white space that
    https://www.rfc-editor.org/rfc/rfc9112#section-7.1.1 allows; and it searches an
    endless line anew with each packet.
    """

    control_line: bytes
    error: Error | None
    _line = re.compile(rb"([0-9A-Fa-f]{1,16})(?:%b)*\r\n" % _EXTENSION)
    _fields = re.compile(rb"(?:%b:[\t -~\x80-\xff]*\r\n)*(?:\r\n)?" % _TOKEN)

    def received(self, data: bytes) -> int:
        consumed = 0
        while data and not self.completed and not self.error:
            if self.chunk_remainder:
                size = self.chunk_remainder
            elif self.validate_chunk_end:
                size = 2 - len(self.chunk_end)
            elif self.all_chunks_received:
                consumed += super().received(data)
                self._check_trailer()
                break
            else:
                size = data.find(b"\n") + 1 or len(data)
                consumed += size
                self._read_line(data[:size])
                data = data[size:]
                continue
            part, data = data[:size], data[size:]
            consumed += super().received(part)
        return consumed

    def _read_line(self, part: bytes) -> None:
        """Read more of the line that says a chunk's size."""
        line = self.control_line + part
        match = self._line.fullmatch(line)
        if len(line) > 1024 or (line.endswith(b"\n") and not match):
            self.error = BadRequest("Invalid chunk size")
        elif match:
            self.control_line = b""
            super().received(match[1] + b"\r\n")
        else:
            self.control_line = line

    def _check_trailer(self) -> None:
        lines = self.trailer[: self.trailer.rfind(b"\n") + 1]
        if len(self.trailer) > MAX_TRAILER:
            self.error = BadRequest("Trailer is too long")
        elif not self._fields.fullmatch(lines):
            self.error = BadRequest("Trailer is invalid")


class Parser(HTTPRequestParser):
    """Refuses what waitress reads leniently and a proxy in front may read otherwise.

    https://www.rfc-editor.org/rfc/rfc9112 sections 2.2, 2.3, 3, 5.2, 6.3 and 9.3.
    """

    body_rcv: Any
    reserved = 0
    """Bytes that the body may come to, counted against `max_bodies`."""
    refusal: Error | None = None
    """An error other than 400."""

    _start = re.compile(rb"(?:\r\n)*(?:\r?\Z|[!-~])")
    _first_line = re.compile(rb"([!-~]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
    _absolute = re.compile(rb"(?i:https?)://([^/?]+)(.*)")
    _fold = re.compile(rb"\r\n[ \t]")
    _bare_lf = re.compile(rb"(?<!\r)\n")
    _encoding = re.compile(rb"\r\ntransfer-encoding:([^\r]*)", re.IGNORECASE)
    _content_type = re.compile(rb"\r\ncontent-type:", re.IGNORECASE)
    _host = re.compile(
        r"(?:\[([0-9A-Fa-f:.]+)\]|(?:[\w.~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)"
        r"(?::([0-9]{0,5}))?",
        re.ASCII,
    )

    def received(self, data: bytes) -> int:
        if self.body_rcv is None and not self._start.match(self.header_plus + data):
            self.error = BadRequest("Start line is invalid")
            self.completed = True
            return len(data)
        consumed: int = super().received(data)
        if not self.headers_finished and self._bare_lf.search(self.header_plus):
            # An end of the headers may stand there, which waitress would wait for.
            self.error = BadRequest("Bare LF in the headers")
            self.completed = True
        self.error = self.refusal or self.error
        if self.completed:
            # Else waitress would invite a body that it has refused or that is not due.
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        first_line, end, fields = header_plus.partition(b"\r\n")
        match = self._first_line.fullmatch(first_line)
        if not match:
            raise ParsingError("Start line is invalid")
        method, target, major, minor = match.groups()
        if major != b"1":
            self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken")
        if method == b"CONNECT":
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "This is no proxy")
        if self._fold.search(header_plus):
            raise ParsingError("Folded header line")
        if len(self._content_type.findall(header_plus)) > 1:
            raise ParsingError("Content-Type stands twice")
        authority, path = self._target(method, target)
        version = b"1.0" if minor == b"0" else b"1.1"
        try:
            super().parse_header(
                b"%b %b HTTP/%b%b%b" % (method, path, version, end, fields)
            )
        except ValueError as error:
            # A length of 5,000 digits: waitress would log a traceback and hang up.
            raise ParsingError("Length is invalid") from error
        if self.chunked:
            self.body_rcv = Chunks(self.body_rcv.getbuf())
        encodings = self._encoding.findall(header_plus)
        if encodings and (
            [encoding.strip(b" \t").lower() for encoding in encodings] != [b"chunked"]
            or self.version == "1.0"
            or "CONTENT_LENGTH" in self.headers
        ):
            raise ParsingError("Length of the body is ambiguous")
        self._check_host(authority)
        self._read_connection()
        self.reserved = (
            self.adj.max_request_body_size if self.chunked else self.content_length
        )

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.refusal = make_error(status, text)
        raise ParsingError(text)

    def _target(self, method: bytes, target: bytes) -> tuple[str | None, bytes]:
        """The authority that a target names, if any, and its path with the query.

        https://www.rfc-editor.org/rfc/rfc9112#section-3.2
        """
        if b"#" in target:
            raise ParsingError("Target has a fragment")
        if target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*"):
            return None, target
        match = self._absolute.fullmatch(target)
        if not match:
            raise ParsingError("Target is invalid")
        authority, path = match.groups()
        if method == b"OPTIONS" and not path:
            path = b"*"  # section 3.2.4
        elif not path.startswith(b"/"):
            path = b"/" + path
        return authority.decode("latin-1"), path

    def _check_host(self, authority: str | None) -> None:
        """Refuse an invalid Host; an absolute target's own authority wins over it.

        https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
        """
        if "HOST" not in self.headers and self.version == "1.1":
            raise ParsingError("Host is missing")
        for host in (self.headers.get("HOST"), authority):
            if host is None:
                continue
            match = self._host.fullmatch(host)
            if not match or int(match[2] or 0) > 65535:
                raise ParsingError("Host is invalid")
            if match[1]:
                try:
                    ipaddress.IPv6Address(match[1])
                except ValueError:
                    raise ParsingError("Host is invalid") from None
        if authority is not None:
            self.headers["HOST"] = authority

    def _read_connection(self) -> None:
        """Leave waitress, which compares the whole value, the option it looks for."""
        value = self.headers.get("CONNECTION", "")
        options = {option.strip(" \t").lower() for option in value.split(",")}
        if "close" in options:
            self.headers["CONNECTION"] = "close"
            self.connection_close = True
        elif "keep-alive" in options and self.version == "1.0":
            self.headers["CONNECTION"] = "keep-alive"
            self.connection_close = False


def make_error(status: HTTPStatus, text: str) -> Error:
    """An error that `Refusal` answers."""
    found = Error(text)
    found.code, found.reason = status.value, status.phrase
    return found


class _Logged(Task):
    """Adds to a response what every one carries, and writes its log line."""

    request_id = ""
    body_start = 0
    finished = False
    """Whether the application has given all of its answer."""
    _safe_id = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)

    def service(self) -> None:
        taken = self.request.headers.get("X_REQUEST_ID", "")
        self.request_id = (
            taken if self._safe_id.fullmatch(taken) else secrets.token_hex(8)
        )
        self.body_start = self.channel.written
        try:
            super().service()
        except Exception as error:
            if self.wrote_header or isinstance(error, ClientDisconnected):
                self._log()
            # Otherwise an error answer follows, which is logged itself.
            raise
        self._log()

    def write(self, data: bytes) -> None:
        # waitress would pass on what an application gives to HEAD.
        data = b"" if self._head() else data
        # Each part may have to wait for its reader, before the next is copied.
        for start in range(0, len(data) or 1, PART):
            super().write(data[start : start + PART])

    def _head(self) -> bool:
        return getattr(self.request, "command", "") == "HEAD"

    def finish(self) -> None:
        super().finish()
        self.finished = True

    def build_response_header(self) -> bytes:
        if self.channel.server.draining and len(self.channel.requests) == 1:
            # waitress reads the client's wish here and answers alike.
            self.request.headers["CONNECTION"] = "close"
        self.response_headers.append(("X-Request-ID", self.request_id))
        # With a Server among them waitress would add a Via that names itself.
        names = [item for item in self.response_headers if item[0].lower() == "server"]
        for item in names:
            self.response_headers.remove(item)
        header: bytes = super().build_response_header()
        lines = "".join(f"Server: {value}\r\n" for _, value in names)
        header = header[:-2] + lines.encode("latin-1") + b"\r\n"
        if self._head():
            self.chunked_response = False  # not even the last chunk
        self.body_start += len(header)
        return header

    def client(self) -> str:
        """The client's address, or what a trusted proxy says it is."""
        environ = getattr(self, "environ", None) or {}
        address = str(environ.get("REMOTE_ADDR") or self.channel.addr[0])
        return quote(address, safe=":.%[]")

    def _log(self) -> None:
        server, request = self.channel.server, self.request
        settings = server.settings
        path = getattr(request, "path", "")
        status = int(self.status[:3])
        if path in (LIVE, READY) and status == 200 and not settings.log_health:
            return
        shown = quote(path.encode("latin-1"), safe="/!$&'()*+,;=:@~") or "-"
        query = getattr(request, "query", "")
        if settings.log_query and query:
            shown += f"?{query}"
        server.access_log.write(
            client=self.client(),
            method=getattr(request, "command", "-"),
            path=shown,
            status=status,
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
        environ[DRAINING] = self.channel.server.draining
        environ["SERVER_SOFTWARE"] = "app"  # WSGI wants text
        if self._head():
            environ.pop("wsgi.file_wrapper", None)  # its file would go past `write`
        return environ


class Options(_Logged, Task):
    """The answer to `OPTIONS *`, which asks the server, not the application.

    https://www.rfc-editor.org/rfc/rfc9110#section-9.3.7
    """

    complete = True

    def execute(self) -> None:
        self.content_length = 0
        self.write(b"")


class Refusal(_Logged, ErrorTask):
    """The server's own answer to a request that the application never sees."""

    def execute(self) -> None:
        error = self.request.error
        body = json.dumps(error_body(error.code, error.reason, error.body)).encode()
        self.status = f"{error.code} {error.reason}"
        origin = self.request.headers.get("ORIGIN")
        self.response_headers += [
            ("Content-Type", "application/json"),
            *self.channel.server.policy.headers(origin, preflight=False),
        ]
        self.channel.refused = True
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Leaving(wasyncore.dispatcher):
    """A connection whose last response is on its way to the client.

    Were it closed at once, the kernel would reset it where the client still sends, and
    would drop what it still holds for it where the container ends.
    https://www.rfc-editor.org/rfc/rfc9112#section-9.6
    """

    def __init__(self, server: Server, sock: socket.socket, heard: float) -> None:
        self.server = server
        self.heard = heard
        self.end = time.time() + server.settings.request_timeout
        super().__init__(sock, map=server._map)
        server.leaving.add(self)

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        if self.recv(1 << 16):
            self.heard = time.time()

    def handle_close(self) -> None:
        self.server.leaving.discard(self)
        self.close()

    def unfinished(self) -> int:
        """1 if the client has not acknowledged all of the response, else 0."""
        return int(unacknowledged(self.socket) > 0)

    def close_late(self) -> None:
        """Close it if the client has had its time."""
        now = time.time()
        if self.server.draining and self.unfinished():
            self.heard = now
        elif now >= self.end or now - self.heard >= LINGER:
            self.handle_close()


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the kernel still holds for the client."""
    return _held(sock, termios.TIOCOUTQ)


def unread(sock: socket.socket) -> int:
    """Bytes that the kernel holds for this process."""
    return _held(sock, termios.FIONREAD)


def _held(sock: socket.socket, request: int) -> int:
    held = array.array("i", [0])
    fcntl.ioctl(sock, request, held)
    return held[0]


class Channel(HTTPChannel):
    """One connection: bounds how long a request takes to arrive, and its size."""

    parser_class = Parser
    error_task_class = Refusal

    request: Parser | None
    written = 0
    """Bytes of all responses so far."""
    queued = 0.0
    """When the current request was handed to the threads (monotonic)."""
    arriving: Parser | None = None
    """The request that began to arrive at `since`."""
    since = 0.0
    refused = False
    """Whether the last response is an error that may come before its request's end."""

    @staticmethod
    def task_class(channel: Channel, request: Parser) -> Task:
        return (Options if request.path == "*" else Answer)(channel, request)

    def received(self, data: bytes) -> bool:
        accepted: bool = super().received(data)
        request = self.request
        if request is not self.arriving:
            self.arriving, self.since = request, time.time()
            if request is not None and request.reserved and not self.server.has_room():
                self.refuse(
                    HTTPStatus.SERVICE_UNAVAILABLE, "Too many request bodies at once"
                )
        return accepted

    def handle_close(self) -> None:
        if self.socket is None:
            return  # by the same poll: readable, writable and at its end at once
        with contextlib.suppress(OSError):  # the client has gone
            if self.will_close and (self.refused or self.server.draining):
                self.socket.shutdown(socket.SHUT_WR)
                Leaving(self.server, self.socket.dup(), self.last_activity)
        super().handle_close()

    def write_soon(self, data: Any) -> int:
        if not self.total_outbufs_len:
            # The reader's time begins: it was not his that the request has waited.
            self.last_activity = time.time()
        count: int = super().write_soon(data)
        self.written += count
        return count

    def refuse(self, status: HTTPStatus, text: str) -> None:
        """Answer the request that is still arriving with an error."""
        with self.requests_lock:
            request, self.request = self.request, None
            assert request is not None  # noqa: S101
            request.error = make_error(status, text)
            self.requests.append(request)
            if len(self.requests) == 1:
                self.server.add_task(self)

    def unfinished(self) -> int:
        """Requests of this connection that are not wholly answered."""
        request = self.request
        arriving = request is not None and (
            request.headers_finished or bool(request.header_plus.strip())
        )
        return len(self.requests) or int(arriving or self.total_outbufs_len > 0)


class Server(TcpWSGIServer):
    """A listener that drains."""

    channel_class = Channel
    draining = False
    stopping = False

    def __init__(self, application: WSGIApplication, settings: Settings) -> None:
        self.settings = settings
        self.leaving: set[Leaving] = set()
        self.policy = Policy(settings)
        self.access_log = AccessLog(settings)
        super().__init__(
            application,
            host=settings.host,
            port=settings.port,
            threads=settings.threads,
            connection_limit=settings.connections,
            channel_timeout=settings.idle_timeout,
            cleanup_interval=1,
            # waitress refuses what reaches a limit.
            max_request_header_size=settings.max_header + 1,
            max_request_body_size=settings.max_body + 1,
            # What waits for its reader: in memory, in files of /tmp, and altogether
            # before the thread waits too. waitress's own 1 and 16 MiB are more than
            # a small container has, for each of its connections and threads.
            outbuf_overflow=1 << 16,
            outbuf_high_watermark=1 << 20,
            ident=None,
            server_name="localhost",  # its own, in redirects, names the software
            log_socket_errors=False,
            clear_untrusted_proxy_headers=False,  # app.proxies does
            asyncore_use_poll=True,  # select ends at descriptor 1023
        )

    def add_task(self, task: Channel) -> None:
        task.queued = time.monotonic()
        super().add_task(task)

    def has_room(self) -> bool:
        """Whether the bodies of all requests that are here fit the limit."""
        held = 0
        for channel in self.active_channels.values():
            for request in (channel.request, *channel.requests):
                held += request.reserved if request is not None else 0
        return held <= self.settings.max_bodies

    def maintenance(self, now: float) -> None:
        """Called by waitress each second: end what takes too long."""
        super().maintenance(now)
        arrival, idle = self.settings.request_timeout, self.settings.idle_timeout
        for channel in list(self.active_channels.values()):
            if channel.total_outbufs_len and now - channel.last_activity >= idle:
                # Its reader is gone. `will_close` would wait until it reads on, and a
                # thread with it.
                channel.handle_close()
            elif channel.requests:
                channel.since = now  # what comes after it is not read meanwhile
            elif channel.unfinished() and channel.request is not None:
                if now - channel.since >= arrival:
                    channel.refuse(
                        HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive in time"
                    )
            elif (
                not channel.written
                and now - channel.creation_time >= arrival
                and not unread(channel.socket)
            ):
                channel.will_close = True
        self._close_late()
        if self.in_connection_overflow:
            self._close_idle()

    def run(self) -> int:
        """Serve until `stopping`; returns how many requests could not be finished."""
        while not self.stopping:
            self._turn(self.adj.asyncore_loop_timeout)
        return self._drain()

    def stop(self) -> None:
        """Make `run` drain and return; may be called by a signal handler."""
        self.stopping = True
        self.pull_trigger()

    def _turn(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._map, count=1)

    def _drain(self) -> int:
        self.draining = True
        events.info(
            "draining: requests in flight have %g s", self.settings.grace_period
        )
        deadline = time.monotonic() + self.settings.grace_period
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as marker:
            # In the abstract namespace: the health check, which finds no listener any
            # more, asks for it. It needs no file and ends with the process.
            marker.bind(f"\0app-draining-{self.settings.port}")
            self._accept_until(time.monotonic() + self.settings.drain_delay)
            self._refuse_handshakes()
            self._accept_until(time.monotonic() + HANDSHAKE)
            self._close_listener()
            while self._connections() and time.monotonic() < deadline:
                self._turn(0.05)
                self._close_idle()
                self._close_late()
        unfinished = sum(found.unfinished() for found in self._connections())
        if unfinished:
            events.error("stopped with %d request(s) unfinished", unfinished)
        else:
            events.info("stopped")
        return unfinished

    def _accept_until(self, end: float) -> None:
        while (left := end - time.monotonic()) > 0:
            self._turn(left)

    def set_socket_options(self, conn: socket.socket) -> None:
        super().set_socket_options(conn)
        if self.draining:
            self._set_least_hops(conn, 0)  # it has the listener's

    def _refuse_handshakes(self) -> None:
        """Let the kernel drop each SYN, so that what it has accepted can be counted.

        A listener's least TTL counts for new handshakes only, not for the last packet
        of those under way, and no packet that a router has passed on has the most. A
        filter would be plainer, but not every kernel lets a container attach one.
        """
        self._set_least_hops(self.socket, 255)

    def _set_least_hops(self, sock: socket.socket, value: int) -> None:
        inet6 = self.family == socket.AF_INET6
        option = (
            (socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT)
            if inet6
            else (socket.IPPROTO_IP, _IP_MINTTL)
        )
        with contextlib.suppress(OSError):  # not every kernel is Linux's own
            sock.setsockopt(*option, value)

    def _close_listener(self) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        while poll.poll(0):
            self.handle_accept()
        wasyncore.dispatcher.close(self)  # the server's own would end the trigger too

    def _connections(self) -> list[Channel | Leaving]:
        return [*self.active_channels.values(), *self.leaving]

    def _close_late(self) -> None:
        for leaving in list(self.leaving):
            leaving.close_late()

    def _close_idle(self) -> None:
        now = time.time()
        for channel in list(self.active_channels.values()):
            if channel.unfinished() or now - channel.last_activity < QUIET:
                continue
            # A busy machine may have kept this process from reading a request.
            if channel.connected and not unread(channel.socket):
                channel.will_close = True
