"""The port of `dev` on this machine: what comes is passed on, behind a key.

A published port leads to an address of a network, which the other containers there
reach too. So the app's own port is any, it heeds only what begins with the key, and
this process has the one and puts it before each connection.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading

_CHUNK = 1 << 16


class Forward(socketserver.ThreadingTCPServer):
    """Listens on a port of 127.0.0.1; passes on once it is told where to.

    Raises OSError if the port cannot be had.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, key: str) -> None:
        super().__init__(("127.0.0.1", port), _Passage)
        self._key = key.encode()
        self._to = 0

    def reach(self, to: int) -> socket.socket | None:
        """The first connection to the port `to`; None if no app answers yet."""
        with contextlib.suppress(OSError):
            self._to = to
            connection = self.connect()
            with contextlib.suppress(OSError):
                connection.settimeout(5)
                if connection.recv(1):
                    connection.settimeout(None)
                    return connection
            connection.close()
        return None

    def connect(self, first: bytes = b"") -> socket.socket:
        """A new connection to the app, let in, with its `first` bytes."""
        connection = socket.create_connection(("127.0.0.1", self._to))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        connection.sendall(self._key + first)
        return connection

    def handle_error(self, request: object, client_address: object) -> None:
        """A side that leaves is no error."""


class _Passage(socketserver.BaseRequestHandler):
    """Passes the bytes of one connection on, both ways, until both sides have ended."""

    request: socket.socket
    server: Forward

    def handle(self) -> None:
        # A browser opens connections ahead: the app is asked when there is a request.
        first = self.request.recv(_CHUNK)
        if not first:
            return
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        with self.server.connect(first) as app:
            back = threading.Thread(target=_pass, args=(app, self.request), daemon=True)
            back.start()
            _pass(self.request, app)
            back.join()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
