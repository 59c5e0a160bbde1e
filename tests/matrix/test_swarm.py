"""A Swarm of one node, in a network namespace of its own: what its services run."""

import contextlib
import dataclasses
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from containerize.engines.engine import Engine
from containerize.publish import push as pushing
from containerize.verify import against, every, rebuild
from tests import registries
from tests.conftest import Quiet
from tests.matrix import releases
from tests.matrix.conftest import BOOKWORM, load

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
        stack.enter_context(releases.own_network())
        up = releases.within(usr, "ip", "link", "set", "lo", "up")
        subprocess.run(up, check=True)
        scratch = tempfile.TemporaryDirectory(prefix="engines-")
        top = Path(stack.enter_context(scratch))
        builds = top / "builds"
        builds.mkdir()
        client = stack.enter_context(releases.docker(usr, top)).client
        engine = Engine("docker", client)
        engine.run("swarm", "init", "--advertise-addr=127.0.0.1")
        stack.callback(engine.run, "swarm", "leave", "--force")
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
