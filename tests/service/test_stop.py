"""The stop contract: nothing that was accepted is lost, and the end comes in time."""

import errno
import hashlib
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from containerize.engines import container
from tests.conftest import PATIENCE, until

GRACE = 25
"""Seconds that the service gives requests by default."""
CLIENT = Path(__file__).parent / "load.py"
REFUSED = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 8080)))"


def init(using):
    """Options for an init process as PID 1, where the engine has one."""
    if using.kind == "docker":
        return ["--init"]
    # Podman's own, catatonit, is a package apart.
    program = shutil.which("catatonit") or shutil.which("docker-init")
    return ["--init", *([f"--init-path={program}"] if program else [])]


def signal(running, name):
    running.engine.run("kill", f"--signal={name}", running.name)


def exit_code(running):
    return int(running.engine.run("wait", running.name, timeout=PATIENCE).stdout)


def log(running):
    return running.engine.run("logs", running.name, merge=True).stdout


def ask(connection, path):
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.headers, json.loads(answer.read())


def read_slowly(connection):
    """SHA-256 of a large response that is read in 7.5 s: less than LINGER.

    A proxy with large buffers may have acknowledged all of it when the reading begins.
    """
    connection.request("GET", "/large")
    answer = connection.getresponse()
    digest = hashlib.sha256()
    while block := answer.read(1 << 20):
        digest.update(block)
        time.sleep(0.15)
    return digest.hexdigest()


def watch(connection):
    """What /health/ready says until the connection is told to close."""
    found = []
    while len(found) < 100:
        status, headers, body = ask(connection, "/health/ready")
        found.append((status, body["status"]))
        if headers["Connection"] == "close":
            break
        time.sleep(0.4)
    return found


def wait_closed(connection):
    """Send a request, then nothing until the server closes."""
    ask(connection, "/")
    assert connection.sock.recv(1) == b""


def drain(running, number, connect):
    """Stop a container by a signal amid requests; what its clients saw of it."""
    with ThreadPoolExecutor() as clients:
        slow = clients.submit(ask, connect(running), "/slow?seconds=10")
        large = clients.submit(read_slowly, connect(running))
        watched = clients.submit(watch, connect(running))
        idle = clients.submit(wait_closed, connect(running))
        ended = []
        for one in (slow, idle):
            one.add_done_callback(ended.append)
        time.sleep(1)
        assert not idle.done()
        signal(running, number)
        begin = time.monotonic()
        states = watched.result()
        refused = running.engine.run("exec", running.name, "python3", "-c", REFUSED)
        code = exit_code(running)
        assert time.monotonic() - begin < GRACE
    assert ended == [idle, slow]
    idle.result()
    return {
        "states": sorted(set(states)),
        "last": states[-1],
        "connect": int(refused.stdout),
        "slow": (slow.result()[0], slow.result()[1]["Connection"]),
        "large": large.result(),
        "exit": code,
        "log": log(running).count("INFO stopped\n"),
    }


def test_a_signal_drains(serve, using, connect, large_digest):
    started = {
        (number, bool(options)): serve(options=options)
        for number in ("TERM", "INT")
        for options in ([], init(using))
    }
    with ThreadPoolExecutor() as pool:
        outcomes = {
            case: pool.submit(drain, running, case[0], connect)
            for case, running in started.items()
        }
    drained = {
        "states": [(200, "ready"), (503, "draining")],
        "last": (503, "draining"),
        "connect": errno.ECONNREFUSED,
        "slow": (200, "close"),
        "large": large_digest,
        "exit": 0,
        "log": 1,
    }
    found = {
        case: outcome.exception() or outcome.result()
        for case, outcome in outcomes.items()
    }
    assert found == dict.fromkeys(started, drained)


def test_what_cannot_finish_is_counted(serve, connect):
    running = serve({"SERVED_GRACE_PERIOD": "1"})
    with ThreadPoolExecutor() as clients:
        for _ in range(3):
            clients.submit(ask, connect(running), "/slow?seconds=60")
        time.sleep(0.5)
        signal(running, "TERM")
        begin = time.monotonic()
        assert exit_code(running) == 1
        assert time.monotonic() - begin < GRACE
    assert "stopped with 3 request(s) unfinished" in log(running)


@pytest.mark.parametrize("second", ["TERM", "INT"])
def test_a_second_signal_ends_at_once(serve, connect, second):
    running = serve()
    with ThreadPoolExecutor() as clients:
        clients.submit(ask, connect(running), "/slow?seconds=60")
        time.sleep(0.5)
        signal(running, "TERM")
        until(lambda: "INFO draining" in log(running))
        signal(running, second)
        begin = time.monotonic()
        assert exit_code(running) == 1
        assert time.monotonic() - begin < GRACE
    assert "a second signal" in log(running)


TARGETS, RUNS = 4, 5


@pytest.fixture
def network(using, project):
    """A network of two containers, so that no proxy of the engine stands between."""
    name = f"{project.image}-load"
    using.run("network", "create", f"--label={project.label}", name)
    yield name
    using.run("network", "rm", name)


def address(running):
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    answer = running.engine.run("container", "inspect", "--format", form, running.name)
    return answer.stdout.strip()


def stop_under_load(target, client, project):
    """Stop a container amid requests `RUNS` times; how many were answered."""
    using = target.engine
    answered = 0
    for run in range(RUNS):
        if run:
            using.run("start", target.name)
            container.wait_healthy(project, target)
        load = ["exec", client.name, "python3", "/load.py", address(target), "2"]
        with using.pipe(*load) as output:
            assert output.readline() == b"under load\n"
            time.sleep(0.4)
            using.run("stop", target.name)
            found = json.loads(output.read())
        assert (run, found["lost"]) == (run, [])
        assert exit_code(target) == 0
        # Kept connections end only where the service, under load, stopped.
        assert found["kept closed"] > 0
        assert found["new"] > 0
        answered += found["kept"] + found["new"]
    return answered


def test_twenty_stops_under_load_lose_nothing(network, start, using, project):
    client = start(options=[f"--network={network}", f"--volume={CLIENT}:/load.py:ro"])
    targets = [start(options=[f"--network={network}"]) for _ in range(TARGETS)]
    begin = time.monotonic()
    with ThreadPoolExecutor() as pool:
        done = [pool.submit(stop_under_load, t, client, project) for t in targets]
    answered = sum(each.result() for each in done)
    seconds = time.monotonic() - begin
    print(f"{using.kind}: {TARGETS * RUNS} stops, {answered} requests, {seconds:.0f} s")
