"""Engines of several Debian releases, side by side, each on the /usr of its release.

apt resolves an engine with all that it links to, the C library included; the packages
are unpacked once into the cache. An engine then runs in a mount namespace in which its
release's /usr and /etc lie over the host's: nothing is installed over anything, no
other daemon is met, and when its processes end, its mounts are gone with them.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from containerize.deploy import cluster
from containerize.engines import engine
from containerize.engines.engine import Engine
from containerize.fetch import mirrors
from containerize.lock import base
from containerize.settings import Settings
from tests.conftest import taking_turns

USER = "builder"
UID = 60001
"""Who builds without root: a user of the namespace, whom the host does not know."""

_CLONE_NEWNET = 0x40000000  # unshare(2)

# What the dependencies pull in, and an unpacked engine does not use.
_UNUSED = (
    "adduser", "debconf", "debianutils", "dirmngr", "gnupg", "init-system-helpers",
    "libpam-modules", "passwd", "pinentry-curses", "systemd", "usrmerge",
)  # fmt: skip

# What `within` and the engines run, which every Debian has and so no package names.
_ESSENTIAL = ("coreutils", "iproute2", "mount", "util-linux")

# New users and groups, as what maintainer scripts would have made.
_ETC = {
    "passwd": f"root:x:0:0::/root:/bin/sh\n{USER}:x:{UID}:{UID}::/:/bin/sh\n",
    "group": f"root:x:0:\n{USER}:x:{UID}:\n",
    "subuid": f"{USER}:1000000:65536\n",
    "subgid": f"{USER}:1000000:65536\n",
}

# $0 has the release's usr and etc. The shell that does this is the host's still.
_ENTER = 'mount --bind "$0/etc" /etc && mount --bind "$0/usr" /usr && exec "$@"'


@dataclasses.dataclass(frozen=True)
class Release:
    """The engines of a Debian release."""

    suite: str
    packages: tuple[str, ...]

    def unpacked(self, settings: Settings) -> Path:
        """The directory with the release's usr and etc, made where it is missing."""
        wanted = base.Wanted((*self.packages, *_ESSENTIAL), _UNUSED)
        digest = hashlib.sha256(repr((wanted, _ETC)).encode()).hexdigest()
        target = settings.cache_dir / "engines" / f"{self.suite}-{digest[:12]}"
        if target.is_dir():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        resolving = dataclasses.replace(settings, suite=self.suite)
        found = base.resolve(resolving, wanted).packages
        host = settings.image_architecture
        packages = [package for package in found if package.architecture == host]
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            top = Path(scratch, "top")
            # The directories that are links since /usr was merged.
            for name in ("bin", "lib", "lib64", "sbin"):
                (top / "usr" / name).mkdir(parents=True)
                (top / name).symlink_to(f"usr/{name}")
            with ThreadPoolExecutor(4) as pool:
                for deb in pool.map(lambda p: _download(resolving, p), packages):
                    _unpack(deb, top)
            for name, text in _ETC.items():
                (top / "etc" / name).write_text(text)
            (top / "packages.json").write_text(
                json.dumps([dataclasses.asdict(p) for p in packages], indent=1)
            )
            top.rename(target)
        return target


# Each pod has a container of its own that only waits: catatonit is what waits there.
PODMAN = ("podman", "runc", "uidmap", "catatonit")
BOOKWORM = Release("bookworm", ("docker.io", *PODMAN))
"""With the oldest engines of those that are supported."""


def _download(settings: Settings, package: base.Package) -> bytes:
    """A package that a mirror has, with the hash that apt's signed lists give it."""
    failures = []
    for url in mirrors.find(settings).urls(package.path):
        try:
            with mirrors.open_url(url) as answer:
                content: bytes = answer.read()
        except OSError as error:
            failures.append(f"{url}: {error}")
            continue
        if hashlib.sha256(content).hexdigest() == package.sha256:
            return content
        failures.append(f"{url}: not the SHA-256 {package.sha256}")
    raise AssertionError(failures)


def _unpack(deb: bytes, top: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=top.parent) as file:
        file.write(deb)
        file.flush()
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", file.name], stdout=subprocess.PIPE
        ) as reader:
            subprocess.run(
                ["tar", "-x", "-p", "--keep-directory-symlink", "-C", top],
                stdin=reader.stdout,
                check=True,
            )
        assert reader.returncode == 0


def within(
    unpacked: Path, *command: str, builds_in: Path | None = None
) -> tuple[str, ...]:
    """A command line that runs a command on the /usr of a release.

    Without root, as USER, where `builds_in` is given: a directory that becomes its own.
    """
    words = ("unshare", "--mount", "--", "sh", "-c")
    if not builds_in:
        return (*words, _ENTER, str(unpacked), *command)
    give = f"chown -R {UID}:{UID} {shlex.quote(str(builds_in))} && {_ENTER}"
    drop = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
    return (*words, give, str(unpacked), *drop, *command)


class Docker(NamedTuple):
    """A daemon that runs, and the command of its client."""

    daemon: subprocess.Popen[bytes]
    client: tuple[str, ...]


def dockerd(unpacked: Path, top: Path, *options: str) -> tuple[str, ...]:
    """The command line of that release's daemon, with all that it keeps below `top`."""
    return within(
        unpacked,
        "dockerd",
        f"--host=unix://{top / 'docker.sock'}",
        f"--data-root={top / 'data'}",
        f"--exec-root={top / 'exec'}",
        f"--pidfile={top / 'pid'}",
        f"--config-file={top / 'daemon.json'}",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        *options,
    )


def client(unpacked: Path, top: Path) -> tuple[str, ...]:
    """The command line of the client of the daemon that keeps all below `top`."""
    return within(
        unpacked,
        *("env", f"DOCKER_CONFIG={top}", "docker"),
        f"--host=unix://{top / 'docker.sock'}",
    )


def started(daemon: subprocess.Popen[bytes], top: Path, *command: str) -> None:
    """Wait until the daemon answers its client, `command`. Raises AssertionError."""
    deadline = time.monotonic() + 60
    while not engine.probe(command, os.environ).server:
        if daemon.poll() is not None or time.monotonic() > deadline:
            said = (top / "dockerd.log").read_text()[-3000:]
            raise AssertionError(f"no daemon:\n{said}")
        time.sleep(0.1)


@contextlib.contextmanager
def docker(
    unpacked: Path, top: Path, *, containerd_store: bool = False
) -> Iterator[Docker]:
    """Docker of that release, with all that it keeps below `top`."""
    bridge = f"engines-{os.getpid()}"

    def ip(*words: str) -> None:
        subprocess.run(within(unpacked, "ip", "link", *words), check=True)

    config = {"features": {"containerd-snapshotter": containerd_store}}
    (top / "daemon.json").write_text(json.dumps(config))
    # Otherwise it would take docker0, or with --bridge=none even delete it.
    command = dockerd(unpacked, top, f"--bridge={bridge}")
    found = client(unpacked, top)
    with contextlib.ExitStack() as ends:
        # Two that start at once would find the same addresses free for their bridges.
        with taking_turns():
            ip("add", bridge, "type", "bridge")
            ends.callback(ip, "del", bridge)
            ip("set", bridge, "up")
            with (top / "dockerd.log").open("wb") as output:
                daemon = subprocess.Popen(
                    command, stdout=output, stderr=output, start_new_session=True
                )
            ends.callback(_end, daemon)
            started(daemon, top, *found)
        yield Docker(daemon, found)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(30)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


@contextlib.contextmanager
def own_network(unpacked: Path) -> Iterator[None]:
    """This thread, and all that it starts, where there is loopback alone.

    What brings that up is the release's.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        up = within(unpacked, "ip", "link", "set", "lo", "up")
        subprocess.run(up, check=True)
        yield
    finally:
        assert libc.setns(before, _CLONE_NEWNET) == 0
        os.close(before)


def podman(unpacked: Path, top: Path, *, rootless: bool = False) -> Engine:
    """Podman of that release, with a storage of its own below `top`."""
    own = Path(top, "podman")
    own.mkdir()
    if rootless:
        os.chown(own, UID, UID)
    # All that it keeps is its own, whatever directories the caller's environment names.
    places = [
        f"XDG_{name}={own}" for name in ("RUNTIME_DIR", "CACHE_HOME", "DATA_HOME")
    ]
    command = within(
        unpacked,
        *("env", f"HOME={own}", *places, f"XDG_CONFIG_HOME={own}", "podman"),
        *(f"--root={own / 'storage'}", f"--runroot={own / 'run'}"),
        *(f"--tmpdir={own / 'libpod'}", "--cgroup-manager=cgroupfs"),
        # runc works on every mix of cgroups; as it does without a user's fuse.
        *("--events-backend=file", "--runtime=runc", "--storage-driver=overlay"),
        builds_in=top / "builds" if rootless else None,
    )
    return engine.podman(*command)


def remove_stack(manager: Engine, name: str, seconds: float = 180) -> None:
    """Remove all that a stack has; a network stays if it is asked for too early."""
    deadline = time.monotonic() + seconds
    while left := cluster.parts(manager, name):
        assert time.monotonic() < deadline, left
        cluster.remove(manager, left)
        time.sleep(0.5)
