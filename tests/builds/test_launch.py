"""What containers get, on real engines: variables, volumes, commands, replacement."""

import dataclasses
import json
import os
import pty
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from containerize.engines import container, volumes
from containerize.errors import Problem
from containerize.settings import PREFIX
from tests.conftest import PATIENCE, until, unused_port

ENVIRON = "import json, os; print(json.dumps(dict(os.environ)))"
SECRET = "hunter2 'quoted' \"twice\" $HOME #"


@pytest.fixture
def volume(using):
    """The name of a volume that goes after the test."""
    name = f"containerize-test-{secrets.token_hex(4)}"
    yield name
    using.run("volume", "rm", name, check=False)
    assert name not in using.run("volume", "ls", "--quiet").stdout


@pytest.fixture
def own(project, using, volume):
    """Settings under whose container name a test starts what it likes.

    Its containers go before the volume that they may use.
    """
    name = f"{project.image}-own-{secrets.token_hex(2)}"
    yield dataclasses.replace(project, container=name)
    for each in container.listed(project, using, f"name={name}"):
        print(f"log of {each}:\n{container.log_tail(using, each)}")
        using.discard(each)


def up(settings, using, built, **options):
    said = []
    found = container.ensure(
        settings, using, built.references[0], on_line=said.append, **options
    )
    return found, said


def execute(settings, using, built, *words, **options):
    return container.execute(settings, using, built.references[0], words, **options)


def python(settings, using, built, program, **options):
    return execute(settings, using, built, "python3", "-c", program, **options)


def environ(using, name):
    return json.loads(using.run("exec", name, "python3", "-c", ENVIRON).stdout)


def inside(using, name, program):
    return using.run("exec", name, "python3", "-c", program).stdout.strip()


def test_variables_arrive_as_they_are_and_are_shown_by_name(own, using, built, capfd):
    wanted = {
        "PLAIN": SECRET,
        "LINES": "first\nsecond\n",
        "EMPTY": "",
        "UNICODE": "ünï",
        "DOCKER_HOST": "tcp://192.0.2.1:1",
        "CONTAINER_HOST": "tcp://192.0.2.1:1",
        "HOME": "/tmp",
    }
    shown = []
    told = dataclasses.replace(using, on_command=shown.append)
    running = container.run(own, told, built.references[0], port=0, environment=wanted)
    assert {k: v for k, v in environ(using, running.name).items() if k in wanted} == (
        wanted
    )
    text = json.dumps(shown)
    assert "--env=PLAIN" in text
    assert "hunter2" not in text
    assert "192.0.2.1" not in text
    # `exec` gets the same.
    capfd.readouterr()
    assert python(own, using, built, ENVIRON, environment=wanted) == 0
    found = json.loads(capfd.readouterr().out.strip().splitlines()[-1])
    assert {k: v for k, v in found.items() if k in wanted} == wanted


def test_a_named_volume_lasts_and_is_the_apps(own, using, built, volume):
    own = dataclasses.replace(own, volumes=(f"{volume}:/kept",))
    running = container.run(own, using, built.references[0], port=0)
    inside(using, running.name, "open('/kept/x', 'w').write('here')")
    container.stop(own, using, running.name)
    again = container.run(own, using, built.references[0], port=0)
    assert inside(using, again.name, "print(open('/kept/x').read())") == "here"
    assert volume in volumes.owned(own, using)
    # A command sees it too.
    assert python(own, using, built, "open('/kept/x')") == 0


def test_a_foreign_volume_is_used_and_said(own, using, built, volume):
    using.run("volume", "create", volume)
    own = dataclasses.replace(own, volumes=(f"{volume}:/kept",))
    said = []
    python(own, using, built, "pass", on_line=said.append)
    assert f"volume {volume} was there already" in said[0]
    assert volume not in volumes.owned(own, using)


def test_what_the_app_cannot_write_is_one_line(own, using, built, tmp_path, volume):
    os.chmod(tmp_path, 0o755)
    bound = dataclasses.replace(own, volumes=(f"{tmp_path}:/kept",))
    with pytest.raises(Problem, match=rf"cannot write {tmp_path}, .*:ro.* `.*chown"):
        container.run(bound, using, built.references[0], port=0)
    assert container.state(own, using, own.container_name) is None
    read = dataclasses.replace(own, volumes=(f"{tmp_path}:/kept:ro",))
    assert python(read, using, built, "import os; os.listdir('/kept')") == 0
    os.chown(tmp_path, 65532, 65532)
    assert python(bound, using, built, "open('/kept/x', 'w')") == 0
    assert (tmp_path / "x").exists()
    # A volume that root has written to is left as it is.
    named = dataclasses.replace(own, volumes=(f"{volume}:/kept",))
    using.run(
        "run", "--rm", "--user=0", "--entrypoint=python3", f"--volume={volume}:/kept",
        built.references[0], "-c",
        "import os; open('/kept/x', 'w'); os.chown('/kept', 0, 0)",
    )  # fmt: skip
    with pytest.raises(Problem, match=rf"cannot write volume {volume}, .* user 0's"):
        python(named, using, built, "pass")


def test_a_directory_that_is_not_there_is_not_made(own, using, built, tmp_path):
    own = dataclasses.replace(own, volumes=(f"{tmp_path}/nowhere:/kept",))
    with pytest.raises(Problem, match=r"there is no .*nowhere to mount"):
        python(own, using, built, "pass")
    assert not (tmp_path / "nowhere").exists()


READ = "print(open('/run/secrets/db').read())"


@pytest.fixture
def secret(tmp_path):
    """A file that the app's user alone may read."""
    file = tmp_path / "db-password"
    file.write_text("hunter2")
    os.chown(file, 65532, 65532)
    os.chmod(file, 0o400)
    return file


def test_a_secret_is_a_file_of_the_service_its_commands_and_exec(
    own, using, built, secret, capfd
):
    own = dataclasses.replace(
        own,
        secrets={"db": str(secret)},
        commands={"worker": "python3 -c 'import time; time.sleep(600)'"},
    )
    running = container.run(own, using, built.references[0], port=0)
    for name in (running.name, f"{running.name}-worker"):
        assert inside(using, name, READ) == "hunter2"
        with pytest.raises(Problem):
            inside(using, name, "open('/run/secrets/db', 'a')")
    capfd.readouterr()
    assert python(own, using, built, READ) == 0
    assert capfd.readouterr().out.strip().endswith("hunter2")


def test_a_secret_that_the_app_cannot_read_starts_nothing(own, using, built, secret):
    own = dataclasses.replace(own, secrets={"db": str(secret)})
    os.chown(secret, 0, 0)
    said = (
        rf"cannot read {secret}, the secret db, which is user 0's: `chown 65532:65532"
    )
    with pytest.raises(Problem, match=said):
        container.run(own, using, built.references[0], port=0)
    secret.unlink()
    with pytest.raises(Problem, match=f"there is no file {secret} for the secret db"):
        container.run(own, using, built.references[0], port=0)
    assert container.listed(own, using, f"name={own.container_name}") == []
    assert not secret.exists()  # no engine made a directory of that name


def test_up_replaces_what_has_another_secret(own, using, built, secret, free_port):
    own = dataclasses.replace(own, secrets={"db": str(secret)})
    up(own, using, built, port=free_port)
    _, said = up(own, using, built, port=free_port)
    assert said == []
    other = secret.with_name("other")
    other.write_text("swordfish")
    os.chown(other, 65532, 65532)
    changed = dataclasses.replace(own, secrets={"db": str(other)})
    last, said = up(changed, using, built, port=free_port)
    assert "is replaced" in said[-1]
    assert inside(using, last.name, READ) == "swordfish"


def test_a_network_is_joined_and_one_that_is_not_there_is_told(own, using, built):
    network = f"containerize-test-{secrets.token_hex(4)}"
    own = dataclasses.replace(own, network=network)
    with pytest.raises(Problem, match=rf"no network {network}.*network create"):
        container.run(own, using, built.references[0], port=0)
    using.run("network", "create", network)
    try:
        running = container.run(own, using, built.references[0], port=0)
        form = "{{json .NetworkSettings.Networks}}"
        answer = using.run("container", "inspect", "--format", form, running.name)
        assert list(json.loads(answer.stdout)) == [network]
        container.stop(own, using, running.name)
    finally:
        using.run("network", "rm", network)


def test_exec_passes_the_exit_code_and_leaves_nothing(own, using, built):
    before = container.listed(own, using)
    assert python(own, using, built, "raise SystemExit(7)") == 7
    assert container.listed(own, using) == before


def test_exec_says_what_cannot_be_run(own, using, built):
    with pytest.raises(Problem, match=r"no command nowhere"):
        execute(own, using, built, "nowhere", "x")
    with pytest.raises(Problem, match=r"invoke build"):
        container.execute(own, using, f"{own.image}:nowhere", ["true"])


def test_exec_has_memory_of_its_own(own, using, built, tmp_path, monkeypatch):
    """What it takes is not the service's, which serves on."""
    monkeypatch.chdir(tmp_path)
    running = container.run(own, using, built.references[0], port=0)
    said = []
    eat = "x = bytearray(400 * 2**20)"
    assert python(own, using, built, eat, on_line=said.append) == 137
    assert "memory: 128m was not enough (setting memory" in said[0]
    assert urllib.request.urlopen(running.url, timeout=PATIENCE).status == 200
    assert not list(tmp_path.iterdir())  # Podman's file oom


@pytest.fixture
def environment(own, using):
    return naming(own, using)


def naming(own, using):
    """How `invoke` in a process of its own reaches the tests' image and engine."""
    given = {
        "IMAGE": own.image,
        "TAGS": ",".join(own.tags),
        "ENGINE": using.command[0],
        "CONTAINER": own.container,
    }
    return os.environ | {f"{PREFIX}{key}": value for key, value in given.items()}


def test_what_was_killed_for_memory_is_told_afterwards(
    own, using, built, environment, tmp_path
):
    """By `logs`, and by the `run` that puts another in its place."""
    roomy = dataclasses.replace(own, memory="200m")
    container.run(roomy, using, built.references[0], port=0)
    using.run("kill", "--signal=KILL", own.container)
    using.run("wait", own.container)
    logs = subprocess.run(
        [sys.executable, "-m", "invoke", "logs"],
        cwd=own.root, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = rf"container {own.container} was ended by SIGKILL .*: 200m was not enough"
    assert re.search(told, logs.stderr)
    said = []
    container.run(own, using, built.references[0], port=0, on_line=said.append)
    assert re.search(told, said[0])
    container.stop(own, using, own.container)


def test_exec_takes_the_words_after_the_dashes(own, built, environment):
    program = "import sys; print(sys.stdin.read(), 'a  b', sys.argv[1:]); sys.exit(3)"
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "exec", "--env=A=" + SECRET, "--",
         "python3", "-c", program, "--", "x  y"],
        cwd=own.root, env=environment, input="typed", capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stdout == "typed a  b ['--', 'x  y']\n"  # not a line of ours
    assert done.stderr.startswith("$ ")
    assert "hunter2" not in done.stdout + done.stderr


def test_exec_has_the_callers_terminal(own, built, environment):
    program = "import os; print(os.isatty(0), os.isatty(1), input())"
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", "exec", "--", "python3", "-c", program],
        cwd=own.root, env=environment, stdin=follower, stdout=follower, stderr=follower,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(follower)
        os.write(leader, b"hello\n")
        said = b""
        try:
            while part := os.read(leader, 4096):
                said += part
        except OSError:  # Linux's end of a terminal
            pass
        assert process.wait(60) == 0, said
    assert b"True True hello" in said


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_exec_that_is_ended_leaves_nothing(
    own, using, built, environment, number, code
):
    """A first process without a handler lets SIGTERM pass; it goes all the same."""
    program = "import time; print('at work', flush=True); time.sleep(300)"
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", "exec", "--", "python3", "-c", program],
        cwd=own.root, env=environment, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        while (line := process.stdout.readline()).strip() != "at work":
            assert line, process.stderr.read()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert not container.listed(own, using, f"name={own.container}")


def commanded(own, **commands):
    return dataclasses.replace(own, commands=commands)


SLEEP = "python3 -c 'import time; print(\"at work\", flush=True); time.sleep(600)'"


def test_commands_run_beside_the_service(own, using, built, volume):
    # Without a handler the first process of a container does not end on SIGTERM.
    own = dataclasses.replace(own, volumes=(f"{volume}:/kept",), stop_timeout=1)
    own = commanded(own, worker=SLEEP)
    running = container.run(
        own, using, built.references[0], port=0, environment={"A": "1"}
    )
    worker = f"{running.name}-worker"
    assert environ(using, worker)["A"] == "1"
    inside(using, worker, "open('/kept/x', 'w')")
    inside(using, running.name, "open('/kept/x')")
    until(lambda: "at work" in container.log_tail(using, worker))
    assert not using.run("port", worker, check=False).stdout
    form = "{{json .Config.Healthcheck}}"
    answer = using.run("container", "inspect", "--format", form, worker)
    assert json.loads(answer.stdout)["Test"] == ["NONE"]

    # `up` lets what is as set run on, and ends what is set no more.
    def born():
        form = "{{.State.StartedAt}}"
        return using.run("container", "inspect", "--format", form, worker).stdout

    first = born()
    up(own, using, built, port=running.port, environment={"A": "1"})
    assert born() == first
    up(commanded(own, other=SLEEP), using, built, port=running.port,
       environment={"A": "1"})  # fmt: skip
    assert container.state(own, using, worker) is None
    assert container.state(own, using, f"{running.name}-other") == "running"
    container.stop(own, using, running.name)
    assert not container.listed(own, using, f"name={own.container}")


def test_a_command_that_ends_at_once_is_told(own, using, built):
    own = commanded(own, worker="python3 -c 'raise SystemExit(\"no queue\")'")
    with pytest.raises(Problem, match=r"(?s)worker ended with exit code 1; .*no queue"):
        container.run(own, using, built.references[0], port=0)
    assert not container.listed(own, using, f"name={own.container}")


class Asker(threading.Thread):
    """Asks an address again and again, and remembers when it was not answered."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.refused, self.ended = url, [], threading.Event()
        self.asked = 0
        self.start()

    def run(self):
        while not self.ended.wait(0.02):
            begin = time.monotonic()
            try:
                urllib.request.urlopen(self.url, timeout=PATIENCE).close()
            except OSError:
                self.refused.append((begin, time.monotonic()))
            self.asked += 1

    def stop(self):
        """Seconds for which surely none was answered; None if all were."""
        self.ended.set()
        self.join()
        assert self.asked
        if not self.refused:
            return None
        (_, first), (last, _) = self.refused[0], self.refused[-1]
        return max(0.0, last - first)


def test_up_replaces_after_a_change_and_prints_the_gap(own, using, built, free_port):
    first, _ = up(own, using, built, port=free_port, environment={"A": SECRET})
    same, said = up(own, using, built, port=free_port, environment={"A": SECRET})
    assert (same, said) == (first, [])
    asker = Asker(first.url)
    second, said = up(own, using, built, port=free_port, environment={"A": "2"})
    gap = asker.stop()
    assert environ(using, second.name)["A"] == "2"
    printed = float(re.search(r"for ([\d.]+) s at most", said[-1])[1])
    assert gap is None or gap <= printed + 0.05  # it is rounded
    assert container.listed(own, using, f"name={own.container}") == [second.name]
    assert "hunter2" not in using.run("container", "inspect", second.name).stdout


def test_up_keeps_what_serves_if_the_new_one_is_not_healthy(
    own, using, built, free_port
):
    first, _ = up(own, using, built, port=free_port)
    asker = Asker(first.url)
    with pytest.raises(Problem, match=r"(?s)serves on as it was; .*_PORT"):
        up(own, using, built, port=free_port,
           environment={"SERVED_PORT": "abc"})  # fmt: skip
    assert asker.stop() is None
    assert container.listed(own, using, f"name={own.container}") == [first.name]


def test_up_starts_the_old_one_again_if_the_new_one_does_not_answer(
    own, using, built, free_port
):
    first, _ = up(own, using, built, port=free_port)
    deaf = {"SERVED_HOST": "127.0.0.1"}
    with pytest.raises(Problem, match=r"serves again; .*does not answer"):
        up(own, using, built, port=free_port, environment=deaf)
    assert urllib.request.urlopen(first.url, timeout=PATIENCE).status == 200
    assert container.listed(own, using, f"name={own.container}") == [first.name]


STEPS = ("candidate", "created", "stopped", "started", "removed")


@pytest.fixture(scope="module")
def served(project, using, built):
    """Settings and the port of a service, which each test replaces."""
    own = dataclasses.replace(project, container=f"{project.image}-replaced")
    port = unused_port()
    up(own, using, built, port=port)
    yield own, port
    for each in container.listed(own, using, f"name={own.container}"):
        using.discard(each)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_up_interrupted_is_undone_or_mended(served, using, built, step, how):
    """Whatever the moment, something serves, or the next `up` sees to it."""
    own, port = served
    word = f"{step} {how}"
    script = (
        "import os, signal, sys\n"
        "from containerize.engines import container, engine\n"
        "from containerize import tasks\n"
        "real = engine.Engine.run\n"
        "def run(self, *arguments, **options):\n"
        "    answer = real(self, *arguments, **options)\n"
        "    at = {'run': 'candidate', 'create': 'created', 'stop': 'stopped',\n"
        "          'start': 'started', 'rm': 'removed'}.get(arguments[0])\n"
        "    if arguments[0] in ('stop', 'rm') and arguments[-1].endswith('-next'):\n"
        "        at = ''\n"
        "    if at == sys.argv[1] and '--rm' not in arguments:\n"
        "        engine.Engine.run = real\n"
        "        os.kill(os.getpid(), getattr(signal, sys.argv[2]))\n"
        "    return answer\n"
        "engine.Engine.run = run\n"
        "signal.signal(signal.SIGTERM, tasks._terminated)\n"
        "session = tasks.Session()\n"
        "container.ensure(session.settings, session.engine,\n"
        "    session.settings.reference(), port=int(sys.argv[3]),\n"
        "    environment={'A': sys.argv[4]})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, step, how, str(port), word], cwd=own.root,
        env=naming(own, using) | {f"{PREFIX}PORT": str(port)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    if how != "SIGKILL":
        name = own.container
        left = container.listed(own, using, f"name={name}")
        serving = f"http://127.0.0.1:{port}/"
        with urllib.request.urlopen(serving, timeout=PATIENCE) as answer:
            assert answer.status == 200, done.stderr
        if step != "removed":
            assert left == [name], done.stderr
    found, _ = up(own, using, built, port=port, environment={"A": word})
    assert environ(using, found.name)["A"] == word
    assert urllib.request.urlopen(found.url, timeout=PATIENCE).status == 200
    assert container.listed(own, using, f"name={own.container}") == [found.name]


def test_clean_keeps_volumes_unless_told(own, using, built, volume, environment):
    mine = dataclasses.replace(own, image=f"{own.image}-kept")
    using.run("volume", "create", f"--label={mine.label}", volume)

    def clean(*flags):
        root = Path(mine.root)
        return subprocess.run(
            [sys.executable, "-c",
             "import shutil, sys; shutil.rmtree = lambda *a, **k: None\n"
             "from containerize import tasks; import invoke\n"
             "invoke.Program(namespace=tasks.namespace).run()", "clean", *flags],
            cwd=root, env=environment | {f"{PREFIX}IMAGE": mine.image}, text=True,
            capture_output=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    kept = clean()
    assert f"The volumes stay: {volume}" in kept.stdout, kept.stderr
    asked = clean("--volumes")
    assert asked.returncode == 1
    assert volume in asked.stderr
    assert "--yes" in asked.stderr
    assert volumes.owned(mine, using) == [volume]
    assert clean("--volumes", "--yes").returncode == 0
    assert volumes.owned(mine, using) == []
