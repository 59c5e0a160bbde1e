"""Live, ready and draining, and what the image's HEALTHCHECK makes of them."""

import contextlib
import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import PATIENCE, until

OFTEN = ["--health-interval=1s", "--health-retries=1", "--health-start-period=0s"]


def ask(connection, method, path):
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def post(connection, path):
    assert ask(connection, "POST", path)[0] == 200


def lives(running, connect):
    """Whether a server that is about to listen does by now."""
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        return ask(connect(running), "GET", "/health/live")[0] == 200
    return False


def checked(running):
    """What the engine's next own health check finds, and what the check said."""

    def inspect():
        form = "{{json .State.Health}}"
        done = running.engine.run(
            "container", "inspect", "--format", form, running.name
        )
        return json.loads(done.stdout)

    if running.engine.kind == "podman":
        # What a timer of systemd's would run, which not every host has.
        done = running.engine.run("healthcheck", "run", running.name, check=False)
        status = "unhealthy" if done.returncode else "healthy"
        return status, inspect()["Log"][-1]["Output"]
    asked = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 1))

    def last():
        # Docker keeps the last five; this one began after the question.
        return (inspect()["Log"] or [{"Start": ""}])[-1]

    until(lambda: last()["Start"] > asked)
    health = inspect()
    return health["Status"], health["Log"][-1]["Output"]


@pytest.mark.parametrize("wrong", ["fail", "redirect", "login", "hang"])
def test_what_the_application_answers_is_not_its_health(serve, connect, wrong):
    running = serve(options=OFTEN)
    post(connect(running), f"/answer/{wrong}")
    # More than there are threads.
    hanging = [connect(running) for _ in range(6)]
    for connection in hanging:
        connection.request("GET", "/")
    assert checked(running)[0] == "healthy"
    assert ask(connect(running), "GET", "/health/live") == (200, {"status": "live"})
    assert ask(connect(running), "GET", "/health/ready") == (200, {"status": "ready"})


def test_deaf_is_unhealthy(serve, connect):
    running = serve(options=OFTEN)
    assert checked(running)[0] == "healthy"
    post(connect(running), "/deafen")
    status, output = checked(running)
    assert status == "unhealthy"
    assert "nothing listens" in output


def test_ready_once_then_live(serve, connect):
    """One check: the application is asked until it has been ready."""
    environment = {"SERVED_READY_PATH": "/own-ready", "ANSWER": "fail"}
    running = serve(environment, OFTEN, wait=False)
    until(lambda: lives(running, connect))
    status, output = checked(running)
    assert status != "healthy"
    assert output.strip() == "the answer is 'HTTP/1.1 503'"
    post(connect(running), "/answer/ok")
    assert checked(running)[0] == "healthy"
    post(connect(running), "/answer/fail")
    assert checked(running)[0] == "healthy"
    answer = ask(connect(running), "GET", "/health/ready")
    assert answer == (503, {"status": "not ready"})


def test_a_service_that_drains_is_not_unhealthy(serve, connect):
    running = serve(options=OFTEN)
    with ThreadPoolExecutor() as clients:
        slow = clients.submit(ask, connect(running), "GET", "/slow?seconds=12")
        time.sleep(0.5)
        running.engine.run("kill", "--signal=TERM", running.name)
        time.sleep(0.5)
        assert checked(running) == ("healthy", "")
        assert not slow.done()  # it was draining
        assert slow.result() == (200, {"slept": 12})


def test_live_ready_draining(serve, connect):
    """With a delay, load balancers see a service not ready that still accepts."""
    running = serve({"SERVED_DRAIN_DELAY": "4"})

    def get(path):
        with contextlib.closing(connect(running)) as connection:
            return ask(connection, "GET", path)

    assert get("/health/live") == (200, {"status": "live"})
    assert get("/health/ready") == (200, {"status": "ready"})
    begin = time.monotonic()
    running.engine.run("kill", "--signal=TERM", running.name)
    until(lambda: get("/health/ready") == (503, {"status": "draining"}))
    assert get("/health/live") == (200, {"status": "live"})
    assert get("/")[0] == 200
    running.engine.run("wait", running.name, timeout=PATIENCE)
    assert time.monotonic() - begin >= 4


COST = """
import json, resource, subprocess, sys
for _ in range(20):
    subprocess.run(json.loads(sys.argv[1]), check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print((used.ru_utime + used.ru_stime) / 20 * 1000)
"""


def test_what_the_health_check_costs(start, using):
    running = start()
    form = "{{json .Config.Healthcheck}}"
    shown = using.run("container", "inspect", "--format", form, running.name)
    command = json.loads(shown.stdout)["Test"][1:]
    cost = using.run(
        "exec", running.name, "python3", "-c", COST, json.dumps(command)
    ).stdout  # fmt: skip
    print(f"{using.kind}: a health check costs {float(cost):.1f} ms of CPU")
