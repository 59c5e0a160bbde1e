"""A Swarm of nodes on this machine, and a registry that all of them reach.

A node is a process that has its own network, host name, processes and mounts, with a
daemon of a Debian release in them: if that process is killed, the kernel ends all that
ran there, as a power cut does. A cable leads from each node to a bridge in the network
that the tests themselves are in, where the registry listens. All of it ends with this
process, however that ends: nothing has a name outside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from containerize.engines.engine import Engine
from containerize.errors import Problem
from tests import registries
from tests.matrix import releases

NETWORK = "192.0.2"  # TEST-NET-1 (RFC 5737)
HERE = f"{NETWORK}.254"
"""This process's address, and the registry's."""
WITH_THIS = ("setpriv", "--pdeathsig=KILL")
"""Before a command: it ends if this process does."""
# Has the children that others leave behind, as the first process of a machine must.
_FIRST = "hostname {}; while :; do sleep 86400 & wait $!; done"


def wait(what: Callable[[], Any], seconds: float = 120, every: float = 0.2) -> Any:
    """What `what` returns, once that is true. Raises AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(every)
    return found


@dataclasses.dataclass
class Node:
    """A machine of the cluster, with a daemon."""

    name: str
    address: str
    top: Path
    usr: Path
    options: tuple[str, ...]
    machine: subprocess.Popen[bytes] | None = None
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def engine(self) -> Engine:
        return Engine("docker", releases.client(self.usr, self.top))

    def boot(self) -> None:
        """Switch the machine on, with its cable, and start the daemon."""
        # As /run is empty then: it held numbers of processes that are others' by now.
        shutil.rmtree(self.top / "exec", ignore_errors=True)
        isolated = ("--net", "--uts", "--ipc", "--pid", "--mount", "--mount-proc")
        self.machine = subprocess.Popen(
            [
                *WITH_THIS,
                *("unshare", *isolated, "--fork", "--kill-child"),
                *("sh", "-c", _FIRST.format(self.name)),
            ],
            start_new_session=True,
        )
        wait(self._first, 10, 0.01)
        # Not the process's own network yet, as long as `unshare` has not got there.
        wait(lambda: self.run("hostname").stdout.strip() == self.name, 10, 0.01)
        ip(self.usr, "link", "add", self.name, "type", "veth", "peer", "name", "eth0",
           "netns", str(self._first()))  # fmt: skip
        ip(self.usr, "link", "set", self.name, "master", "switch", "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            # Docker asks which address it would be seen by from afar.
            ("route", "add", "default", "via", HERE),
        ):
            self.run(*releases.within(self.usr, "ip", *words))
        self.start()

    def _first(self) -> int:
        """The machine's first process."""
        assert self.machine is not None
        pid = self.machine.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def command(self, *command: str) -> list[str]:
        """A command line that runs a command on this machine."""
        spaces = ("--net", "--uts", "--ipc", "--pid", "--mount")
        return ["nsenter", f"--target={self._first()}", *spaces, "--", *command]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this machine, whose output is taken."""
        return subprocess.run(
            self.command(*command), check=True, capture_output=True, text=True
        )

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        (self.top / "pid").unlink(missing_ok=True)
        # A package's script would have chosen which of its two kinds is iptables; the
        # containers' resolver needs it.
        tools = self.top / "bin"
        tools.mkdir(exist_ok=True)
        for name in ("iptables", "ip6tables"):
            with contextlib.suppress(FileExistsError):
                (tools / name).symlink_to(f"/usr/sbin/{name}-nft")
        path = f"PATH={tools}:{os.environ['PATH']}"
        command = releases.dockerd(self.usr, self.top, "--iptables=true", *self.options)
        with (self.top / "dockerd.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                self.command("env", path, *command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        releases.started(self.daemon, self.top, *self.engine.command)

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal, and wait until it has ended."""
        assert self.daemon is not None
        pid = (self.top / "pid").read_text()
        self.run("kill", f"-{number.name.removeprefix('SIG')}", pid)
        self.daemon.wait(120)
        self.daemon = None

    def stop(self) -> None:
        """End the daemon as a restart of the machine's service does."""
        self.signal(signal.SIGTERM)

    def cut_power(self) -> None:
        """End all that runs on the machine at once."""
        if self.machine is None:
            return
        # Its child goes with it, and with that the rest.
        self.machine.kill()
        self.machine.wait()
        # The kernel takes its time for it, if it has not done it yet.
        delete = releases.within(self.usr, "ip", "link", "delete", self.name)
        subprocess.run(delete, check=False, stderr=subprocess.DEVNULL)
        if self.daemon is not None:
            self.daemon.wait()
        self.machine = self.daemon = None

    def mend(self) -> None:
        """Have it run, whatever has failed."""
        if self.machine is None:
            self.boot()
        self.plug()
        if self.daemon is None:
            self.start()

    def unplug(self) -> None:
        ip(self.usr, "link", "set", self.name, "down")

    def plug(self) -> None:
        ip(self.usr, "link", "set", self.name, "up")


def ip(usr: Path, *words: str) -> None:
    """Run ip in the tests' own network."""
    subprocess.run(releases.within(usr, "ip", *words), check=True)


@dataclasses.dataclass
class Cluster:
    """A Swarm whose nodes are all managers, with the first one as its leader."""

    nodes: tuple[Node, ...]
    registry: registries.Registry

    @property
    def engine(self) -> Engine:
        """The client of the first node whose daemon runs."""
        return next(node.engine for node in self.nodes if node.daemon is not None)

    def run(self, *command: str, **options: Any) -> str:
        """What a command says that is given to a manager.

        Again, if the managers have lost some and are about to choose a leader, which
        takes them longer on a machine that is busy, or have changed what it is about.
        """

        def done() -> subprocess.CompletedProcess[str] | None:
            try:
                return self.engine.run(*command, echo=False, **options)
            except Problem as problem:
                if not re.search("leader|deadline|sequence", str(problem), re.I):
                    raise
                return None

        answer: subprocess.CompletedProcess[str] = wait(done, 300, 1)
        return answer.stdout

    def ask(self, *command: str) -> list[dict[str, Any]]:
        """What a listing of the cluster says, an object a line."""
        answer = self.run(*command, "--format={{json .}}")
        return [json.loads(line) for line in answer.splitlines()]

    def tasks(self, service: str, *, state: str = "") -> list[dict[str, Any]]:
        """The tasks of a service, those in a state alone if one is given."""
        found = self.ask("service", "ps", "--no-trunc", service)
        return [one for one in found if one["CurrentState"].startswith(state)]

    def update(self, service: str) -> str:
        """The state of a service's last update, such as `completed`; or nothing."""
        form = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}"
        return self.run("service", "inspect", f"--format={form}", service).strip()

    def take_tasks(self, node: Node, availability: str) -> None:
        """Have a node be `active`, or `drain`ed."""
        update = ("node", "update", f"--availability={availability}", node.name)
        self.run(*update)

    def wait_ready(self) -> None:
        """Until every node is ready."""

        def ready() -> bool:
            found = self.ask("node", "ls")
            return [one["Status"] for one in found] == ["Ready"] * len(self.nodes)

        wait(ready)


@contextlib.contextmanager
def cluster(usr: Path, count: int = 3) -> Iterator[Cluster]:
    """A Swarm of so many nodes on the /usr of a release, and this thread beside it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(releases.own_network(usr))
        for words in (
            ("link", "add", "switch", "type", "bridge"),
            ("address", "add", f"{HERE}/24", "dev", "switch"),
            ("link", "set", "switch", "up"),
        ):
            ip(usr, *words)
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-")))
        registry = registries.Registry(root / "registry", HERE)
        stack.callback(registry.start(WITH_THIS).kill)
        parent = f"scale-{os.getpid()}"
        stack.callback(_remove_cgroups, parent)
        nodes = []
        for number in range(1, count + 1):
            top = root / f"node{number}"
            top.mkdir()
            config = {"insecure-registries": [registry.host]}
            (top / "daemon.json").write_text(json.dumps(config))
            options = (f"--cgroup-parent=/{parent}-{number}",)
            node = Node(top.name, f"{NETWORK}.{number}", top, usr, options)
            stack.callback(node.cut_power)
            node.boot()
            nodes.append(node)
        _join(nodes)
        made = Cluster(tuple(nodes), registry)
        made.wait_ready()
        yield made


def _join(nodes: Sequence[Node]) -> None:
    first, *others = nodes
    address = f"--advertise-addr={first.address}"
    # The ended tasks of a slot keep their logs, in which the tests count.
    history = "--task-history-limit=50"
    first.engine.run("swarm", "init", address, history)
    token = first.engine.run("swarm", "join-token", "--quiet", "manager").stdout.strip()
    for node in others:
        address = f"--advertise-addr={node.address}"
        join = ("swarm", "join", "--token", token, address)
        node.engine.run(*join, f"{first.address}:2377")


def _remove_cgroups(parent: str) -> None:
    """What the nodes leave where cgroups are this machine's own."""
    top = Path("/sys/fs/cgroup")
    for found in (*top.glob(f"{parent}-*"), *top.glob(f"*/{parent}-*")):
        for directory, *_ in os.walk(found, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
