"""The manifests for Kubernetes, played by Podman: `podman kube play`.

Podman knows less than Kubernetes. What is played differs from what is printed by what
`played` does, and by nothing else.
"""

import base64
import contextlib
import copy
import dataclasses
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from containerize import settings
from containerize.engines.engine import Engine
from containerize.fetch import inputs
from containerize.settings import Settings
from containerize.verify import rebuild
from tests.conftest import ROOT, Quiet
from tests.matrix import releases
from tests.matrix.conftest import BOOKWORM, FORKY, load

SHAPE = ROOT / "tests/adopters/shapes/worker"
# Beside the worker, an app that tells what it was given.
APP = """
import os
import time
from collections.abc import Callable
from pathlib import Path

from flask import Flask


def create_app():
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "the shop is open")

    @app.get("/given")
    def given():
        Path("/data/orders").write_text("one order")
        token = os.environ["TOKEN"]
        return {"TOKEN": token, "secret": Path("/run/secrets/token").read_text()}

    @app.get("/slow")
    def slow():
        time.sleep(11)
        return "done"

    @app.get("/ready")
    def ready():
        return ("", 503) if Path("/tmp/busy").exists() else "ready"

    return app
"""
TOKEN = 'a "b" $C $(D) # e\n  f'
SECRET = "hush $(TOKEN)\n"
TABLE = """
env-file = ".env"
volumes = ["shop-data:/data"]
commands.worker = "python3 -m shop.worker"
secrets.token = "token.txt"
"""
CHECK = ["python3", "-I", "-S", "/usr/local/lib/served/served/healthcheck.py"]


@dataclasses.dataclass(frozen=True)
class App:
    """An image, and what is printed for it."""

    settings: Settings
    built: rebuild.Rebuild
    text: str
    """What `/` answers with."""
    manifests: list[dict]
    secrets: list[dict]


def printed(root: Path, *flags: str) -> list[dict]:
    """The documents that the verb prints in a repository."""
    text = tool(root, "manifest", "kubernetes", *flags)
    return list(yaml.safe_load_all(text))


def tool(root: Path, *command: str) -> str:
    """What a verb writes to stdout in a repository."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CONTAINERIZE_", "FLASK_", "PYTHON"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "containerize", *command],
        cwd=root,
        env=kept | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return done.stdout


def adopted(root: Path) -> Settings:
    """An app that knows nothing of ours, given to the tool."""
    shutil.copytree(SHAPE, root, ignore=shutil.ignore_patterns("shape.toml", "__*__"))
    (root / "shop").mkdir(exist_ok=True)
    shutil.copy(SHAPE / "shop/worker.py", root / "shop")
    (root / "shop/__init__.py").write_text(APP)
    (root / "token.txt").write_text(SECRET)
    (root / ".env").write_text(f"TOKEN='{TOKEN}'\nSERVED_READY_PATH=/ready\n")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    tool(root, "init")
    with (root / "pyproject.toml").open("a") as file:
        file.write(TABLE)
    tool(root, "lock")
    return settings.load(root)


@pytest.fixture(scope="session")
def apps(repository, unpacked):
    """Our own, and one that `init` has adopted; built by one engine for all."""
    with tempfile.TemporaryDirectory(prefix="engines-") as scratch:
        top = Path(scratch)
        top.chmod(0o755)
        engine = releases.podman(unpacked[BOOKWORM], top)
        builds = top / "builds"
        builds.mkdir()
        made = {}
        for name, own, text in (
            ("ours", repository, "Hello World from Flask"),
            ("adopted", adopted(top / "shop"), "the shop is open"),
        ):
            inputs.fetch(own, progress=Quiet())
            built = rebuild.rebuild(own, engine, builds, varied=False)
            image = f"registry.example/team/{own.image}@{built.digests.manifest}"
            manifests = printed(own.root, f"--image={image}")
            secrets = printed(own.root, "--secrets") if own.secrets else []
            made[name] = App(own, built, text, manifests, secrets)
        yield made


@dataclasses.dataclass
class Player:
    """A Podman that plays, in a network of this thread's own."""

    engine: Engine
    old: bool
    """Whether it is of version 4."""
    images: dict[str, str]
    top: Path

    def played(self, app: App) -> list[dict]:
        """What Podman can play of what is printed.

        - The image is a local one, and there is one replica. A Service and a
          PodDisruptionBudget are nothing to Podman.
        - A probe by HTTP would be a shell and curl to it, which the image has not: the
          image's own check is made instead. Podman 4.3 gives that to a shell too, so
          there it has none, and is asked for by `exec`.
        - Podman 4.3 publishes each port of a container on all addresses of the host,
          which it cannot in a network that is the host's: ports are not named.
        - It knows no fsGroup: the mode of a secret is for all.
        """
        found = []
        for each in copy.deepcopy(app.manifests):
            if each["kind"] in ("Service", "PodDisruptionBudget"):
                continue
            if each["kind"] == "Deployment":
                each["spec"]["replicas"] = 1
                self.play_pod(each["spec"]["template"]["spec"], app)
            found.append(each)
        return found

    def play_pod(self, pod: dict, app: App) -> None:
        for volume in pod["volumes"]:
            if "secret" in volume:
                volume["secret"]["defaultMode"] = 0o444
        [one] = pod["containers"]
        one["image"] = self.images[app.settings.image]
        one.pop("ports", None)
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if self.old:
                one.pop(kind, None)
            elif kind in one:
                del one[kind]["httpGet"]
                one[kind]["exec"] = {"command": CHECK}

    def give_secrets(self, app: App) -> list[dict]:
        """The Secrets to play; Podman 4.3, which reads them otherwise, has them then.

        It reads that of variables as its data alone, that of files not in Base64.
        """
        if not self.old:
            return app.secrets
        for each in app.secrets:
            name, data = each["metadata"]["name"], each["data"]
            plain = {k: base64.b64decode(v).decode() for k, v in data.items()}
            variables = name.endswith("-environment")
            made = json.dumps(data if variables else each | {"data": plain})
            self.engine.run("secret", "create", name, "-", input=made.encode())
        return []

    @contextlib.contextmanager
    def plays(self, app: App):
        """The pods of an app, until they are removed."""
        file = self.top / "played.yml"
        try:
            file.write_text(
                yaml.safe_dump_all([*self.give_secrets(app), *self.played(app)])
            )
            self.engine.run("kube", "play", "--network=host", str(file))
            yield Pods(self, app)
        finally:
            for name in self.engine.listing("ps", "--all", "--format={{.Names}}"):
                said = self.engine.run("logs", name, check=False, merge=True).stdout
                print(f"log of {name}:\n{said}")
            self.engine.run("pod", "kill", "--all", check=False)
            self.engine.run("pod", "rm", "--all", "--force")
            self.engine.run("volume", "rm", "--all")
            self.engine.run("secret", "rm", "--all")


@dataclasses.dataclass
class Pods:
    """The pods that one app's manifests have become."""

    player: Player
    app: App

    @property
    def engine(self) -> Engine:
        return self.player.engine

    @property
    def deployments(self) -> dict[str, dict]:
        """By name: the containers as they are printed."""
        return {
            each["metadata"]["name"]: each["spec"]["template"]["spec"]
            for each in self.app.manifests
            if each["kind"] == "Deployment"
        }

    @property
    def service(self) -> dict:
        """That of the service, as it is printed."""
        return self.deployments[self.app.settings.image]

    def container(self, name: str) -> str:
        """The name of the container of a Deployment."""
        pod = f"{name}-pod-0" if self.player.old else f"{name}-pod"
        return f"{pod}-{name}"

    def get(self, path: str) -> tuple[int, str]:
        port = self.app.settings.container_port
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            asking.request("GET", path)
            answer = asking.getresponse()
            return answer.status, answer.read().decode()
        finally:
            asking.close()

    def probe(self, kind: str) -> int:
        """Ask as a kubelet does; the status, 0 if nothing answers."""
        try:
            return self.get(self.service["containers"][0][kind]["httpGet"]["path"])[0]
        except ConnectionRefusedError:
            return 0

    def wait_started(self) -> None:
        """As a kubelet does, at most for as long as the manifest says.

        And until each command has said that it works: it can be stopped then.
        """
        probe = self.service["containers"][0]["startupProbe"]
        commands = self.deployments.keys() - {self.app.settings.image}
        for _ in range(probe["failureThreshold"]):
            if self.probe("startupProbe") == 200 and all(map(self.log, commands)):
                return
            time.sleep(probe["periodSeconds"])
        raise AssertionError("not started")

    def log(self, name: str) -> str:
        return self.engine.run("logs", self.container(name), check=False).stdout

    def healthy(self) -> bool:
        """What the image's check says."""
        name = self.container(self.app.settings.image)
        command = (
            ("exec", name, *CHECK) if self.player.old else ("healthcheck", "run", name)
        )
        return self.engine.run(*command, check=False).returncode == 0

    def look(self, name: str) -> dict:
        """What a process of a container sees of what it may do."""
        command = ("exec", self.container(name), "python3", "-I", "-c", LOOK)
        return json.loads(self.engine.run(*command).stdout)

    def inspect(self, name: str, form: str) -> str:
        command = ("inspect", f"--format={form}", self.container(name))
        return self.engine.run(*command).stdout.strip()

    def stop(self) -> None:
        """As a kubelet does: SIGTERM, and SIGKILL when the time is over."""
        seconds = self.service["terminationGracePeriodSeconds"]
        self.engine.run(
            "pod", "stop", "--all", f"--time={seconds}", timeout=seconds + 30
        )


LOOK = """
import json, os
def writes(path):
    try:
        with open(path, "w"):
            return True
    except OSError as error:
        return error.strerror
status = dict(line.split(":", 1) for line in open("/proc/1/status") if ":" in line)
print(json.dumps({
    "status": {name: value.split() for name, value in status.items()},
    "read-only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
    "writes": {path: writes(path) for path in ("/x", "/srv/x", "/tmp/x")},
    "token": os.path.exists("/run/secrets/kubernetes.io"),
}))
"""


@pytest.fixture(scope="module", params=[BOOKWORM, FORKY], ids=["podman4", "podman5"])
def player(request, apps, unpacked):
    usr = unpacked[request.param]
    with contextlib.ExitStack() as stack:
        stack.enter_context(releases.own_network(usr))
        scratch = tempfile.TemporaryDirectory(prefix="engines-")
        top = Path(stack.enter_context(scratch))
        engine = releases.podman(usr, top)
        # `kube play` has no flag for what `run` needs on some hosts.
        limits = list(engine.options["run"][1::2])
        (top / "containers.conf").write_text(
            f"[containers]\ndefault_ulimits = {json.dumps(limits)}\n"
        )
        given = {"CONTAINERS_CONF": str(top / "containers.conf")}
        engine = dataclasses.replace(engine, environment=given)
        version = engine.describe().server
        assert version.startswith("4.3." if request.param is BOOKWORM else "5.")
        images = {
            app.settings.image: f"localhost/{load(app.settings, engine, app.built)}"
            for app in apps.values()
        }
        yield Player(engine, request.param is BOOKWORM, images, top)


@pytest.fixture
def play(player):
    with contextlib.ExitStack() as stack:

        def start(app: App) -> Pods:
            pods = stack.enter_context(player.plays(app))
            pods.wait_started()
            return pods

        yield start


@pytest.mark.parametrize("name", ["ours", "adopted"])
def test_it_answers_and_may_do_no_more_than_under_run(play, apps, name):
    pods = play(apps[name])
    assert apps[name].text in pods.get("/")[1]
    kinds = ("startupProbe", "livenessProbe", "readinessProbe")
    assert [pods.probe(kind) for kind in kinds] == [200, 200, 200]
    assert pods.healthy()
    for each, pod in pods.deployments.items():
        seen = pods.look(each)
        status = seen["status"]
        assert (status["Uid"], status["Gid"]) == (["65532"] * 4, ["65532"] * 4)
        sets = [status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
        assert sets == [["0" * 16]] * 5
        assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
        assert seen["read-only"]
        assert seen["writes"] == {
            "/x": "Read-only file system",
            "/srv/x": "Read-only file system",
            "/tmp/x": True,
        }
        assert not seen["token"]
        limit = pod["containers"][0]["resources"]["limits"]["memory"]
        assert limit == "128Mi"
        assert pods.inspect(each, "{{.HostConfig.Memory}}") == str(128 << 20)


def test_variables_secrets_and_volumes_are_those_of_the_settings(play, apps):
    pods = play(apps["adopted"])
    assert json.loads(pods.get("/given")[1]) == {"TOKEN": TOKEN, "secret": SECRET}
    # What mounts the same volume sees it.
    command = ("exec", pods.container("shop-worker"), "python3", "-c")
    read = "print(open('/data/orders').read())"
    assert pods.engine.run(*command, read).stdout == "one order\n"
    assert pods.log("shop-worker") == "the worker works\n"


def test_a_pod_that_is_busy_gets_nothing_and_one_that_hangs_is_unhealthy(play, apps):
    pods = play(apps["adopted"])
    name = pods.container("shop")

    def run(code: str) -> None:
        imports = "import os, pathlib; busy = pathlib.Path('/tmp/busy'); "
        pods.engine.run("exec", name, "python3", "-c", imports + code)

    def kinds():
        found = [pods.probe(f"{kind}Probe") for kind in ("liveness", "readiness")]
        return (*found, pods.healthy())

    assert kinds() == (200, 200, True)
    run("busy.touch()")
    assert kinds() == (200, 503, True)
    run("busy.unlink()")
    assert kinds() == (200, 200, True)
    pods.engine.run("kill", "--signal=STOP", name)
    assert not pods.healthy()
    pods.engine.run("kill", "--signal=CONT", name)
    assert kinds() == (200, 200, True)


@pytest.mark.parametrize("name", ["ours", "adopted"])
def test_a_pod_stops_without_the_loss_of_a_request(play, apps, name):
    """What sends requests here is as a Service: it knows what readiness probes know."""
    pods = play(apps[name])
    probe = pods.service["containers"][0]["readinessProbe"]
    stopping = threading.Thread(target=pods.stop)
    asks = Asks(pods, probe["periodSeconds"])
    asks.until(lambda: len(asks.answered) >= 50)
    before = len(asks.answered)
    port = pods.app.settings.container_port
    with socket.create_connection(("127.0.0.1", port), timeout=30) as half:
        half.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\n")
        stopping.start()
        asks.until(lambda: asks.failed == probe["failureThreshold"])
        half.sendall(b"Connection: close\r\n\r\n")
        assert half.makefile("rb").readline().startswith(b"HTTP/1.1 200 ")
    if name == "adopted":
        # The last that is sent; it takes longer than the listener is open.
        assert pods.get("/slow") == (200, "done")
    stopping.join()
    assert set(asks.answered) == {200}
    assert len(asks.answered) > before
    with pytest.raises(ConnectionRefusedError):
        pods.get("/")
    for each in pods.deployments:
        assert pods.inspect(each, "{{.State.ExitCode}}") == "0"
    if name == "adopted":
        assert "the worker ends" in pods.log("shop-worker")


@dataclasses.dataclass
class Asks:
    """Requests one after the other, with readiness probes between them."""

    pods: Pods
    period: int
    answered: list[int] = dataclasses.field(default_factory=list)
    failed: int = 0
    """How many probes have failed in a row."""
    _due: float = 0

    def until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            now = time.monotonic()
            if now >= self._due:
                ready = self.pods.probe("readinessProbe") == 200
                self.failed = 0 if ready else self.failed + 1
                self._due = now + self.period
            self.answered.append(self.pods.get("/")[0])
            time.sleep(0.01)
