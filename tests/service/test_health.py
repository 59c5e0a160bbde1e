"""The image's HEALTHCHECK: bad when the service is, cheap, and patient with a drain."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

SOON = ["--health-interval=1s", "--health-retries=1", "--health-start-period=0s"]
"""The engine's own verdict after one check, not after 30 s and three."""

CPU_SECONDS = """
import os, subprocess, sys
for _ in range(10):
    subprocess.run([sys.executable, *sys.argv[1:]], check=True)
print(sum(os.times()[2:4]) / 10)
"""


def command(running):
    form = "{{json .Config.Healthcheck.Test}}"
    answer = running.engine.run("inspect", "--format", form, running.name)
    kind, *words = json.loads(answer.stdout)
    assert kind == "CMD"  # a shell, which the image lacks, would be CMD-SHELL
    return words


def check(running):
    """Exit code and words of the image's check, run as an engine runs it."""
    answer = running.engine.run("exec", running.name, *command(running), check=False)
    return answer.returncode, answer.stdout.strip()


def verdict(running):
    """What the engine itself says of the container's health."""
    if running.engine.kind == "podman":
        # Its timers need systemd, and 4.3 takes the image's start period whatever
        # the options say.
        answer = running.engine.run("healthcheck", "run", running.name, check=False)
        return "unhealthy" if answer.returncode else "healthy"
    answer = running.engine.run("inspect", "--format", "{{json .State}}", running.name)
    return json.loads(answer.stdout)["Health"]["Status"]


def wait_verdict(running, wanted):
    deadline = time.monotonic() + 10
    while (found := verdict(running)) != wanted:
        assert time.monotonic() < deadline, (found, wanted)
        time.sleep(0.1)


def ask(connection, method, path):
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/live/fail", "the answer is 'HTTP/1.1 500'"),
        ("POST", "/live/redirect", "the answer is 'HTTP/1.1 302'"),
        ("POST", "/live/hang", "timed out"),
        ("POST", "/deafen", "nothing listens"),
    ],
)
def test_a_service_that_fails_is_unhealthy(serve, connect, method, path, said):
    running = serve(options=SOON)
    assert check(running) == (0, "")
    wait_verdict(running, "healthy")
    assert ask(connect(running), method, path)[0] == 200
    begin = time.monotonic()
    assert check(running) == (1, said)
    assert time.monotonic() - begin < 4
    wait_verdict(running, "unhealthy")


def test_live_ready_and_draining(serve, connect):
    """A service that drains is live, not ready, and not unhealthy."""
    running = serve({"APP_DRAIN_DELAY": "4"}, options=SOON)
    watching = connect(running)
    assert ask(watching, "GET", "/health/live") == (200, {"status": "live"})
    assert ask(watching, "GET", "/health/ready") == (200, {"status": "ready"})
    wait_verdict(running, "healthy")
    with ThreadPoolExecutor() as clients:
        slow = clients.submit(ask, connect(running), "GET", "/slow?seconds=8")
        time.sleep(0.5)
        running.engine.run("kill", "--signal=TERM", running.name)
        time.sleep(0.3)
        # New connections come while a load balancer sees that it is not ready.
        found = ask(connect(running), "GET", "/health/ready")
        assert found == (503, {"status": "draining"})
        assert ask(connect(running), "GET", "/health/live")[0] == 200
        assert check(running) == (0, "")
        verdicts = set()
        while not slow.done():
            found = verdict(running)
            if not slow.done():  # Docker calls what has ended unhealthy
                verdicts.add(found)
            time.sleep(0.5)
        assert slow.result()[0] == 200
    assert "healthy" in verdicts
    assert "unhealthy" not in verdicts


def test_a_check_costs_little(start, record_property):
    """CPU time, measured inside: what the engine itself spends is not ours to save."""
    running = start()
    program, *words = command(running)
    answer = running.engine.run(
        "exec", running.name, program, "-c", CPU_SECONDS, *words
    )
    seconds = float(answer.stdout)
    record_property("cpu seconds of a health check", seconds)
    assert seconds < 0.05
