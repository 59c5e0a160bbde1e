"""The stop contract: nothing that was accepted is lost, and the end comes in time."""

import hashlib
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from containerize import container

CLIENT = Path(__file__).parent / "load.py"
REFUSED = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 8080)))"
ECONNREFUSED = 111


def init(using):
    """Options for an init process as PID 1, where the engine has one."""
    if using.kind == "docker":
        return ["--init"]
    # Podman's own, catatonit, is a package apart.
    program = shutil.which("catatonit") or shutil.which("docker-init")
    return ["--init", *([f"--init-path={program}"] if program else [])]


def signal(running, name):
    running.engine.run("kill", f"--signal={name}", running.name)


def log(running):
    return running.engine.run("logs", running.name, merge=True).stdout


def ask(connection, path):
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.headers, json.loads(answer.read())


def read_slowly(connection):
    """SHA-256 of a large response that is read in about 8 s."""
    connection.request("GET", "/large")
    answer = connection.getresponse()
    digest = hashlib.sha256()
    while block := answer.read(1 << 20):
        digest.update(block)
        time.sleep(0.16)
    return digest.hexdigest()


def ready(connection):
    """The state by /health/ready, and whether the connection will close."""
    status, headers, body = ask(connection, "/health/ready")
    return status, body["status"], headers["Connection"]


def drain(running, number, connect):
    """Stop a container by a signal amid requests; what each client saw of it."""
    with ThreadPoolExecutor() as clients:
        watching, idle = connect(running), connect(running)
        before = ready(watching)
        ask(idle, "/")
        slow = clients.submit(ask, connect(running), "/slow?seconds=7")
        large = clients.submit(read_slowly, connect(running))
        time.sleep(1)
        signal(running, number)
        begin = time.monotonic()
        time.sleep(0.3)
        during = ready(watching)
        refused = running.engine.run("exec", running.name, "python3", "-c", REFUSED)
        idle_ended = idle.sock.recv(1) == b""
        idle_seconds = time.monotonic() - begin
        return {
            "before": before,
            "during": during,
            "new": int(refused.stdout),
            "idle ended": (idle_ended, idle_seconds < 4),
            "slow": (slow.result()[0], slow.result()[1]["Connection"]),
            "large": large.result(),
            "exit": container.exit_code(running),
            "log": "stopped\n" in log(running),
            "in time": time.monotonic() - begin < 25,
        }


def test_a_signal_drains(serve, using, connect, large_digest):
    started = {
        (number, bool(options)): serve(options=options)
        for number in ("TERM", "INT")
        for options in ([], init(using))
    }
    with ThreadPoolExecutor() as pool:
        found = {
            case: pool.submit(drain, running, case[0], connect)
            for case, running in started.items()
        }
    for case, outcome in found.items():
        assert (case, outcome.result()) == (
            case,
            {
                "before": (200, "ready", None),
                "during": (503, "draining", "close"),
                "new": ECONNREFUSED,
                "idle ended": (True, True),
                "slow": (200, "close"),
                "large": large_digest,
                "exit": 0,
                "log": True,
                "in time": True,
            },
        )


def test_what_cannot_finish_is_counted(serve, connect):
    running = serve({"APP_GRACE_PERIOD": "1"})
    with ThreadPoolExecutor() as clients:
        for _ in range(3):
            clients.submit(ask, connect(running), "/slow?seconds=7")
        time.sleep(0.5)
        signal(running, "TERM")
        begin = time.monotonic()
        assert container.exit_code(running) == 1
        assert time.monotonic() - begin < 4
    assert "stopped with 3 request(s) unfinished" in log(running)


@pytest.mark.parametrize("second", ["TERM", "INT"])
def test_a_second_signal_ends_at_once(serve, connect, second):
    running = serve()
    with ThreadPoolExecutor() as clients:
        clients.submit(ask, connect(running), "/slow?seconds=7")
        time.sleep(0.5)
        signal(running, "TERM")
        time.sleep(0.3)
        signal(running, second)
        begin = time.monotonic()
        assert container.exit_code(running) == 1
        assert time.monotonic() - begin < 4
    assert "a second signal" in log(running)
