# waitress has no types, and the stubs there are describe it wrongly.
# mypy: disallow-subclassing-any=False, disable-error-code="import-untyped"
"""waitress, with a stop that loses nothing and limits that hold.

What waitress 3.0.2 does well stays its own; each class here says what it adds.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import socket
import termios
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import Task

from served.answers import Answer, Own, Refusal
from served.logs import AccessLog, events
from served.parser import Parser, make_error
from served.threads import start
from served.watched import IN, ONCE, OUT, Watched

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from served.health import Health
    from served.settings import Settings

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
SPARE = 16
"""Threads at most that take the place of those whose clients have left."""
# https://man7.org/linux/man-pages/man7/ip.7.html
_IP_MINTTL, _IPV6_MINHOPCOUNT = 21, 73


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

    def abandoned(self) -> bool:
        return False

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
    left = False
    """Whether the client has ended its side while a request was worked on."""
    written = 0
    """Bytes of all responses so far."""
    queued = 0.0
    """When the current request was handed to the threads (monotonic)."""
    arriving: Parser | None = None
    """The request that began to arrive at `since`."""
    since = 0.0
    refused = False
    """Whether the last response is an error that may come before its request's end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch()

    def watch(self) -> None:
        """Have the next thing noticed that this connection waits for, if any.

        To be called after whatever changes that, in any thread.
        """
        self._map.watch(self._fileno, self, self._wanted)

    def _wanted(self) -> int:
        what = (IN if self.readable() else 0) | (OUT if self.writable() else 0)
        return what and what | ONCE

    def handle_read_event(self) -> None:
        if self.readable():  # a thread may have changed that meanwhile
            self.handle_read()

    @staticmethod
    def task_class(channel: Channel, request: Parser) -> Task:
        return (Own if channel.server.answers(request) else Answer)(channel, request)

    def service(self) -> None:
        self.server.working.add(self)
        try:
            super().service()
        finally:
            self.server.working.discard(self)
            self.watch()

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
        sent = 0
        if not self.total_outbufs_len:
            # The reader's time begins: it was not his that the request has waited.
            self.last_activity = time.time()
            if data and isinstance(data, bytes):
                sent = self._send_now(data)
                self.written += sent
                if sent == len(data):
                    return sent
                data = data[sent:]
        count: int = super().write_soon(data)
        self.written += count
        if self.total_outbufs_len:
            self.watch()
        return sent + count

    def _send_now(self, data: bytes) -> int:
        """How many bytes the kernel has taken, with no buffer between."""
        with self.outbuf_lock:
            if not self.connected:
                return 0
            try:
                sent: int = self.send(data, do_close=False)
            except OSError:
                return 0  # as the next call will find again
            return sent

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

    def abandoned(self) -> bool:
        """Whether a request is worked on that nobody seems to wait for."""
        return self.left and bool(self.requests) and not self.total_outbufs_len


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; on `::` for IPv4 too. Raises OSError."""
    both = host == "::"
    if both and not socket.has_dualstack_ipv6():
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, dualstack_ipv6=both)


class Server(TcpWSGIServer):
    """A listener that drains.

    Raises OSError if it cannot listen, TooManyThreads if its threads cannot be had.
    """

    channel_class = Channel
    draining = False
    stopping = False

    def __init__(
        self, application: WSGIApplication, settings: Settings, health: Health
    ) -> None:
        self.settings = settings
        self.health = health
        self.leaving: set[Leaving] = set()
        self.working: set[Channel] = set()
        """Those that a thread works for."""
        self._prompt: deque[Channel] = deque()
        """Those that need no thread."""
        self.access_log = AccessLog(settings)
        self._threads = settings.threads
        self._accepts = True
        # Apart from the application's threads, which may all be taken.
        self._asking = start(1 if health.ready_path else 0)
        threads = start(settings.threads)
        listener = _listen(settings.host, settings.port)
        super().__init__(
            application,
            map=Watched(),
            _sock=listener,
            sockinfo=(listener.family, listener.type, 0, listener.getsockname()),
            bind_socket=False,
            dispatcher=threads,
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
            clear_untrusted_proxy_headers=False,  # served.proxies does
        )

    def fix_addr(self, addr: tuple[Any, ...]) -> tuple[Any, ...]:
        """The client's address; one of IPv4 as such, also on a socket of IPv6."""
        address, port, *_ = addr
        if "." in address:
            address = address.removeprefix("::ffff:")
        return address, port

    def answers(self, request: Parser) -> bool:
        """Whether the server itself has the answer."""
        if request.error:
            return False
        asked = request.command in ("GET", "HEAD") and request.path in self.health.paths
        return asked or request.path == "*"

    def add_task(self, task: Channel) -> None:
        task.queued = time.monotonic()
        request = task.requests[0]
        if not self.answers(request):
            super().add_task(task)
        elif self.health.asks(request.path, self.draining):
            self._asking.add_task(task)
        else:
            self._prompt.append(task)
            self.trigger.pull_trigger()  # it may be a thread that adds it

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
            if channel.will_close:
                channel.watch()
        self._close_late()
        self._see_who_left()
        if self.in_connection_overflow:
            self._close_idle()

    def _see_who_left(self) -> None:
        """Notice clients that hang up while their request is worked on.

        waitress does not look at a connection then. One that is reset is closed: the
        application's thread learns of it as it writes. Where the client has merely
        ended its side it may wait for the answer or be gone: only a write would tell.
        A thread that waits for something else cannot be ended, so others take the
        place of such threads.
        """
        poll = select.poll()
        busy = {channel.socket.fileno(): channel for channel in self._busy()}
        for number in busy:
            poll.register(number, select.POLLRDHUP)
        for number, happened in poll.poll(0):
            channel = busy[number]
            channel.left = True
            reset = happened & (select.POLLHUP | select.POLLERR)
            # One that asked for our health does so anew: it would only pile up.
            if reset or any(map(self.answers, channel.requests[:1])):
                channel.handle_close()
        gone = sum(not c.connected or c.abandoned() for c in list(self.working))
        threads = self.settings.threads + min(gone, SPARE)
        if threads != self._threads:
            with contextlib.suppress(RuntimeError):  # as many as can be had
                self.task_dispatcher.set_count(threads)
            self._threads = threads

    def _busy(self) -> list[Channel]:
        return [c for c in list(self.active_channels.values()) if c.requests]

    def run(self) -> int:
        """Serve until `stopping`; returns how many requests could not be finished."""
        while not self.stopping:
            self._turn(self.adj.asyncore_loop_timeout)
        return self._drain()

    def stop(self) -> None:
        """Make `run` drain and return; may be called by a signal handler."""
        self.stopping = True
        self.trigger.pull_trigger()

    def pull_trigger(self) -> None:
        """Nothing: what waitress would wake the loop for, a channel has watched."""

    def _turn(self, timeout: float) -> None:
        self._accept_or_not()
        for found, happened in self._map.wait(timeout):
            wasyncore.readwrite(found, happened)
            if isinstance(found, Channel):
                found.watch()
        while self._prompt:
            channel = self._prompt.popleft()
            if channel.total_outbufs_len:
                super().add_task(channel)  # it may have to wait for its reader
            else:
                channel.service()

    def _accept_or_not(self) -> None:
        if self._fileno is None:
            return  # it was closed
        # waitress does here what is due each second, too.
        accepts = self.readable()
        if accepts != self._accepts:
            self._accepts = accepts
            self._map.watch(self._fileno, self, lambda: IN if accepts else ONCE)

    def _drain(self) -> int:
        self.draining = True
        events.info(
            "draining: requests in flight have %g s", self.settings.grace_period
        )
        deadline = time.monotonic() + self.settings.grace_period
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as marker:
            # In the abstract namespace: the health check, which finds no listener any
            # more, asks for it. It needs no file and ends with the process.
            marker.bind(f"\0served-draining-{self.settings.port}")
            self._accept_until(time.monotonic() + self.settings.drain_delay)
            self._refuse_handshakes()
            self._accept_until(time.monotonic() + HANDSHAKE)
            self._close_listener()
            patience = time.monotonic() + LINGER
            while self._waited_for(patience) and time.monotonic() < deadline:
                self._turn(0.05)
                self._see_who_left()
                self._close_idle()
                self._close_late()
        unfinished = sum(
            found.unfinished() for found in self._connections() if not found.abandoned()
        )
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
        options = [(socket.IPPROTO_IP, _IP_MINTTL)]
        if self.family == socket.AF_INET6:  # which may serve IPv4 too
            options.append((socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT))
        for level, option in options:
            with contextlib.suppress(OSError):  # not every kernel is Linux's own
                sock.setsockopt(level, option, value)

    def _close_listener(self) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        while poll.poll(0):
            self.handle_accept()
        wasyncore.dispatcher.close(self)  # the server's own would end the trigger too

    def _waited_for(self, patience: float) -> bool:
        """Whether a connection is open that may still get all that it waits for."""
        late = time.monotonic() >= patience
        return any(not (late and found.abandoned()) for found in self._connections())

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
                channel.watch()
