"""Exit 0 while the service in this container lives: what HEALTHCHECK runs.

It runs every few seconds for months, so it imports nothing that the interpreter has
not built in or loaded already: even `socket` would double its cost.
"""

import _socket
import posix
import sys
from time import monotonic

TIMEOUT = 2.5
"""Seconds for the whole check; less than HEALTHCHECK's own timeout."""


def check(host: str, port: int) -> str:
    """What is wrong with the service, or nothing."""
    end = monotonic() + TIMEOUT
    family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
    server = _socket.socket(family, _socket.SOCK_STREAM)
    server.settimeout(TIMEOUT)
    try:
        server.connect((host, port))
    except ConnectionRefusedError:
        return "" if draining(port) else "nothing listens"
    server.send(
        b"GET /health/started HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n"
    )
    answer = b""
    while len(answer) < 12 and (left := end - monotonic()) > 0:
        server.settimeout(left)
        part = server.recv(12 - len(answer))
        if not part:
            break
        answer += part
    if answer == b"HTTP/1.1 200":
        return ""
    return f"the answer is {answer.decode('latin-1')!r}"


def draining(port: int) -> bool:
    """Whether the service has closed its listener to finish what it works on."""
    marker = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        marker.connect(f"\0served-draining-{port}")
    except OSError:
        return False
    return True


def setting(name: bytes, default: str) -> str:
    """A setting, as `served.settings` reads it: a service link is none."""
    text = posix.environ.get(name, b"").decode("latin-1")
    return default if not text or "://" in text else text


def main() -> str:
    """What is wrong, in one line, or nothing."""
    host = setting(b"SERVED_HOST", "0.0.0.0")  # noqa: S104
    # `::` serves both families, and not every container has an address of IPv6.
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = "127.0.0.1"
    port = setting(b"SERVED_PORT", "8080")
    if not port.isdecimal():
        return f"SERVED_PORT is no number: {port!r}"
    return check(host, int(port))


try:
    wrong = main()
except Exception as error:  # whatever it is, a line says more than a traceback
    wrong = str(error) or type(error).__name__
if wrong:
    print(wrong)
    sys.exit(1)
