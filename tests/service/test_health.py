"""Live, ready and draining, and what the image's HEALTHCHECK makes of them."""

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

OFTEN = ["--health-interval=1s", "--health-retries=1", "--health-start-period=0s"]


def ask(connection, method, path):
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


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
    now = time.time()
    for _ in range(100):
        health = inspect()
        # Docker keeps the last five; this one began after the question.
        last = (health["Log"] or [{"Start": ""}])[-1]
        if last["Start"] > stamp(now):
            return health["Status"], last["Output"]
        time.sleep(0.2)
    raise AssertionError(health)


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds + 1))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("fail", "500"),
        ("redirect", "302"),
        ("hang", "timed out"),
        ("deaf", "nothing listens"),
    ],
)
def test_the_health_check_turns_bad(serve, connect, wrong, said):
    running = serve(options=OFTEN)
    assert checked(running)[0] == "healthy"
    connection = connect(running)
    path = "/deafen" if wrong == "deaf" else f"/live/{wrong}"
    assert ask(connection, "POST", path)[0] == 200
    status, output = checked(running)
    assert status == "unhealthy"
    assert said in output
    if wrong in ("fail", "redirect"):
        ask(connection, "POST", "/live/ok")
        assert checked(running)[0] == "healthy"


def test_a_service_that_drains_is_not_unhealthy(serve, connect):
    running = serve(options=OFTEN)
    with ThreadPoolExecutor() as clients:
        slow = clients.submit(ask, connect(running), "GET", "/slow?seconds=4")
        time.sleep(0.5)
        running.engine.run("kill", "--signal=TERM", running.name)
        time.sleep(0.5)
        assert checked(running) == ("healthy", "")
        assert not slow.done()  # it was draining
        assert slow.result() == (200, {"slept": 4})


def test_live_ready_draining(serve, connect):
    """With a delay, load balancers see a service not ready that still accepts."""
    running = serve({"APP_DRAIN_DELAY": "2"})

    def get(path):
        with contextlib.closing(connect(running)) as connection:
            return ask(connection, "GET", path)

    assert get("/health/live") == (200, {"status": "live"})
    assert get("/health/ready") == (200, {"status": "ready"})
    running.engine.run("kill", "--signal=TERM", running.name)
    begin = time.monotonic()
    while get("/health/ready") != (503, {"status": "draining"}):
        assert time.monotonic() - begin < 1
    assert get("/health/live") == (200, {"status": "live"})
    assert get("/")[0] == 200
    running.engine.run("wait", running.name, timeout=40)
    assert time.monotonic() - begin >= 1.5


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
