"""What a Swarm has: nodes, services, tasks, secrets; asked through Docker's client."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from containerize.engines.engine import SILENT, Engine
from containerize.errors import Problem
from containerize.image.archive import printable
from containerize.settings import ARCHITECTURES, PROJECT, Settings

STACK = "com.docker.stack.namespace"
"""Label of a service: the stack that it is of."""

UNDER_WAY = ("updating", "rollback_started")
"""States of an update that Swarm still works on."""

PAUSE = 0.5
"""Seconds between two looks at what changes."""

_TRIES = 10
"""How often a change is asked for at most."""

_ELECTION = 30
"""Seconds that the managers have to choose a leader anew."""

_LEADERLESS = re.compile(r"rpc error|deadline exceeded|\bleader\b", re.IGNORECASE)

ENDED = ("complete", "failed", "rejected", "orphaned")
"""States of a task that has ended by itself, or never began."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the Swarm."""

    identity: str
    name: str
    """Its host's name, with its ID if another one has that name too."""
    architecture: str
    """In OCI's terms, where these have a word for it."""
    state: str
    """`ready`, `down`, `unknown` or `disconnected`."""
    active: bool
    """Whether it is given tasks."""
    labels: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Service:
    """What a service is to run, and how far its update is."""

    identity: str
    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    previous: Mapping[str, Any] | None
    """The specification that a rollback would bring back."""
    update: str
    """The state of its last update; empty if it has none."""
    message: str
    """What Swarm says of that."""
    begun: str
    """When that began."""

    @property
    def kept(self) -> Any:
        """What a rollback would bring back, to compare with another's `said`."""
        return _pruned(self.previous)

    @property
    def said(self) -> Any:
        """The specification without what is empty, which Swarm leaves out at times."""
        return _pruned(self.spec)

    @property
    def image(self) -> str:
        return str(self.spec["TaskTemplate"]["ContainerSpec"]["Image"])

    @property
    def digest(self) -> str:
        return self.image.partition("@")[2]

    @property
    def replicas(self) -> int | None:
        """The tasks that are wanted; None if the nodes decide, or it is a job."""
        mode = self.spec["Mode"].get("Replicated")
        return int(mode.get("Replicas", 1)) if mode else None

    @property
    def job(self) -> bool:
        return any(kind.endswith("Job") for kind in self.spec["Mode"])

    @property
    def ends(self) -> bool:
        """Whether its tasks may end by themselves."""
        policy = self.spec["TaskTemplate"].get("RestartPolicy") or {}
        return self.job or policy.get("Condition") in ("none", "on-failure")

    def content(self, task: Task) -> bool:
        """Whether a task of it does, or has done, what it is for."""
        return task.runs or (self.ends and task.state == "complete")

    @property
    def checked(self) -> bool:
        """Whether it may have a check of its health, the image's or its own."""
        check = self.spec["TaskTemplate"]["ContainerSpec"].get("Healthcheck") or {}
        return check.get("Test") != ["NONE"]

    @property
    def monitor(self) -> float:
        """Seconds for which a task must run to be taken for well."""
        update = self.spec.get("UpdateConfig") or {}
        return float(update.get("Monitor") or 5e9) / 1e9

    @property
    def stops_first(self) -> bool:
        """Whether an update ends a task before it starts the next one."""
        update = self.spec.get("UpdateConfig") or {}
        return update.get("Order") != "start-first"

    @property
    def grace(self) -> float:
        """Seconds that a task has to end in before it is killed."""
        container = self.spec["TaskTemplate"]["ContainerSpec"]
        return float(container.get("StopGracePeriod") or 10e9) / 1e9

    @property
    def ports(self) -> set[tuple[int, str]]:
        """The ports that it publishes, with their protocol."""
        given = (self.spec.get("EndpointSpec") or {}).get("Ports") or ()
        found = [(int(p.get("PublishedPort") or 0), str(p["Protocol"])) for p in given]
        return {port for port in found if port[0]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One container of a service, or the attempt to have one."""

    identity: str
    node: str
    """The ID of its node; empty if it has none yet."""
    image: str
    state: str
    wanted: str
    """The state that it is to have."""
    error: str
    code: int
    """The exit code of its container."""

    @property
    def runs(self) -> bool:
        return self.state == self.wanted == "running"

    @property
    def under_way(self) -> bool:
        """Whether a container of it may run."""
        return self.state in ("starting", "running")

    @property
    def end(self) -> str:
        """How it ended, in words."""
        if "unhealthy" in self.error:
            return f"ended with exit code {self.code}: it was not healthy"
        if self.error and not (self.code and "non-zero exit" in self.error):
            return f"did not start: {printable(self.error)}"
        return f"ended with exit code {self.code}"


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        found = {key: _pruned(each) for key, each in value.items()}
        return {key: each for key, each in found.items() if each not in ({}, [], None)}
    return [*map(_pruned, value)] if isinstance(value, list) else value


class Patience:
    """How long a task may find no node to run on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.since: dict[str, float] = {}

    def see(self, task: Task) -> None:
        """A Problem if a task waits for a node for too long."""
        if task.state != "pending" or not task.error:
            self.since.pop(task.identity, None)
            return
        first = self.since.setdefault(task.identity, time.monotonic())
        if time.monotonic() - first > self.seconds:
            raise Problem(f"no node can have it: {printable(task.error)}")


class Unanswered(Problem):
    """The Swarm does not say how it is."""


def ask(engine: Engine, *words: str) -> str:
    """The answer to a question, asked again while the Swarm has no leader; of what has
    gone, nothing. Raises Unanswered."""
    end = time.monotonic() + _ELECTION
    while True:
        answer = engine.run(*words, check=False, echo=False)
        if not answer.returncode or re.search("no such", answer.stderr, re.IGNORECASE):
            return answer.stdout
        if not _LEADERLESS.search(answer.stderr) or time.monotonic() > end:
            said = answer.stderr.strip() or SILENT
            raise Unanswered(str(engine.problem(words, said)))
        time.sleep(PAUSE)


def see_manager(engine: Engine) -> None:
    """A Problem if the engine is no manager of a Swarm that works."""
    if engine.kind != "docker":
        raise Problem(
            "a release goes through Docker Swarm, and the engine is Podman: name a "
            "manager's Docker (--engine docker, DOCKER_HOST, `docker context use`)"
        )
    form = ("info", "--format", "{{json .Swarm}}")
    found = json.loads(engine.run(*form, echo=False).stdout) or {}
    state = str(found.get("LocalNodeState") or "inactive")
    if state == "locked":
        raise Problem("this manager is locked: `docker swarm unlock` opens it")
    if state != "active":
        raise Problem(
            f"the engine is in no Swarm ({state}): `docker swarm init` makes one, or "
            "name a manager (DOCKER_HOST, `docker context use`)"
        )
    if not found.get("ControlAvailable"):
        managers = [str(one["Addr"]) for one in found.get("RemoteManagers") or ()]
        at = f", as at {', '.join(managers[:3])}" if managers else ""
        raise Problem(
            f"the engine is a worker of its Swarm: name a manager{at} (DOCKER_HOST, "
            "`docker context use`)"
        )
    if said := str(found.get("Error") or ""):
        raise Problem(f"the Swarm does not work: {printable(said)}")


def nodes(engine: Engine) -> list[Node]:
    """All nodes of the Swarm."""
    found = _inspected(engine, "node", ask(engine, "node", "ls", "--quiet").split())
    hosts = collections.Counter(str(one["Description"]["Hostname"]) for one in found)
    return [node(one, hosts) for one in found]


def node(found: Mapping[str, Any], hosts: Mapping[str, int]) -> Node:
    """A node as Docker inspects it; `hosts` counts the nodes with each host name."""
    host = str(found["Description"]["Hostname"])
    machine = str(found["Description"]["Platform"]["Architecture"])
    identity = str(found["ID"])
    return Node(
        identity=identity,
        name=host if hosts[host] == 1 else f"{host} ({identity[:12]})",
        architecture=ARCHITECTURES.get(machine.lower(), machine),
        state=str(found["Status"]["State"]),
        active=found["Spec"]["Availability"] == "active",
        labels=found["Spec"].get("Labels") or {},
    )


def services(engine: Engine, stack: str = "") -> dict[str, Service]:
    """The services by name: all, or those of a stack."""
    of_stack = [f"--filter=label={STACK}={stack}"] if stack else []
    listed = ask(engine, "service", "ls", "--quiet", *of_stack).split()
    found = map(service, _inspected(engine, "service", listed))
    return {one.name: one for one in found}


def service(found: Mapping[str, Any]) -> Service:
    """A service as Docker inspects it."""
    spec, update = found["Spec"], found.get("UpdateStatus") or {}
    return Service(
        identity=str(found["ID"]),
        name=str(spec["Name"]),
        labels=spec.get("Labels") or {},
        spec=spec,
        previous=found.get("PreviousSpec"),
        update=str(update.get("State") or ""),
        message=printable(str(update.get("Message") or "")),
        begun=str(update.get("StartedAt") or ""),
    )


def tasks(engine: Engine, service: str, *, current: bool = False) -> list[Task]:
    """The tasks of a service that Swarm remembers; those of its last specification
    alone if `current`.
    """
    # What `docker service update` itself asks for while it waits.
    chosen = ["--filter=_up-to-date=true"] if current else []
    words = ("service", "ps", "--quiet", "--no-trunc", *chosen, service)
    listed = ask(engine, *words).split()
    return [_task(one) for one in _inspected(engine, "task", listed)]


def _task(found: Mapping[str, Any]) -> Task:
    status = found["Status"]
    return Task(
        identity=str(found["ID"]),
        node=str(found.get("NodeID") or ""),
        image=str(found["Spec"]["ContainerSpec"]["Image"]),
        state=str(status["State"]),
        wanted=str(found["DesiredState"]),
        error=str(status.get("Err") or ""),
        code=int((status.get("ContainerStatus") or {}).get("ExitCode") or 0),
    )


_PARTS = ("service", "network", "secret", "config")
"""The kinds of things that a stack has; those first that use the others."""


@dataclasses.dataclass(frozen=True, order=True)
class Part:
    """Something that a stack has."""

    kind: str
    """As Docker's client calls it: one of `_PARTS`."""
    identity: str
    name: str


def parts(engine: Engine, stack: str) -> set[Part]:
    """All that a stack has, its services included."""
    found = set()
    for kind in _PARTS:
        of_stack = f"--filter=label={STACK}={stack}"
        listed = ask(engine, kind, "ls", of_stack, "--format={{.ID}} {{.Name}}")
        found |= {Part(kind, *line.split(" ", 1)) for line in listed.splitlines()}
    return found


def remove(engine: Engine, parts: set[Part], *, echo: bool = True) -> None:
    """Ask Swarm to remove the parts; what something uses stays."""
    for kind in _PARTS:
        if found := sorted(part.identity for part in parts if part.kind == kind):
            engine.run(kind, "rm", *found, check=False, echo=echo)


def change(engine: Engine, *words: str, echo: bool = True) -> bool:
    """Give a command that changes a service; True if it has done so.

    Swarm refuses it if the service has changed since the client has read it, and Swarm
    itself may have done that. Then it is given again.
    """
    for _ in range(_TRIES):
        answer = engine.run(*words, check=False, echo=echo)
        if "out of sequence" not in answer.stderr:
            break
        echo = False
        time.sleep(PAUSE)
    return not answer.returncode


def secrets(engine: Engine) -> set[str]:
    """The names of the Swarm's secrets."""
    return {*ask(engine, "secret", "ls", "--format={{.Name}}").split()}


def networks(engine: Engine) -> dict[str, str]:
    """The networks that services can join or this node has, and what drives each."""
    listed = engine.listing("network", "ls", "--format={{.Name}}/{{.Driver}}")
    return dict(line.rsplit("/", 1) for line in listed)


def ours(settings: Settings, service: Service) -> bool:
    """Whether a service is this project's, by its label."""
    return service.labels.get(PROJECT) == settings.image


def _inspected(engine: Engine, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """What the Swarm knows of each; of what has gone meanwhile, nothing."""
    if not names:
        return []
    return list(json.loads(ask(engine, "inspect", f"--type={kind}", *names) or "[]"))
