"""A Swarm of one node, in a network namespace of its own: what its services run."""

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from containerize.deploy import swarm, workload
from containerize.engines import container
from containerize.engines.engine import Engine
from containerize.publish import push as pushing
from containerize.verify import against, every, rebuild
from tests import registries
from tests.conftest import Quiet
from tests.matrix import releases
from tests.matrix.conftest import BOOKWORM, FORKY, TRIXIE, load

PYTHONPATH = "PYTHONPATH=/usr/local/lib/served:/srv:/data"


@dataclasses.dataclass
class Node:
    """A manager, the image that it has, and the registry that has it too."""

    engine: Engine
    image: str
    built: rebuild.Rebuild
    registry: str

    def create(self, name, image, *options):
        command = ("service", "create", "--detach", f"--name={name}", *options)
        self.engine.run(*command, image)

    def wait(self, name, count):
        """Until so many tasks run, which each health check has to pass first."""
        form = ("--format={{.CurrentState}}", "--filter=desired-state=running")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            answer = self.engine.run("service", "ps", *form, name, echo=False)
            states = answer.stdout.splitlines()
            if len(states) == count == sum(s.startswith("Running") for s in states):
                return
            time.sleep(0.2)
        raise AssertionError(answer.stdout)


@pytest.fixture(scope="module")
def node(repository, unpacked):
    usr = unpacked[BOOKWORM]
    with contextlib.ExitStack() as stack:
        stack.enter_context(releases.own_network(usr))
        scratch = tempfile.TemporaryDirectory(prefix="engines-")
        top = Path(stack.enter_context(scratch))
        builds = top / "builds"
        builds.mkdir()
        client = stack.enter_context(releases.docker(usr, top)).client
        engine = Engine("docker", client)
        engine.run("swarm", "init", "--advertise-addr=127.0.0.1")
        # What that leaves undone ends with the daemon.
        stack.callback(engine.run, "swarm", "leave", "--force", check=False)
        built = rebuild.rebuild(repository, engine, builds, varied=False)
        image = load(repository, engine, built)
        registry = stack.enter_context(registries.registry())
        name = f"{registry.host}/team/app:latest"
        wanted = pushing.targets(repository, name)
        # A record of the push goes where no other's is.
        apart = dataclasses.replace(repository, root=top)
        pushing.push(apart, built.archive, wanted, progress=Quiet())
        yield Node(engine, image, built, name)


def find(node, repository, name):
    return against.find(repository, [node.engine], name, progress=Quiet())


def test_a_service_that_names_its_image_by_digest(node, repository):
    node.create("pushed", node.registry)
    node.wait("pushed", 1)
    target = find(node, repository, "pushed")
    manifest = node.built.digests.manifest
    assert target.name == f"service pushed, {node.registry}@{manifest}"
    # One architecture was pushed, and the repository has two.
    assert [one.digest for one in target.images] == [manifest]
    assert target.unlike == ()
    found = every.verify(repository, [node.engine], target)
    own = f"linux/{repository.image_architecture}, manifest {manifest}"
    assert found.words == f"Equal to {target.name}: {own}"


def test_a_service_is_known_by_its_containers_and_by_its_update(node, repository):
    node.create("web", node.image, "--no-resolve-image", "--replicas=2")
    node.wait("web", 2)
    target = find(node, repository, "web")
    assert [one.digest for one in target.images] == [node.built.digests.config]
    assert (target.notes, target.unlike) == ((), ())
    assert target.besides(node.built.archive) == []
    identity = node.engine.run("service", "inspect", "--format={{.ID}}", "web").stdout
    assert find(node, repository, identity.strip()).images[0].digest == (
        node.built.digests.config
    )
    node.engine.run("config", "create", "more", "-", input=b"x = 1\n")
    added = (f"--env-add={PYTHONPATH}", "--config-add=source=more,target=/srv/more.py")
    update = ("service", "update", "--detach", "--no-resolve-image")
    node.engine.run(*update, *added, "web")
    deadline = time.monotonic() + 60
    while not (under_way := find(node, repository, "web")).unlike:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert under_way.notes == ("an update of service web is under way (updating)",)
    assert any("of service web" in line for line in under_way.unlike)
    variable, mount = under_way.besides(node.built.archive)
    assert variable.startswith(f"it has {PYTHONPATH}, its image ")
    assert mount.startswith("the config more is mounted at /srv/more.py, among its")


def test_what_is_no_service_is_one_line(node, repository):
    with pytest.raises(Exception, match="docker has no container and no service of th"):
        find(node, repository, "nothing")


# --- What `manifest swarm` prints ------------------------------------------------

STACK = "shop"
NAME = "flask-introduction"
VARIABLES = {
    "PRICE": "5$ ${HOME} $$",
    "LINES": "first\n second\n",
    "WORDS": "'a' \"b\" # yes: [x] \t\x7f ü\U0001f600",
    "EMPTY": "",
    "YES": "yes",
}
SLEEP = "python3 -c 'import time; time.sleep(600)'"
# A file of a user's own: other checks, and a service beside ours.
OVERLAY = f"""
version: "3.9"
services:
  {NAME}:
    healthcheck: {{interval: 1s}}
    logging: {{driver: json-file, options: {{max-size: 1m}}}}
    deploy: {{update_config: {{delay: 0s, monitor: 3s}}}}
  edge:
    image: IMAGE
    entrypoint: [python3, -c, "import time; time.sleep(600)"]
    healthcheck: {{disable: true}}
    stop_grace_period: 1s
"""
INSIDE = """
import json, os
def read(*paths):
    return next(open(p).read().strip() for p in paths if os.path.exists(p))
status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
mounts = {}
for line in read("/proc/self/mountinfo").splitlines():
    words = line.split()
    kind, _, options = words[words.index("-") + 1:]
    if words[4] in ("/", "/tmp"):
        size = [word for word in options.split(",") if word.startswith("size=")]
        mounts[words[4]] = [sorted(words[5].split(",")), kind, size]
secrets = {
    name: [open(path).read(), os.access(path, os.W_OK)]
    for name in os.listdir("/run/secrets")
    for path in [f"/run/secrets/{name}"]
}
print(json.dumps({
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "capabilities": [status[f"Cap{each}"] for each in ("Inh", "Prm", "Eff", "Bnd")],
    "mounts": mounts,
    "secrets": secrets,
    "memory": read("/sys/fs/cgroup/memory.max",
                   "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "pids": read("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
    "environment": {k: v for k, v in os.environ.items()
                    if k not in ("HOME", "HOSTNAME")},
}))
"""


@pytest.fixture(scope="module")
def own(repository, node):
    """The settings of the repository, with all that a manifest can say."""
    file = Path(tempfile.mkdtemp(), "db-password")
    file.write_text("hunter2")
    os.chown(file, 65532, 65532)
    file.chmod(0o400)
    yield dataclasses.replace(
        repository,
        drain_delay=1,
        memory="96m",
        pids=50,
        secrets={"db-password": str(file)},
        commands={"worker": SLEEP},
    )
    file.unlink()
    file.parent.rmdir()


@pytest.fixture(scope="module")
def image(node):
    name = node.registry.rpartition(":")[0]
    return f"{name}@{node.built.digests.manifest}"


def deploy(node, own, image, overlay=OVERLAY, *, piped=False, environment=VARIABLES):
    """Give the stack to `docker stack deploy`, and a file of the user's after it."""
    found = workload.workloads(own, image, environment)
    text = swarm.stack(found, values=piped)
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(overlay.replace("IMAGE", image))
        file.flush()
        node.engine.run(
            "stack", "deploy", "--compose-file=-", f"--compose-file={file.name}", STACK,
            input=text.encode(), variables=None if piped else environment,
        )  # fmt: skip


def service(node, name=NAME):
    answer = node.engine.run("service", "inspect", f"{STACK}_{name}", echo=False)
    [found] = json.loads(answer.stdout)
    return found


def tasks(node, name=NAME):
    """The containers that run of a service."""
    label = f"label=com.docker.swarm.service.name={STACK}_{name}"
    return node.engine.listing(
        "ps", "--no-trunc", f"--filter={label}", "--format={{.ID}}"
    )


def inside(node, name, program=INSIDE, *words):
    command = ("exec", name, "python3", "-c", program, *words)
    return json.loads(node.engine.run(*command, echo=False).stdout)


@pytest.fixture(scope="module")
def deployed(node, own, image):
    """The stack, whose containers run."""
    node.engine.run("secret", "create", "db-password", "-", input=b"hunter2")
    deploy(node, own, image)
    for name, count in ((NAME, 2), (f"{NAME}-worker", 1), ("edge", 1)):
        node.wait(f"{STACK}_{name}", count)
    yield own
    releases.remove_stack(node.engine, STACK)


def test_a_task_is_confined_as_a_container_of_run_is(node, own, deployed):
    launch = container.Launch(
        settings=own, reference=node.image, name="beside", environment=VARIABLES
    )
    [worker] = container.commands(own, node.image, name="beside", environment=VARIABLES)
    for each, name in ((launch, NAME), (worker, f"{NAME}-worker")):
        each.start(node.engine)
        ours = inside(node, each.name)
        node.engine.discard(each.name)
        if name == NAME:
            ours["environment"] |= {
                "SERVED_DRAIN_DELAY": "1", "SERVED_GRACE_PERIOD": "26"
            }  # fmt: skip
        found = tasks(node, name)
        assert found
        for task in found:
            theirs = inside(node, task)
            assert theirs == ours
            assert theirs["secrets"] == {"db-password": ["hunter2", False]}
            assert set(theirs["capabilities"]) == {"\t0000000000000000"}
            assert "ro" in theirs["mounts"]["/"][0]


def test_values_arrive_as_they_are_by_reference_and_by_pipe(node, own, image, deployed):
    def spec():
        found = service(node)["Spec"]
        # Docker 20.10 writes an empty one when it updates, and replaces nothing for it.
        found["TaskTemplate"]["ContainerSpec"].pop("DNSConfig", None)
        return found

    for task in tasks(node):
        assert inside(node, task)["environment"].items() >= VARIABLES.items()
    before, running = spec(), tasks(node)
    deploy(node, own, image, piped=True)
    assert spec() == before
    assert tasks(node) == running


def test_what_a_user_lays_over_it_counts_and_all_else_stays(node, deployed):
    spec = service(node)["Spec"]
    task, update = spec["TaskTemplate"], spec["UpdateConfig"]
    assert task["ContainerSpec"]["Healthcheck"]["Interval"] == 10**9
    assert task["ContainerSpec"]["Healthcheck"]["Retries"] == swarm.HEALTH["retries"]
    assert task["LogDriver"]["Options"] == {"max-size": "1m"}
    assert (update["Order"], update["FailureAction"], update["Monitor"]) == (
        *("start-first", "rollback", 3 * 10**9),
    )
    assert spec["RollbackConfig"]["Order"] == "start-first"
    assert spec["Labels"]["containerize.project"] == NAME
    assert task["ContainerSpec"]["StopGracePeriod"] == 31 * 10**9
    assert spec["EndpointSpec"]["Mode"] == "dnsrr"


def test_what_does_not_start_is_rolled_back_and_the_others_serve(
    node, own, image, deployed
):
    before = set(tasks(node))
    bad = VARIABLES | {"FLASK_APP": "nothing_of_that_name"}
    deploy(node, own, image, environment=bad)
    seen = set()
    deadline = time.monotonic() + 120
    while service(node).get("UpdateStatus", {}).get("State") != "rollback_completed":
        seen |= set(tasks(node)) - before
        assert len(tasks(node)) >= 2
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert before <= set(tasks(node))
    spec = service(node)["Spec"]["TaskTemplate"]["ContainerSpec"]
    assert not [each for each in spec["Env"] if each.startswith("FLASK_APP=")]


def test_data_stays_on_the_node_that_has_the_label(node, own, image):
    apart = dataclasses.replace(
        own, volumes=("shop-data:/srv/instance",), commands={}, secrets={}
    )
    stack = "data"
    value = "{{.Service.Name}} {{{"  # which Swarm would take for a template
    loads = workload.workloads(apart, image, {"VALUE": value})
    text = swarm.stack(loads, values=True)
    node.engine.run("stack", "deploy", "--compose-file=-", stack, input=text.encode())
    form = ("service", "ps", "--no-trunc", "--format={{.CurrentState}} {{.Error}}")
    deadline = time.monotonic() + 60
    while (
        "Pending"
        not in (said := node.engine.run(*form, f"{stack}_{NAME}", echo=False).stdout)
        or "no suitable node" not in said
    ):
        assert time.monotonic() < deadline, said
        time.sleep(0.2)
    [identity] = node.engine.listing("node", "ls", "--format={{.ID}}")
    node.engine.run("node", "update", "--label-add=flask-introduction.volumes=here",
                    identity)  # fmt: skip
    node.wait(f"{stack}_{NAME}", 1)
    label = f"label=com.docker.swarm.service.name={stack}_{NAME}"
    [task] = node.engine.listing("ps", f"--filter={label}", "--format={{.ID}}")
    mounted = "import json, os; print(json.dumps(os.path.ismount('/srv/instance')))"
    assert inside(node, task, mounted)
    given = "import json, os; print(json.dumps(os.environ['VALUE']))"
    assert inside(node, task, given) == value
    releases.remove_stack(node.engine, stack)


@pytest.mark.parametrize("release", [TRIXIE, FORKY], ids=lambda each: each.suite)
def test_newer_clients_read_in_it_what_is_meant(
    unpacked, own, image, release, tmp_path
):
    overlay = tmp_path / "edge.yml"
    overlay.write_text(OVERLAY.replace("IMAGE", image))
    client = releases.within(unpacked[release], "docker", "stack", "config")
    read = YAML(typ="safe", pure=True).load
    told = swarm.stack(workload.workloads(own, image, VARIABLES), values=True)
    done = subprocess.run(
        [*client, "--compose-file=-", f"--compose-file={overlay}"],
        input=told.encode(), stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    found = read(done.stdout)["services"]
    assert {NAME, f"{NAME}-worker", "edge"} == found.keys()
    for name, each in read(told)["services"].items():
        for key in ("image", "user", "read_only", "cap_drop", "labels", "volumes"):
            assert found[name][key] == each[key]
        assert found[name]["environment"].items() >= VARIABLES.items()
        limits = found[name]["deploy"]["resources"]["limits"]
        assert (int(limits["memory"]), limits["pids"]) == (96 << 20, 50)
        for way in ("update_config", "rollback_config"):
            order = each["deploy"][way]["order"]
            assert found[name]["deploy"][way]["order"] == order
    assert found[NAME]["healthcheck"]["interval"] == "1s"
    assert found[NAME]["logging"]["options"] == {"max-size": "1m"}
