"""What a proof needs: the cluster, images of an adopted app, its stack under load."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from containerize import settings
from containerize.settings import Settings
from tests.conftest import ROOT
from tests.matrix.releases import BOOKWORM, remove_stack
from tests.scale import images
from tests.scale.cluster import WITH_THIS, Cluster, Node, cluster, wait
from tests.scale.images import EDGES, HAPROXY, Edge, Project

PORT = 8000
"""Of the edge, on each node."""
RATE = 300
CLIENTS = 24
GOOD = ("1", "2")
BAD = {"3": "exits", "4": "never ready", "5": "500"}
"""Versions of the app that are never ready, each in its way."""
OVERLAYS = (EDGES / "edge.yml", EDGES / "counts.yml")
SERVICE = "shop_shop"
EDGE = "shop_edge"
_ENDED = ("Complete", "Shutdown", "Failed", "Rejected", "Remove", "Orphaned")


@dataclasses.dataclass(frozen=True)
class Lost:
    """A request without an answer that is right."""

    kind: str
    name: str
    began: float
    ended: float
    why: str


@dataclasses.dataclass(frozen=True)
class Result:
    """What the clients have seen."""

    name: str
    """Of the load; those of its requests begin with it."""
    sent: dict[str, int]
    lost: tuple[Lost, ...]
    counted: tuple[str, ...]
    """The POSTs that were answered."""
    versions: dict[str, int]
    """How many answers each version of the app gave."""
    p50: float
    p99: float
    slowest: float
    """Milliseconds."""

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    def __str__(self) -> str:
        lost = collections.Counter(f"{one.kind}, {one.why}" for one in self.lost)
        window = ""
        if self.lost:
            first = min(one.began for one in self.lost)
            last = max(one.began for one in self.lost)
            window = f", sent within {last - first:.1f} s: {dict(lost)}"
        return (
            f"{len(self.lost)} of {self.total} lost{window}; p50 {self.p50:g} ms, "
            f"p99 {self.p99:g} ms, slowest {self.slowest:g} ms; versions "
            f"{self.versions}, {self.sent}"
        )


@dataclasses.dataclass(frozen=True)
class Seen:
    """What an edge says."""

    down: dict[str, float]
    """When it knew first that a replica is not to be asked."""
    asked: dict[Lost, str]
    """The replica that a request was lost at."""


class Load:
    """A load that goes on."""

    def __init__(self, node: Node, name: str, rate: float, clients: int) -> None:
        script = str(Path(__file__).with_name("load.py"))
        address = f"{node.address}:{PORT}"
        self.name = name
        self.sent = 0
        self._last = ""
        self._process = subprocess.Popen(
            [
                *(*WITH_THIS, sys.executable, script),
                *(address, str(rate), str(clients), name),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip().isdecimal():
                self.sent = int(line)
            else:
                self._last = line

    def more(self, count: int) -> None:
        """Wait until so many requests more were sent."""
        wanted = self.sent + count
        wait(lambda: self.sent >= wanted or self._process.poll() is not None, 600)

    def end(self) -> Result:
        """Let the requests in flight end; what became of all."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._reader.join(10)
        found = json.loads(self._last)
        lost = tuple(Lost(**one) for one in found.pop("lost"))
        result = Result(
            self.name, lost=lost, counted=tuple(found.pop("counted")), **found
        )
        print(f"{self.name}: {result}")
        return result

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclasses.dataclass
class Proof:
    """A cluster, and what can be deployed in it."""

    cluster: Cluster
    project: Project
    images: dict[str, str]
    """The app's versions by digest."""
    edges: dict[str, str]
    counts: Path
    """The directory in which the app counts."""
    loads: int = 0

    label = f"--filter=label=com.docker.swarm.service.name={SERVICE}"
    """Of the app's containers."""

    def deploy(
        self,
        version: str,
        edge: Edge = HAPROXY,
        **given: str,
    ) -> None:
        """Deploy a version of the app behind an edge, as a user's overlay file has it.

        `given` are settings of the project, by name.
        """
        stack = self.project.manifest(self.images[version], **given)
        files = [f"--compose-file={path}" for path in OVERLAYS]
        self.cluster.run(
            *("stack", "deploy", "--compose-file=-", *files, "shop"),
            input=stack.encode(),
            variables=self._variables(edge),
        )

    def _variables(self, edge: Edge) -> dict[str, str]:
        """What the overlay files refer to."""
        return {
            "EDGE_IMAGE": self.edges[edge.name],
            "EDGE_CONFIG": str(edge.config),
            "COUNTS": str(self.counts),
            **images.VARIABLES,
        }

    @contextlib.contextmanager
    def releasing(self, version: str) -> Iterator[subprocess.Popen[str]]:
        """`containerize release` of a version, which goes on."""
        options = [f"--compose-file={path}" for path in OVERLAYS]
        options += [f"--env={name}={text}" for name, text in images.VARIABLES.items()]
        with self.project.begin(
            "release", self.images[version], *options, **self._variables(HAPROXY)
        ) as process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise

    def converge(self, seconds: float = 400) -> str:
        """Wait until an update has ended; its state."""

        def ended() -> str:
            state = self.cluster.update(SERVICE)
            return (
                state if state and not state.endswith(("updating", "started")) else ""
            )

        state: str = wait(ended, seconds)
        return state

    def running(self, version: str = "") -> list[dict[str, Any]]:
        """The tasks of the app that run, those of one version if it is named."""
        found = self.cluster.tasks(SERVICE, state="Running")
        return [
            one for one in found
            if not version or one["Image"] == self.images[version]
        ]  # fmt: skip

    def tasks_of(self, version: str) -> list[dict[str, Any]]:
        """All the tasks of a version that have not ended, and may not run yet."""
        return [
            one for one in self.cluster.tasks(SERVICE)
            if one["Image"] == self.images[version]
            and not one["CurrentState"].startswith(_ENDED)
        ]  # fmt: skip

    def wait_running(self, count: int, version: str = "") -> None:
        wait(lambda: len(self.running(version)) == count, 180)

    def wait_answers(self) -> None:
        """Until the edge of each node has answers of the app, many in a row."""
        wait(lambda: all(map(self._answers, self.cluster.nodes)), 120)

    def _answers(self, node: Node) -> bool:
        import http.client

        with contextlib.suppress(OSError, http.client.HTTPException):
            for _ in range(10):
                connection = http.client.HTTPConnection(node.address, PORT, timeout=5)
                connection.request("GET", "/")
                if connection.getresponse().status != 200:
                    return False
                connection.close()
            return True
        return False

    @contextlib.contextmanager
    def load(
        self, name: str, *, node: int = 0, rate: float = RATE, clients: int = CLIENTS
    ) -> Iterator[Load]:
        """Load on the edge of a node; its name is followed by a number."""
        self.loads += 1
        name = f"{name}{self.loads}"
        made = Load(self.cluster.nodes[node], name, rate, clients)
        try:
            made.more(int(rate))
            yield made
        finally:
            made.kill()

    def counted(self, name: str) -> collections.Counter[str]:
        """How often the app counted each POST of a load."""
        lines = (self.counts / "log").read_text().splitlines()
        return collections.Counter(
            line for line in lines if line.startswith(f"{name}-")
        )

    def once(self, result: Result) -> None:
        """Assert that each POST that was answered was counted, and none twice."""
        app = self.counted(result.name)
        assert [one for one, count in app.items() if count > 1] == []
        assert set(result.counted) - set(app) == set()
        lost = {one.name for one in result.lost if one.kind.startswith("POST")}
        assert set(app) - set(result.counted) <= lost

    def containers(self) -> int:
        """How many containers of the app there are that have not ended."""
        return sum(
            len(node.engine.listing("ps", "--quiet", self.label))
            for node in self.cluster.nodes
        )

    def seen(self, since: float, result: Result, node: int = 0) -> Seen:
        """What the edge of a node wrote since then, of its replicas and what was lost.

        Prints what became of the replicas.
        """
        engine = self.cluster.nodes[node].engine
        label = f"--filter=label=com.docker.swarm.service.name={EDGE}"
        [name] = engine.listing("ps", "--quiet", label)
        options = ("--timestamps", f"--since={since:.6f}")
        answer = engine.run("logs", *options, name, echo=False, merge=True)
        down: dict[str, float] = {}
        asked: dict[str, str] = {}
        for line in answer.stdout.splitlines():
            when, _, said = line.partition(" ")
            # Python 3.11 reads microseconds, Docker writes nanoseconds.
            moment = datetime.datetime.fromisoformat(f"{when[:26]}+00:00").timestamp()
            if found := re.match(r"Server shop/(\S+) is (going )?DOWN", said):
                down.setdefault(found[1], moment)
            if found := re.match(r"asked (\S+) (?:/\?|/count/)(\S+) ", said):
                asked[found[2]] = found[1]
            else:
                print(f"{moment - since:6.1f} s  {said}")
        for one in result.lost:
            at = f"{one.began - since:.1f} s to {one.ended - since:.1f} s"
            print(f"{at}  {one.kind} at {asked.get(one.name)}: {one.why}")
        return Seen(down, {one: asked.get(one.name, "") for one in result.lost})

    def remove(self) -> None:
        """Remove the stack, and wait until nothing of it is left on any node."""
        remove_stack(self.cluster.engine, "shop")
        label = "label=com.docker.stack.namespace=shop"

        def left() -> bool:
            # A container of an ended task goes when its service is gone.
            return any(
                node.engine.listing(*words, f"--filter={label}")
                for node in self.cluster.nodes
                for words in (("ps", "-aq"), ("network", "ls", "-q"))
            )

        wait(lambda: not left(), 180, 0.5)


@contextlib.contextmanager
def ready(edges: Sequence[Edge] = (HAPROXY,)) -> Iterator[Proof]:
    """The cluster with all images; what needs a network comes first."""
    loaded: Settings = settings.load(ROOT)
    usr = BOOKWORM.unpacked(loaded)
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        project = images.adopt(Path(scratch))
        tops = [images.unpacked(edge, loaded, Path(scratch)) for edge in edges]
        with cluster(usr) as made:
            first, host = made.nodes[0].engine, made.registry.host
            project.use(first, host)
            found = {name: project.push(host, name, why) for name, why in BAD.items()}
            # The last one is what the repository then has.
            found |= {name: project.push(host, name) for name in GOOD}
            pushed = {
                edge.name: images.push(edge, top, first, host)
                for edge, top in zip(edges, tops, strict=True)
            }
            counts = Path(scratch) / "counts"
            counts.mkdir()
            counts.chmod(0o777)
            yield Proof(made, project, found, pushed, counts)
