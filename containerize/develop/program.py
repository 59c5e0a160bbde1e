"""Serves the app in the container of `dev`: Flask's development server and debugger.

Run by the image's interpreter as `program.py USER PORT`, and no part of the image.
Needs Python 3.11 and what every Flask app has. It stays one process and forks another
that imports the app: a reload costs the import of the app, not that of Flask.

Nobody but the engine's host reaches the app. Each connection begins with a key that
`forward` knows, who listens on 127.0.0.1 there; what begins otherwise, as from another
container of the same network, is closed. The first connection stays: its end is ours.
"""

from __future__ import annotations

import ctypes
import hmac
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

KEY = "CONTAINERIZE_DEV_KEY"
"""The variable that has the key; the app does not get it."""
TREE = "/srv"
NO_TREE = 66
"""The exit code if the tree is not there (EX_NOINPUT of sysexits.h)."""
IMPORTED, RELOAD = 1, 2
"""How far the app's process is, in a byte of its own: an app may use any exit code."""
PATIENCE = 60
"""Seconds for which the first connection is waited for."""

# Where no module of the app's is, though files may be many.
_ELSEWHERE = {"__pycache__", "node_modules"}

State = tuple[int, int, int] | None
Loaded = tuple[Callable[..., Any], bool]


def main() -> int:
    """Serve until the first connection ends, or SIGTERM or SIGINT comes."""
    user, port = sys.argv[1], int(sys.argv[2])
    key = os.environ.pop(KEY).encode()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    _become(user)
    if not os.path.exists(f"{TREE}/pyproject.toml"):
        return NO_TREE
    with socket.create_server(("", port), backlog=128) as listener:
        host = _first(listener, key)
        # As `flask run --debug` has them in the process that serves.
        os.environ |= {
            "FLASK_DEBUG": "1",
            "FLASK_RUN_FROM_CLI": "true",
            "WERKZEUG_RUN_MAIN": "true",
        }
        # So that no reload imports them.
        import werkzeug.debug
        import werkzeug.serving  # noqa: F401

        return _supervise(listener, host, key)


def _end(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not SIG_IGN: Python complains about a signal that came before it was set.
        signal.signal(number, lambda *_: None)
    raise SystemExit(0)


def _become(user: str) -> None:
    """Be the image's user, with the one right to read and write whatever its mode.

    Trees of umask 077 are their owner's alone. The engines give such a right to root
    only, so the container starts as root and keeps CAP_DAC_OVERRIDE on the way
    (capabilities(7)); programs that the app starts have it too.
    """
    import grp
    import pwd

    name, _, group = user.partition(":")
    found = None
    try:
        found = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        if not name.isdigit():
            raise SystemExit(f"dev: the image has no user {name}") from None
    number = found.pw_uid if found else int(name)
    if group:
        gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    else:
        gid = found.pw_gid if found else 0
    if os.environ.get("HOME") == pwd.getpwuid(0).pw_dir:  # the engine's, for root
        os.environ["HOME"] = found.pw_dir if found else "/"
    if number == 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    keep_capabilities, ambient, add, dac_override = 8, 47, 2, 1
    _called(libc.prctl(keep_capabilities, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(number)
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, itself
    sets = struct.pack("=6I", *[1 << dac_override] * 3, 0, 0, 0)
    _called(libc.capset(header, sets))
    _called(libc.prctl(ambient, add, dac_override, 0, 0))


def _called(answer: int) -> None:
    if answer:
        error = os.strerror(ctypes.get_errno())
        raise SystemExit(f"dev: the container may not change its user ({error})")


def _first(listener: socket.socket, key: bytes) -> socket.socket:
    """The connection of the host, which lasts as long as it wants the app."""
    end = time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            break
        if admitted(connection, key):
            listener.settimeout(None)
            connection.sendall(b"1")
            return connection
        connection.close()
    raise SystemExit("dev: nobody came for the app")


def admitted(connection: socket.socket, key: bytes) -> bool:
    """Whether a connection begins with the key, which is taken off it."""
    connection.settimeout(5)
    try:
        got = connection.recv(len(key), socket.MSG_WAITALL)
    except OSError:
        return False
    connection.settimeout(None)
    return hmac.compare_digest(got, key)


def _supervise(listener: socket.socket, host: socket.socket, key: bytes) -> int:
    """Keep a process that serves, until the host's connection ends."""
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    stage = mmap.mmap(-1, 1)  # shared with the child
    child = 0
    try:
        while True:
            stage[0] = 0
            child = os.fork()
            if not child:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                host.close()
                serve(listener, key, stage)
            code = None
            while code is None:
                ready, _, _ = select.select([host, woken], [], [])
                if host in ready and not host.recv(64):
                    return 0
                if woken in ready:
                    woken.recv(64)
                code = _reaped(child)
            child = 0
            if stage[0] != RELOAD:
                _say(f"the app's process {_words(code)}; the next request starts it")
                if stage[0] != IMPORTED:
                    _drop(listener)
                while listener not in select.select([listener, host], [], [])[0]:
                    if not host.recv(64):
                        return 0
    finally:
        if child:
            _finish(child)


def _reaped(child: int) -> int | None:
    """The child's exit code if it has ended; any other's is taken off the kernel."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)


def _words(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, perhaps for memory (setting memory)"
    return f"ended with {'exit code' if code >= 0 else 'signal'} {abs(code)}"


def _drop(listener: socket.socket) -> None:
    """Close what waits: the app would end again for each, and none would be told.

    All are taken before one is closed: whoever is told may come again at once, with an
    edit, and that starts the app.
    """
    waited = []
    while select.select([listener], [], [], 0)[0]:
        waited.append(listener.accept()[0])
    for connection in waited:
        connection.close()


def _finish(child: int, patience: float = 2) -> None:
    """Let the app end by itself, as its `atexit` wants; what is left ends with us."""
    try:
        os.kill(child, signal.SIGTERM)
    except ProcessLookupError:
        return
    end = time.monotonic() + patience
    while time.monotonic() < end and _reaped(child) is None:
        time.sleep(0.02)


def _say(text: str) -> None:
    sys.stderr.write(f"dev: {text}\n")


def serve(listener: socket.socket, key: bytes, stage: mmap.mmap) -> None:
    """Import the app and serve it. Ends the process if a file changes.

    `stage` becomes IMPORTED once the import is over, and RELOAD before such an end.
    """
    from werkzeug.debug import DebuggedApplication
    from werkzeug.serving import ThreadedWSGIServer

    watch = Watch(TREE)
    app, well = load()
    watch.begin(well)
    stage[0] = IMPORTED

    class Server(ThreadedWSGIServer):
        """Looks for changes before it takes a connection, which waits for the new code.

        Each request has a connection of its own: Werkzeug closes it after the answer,
        and the host opens it with the request's first bytes.
        """

        seen = 0
        """How many of those that wait were there at the last look."""
        last = 0.0

        def get_request(self) -> Any:
            if not self.seen:
                # Those that come while it looks need another look.
                self.seen = waiting(self.socket)
                self.look()
            self.seen = max(self.seen - 1, 0)
            return super().get_request()

        def service_actions(self) -> None:
            if time.monotonic() > self.last + 1:
                self.look()

        def look(self) -> None:
            changed = watch.changed()
            self.last = time.monotonic()
            if changed:
                _say(f"{os.path.relpath(changed, TREE)} changed, reloading")
                stage[0] = RELOAD
                late = threading.Timer(2, os._exit, [0])  # threads of the app's
                late.daemon = True
                late.start()
                raise SystemExit(0)

        def finish_request(self, request: Any, client_address: Any) -> None:
            if admitted(request, key):
                super().finish_request(request, client_address)

    host, port = listener.getsockname()[:2]
    server = Server(host, port, DebuggedApplication(app, True), fd=listener.fileno())
    server.serve_forever(1)
    raise SystemExit(0)


def waiting(listener: socket.socket) -> int:
    """How many connections wait to be accepted.

    A listener has their number as `tcpi_unacked`, at byte 24 of Linux's tcp_info.
    """
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return int(struct.unpack_from("=I", info, 24)[0]) if len(info) == 28 else 0


def load() -> Loaded:
    """The app that FLASK_APP names, found as Flask does, and whether it is well.

    If it is not, its place takes one that raises the error, for the debugger to show.
    """
    import traceback

    from flask import cli

    error: BaseException
    try:
        return cli.ScriptInfo(os.environ.get("FLASK_APP") or None).load_app(), True
    except cli.NoAppException as none:
        error = none
        _say(none.message.rstrip())
    except SystemExit as left:
        error = RuntimeError(f"the app called sys.exit({left.code!r}) at its import")
        _say(str(error))
    except Exception as failed:
        error = failed
        traceback.print_exc()

    def failing(environ: object, start_response: object) -> Any:
        raise error

    return failing, False


class Watch:
    """Which files the app's process was made of, and whether one is another now.

    Looks at times and sizes, since no file system tells of changes across the border
    of a virtual machine, as on macOS.
    """

    def __init__(self, top: str) -> None:
        self._top = os.path.join(top, "")
        # Before the import: what is edited meanwhile is a change.
        self._state = dict(self._files(".py"))
        self._well = True

    def begin(self, well: bool) -> None:
        """Watch the modules that were imported, or all files if the app has failed."""
        self._well = well
        if not well:
            self._state = {**dict(self._files()), **self._state}

    def changed(self) -> str:
        """The path of a file that is another than at the import; empty without one."""
        if not self._well:
            differ = self._state.items() ^ dict(self._files()).items()
            return min((path for path, _ in differ), default="")
        for path in self._modules():
            state = stat(path)
            if self._state.setdefault(path, state) != state:
                return path
        return ""

    def _modules(self) -> Iterator[str]:
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if isinstance(path, str) and path.startswith(self._top):
                yield path

    def _files(self, suffix: str = "") -> Iterator[tuple[str, State]]:
        for directory, below, files in os.walk(self._top):
            below[:] = [
                name
                for name in below
                if name not in _ELSEWHERE
                and not name.startswith(".")
                and not os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))
            ]
            for name in files:
                if name.endswith(suffix):
                    path = os.path.join(directory, name)
                    yield path, stat(path)


def stat(path: str) -> State:
    """What tells a file from the same file changed; None if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


if __name__ == "__main__":
    sys.exit(main())
