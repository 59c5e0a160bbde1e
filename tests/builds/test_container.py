"""Containers on real engines: started, watched, stopped, and what goes wrong."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from containerize.engines import container
from containerize.errors import Problem
from tests.conftest import PATIENCE, until


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)


def test_a_container_answers_and_stops(start, using, project):
    running = start()
    assert get(running.url) == {"message": "Hello World from Flask"}
    assert running.name in container_names(using, project)
    container.stop(project, using, running.name)
    assert container.state(project, using, running.name) is None


IGNORES = """import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("code", "seconds"),
    [(IGNORES, 1), (IGNORES.replace("signal.SIG_IGN", "lambda *_: exit(0)"), 60)],
)
def test_one_that_does_not_drain_in_time_is_told(built, using, project, code, seconds):
    name = f"{project.image}-drains"
    using.run(
        *("run", "--detach", f"--name={name}", f"--label={project.label}"),
        *(f"--stop-timeout={seconds}", "--network=none", "--entrypoint=python3"),
        *(built.references[0], "-c", code),
    )
    try:
        until(lambda: "ready" in container.log_tail(using, name))
        killed = container.stop(project, using, name)
    finally:
        using.discard(name)
    assert killed == ((name,) if "SIG_IGN" in code else ())
    assert container.state(project, using, name) is None


def container_names(using, project):
    label = f"--filter=label={project.label}"
    return using.listing("ps", "--all", label, "--format={{.Names}}")


def test_the_port_is_published_on_loopback_only(start, using, free_port):
    running = start(port=free_port)
    answer = using.run("port", running.name)
    assert answer.stdout.split()[-1] == f"127.0.0.1:{free_port}"


PROBE = """
import json, os
def fails(path):
    try:
        open(path, "w")
    except OSError as error:
        return error.errno
lines = [line.split() for line in open("/proc/self/status")]
status = {key: value[0] for key, *value in lines if value}
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "capabilities": [int(status[f"Cap{kind}:"], 16) for kind in ("Prm", "Eff", "Bnd")],
    "no_new_privileges": status["NoNewPrivs:"],
    "write": [fails(path) for path in ("/srv/x", "/etc/passwd", "/pycache/x")],
    "tmp": fails("/tmp/x"),
}))
"""


def test_production_flags_hold(start, using):
    running = start()
    answer = using.run("exec", running.name, "python3", "-c", PROBE)
    found = json.loads(answer.stdout)
    assert found["user"] == [65532, 65532]
    assert found["capabilities"] == [0, 0, 0]
    assert found["no_new_privileges"] == "1"
    assert all(found["write"])
    assert found["tmp"] is None
    limits = using.run(
        "container", "inspect", "--format",
        "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", running.name,
    )  # fmt: skip
    assert limits.stdout.split() == [str(128 * 2**20), "64"]


def test_too_many_processes_are_refused(start, using):
    """The limit is one the kernel enforces, not a word in an inspection."""
    running = start()
    script = (
        "import os, sys, time\n"
        "n = 0\n"
        "try:\n"
        "    for n in range(200):\n"
        "        if os.fork() == 0: time.sleep(20); os._exit(0)\n"
        "except BlockingIOError:\n"
        "    print('refused at', n); os.killpg(0, 9)\n"
    )
    answer = using.run("exec", running.name, "python3", "-c", script, check=False)
    assert "refused at" in answer.stdout


def test_a_taken_port_is_named_and_nothing_is_left(start, using, project, free_port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        with pytest.raises(Problem, match=f"port {free_port} is taken"):
            start(port=free_port, name=f"{project.image}-taken")
    assert container.state(project, using, f"{project.image}-taken") is None


def test_a_port_taken_by_a_container_names_it(start, project, free_port):
    first = start(port=free_port)
    with pytest.raises(Problem, match=f"port {free_port} is taken by .*{first.name}"):
        start(port=free_port, name=f"{project.image}-second")


def test_a_name_in_use_is_named_and_its_owner_stays(start, using, project):
    running = start()
    with pytest.raises(Problem, match="runs already"):
        container.run(
            project, using, project_reference(using, running), name=running.name, port=0
        )
    assert get(running.url)


def project_reference(using, running):
    answer = using.run(
        "container", "inspect", "--format", "{{.Config.Image}}", running.name
    )
    return answer.stdout.strip()


def test_anothers_container_of_that_name_is_left_alone(built, using, project):
    name = f"{project.image}-anothers"
    # Without a label of its own it would have the image's, and be this project's.
    label = "--label=containerize.project=another"
    using.run("create", f"--name={name}", label, "--network=none", built.references[0])
    try:
        with pytest.raises(Problem, match=name):
            container.run(project, using, built.references[0], name=name, port=0)
        with pytest.raises(Problem, match="no container"):
            container.stop(project, using, name)
        assert using.run("container", "inspect", name).returncode == 0
    finally:
        using.run("rm", "--force", name)


def test_one_that_ended_is_replaced(start, using, project):
    running = start()
    using.run("stop", running.name)
    again = start(name=running.name)
    assert get(again.url)


def test_an_unknown_tag_says_how_to_make_it(using, project):
    with pytest.raises(Problem, match="invoke build"):
        container.run(project, using, f"{project.image}:nowhere", port=0)


def test_one_that_ends_at_once_shows_its_log(start, using, project):
    name = f"{project.image}-bad"
    with pytest.raises(Problem, match="SERVED_PORT") as caught:
        start(environment={"SERVED_PORT": "abc"}, name=name)
    assert "Traceback" not in str(caught.value)
    assert container.state(project, using, name) is None


def test_one_that_stays_unhealthy_is_given_up(built, using, project):
    name = f"{project.image}-sick"
    impatient = dataclasses.replace(project, health_timeout=6)
    # A Python that waits for a terminal to type something, in place of the app.
    options = ["--entrypoint=python3", "--interactive", "--tty"]
    reference = built.references[0]
    with pytest.raises(Problem, match=r"within 6 s: nothing listens; .*log:\nPython 3"):
        container.run(impatient, using, reference, name=name, port=0, options=options)
    assert container.state(project, using, name) is None


FORKS = """import os, signal, time
if os.fork():
    os.wait()
    raise SystemExit(7)
x = bytearray(300 << 20)
"""


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            "x = bytearray(300 << 20)",
            r"memory: 128m was not enough .*CONTAINERIZE_MEMORY\); ",
        ),
        (FORKS, "ended with exit code 7"),
        ("import os; os._exit(3)", "ended with exit code 3; it wrote no log$"),
        ("import os; print('oh', flush=True); os._exit(4)", "code 4; .* log:\noh$"),
        ("import os; os._exit(0)", "ended with exit code 0; it wrote no log$"),
        ("import os; os._exit(134)", r"was ended by SIGABRT \(exit code 134\); it wr"),
    ],
)
def test_one_that_ends_says_how(built, using, project, tmp_path, module, said):
    tmp_path.chmod(0o755)
    (tmp_path / "ending.py").write_text(module)
    with pytest.raises(Problem, match=said) as caught:
        container.run(
            project, using, built.references[0], name=f"{project.image}-ends", port=0,
            environment={"FLASK_APP": "ending"},
            options=[f"--volume={tmp_path}/ending.py:/srv/ending.py:ro"],
        )  # fmt: skip
    assert not str(caught.value).endswith(":")
    assert container.state(project, using, f"{project.image}-ends") is None


def test_a_port_that_leads_to_nothing_is_found_out(start, using, project):
    """Healthy inside, where the check asks, and nowhere else."""
    name = f"{project.image}-deaf"
    with pytest.raises(Problem, match=r"healthy inside, but http://\S+ does not answ"):
        start(environment={"SERVED_HOST": "127.0.0.1"}, name=name)
    assert container.state(project, using, name) is None


@pytest.fixture
def environment(project, using, free_port):
    """How `invoke` in a process of its own reaches the tests' image and engine."""
    return {
        **os.environ,
        "CONTAINERIZE_IMAGE": project.image,
        "CONTAINERIZE_TAGS": ",".join(project.tags),
        "CONTAINERIZE_PORT": str(free_port),
        "CONTAINERIZE_ENGINE": using.command[0],
        "CONTAINERIZE_CONTAINER": f"{project.image}-task",
    }


def invoke(environment, project, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "invoke", *arguments], cwd=project.root, env=environment,
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def test_the_tasks_from_run_to_stop(built, environment, project):
    port = environment["CONTAINERIZE_PORT"]
    first = invoke(environment, project, "run")
    assert first.returncode == 0, first.stderr
    assert f"http://127.0.0.1:{port}/" in first.stdout
    assert get(f"http://127.0.0.1:{port}/")
    name = environment["CONTAINERIZE_CONTAINER"]
    assert name in invoke(environment, project, "ps").stdout
    assert project.image in invoke(environment, project, "images").stdout
    assert "GET /" in invoke(environment, project, "logs").stdout
    again = invoke(environment, project, "run")
    assert (again.returncode, len(again.stderr.splitlines())) == (1, 1)
    assert invoke(environment, project, "stop").returncode == 0
    assert name not in invoke(environment, project, "ps").stdout
    gone = invoke(environment, project, "logs")
    assert (gone.returncode, len(gone.stderr.splitlines())) == (1, 1)


def test_up_goes_from_nothing_to_the_app_answering(environment, clone, using):
    url = f"http://127.0.0.1:{environment['CONTAINERIZE_PORT']}/"
    environment["CONTAINERIZE_IMAGE"] = (
        f"{clone.image}-up"  # `clean` removes all of a name
    )
    first = invoke(environment, clone, "up")
    assert first.returncode == 0, first.stderr
    assert f"answers at {url}" in first.stdout
    assert f"Next: curl {url}" in first.stdout
    assert get(url)
    # A second call finds all as it should be; one after a change builds and runs anew.
    second = invoke(environment, clone, "up")
    assert f"answers at {url}" in second.stdout
    assert "$ " not in second.stdout
    routes = clone.root / "app" / "__init__.py"
    routes.write_text(routes.read_text("utf-8").replace("Hello World", "Good day"))
    third = invoke(environment, clone, "up")
    assert third.returncode == 0, third.stderr
    assert get(url)["message"] == "Good day from Flask"
    assert invoke(environment, clone, "stop").returncode == 0
    cleaned = invoke(environment, clone, "clean")
    assert cleaned.returncode == 0, cleaned.stderr
    assert not (clone.root / "build").exists()
    assert not (clone.root / "dist").exists()
    reference = f"{clone.image}-up:test"
    assert using.run("image", "inspect", reference, check=False).returncode


def test_ctrl_c_stops_and_removes_in_the_foreground(built, environment, project, using):
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", "run", "--foreground"], cwd=project.root,
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        while "answers at" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        get(f"http://127.0.0.1:{environment['CONTAINERIZE_PORT']}/")
        while "GET /" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    assert (
        container.state(project, using, environment["CONTAINERIZE_CONTAINER"]) is None
    )
