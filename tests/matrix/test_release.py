"""A release to a Swarm of one node, in a network namespace of its own."""

import base64
import contextlib
import dataclasses
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from containerize.engines.engine import Engine
from containerize.publish import push as pushing
from containerize.publish import reference
from containerize.publish.registry import Repository
from containerize.settings import Settings
from containerize.verify import rebuild
from tests import registries
from tests.conftest import ROOT, Quiet, copied
from tests.matrix import releases
from tests.matrix.conftest import BOOKWORM, FORKY, load

WORDS = "I cannot go on"
WORKER = "import signal as s, sys; s.signal(15, lambda *_: sys.exit()); s.pause()"
QUICK = """\
version: "3.9"
services:
  flask-introduction:
    healthcheck: {interval: 1s, retries: 3}
    deploy: {update_config: {monitor: 3s}, rollback_config: {monitor: 1s}}
"""
"""A user's own file, by which the tests take less time."""


@dataclasses.dataclass
class Done:
    code: int
    out: str
    error: str

    @property
    def line(self):
        """The one line that a release which was refused has written."""
        assert self.code == 1, self
        assert "Traceback" not in self.error
        (line,) = self.error.strip().splitlines()
        return line


def wait(what, seconds=120):
    """Until `what` says that it is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@dataclasses.dataclass
class Swarm:
    """A manager, a registry, and what was pushed there."""

    engine: Engine
    command: Path
    """What asks the manager, as the setting `engine` names it."""
    registry: registries.Registry
    repository: str
    settings: Settings
    archive: Path
    """The archive of the image that serves."""
    outside: Done | None = None
    """What a release said when the engine was in no Swarm."""
    good: str = ""
    """That image, by the digest that it was pushed with; then others."""
    better: str = ""
    bad: str = ""
    foreign: str = ""

    @contextlib.contextmanager
    def client_knows(self, config):
        """Docker's client with these settings."""
        file = self.command.parent / "config.json"
        file.write_text(config)
        try:
            yield
        finally:
            file.unlink()

    def inspect(self, kind, *names):
        answer = self.engine.run("inspect", f"--type={kind}", *names, check=False)
        return json.loads(answer.stdout or "[]")

    def services(self):
        """Each service, as the Swarm has it."""
        listed = self.engine.listing("service", "ls", "--quiet")
        found = self.inspect("service", *listed) if listed else []
        return {one["Spec"]["Name"]: one for one in found}

    def state(self):
        """What a release that is refused must leave as it was."""
        listed = self.engine.listing("network", "ls", "--format={{.Name}}")
        versions = {n: s["Version"]["Index"] for n, s in self.services().items()}
        return versions, sorted(listed)

    def serving(self, service):
        """The images that the running tasks of a service are of."""
        wanted = ("--quiet", "--no-trunc", "--filter=desired-state=running")
        listed = self.engine.listing("service", "ps", *wanted, service)
        return [
            task["Spec"]["ContainerSpec"]["Image"]
            for task in (self.inspect("task", *listed) if listed else [])
            if task["Status"]["State"] == "running"
        ]

    def push(self, tag, *changes):
        """The image with changes of its config, by its digest in the registry."""
        name = f"{self.repository}:{tag}"
        made = self.engine.run("create", self.good).stdout.strip()
        words = [f"--change={each}" for each in changes]
        self.engine.run("commit", *words, made, name)
        self.engine.run("rm", made)
        said = self.engine.run("push", name).stdout
        return f"{self.repository}@{re.search(r'sha256:[0-9a-f]{64}', said)[0]}"


@dataclasses.dataclass
class App:
    """A checkout that is released."""

    root: Path
    swarm: Swarm

    def command(self, *words):
        return [sys.executable, "-m", "containerize", *words]

    @property
    def environ(self):
        base = {k: v for k, v in os.environ.items() if not k.startswith("CONTAINERIZE")}
        own = {"CONTAINERIZE_ENGINE": str(self.swarm.command), "PYTHONPATH": str(ROOT)}
        return base | own | {"CONTAINERIZE_DRAIN_DELAY": "0"}

    def invoke(self, *words, **environ):
        done = subprocess.run(
            self.command(*words),
            cwd=self.root,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def release(self, target, *words, **environ):
        quick = "--compose-file=quick.yml"
        return self.invoke("release", target, quick, *words, **environ)

    def released(self, target, *words, **environ):
        done = self.release(target, *words, **environ)
        assert done.code == 0, done
        return done.out.splitlines()[-1]

    @contextlib.contextmanager
    def begun(self, *words, **environ):
        """A release that runs, in a process group of its own."""
        process = subprocess.Popen(
            self.command("release", *words),
            cwd=self.root,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def table(path, **settings):
    """A checkout with these settings."""
    path.mkdir(exist_ok=True)
    (path / "quick.yml").write_text(QUICK)
    lines = ["[tool.containerize]", 'image = "flask-introduction"']
    for name, value in settings.items():
        if isinstance(value, dict):
            pairs = ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items())
            lines.append(f"{name} = {{{pairs}}}")
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    (path / "pyproject.toml").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module", params=[BOOKWORM, FORKY], ids=lambda r: r.suite)
def swarm(request, repository, unpacked):
    usr = unpacked[request.param]
    with contextlib.ExitStack() as stack:
        stack.enter_context(releases.own_network(usr))
        scratch = tempfile.TemporaryDirectory(prefix="engines-")
        top = Path(stack.enter_context(scratch))
        (top / "builds").mkdir()
        client = stack.enter_context(releases.docker(usr, top)).client
        engine = Engine("docker", client)
        command = top / "manager"
        command.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
        command.chmod(0o755)
        registry = stack.enter_context(registries.registry())
        name = f"{registry.host}/team/app"
        built = rebuild.rebuild(repository, engine, top / "builds", varied=False)
        made = Swarm(engine, command, registry, name, repository, built.archive)
        app = App(table(top / "app"), made)
        made.outside = app.release(f"{name}@sha256:{'0' * 64}")
        engine.run("swarm", "init", "--advertise-addr=127.0.0.1")
        # What that leaves undone ends with the daemon.
        stack.callback(engine.run, "swarm", "leave", "--force", check=False)
        load(repository, engine, built)
        # A record of the push goes where no other's is.
        apart = dataclasses.replace(repository, root=top)
        wanted = pushing.targets(repository, f"{name}:good")
        pushing.push(apart, built.archive, wanted, progress=Quiet())
        made.good = f"{name}@{built.digests.manifest}"
        engine.run("pull", made.good)
        made.better = made.push("better", "ENV BETTER=1")
        code = f'["python3", "-c", "raise SystemExit({WORDS!r})"]'
        made.bad = made.push("bad", f"ENTRYPOINT {code}")
        made.foreign = foreign(name, made.good)
        yield made


def foreign(name, image):
    """The image as if it were for a processor that no node has."""
    named = reference.parse(image)
    target = Repository.at(named)
    manifest = target.read_manifest(named.digest).json()
    about = manifest["config"]
    config = json.loads(b"".join(target.read_blob(about["digest"], about["size"])))
    other = {"amd64": "arm64", "arm64": "amd64"}[config["architecture"]]
    content = json.dumps(config | {"architecture": other}).encode()
    about |= {"digest": target.put_bytes(content), "size": len(content)}
    put = json.dumps(manifest).encode()
    target.put_manifest(put, manifest["mediaType"])
    return f"{name}@{registries.digest(put)}"


@pytest.fixture
def app(swarm, tmp_path):
    """A checkout whose stack, and whatever else a test makes, goes in the end."""
    before = {*swarm.engine.listing("network", "ls", "--format={{.Name}}")}
    yield App(table(tmp_path / "app"), swarm)
    if found := [*swarm.services()]:
        swarm.engine.run("service", "rm", *found)
        wait(lambda: not swarm.engine.listing("ps", "--quiet"))
    for name in swarm.engine.listing("secret", "ls", "--format={{.Name}}"):
        swarm.engine.run("secret", "rm", name)

    def gone():
        there = {*swarm.engine.listing("network", "ls", "--format={{.Name}}")}
        for name in there - before:
            swarm.engine.run("network", "rm", name, check=False)
        return there <= before

    wait(gone)


@pytest.fixture
def has_volumes(swarm):
    """The node is to have the volumes."""
    node = swarm.engine.listing("node", "ls", "--quiet")[0]
    label = "flask-introduction.volumes"
    swarm.engine.run("node", "update", f"--label-add={label}=here", node)
    yield
    swarm.engine.run("node", "update", f"--label-rm={label}", node)


def digest(image):
    return image.partition("@")[2]


# --- Released --------------------------------------------------------------------

ONLY = pytest.mark.parametrize("swarm", [BOOKWORM], indirect=True, ids=["bookworm"])
"""Of one engine: what another one would show no better."""


@ONLY
def test_from_the_checkout_to_what_serves_and_back(app, swarm, repository, tmp_path):
    """Verify, push, pull, --before, deploy; then what was pushed before."""
    clone = copied(repository, tmp_path / "clone")
    (clone.root / "quick.yml").write_text(QUICK)
    whole = App(clone.root, swarm)
    command = "python3 -c \"import os; print(os.environ['WHO'], os.getuid())\""
    done = whole.release(
        swarm.repository, "--verify", "--stack=shop", f"--before={command}",
        "--env=WHO", WHO="$me & 'you'",
    )  # fmt: skip
    assert done.code == 0, done
    pushed = json.loads((clone.root / f"dist/{clone.image}.push.json").read_text())
    image = pushed["reference"]
    service = f"shop_{clone.image}"
    *_, last = done.out.splitlines()
    assert last == f"{service} serves {digest(image)} with 2 of 2 tasks"
    assert "Equal to " in done.out
    assert "  $me & 'you' 65532\n" in done.out
    assert swarm.serving(service) == [image] * 2
    container = swarm.services()[service]["Spec"]["TaskTemplate"]["ContainerSpec"]
    assert "WHO=$me & 'you'" in container["Env"]
    # What this engine shows of it has no value of a variable.
    assert "$me" not in "".join(re.findall(r"^\$ .*", done.out, re.M))
    last = whole.released(swarm.better, "--stack=shop")
    assert last == f"{service} serves {digest(swarm.better)} with 2 of 2 tasks"
    last = whole.released(image, "--stack=shop")
    assert last == f"{service} serves {digest(image)} with 2 of 2 tasks"
    assert swarm.serving(service) == [image] * 2
    assert [*swarm.services()] == [service]


@pytest.fixture
def serving(app):
    """A service that serves the good image, and a worker beside it."""
    table(app.root, commands={"worker": f"python3 -c {shlex.quote(WORKER)}"})
    app.released(app.swarm.good)
    return app


def test_a_bad_image_is_rolled_back_and_all_with_it(serving, swarm):
    done = serving.release(swarm.bad)
    assert done.code == 1
    first, last = done.error.strip().splitlines()
    name = "flask-introduction_flask-introduction"
    assert first == (
        f"release: {name} serves {digest(swarm.good)} with 2 of 2 tasks; "
        f"{name} is rolled back: a task ended with exit code 1; the end of its log:"
    )
    assert last == WORDS
    assert swarm.serving(name) == [swarm.good] * 2
    assert swarm.serving(f"{name}-worker") == [swarm.good]
    # And it can be repeated with another image.
    assert digest(swarm.better) in serving.released(swarm.better)


def test_what_never_served_is_taken_away_again(app, swarm):
    before = swarm.state()
    done = app.release(swarm.bad, "--stack=fresh")
    assert done.code == 1
    first, last = done.error.strip().splitlines()
    assert first.startswith("release: nothing of the stack fresh served before, and it")
    assert last == WORDS
    # Its networks too: what was said was looked at.
    assert swarm.state() == before


SIDE = """\
version: "3.9"
services:
  flask-introduction: {networks: [default, side], secrets: [side], configs: [side]}
networks: {side: {}}
secrets: {side: {file: side.txt}}
configs: {side: {file: side.txt}}
"""
"""A user's own file, by which a stack gets one more of each kind."""

SLOWLY = f"""\
version: "3.9"
services:
  flask-introduction:
    entrypoint: [python3, -c, "import time; time.sleep(8); raise SystemExit('{WORDS}')"]
networks:
  default: {{attachable: true}}
"""


@ONLY
@pytest.mark.parametrize("freed", [True, False])
def test_a_network_that_is_in_use_is_not_said_to_be_removed(app, swarm, freed):
    before = swarm.state()
    (app.root / "slowly.yml").write_text(SLOWLY)
    short = {"CONTAINERIZE_HEALTH_TIMEOUT": "1", "CONTAINERIZE_STOP_TIMEOUT": "3"}
    words = ("--stack=fresh", "--compose-file=quick.yml", "--compose-file=slowly.yml")
    waits = ("--entrypoint=python3", swarm.good, "-c", "import signal; signal.pause()")
    held = ("--detach", "--rm", "--name=holds", "--network=fresh_default")
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(app.begun(swarm.good, *words, **short))
        assert any(" 0 of 2 tasks run" in line for line in process.stdout)
        swarm.engine.run("run", *held, *waits)
        free = ("rm", "--force", "holds")
        stack.callback(swarm.engine.run, *free, check=False)
        assert any(" network rm " in line for line in process.stdout)
        if freed:
            swarm.engine.run(*free)
        _, error = process.communicate()
    assert process.returncode == 1
    assert "nothing of the stack fresh served before, and it is removed" in error
    if freed:
        assert swarm.state() == before
    else:
        assert "of it: later, `docker network rm fresh_default` removes it; " in error


@ONLY
def test_what_an_update_made_anew_goes_with_it(serving, swarm):
    (serving.root / "side.txt").write_text("side\n")
    (serving.root / "side.yml").write_text(SIDE)
    before = swarm.state()
    done = serving.release(swarm.bad, "--compose-file=side.yml")
    assert "is rolled back: a task ended with exit code 1" in done.error
    assert swarm.state()[1] == before[1]
    for kind in ("secret", "config"):
        assert swarm.engine.listing(kind, "ls", "--quiet") == []
    serving.released(swarm.better, "--compose-file=side.yml")
    (serving.root / "side.txt").write_text("edited\n")
    done = serving.release(swarm.good, "--compose-file=side.yml")
    assert "side.yml: Swarm changes no config or secret: give what you" in done.line


SLOW_WORKER = """
import signal as s, time
s.signal(15, lambda *_: (time.sleep(6), exit()))
while True:
    s.pause()
"""


@ONLY
def test_a_worker_never_runs_twice_when_a_release_is_taken_back(app, swarm):
    table(app.root, commands={"worker": f"python3 -c {shlex.quote(SLOW_WORKER)}"})
    app.released(swarm.good)
    done = app.release(swarm.bad)
    assert "is rolled back: a task ended with exit code 1" in done.error
    name = "flask-introduction_flask-introduction-worker"
    # What is said is so: no task of before still ends.
    assert swarm.serving(name) == [swarm.good]
    label = f"--filter=label=com.docker.swarm.service.name={name}"
    listed = swarm.engine.listing("ps", "--all", "--quiet", label)
    states = [one["State"] for one in swarm.inspect("container", *listed)]
    assert [one["Running"] for one in states].count(True) == 1
    begun = sorted((one["StartedAt"], one["FinishedAt"]) for one in states)
    assert len(begun) > 1
    for (_, end), (start, _) in itertools.pairwise(begun):
        assert end <= start, begun


@ONLY
def test_a_new_command_that_fails_takes_the_release_with_it(app, swarm):
    app.released(swarm.good)
    table(app.root, commands={"worker": f"python3 -c 'raise SystemExit(\"{WORDS}\")'"})
    done = app.release(swarm.better)
    assert done.code == 1
    name = "flask-introduction_flask-introduction"
    assert f"{name}-worker fails: a task ended with exit code 1" in done.error
    assert [*swarm.services()] == [name]
    assert swarm.serving(name) == [swarm.good] * 2


@ONLY
def test_what_no_node_can_have_is_taken_back(app, swarm):
    app.released(swarm.good)
    nowhere = QUICK.replace(
        "deploy: {", 'deploy: {placement: {constraints: ["node.id == x"]}, '
    )
    (app.root / "nowhere.yml").write_text(nowhere)
    done = app.release(
        swarm.better, "--compose-file=nowhere.yml", CONTAINERIZE_HEALTH_TIMEOUT="3"
    )
    assert "no node can have it: no suitable node" in done.line
    name = "flask-introduction_flask-introduction"
    assert f"{name} serves {digest(swarm.good)} with 2 of 2 tasks" in done.line
    assert swarm.serving(name) == [swarm.good] * 2


# --- Before ----------------------------------------------------------------------

INSIDE = """
import os, pathlib
status = dict(l.split(":\\t", 1) for l in open("/proc/self/status"))
print("uid", status["Uid"].split()[0], "caps", int(status["CapEff"], 16))
for place in ("/", "/srv", "/tmp"):
    print(place, os.access(place, os.W_OK))
print("secret", pathlib.Path("/run/secrets/key").read_text())
print("data", os.access("/srv/data", os.W_OK))
print("networks", len(os.listdir("/sys/class/net")))
"""


@ONLY
@pytest.mark.usefixtures("has_volumes")
def test_before_has_what_the_service_has(app, swarm):
    (app.root / "key").write_text("1234")
    swarm.engine.run("secret", "create", "key", str(app.root / "key"))
    table(app.root, secrets={"key": "key"})
    app.released(swarm.good)
    table(app.root, secrets={"key": "key"}, volumes=["data:/srv/data"])
    done = app.release(swarm.better, f"--before=python3 -c {shlex.quote(INSIDE)}")
    assert done.code == 0, done
    told = re.findall(r"^  (\S.*)", done.out, re.M)
    assert told == [
        "uid 65532 caps 0", "/ False", "/srv False", "/tmp True", "secret 1234",
        "data True", "networks 3",
    ]  # fmt: skip


def test_before_that_fails_ends_the_release(serving, swarm):
    before = swarm.state()
    code = "import sys; print('out'); print('no table', file=sys.stderr); sys.exit(4)"
    done = serving.release(swarm.better, f"--before=python3 -c {shlex.quote(code)}")
    assert (
        "ended with exit code 4, so nothing is deployed; its last words: " in done.line
    )
    assert done.line.endswith("no table")
    assert "  out\n" in done.out
    assert swarm.state() == before


@ONLY
def test_a_command_whose_name_has_a_blank_is_one_word(serving, swarm):
    done = serving.release(swarm.better, "--before='no such' x")
    assert 'exec: "no such": executable file not found' in done.line


@ONLY
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_before_ends_with_who_has_begun_it(serving, swarm, number):
    before = swarm.state()
    code = "import time; print('begun', flush=True); time.sleep(600)"
    words = (swarm.better, f"--before=python3 -c {shlex.quote(code)}")
    with serving.begun(*words) as process:
        assert any(line == "  begun\n" for line in process.stdout)
        assert len(swarm.services()) == 4
        os.killpg(process.pid, number)
        process.communicate()
    assert process.returncode == 128 + number
    # What it began has ended too, so that it cannot be there twice.
    assert swarm.engine.listing("ps", "--quiet", "--filter=name=release-of-") == []
    assert swarm.state() == before


@ONLY
def test_who_changes_the_stack_meanwhile_is_not_gone_over(serving, swarm):
    name = "flask-introduction_flask-introduction"
    code = """
import os, time
print("begun", flush=True)
while not os.path.exists("/tmp/go"):
    time.sleep(0.2)
"""
    words = (swarm.better, f"--before=python3 -c {shlex.quote(code)}")
    with serving.begun(*words) as process:
        assert any(line == "  begun\n" for line in process.stdout)
        # Another release of the stack is refused, and ends nothing of this one.
        other = serving.release(swarm.better)
        assert "another release of the stack flask-introduction is under" in other.line
        swarm.engine.run("service", "update", "--detach", "--label-add=a=b", name)
        once = swarm.engine.listing("ps", "--quiet", "--filter=name=release-of-")
        go = ("python3", "-c", "open('/tmp/go', 'w')")
        # It ends with what it lets end.
        swarm.engine.run("exec", once[0], *go, check=False)
        _, error = process.communicate()
    assert process.returncode == 1
    assert "someone else has changed the stack flask-introduction meanwhile" in error
    assert swarm.serving(name) == [swarm.good] * 2


@ONLY
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_leaves_while_it_is_deployed_leaves_no_half_of_it(serving, swarm, number):
    name = "flask-introduction_flask-introduction"
    with serving.begun(swarm.better, "--compose-file=quick.yml") as process:
        assert any(" stack deploy " in line for line in process.stdout)
        os.killpg(process.pid, number)
        out, _ = process.communicate()
    assert process.returncode == 128 + number
    assert "Swarm goes on by itself" in out
    for service in (name, f"{name}-worker"):
        container = swarm.services()[service]["Spec"]["TaskTemplate"]["ContainerSpec"]
        assert container["Image"] == swarm.better


@ONLY
def test_who_leaves_while_its_deploy_fails_leaves_none_of_it(serving, swarm, tmp_path):
    command = tmp_path / "cut-off"
    deploys = '"$1 $2 $3" = "stack deploy --with-registry-auth"'
    program = f'#!/bin/sh\n{swarm.command} "$@" || exit\n[ {deploys} ] && exit 1 || :\n'
    command.write_text(program)
    command.chmod(0o755)
    cut_off = App(serving.root, dataclasses.replace(swarm, command=command))
    with cut_off.begun(swarm.better, "--compose-file=quick.yml") as process:
        assert any(" stack deploy " in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert "what it changed is taken back; " in out
    assert "Swarm goes on" not in out
    for service in ("flask-introduction", "flask-introduction-worker"):
        container = swarm.services()[f"flask-introduction_{service}"]["Spec"]
        assert container["TaskTemplate"]["ContainerSpec"]["Image"] == swarm.good


@ONLY
def test_who_reads_no_more_is_told_no_success(serving, swarm):
    before = swarm.state()
    with serving.begun(swarm.better, "--compose-file=quick.yml") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 128 + signal.SIGPIPE
        assert process.stderr.read() == ""
    assert swarm.state() == before


ONCE = """\
version: "3.9"
services:
  once:
    image: IMAGE
    entrypoint: ["python3", "-c", "pass"]
    healthcheck: {disable: true}
    deploy: {restart_policy: {condition: none}}
"""


@ONLY
def test_what_ends_as_its_file_has_it_is_no_failure(serving, swarm):
    (serving.root / "once.yml").write_text(ONCE.replace("IMAGE", swarm.good))
    last = serving.released(swarm.better, "--compose-file=once.yml")
    assert last.endswith("with 2 of 2 tasks")
    assert len(swarm.services()) == 3


@ONLY
def test_another_image_by_a_file_is_taken_back(serving, swarm):
    text = f"{QUICK}    image: {swarm.good}\n"
    (serving.root / "other.yml").write_text(text)
    done = serving.release(swarm.better, "--compose-file=other.yml")
    name = "flask-introduction_flask-introduction"
    assert f"names another image for {name}, {swarm.good}: leave its" in done.line
    assert swarm.serving(name) == [swarm.good] * 2
    wait(lambda: swarm.serving(f"{name}-worker") == [swarm.good])


@ONLY
def test_what_never_gets_healthy_is_told_so(app, swarm):
    check = '["python3", "-c", "raise SystemExit(1)"]'
    never = swarm.push("never", f"HEALTHCHECK --start-period=1s CMD {check}")
    (app.root / "short.yml").write_text(QUICK.replace("retries: 3", "start_period: 1s"))
    done = app.release(never, "--compose-file=short.yml")
    # Swarm says why, unless the task has ended before it could.
    assert "ended with exit code 0: it was not healthy" in done.error, done.error


@ONLY
def test_another_release_that_came_meanwhile_is_not_taken_back(app, swarm):
    """The first one that ever was fails, and has made what the second one changed."""
    name = "flask-introduction_flask-introduction"
    (app.root / "slow.yml").write_text(QUICK.replace("interval: 1s", "interval: 60s"))
    with app.begun(swarm.good, "--compose-file=slow.yml") as process:
        assert any(" 0 of 2 tasks run" in line for line in process.stdout)
        other = app.release(swarm.better)
        assert "another release of the stack flask-introduction is under" in other.line
        update = ("service", "update", "--detach", f"--image={swarm.better}")
        swarm.engine.run(*update, "--no-resolve-image", "--health-interval=1s", name)
        _, error = process.communicate()
    assert process.returncode == 1
    assert "which is not what was released" in error
    wait(lambda: swarm.serving(name) == [swarm.better] * 2)


@ONLY
def test_swarm_goes_on_if_who_waits_leaves(serving, swarm):
    name = "flask-introduction_flask-introduction"
    with serving.begun(swarm.better, "--compose-file=quick.yml") as process:
        assert any(
            f" of 2 tasks run {digest(swarm.better)[:19]}" in line
            for line in process.stdout
        )
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate()
    assert process.returncode == 130
    assert "Swarm goes on by itself: `docker stack ps flask-introduction` shows" in out
    back = f"docker service rollback {name} && docker service rollback {name}-worker"
    assert f", `{back}` takes it back" in out
    # Until it has ended, no other one goes over it.
    busy = serving.release(swarm.good)
    assert f"an update of {name} is under way (updating): wait for its end" in busy.line
    wait(lambda: swarm.serving(name) == [swarm.better] * 2)


# --- Refused, with nothing changed -----------------------------------------------


def test_no_swarm(swarm):
    assert swarm.outside.line.startswith(
        "release: the engine is in no Swarm (inactive)"
    )


@ONLY
def test_podman_is_no_manager(app, swarm):
    done = app.release(swarm.good, CONTAINERIZE_ENGINE="podman")
    assert "a release goes through Docker Swarm, and the engine is Podman" in done.line


def taken(swarm, name, *options):
    """A service of no tasks, which somebody else has."""
    words = ("--detach", "--no-resolve-image", "--replicas=0", f"--name={name}")
    swarm.engine.run("service", "create", *words, *options, swarm.good)


NAMESPACE = "--label=com.docker.stack.namespace=flask-introduction"

CASES = {
    "not pushed": (
        lambda app: [f"{app.swarm.repository}@sha256:{'0' * 64}"],
        r"has no sha256:0+: see that it is pushed",
    ),
    "of another processor": (
        lambda app: [app.swarm.foreign],
        r"the image is for \w+, and \S+ is \w+: add it to the setting architectures",
    ),
    "no digest": (
        lambda app: [f"{app.swarm.repository}:good", "--stack=a b"],
        "'a b' is no name of a stack",
    ),
    "a tag for what is there": (
        lambda app: [app.swarm.good, "--tag=x"],
        "is there already: leave out --tag",
    ),
    "no secret": (
        lambda app: table(app.root, secrets={"gone": "a.txt"}) and [app.swarm.good],
        "the Swarm has no secret gone: `docker secret create gone a.txt` makes it",
    ),
    "no network": (
        lambda app: table(app.root, network="gone") and [app.swarm.good],
        r"the Swarm has no network gone \(setting network\)",
    ),
    "a network of one node": (
        lambda app: table(app.root, network="bridge") and [app.swarm.good],
        r"the network bridge \(setting network\) is of this node alone \(bridge\)",
    ),
    "a port that a service has": (
        lambda app: (
            taken(app.swarm, "other", "--publish=9000:80")
            or (table(app.root, **{"ingress-port": 9000})
            and [app.swarm.good])
        ),
        "the port 9000 is taken by the service other: choose another",
    ),
    "no node for the volumes": (
        lambda app: table(app.root, volumes=["data:/srv/data"]) and [app.swarm.good],
        "no node is to have the volumes: `docker node update --label-add flask-intro",
    ),
    "a directory in place of a volume": (
        lambda app: table(app.root, volumes=["./data:/srv/data"]) and [app.swarm.good],
        "is a directory of this machine",
    ),
    "a stack that is nobody's": (
        lambda app: taken(app.swarm, "a", NAMESPACE) or [app.swarm.good],
        "the stack flask-introduction is another's already: choose another name",
    ),
    "a stack of another project": (
        lambda app: (
            taken(app.swarm, "a", NAMESPACE, "--label=containerize.project=x")
            or [app.swarm.good]
        ),
        "the stack flask-introduction is the project x's already",
    ),
    "a service of no stack": (
        lambda app: (
            taken(app.swarm, "flask-introduction_flask-introduction")
            or [app.swarm.good]
        ),
        "there is a service flask-introduction_flask-introduction already, which is",
    ),
    "a name that is too long": (
        lambda app: [app.swarm.good, f"--stack={'a' * 60}"],
        "is longer than the 63 characters that a service's name can have",
    ),
    "a file that is not there": (
        lambda app: [app.swarm.good, "--compose-file=gone.yml"],
        r"gone.yml is not there: mend --compose-file",
    ),
    "a directory in place of a file": (
        lambda app: [app.swarm.good, "--compose-file=/tmp"],
        r"/tmp is no file: mend --compose-file",
    ),
    "a command that cannot be read": (
        lambda app: [app.swarm.good, "--before=flask 'db"],
        "--before \"flask 'db\" cannot be read: No closing quotation",
    ),
    "a command of no words": (
        lambda app: [app.swarm.good, "--before= "],
        "--before has no words",
    ),
    "no file of variables": (
        lambda app: [app.swarm.good, "--env-file=gone.env"],
        "there is no file .*gone.env",
    ),
}  # fmt: skip


@ONLY
@pytest.mark.parametrize("name", CASES)
def test_refused(app, swarm, name):
    arguments, said = CASES[name]
    words = arguments(app)
    before = swarm.state()
    done = app.release(*words)
    assert re.search(said, done.line), done
    assert swarm.state() == before


@ONLY
def test_a_port_that_a_container_has(app, swarm):
    name = "holds-a-port"
    publish = (f"--name={name}", "--publish=9001:8080")
    swarm.engine.run("run", "--detach", *publish, swarm.good)
    try:
        table(app.root, **{"ingress-port": 9001})
        before = swarm.state()
        done = app.release(swarm.good)
        assert f"the port 9001 is taken by the container {name} of this" in done.line
        assert swarm.state() == before
    finally:
        swarm.engine.discard(name)


@ONLY
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_port_that_any_program_of_a_node_has(app, swarm, host):
    """Its network is the node's, so that no engine knows of its port."""
    code = f"""
import socket
family = socket.AF_INET6 if ":" in {host!r} else socket.AF_INET
with socket.create_server(({host!r}, 9002), family=family):
    print("listens", flush=True)
    __import__("time").sleep(600)
"""
    table(app.root, **{"ingress-port": 9002})
    before = swarm.state()
    name = f"taken-{os.getpid()}"
    start = ("--network=host", "--entrypoint=python3", f"--name={name}")
    swarm.engine.run("run", "--detach", *start, swarm.good, "-c", code)
    node = swarm.engine.run("info", "--format={{.Name}}").stdout.strip()
    try:
        wait(lambda: "listens" in swarm.engine.run("logs", name).stdout)
        done = app.release(swarm.good)
        assert f"something listens on port 9002 of {node}: end it, or" in done.line
    finally:
        swarm.engine.discard(name)
    done = app.release(swarm.good, "--before=python3 -c 'raise SystemExit(3)'")
    assert "ended with exit code 3, so nothing is deployed" in done.line
    assert swarm.state() == before


@ONLY
def test_replicas_that_were_set_by_hand_go_back_with_a_word(serving, swarm):
    name = "flask-introduction_flask-introduction"
    swarm.engine.run("service", "scale", f"{name}=3")
    done = serving.release(swarm.better)
    assert f"note      {name} had 3 replicas and is to have 2, as the" in done.out
    assert done.out.splitlines()[-1].endswith("with 2 of 2 tasks")
    assert "and is to have" not in serving.release(swarm.good).out


def test_a_file_that_cannot_be_read_changes_nothing(serving, swarm):
    (serving.root / "broken.yml").write_text('version: "3.9"\nservices: [1, 2]\n')
    before = swarm.state()
    done = serving.release(swarm.better, "--compose-file=broken.yml")
    assert "must be a mapping" in done.line
    assert {*swarm.state()[0]} == {*before[0]}
    assert swarm.serving("flask-introduction_flask-introduction") == [swarm.good] * 2


def test_who_may_pull_is_told_to_each_node(app, swarm, tmp_path, monkeypatch):
    htpasswd = registries.htpasswd(tmp_path / "htpasswd")
    with registries.registry(auth=htpasswd) as guarded:
        login = f"{registries.USER}:{registries.PASSWORD}".encode()
        auth = {"auth": base64.b64encode(login).decode()}
        known = json.dumps({"auths": {guarded.host: auth}})
        (tmp_path / "config.json").write_text(known)
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        apart = dataclasses.replace(swarm.settings, root=tmp_path)
        wanted = pushing.targets(apart, f"{guarded.host}/team/app")
        pushing.push(apart, swarm.archive, wanted, progress=Quiet())
        image = f"{guarded.host}/team/app@{digest(swarm.good)}"
        before = swarm.state()
        # The checkout may read it, and Docker's client, whose settings are others, not.
        done = app.release(image)
        node = swarm.engine.run("info", "--format={{.Name}}").stdout.strip()
        said = f"{node} cannot pull {image}: {guarded.host} wants to know who pulls"
        assert said in done.line
        assert swarm.state() == before
        with swarm.client_knows(known):
            assert digest(image) in app.released(image)


# --- What else meets the tasks' containers ----------------------------------------


@ONLY
def test_what_the_swarm_runs_is_left_alone(serving, swarm):
    name = "flask-introduction_flask-introduction"
    ours = ("ps", "--quiet", "--filter=label=containerize.project=flask-introduction")
    tasks = swarm.engine.listing(*ours)
    assert len(tasks) == 3
    form = ("--format={{.Names}}", f"--filter=id={tasks[0]}")
    task = swarm.engine.listing("ps", *form)[0]
    for verb in ("stop", "logs"):
        done = serving.invoke(verb, f"--name={task}")
        assert f"no container {task} of this project is there" in done.line
    alone = swarm.engine.run("create", swarm.good).stdout.strip()
    swarm.engine.run("tag", swarm.better, "unused:1")
    done = serving.invoke("clean")
    assert done.code == 0, done
    removed, *_ = done.out.splitlines()
    assert removed.startswith("removed   1 container: ")
    assert not swarm.inspect("container", alone)
    assert re.search("^kept      .*, which a Swarm or a pod runs$", done.out, re.M)
    assert swarm.engine.listing(*ours) == tasks
    assert swarm.serving(name) == [swarm.good] * 2
    assert swarm.inspect("image", swarm.good)
