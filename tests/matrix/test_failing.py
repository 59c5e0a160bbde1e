"""What goes wrong with a real engine is one line that says what to do.

Daemons here are stopped, shut and starved, which no other test's engine is.
"""

import contextlib
import dataclasses
import os
import socketserver
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from containerize import build
from containerize.engines import container
from containerize.engines.complaints import NoEngine
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.pack import sources
from tests.matrix import releases
from tests.matrix.conftest import BOOKWORM, FORKY


@pytest.fixture
def top():
    with tempfile.TemporaryDirectory(prefix="engines-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(params=[BOOKWORM, FORKY], ids=lambda release: release.suite)
def docker(request, unpacked, top):
    with releases.docker(unpacked[request.param], top) as running:
        yield running


def one_line(caught):
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_a_daemon_that_is_down(docker, repository):
    engine = Engine("docker", docker.client)
    docker.daemon.terminate()
    docker.daemon.wait()
    with pytest.raises(NoEngine) as caught:
        build.build(repository, engine, output=Path(os.devnull))
    assert "invoke engine --install" in one_line(caught)


def test_a_daemon_without_permission(docker, top):
    socket = top / "docker.sock"
    assert socket.stat().st_mode & 0o7 == 0
    ids = f"--reuid={releases.UID}", f"--regid={releases.UID}"
    at = docker.client.index("docker")
    client = (*docker.client[:at], "setpriv", *ids, "--clear-groups", "docker")
    client += docker.client[at + 1 :]
    with pytest.raises(Problem) as caught:
        Engine("docker", client).run("ps")
    assert not isinstance(caught.value, NoEngine)
    assert f"the Docker daemon at {socket} refuses user" in one_line(caught)
    assert "usermod" in str(caught.value)


# Known by its words, which no other process of the tests has.
SLEEP = (
    "import signal, time; signal.signal(15, lambda *_: exit(1)); "
    f"time.sleep(77 + {os.getpid()})"
)
DOCKERFILE = """
FROM scratch
ADD build/rootfs.tar /
HEALTHCHECK CMD ["python3", "-c", "exit(1)"]
"""


@pytest.fixture
def simple(repository, top):
    """This repository with an image that is soon built."""
    root = top / "simple"
    for file in sources.read(repository.root).files:
        file.write(root)
    (root / "Dockerfile").write_text(DOCKERFILE)
    return dataclasses.replace(repository, root=root)


@contextlib.contextmanager
def stopped_once(docker, happens):
    """Stop a daemon as soon as something happens."""

    def stop():
        while not happens():
            time.sleep(0.1)
        docker.daemon.terminate()

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    yield
    thread.join()


def step_runs():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"python3\0-c\0" + SLEEP.encode()):
                return True
    return False


def test_a_daemon_that_ends_during_a_build(docker, simple, top):
    engine = Engine("docker", docker.client)
    with (simple.root / "Dockerfile").open("a") as file:
        file.write(f'RUN ["python3", "-c", "{SLEEP}"]\n')
    archive = top / "image.tar"
    with stopped_once(docker, step_runs), pytest.raises(NoEngine) as caught:
        build.build(simple, engine, output=archive)
    assert "the Docker daemon ended during `docker build`" in one_line(caught)
    assert not archive.exists()


def test_a_daemon_that_ends_under_a_container(docker, simple, top):
    engine = Engine("docker", docker.client)
    built = build.build(simple, engine, output=top / "image.tar")
    name = simple.container_name
    engine.run(
        "run", "--detach", f"--name={name}", f"--label={simple.label}",
        "--stop-timeout=1", "--network=none", built.references[0],
        "python3", "-c", SLEEP,
    )  # fmt: skip
    with stopped_once(docker, step_runs), pytest.raises(NoEngine) as caught:
        container.wait_healthy(simple, container.Container(name, engine, 0))
    assert "no Docker daemon answers" in one_line(caught)


@pytest.fixture
def apart(unpacked, top):
    """A builder of buildx that keeps its results, and an engine that has it."""
    with releases.docker(unpacked[FORKY], top) as running:

        class Relay(socketserver.BaseRequestHandler):
            """BuildKit of the daemon, as a remote one is reached."""

            def handle(self):
                command = [*running.client, "buildx", "--builder=default", "dial-stdio"]
                end = self.request.fileno()
                subprocess.run(command, stdin=end, stdout=end, check=False)

        socket = str(top / "buildkit.sock")
        with socketserver.ThreadingUnixStreamServer(socket, Relay) as relay:
            relay.daemon_threads = True
            threading.Thread(target=relay.serve_forever, daemon=True).start()
            engine = Engine("docker", running.client)
            remote = ("--driver=remote", "--name=apart", f"unix://{socket}")
            engine.run("buildx", "create", *remote)
            yield engine
            engine.run("buildx", "rm", "apart")
            relay.shutdown()


def test_a_builder_that_keeps_its_result(apart, simple, top, monkeypatch):
    # B01: what is there already is not taken for what was built.
    before = build.build(simple, apart)
    (simple.root / "Dockerfile").write_text(DOCKERFILE + "LABEL new=1\n")
    monkeypatch.setenv("BUILDX_BUILDER", "apart")
    archive = top / "image.tar"
    with pytest.raises(Problem, match="left no image in the engine: its builder"):
        build.build(simple, apart, output=archive)
    assert not archive.exists()
    monkeypatch.delenv("BUILDX_BUILDER")
    after = build.build(simple, apart, output=archive)
    assert after.digests.manifest != before.digests.manifest


@pytest.fixture
def small(request, top):
    """A disk of that size, which is soon full."""
    directory = top / "small"
    directory.mkdir()
    size = f"size={getattr(request, 'param', '32m')}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture(params=["docker", "podman"])
def starved(request, unpacked, small):
    """An engine that keeps its data on a small disk."""
    if request.param == "podman":
        yield releases.podman(unpacked[BOOKWORM], small)
        return
    with releases.docker(unpacked[BOOKWORM], small) as running:
        yield Engine("docker", running.client)


def test_a_disk_that_is_full(starved, simple, top):
    archive = top / "image.tar"
    with pytest.raises(Problem, match="the disk is full where") as caught:
        build.build(simple, starved, output=archive)
    one_line(caught)
    assert not archive.exists()


@pytest.mark.parametrize(
    ("small", "said"),
    [
        ("32m", "the disk is full where the image is saved"),
        ("64m", "No space left on device"),  # which the canonical archive needs
    ],
    indirect=["small"],
)
def test_a_disk_that_is_full_where_the_archive_goes(unpacked, simple, top, small, said):
    with releases.docker(unpacked[BOOKWORM], top) as running:
        engine = Engine("docker", running.client)
        with pytest.raises(Problem, match=said) as caught:
            build.build(simple, engine, output=small / "image.tar")
    one_line(caught)
    assert list(small.iterdir()) == []
