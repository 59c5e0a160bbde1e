"""What a release through Docker Swarm goes to, and whether it can."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from containerize.deploy import cluster, swarm
from containerize.deploy.cluster import Node, Service
from containerize.deploy.workload import Workload
from containerize.engines.engine import SILENT, Engine, ignore
from containerize.errors import Problem, some
from containerize.image.archive import printable
from containerize.settings import PROJECT, Settings

_STACK = re.compile(r"[a-z0-9]+(?:[-_]+[a-z0-9]+)*")
_LONGEST = 63
"""Characters of a service's name, its stack's included (RFC 1035, 2.3.4)."""
_ONCE = "-once"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
    """What a release goes to."""

    settings: Settings
    engine: Engine
    """A manager's."""
    name: str
    files: tuple[Path, ...] = ()
    """The user's own stack files, which go over ours."""
    tell: Callable[[str], None] = ignore
    """Is given each line that says how far it is."""

    def service(self, workload: Workload) -> str:
        """The name of a workload's service in the Swarm."""
        return f"{self.name}_{swarm.service_name(workload.name)}"

    @property
    def options(self) -> list[str]:
        """Those of `docker stack` that name its files, ours from a pipe."""
        return [f"--compose-file={file}" for file in ("-", *self.files)]

    @property
    def mark(self) -> str:
        """The name of the service that is there while a release is under way.

        No service of a stack has such a name.
        """
        return f"release-of-{self.name}"[: _LONGEST - len(_ONCE)].rstrip("-_")

    @property
    def once(self) -> str:
        """The name of the service that runs something once for a release."""
        return f"{self.mark}{_ONCE}"


def stack(
    settings: Settings,
    engine: Engine,
    name: str,
    files: Sequence[str] = (),
    tell: Callable[[str], None] = ignore,
) -> Stack:
    """The stack of that name, by default the image's. Raises Problem for a bad one."""
    name = name or swarm.service_name(settings.image)
    if not _STACK.fullmatch(name):
        raise Problem(
            f"{name!r} is no name of a stack: use lower-case letters and digits, with "
            "'-' or '_' between them"
        )
    for file in files:
        if not Path(file).expanduser().is_file():
            what = "is no file" if Path(file).expanduser().exists() else "is not there"
            raise Problem(f"{file} {what}: mend --compose-file")
    paths = tuple(Path(file).expanduser() for file in files)
    return Stack(settings=settings, engine=engine, name=name, files=paths, tell=tell)


def check_manager(stack: Stack) -> None:
    """A Problem if the engine manages no Swarm."""
    cluster.see_manager(stack.engine)


def check_command(text: str) -> list[str]:
    """The words of a command to run before. Raises Problem if a quote is not closed."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Problem(f"--before {text!r} cannot be read: {error}") from None
    if not words:
        raise Problem('--before has no words: say --before "flask db upgrade"')
    return words


def check(
    stack: Stack, workloads: Sequence[Workload], architectures: Sequence[str]
) -> dict[str, Service]:
    """The stack's services as they are, if a release can go to it.

    `architectures` are those that there is an image for. Raises Problem for a Swarm, a
    stack, or a network, secret or port of the settings that a release would fail on.
    """
    engine, settings = stack.engine, stack.settings
    nodes = cluster.nodes(engine)
    see_nodes(nodes, architectures)
    found = cluster.services(engine)
    standing = {
        name: service
        for name, service in found.items()
        if service.labels.get(cluster.STACK) == stack.name
    }
    _see_stack(stack, workloads, standing)
    _see_names(stack, workloads, found)
    if lacking := sorted({*settings.secrets} - cluster.secrets(engine)):
        raise Problem(
            f"the Swarm has no secret {some(lacking)}: `docker secret create "
            f"{lacking[0]} {settings.secrets[lacking[0]]}` makes it"
        )
    _see_network(stack)
    _see_port(stack, found)
    _see_files(stack, workloads)
    _see_volumes(workloads[0], nodes)
    return standing


def see_nodes(nodes: Sequence[Node], architectures: Sequence[str]) -> None:
    active = [node for node in nodes if node.active]
    if not active:
        raise Problem(
            "no node of the Swarm takes tasks: `docker node update --availability "
            "active NODE`"
        )
    if away := [node for node in active if node.state != "ready"]:
        names = some([f"{node.name} is {node.state}" for node in away])
        raise Problem(
            f"not every node is ready: {names}: see to it, or leave it out: `docker "
            f"node update --availability drain {away[0].identity[:12]}`"
        )
    if strange := [n for n in active if n.architecture not in architectures]:
        names = some([f"{node.name} is {node.architecture}" for node in strange])
        raise Problem(
            f"the image is for {', '.join(architectures)}, and {names}: add it to the "
            "setting architectures, or drain the node"
        )


def _see_stack(
    stack: Stack, workloads: Sequence[Workload], standing: Mapping[str, Service]
) -> None:
    own = stack.settings.image
    labels = [each.labels for each in standing.values()]
    owners = {str(each[PROJECT]) for each in labels if PROJECT in each}
    if standing and owners != {own}:
        others = ", ".join(sorted(map(printable, owners - {own})))
        whose = f"the project {others}" if others else "another"
        raise Problem(
            f"the stack {stack.name} is {whose}'s already: choose another name, --stack"
        )
    if busy := [s for s in standing.values() if s.update in cluster.UNDER_WAY]:
        raise Problem(
            f"an update of {busy[0].name} is under way ({busy[0].update}): wait for "
            f"its end, `docker service ps {busy[0].name}` shows it"
        )


def _see_names(
    stack: Stack, workloads: Sequence[Workload], found: Mapping[str, Service]
) -> None:
    for name in map(stack.service, workloads):
        if len(name) > _LONGEST:
            raise Problem(
                f"{name} is longer than the {_LONGEST} characters that a service's "
                "name can have: choose a shorter name, --stack"
            )
        other = found.get(name)
        if other and other.labels.get(cluster.STACK) != stack.name:
            raise Problem(
                f"there is a service {name} already, which is not of the stack "
                f"{stack.name}: choose another name, --stack"
            )


def _see_network(stack: Stack) -> None:
    name = stack.settings.network
    if not name:
        return
    driver = cluster.networks(stack.engine).get(name, "")
    if not driver:
        raise Problem(
            f"the Swarm has no network {name} (setting network): `docker network "
            f"create --driver overlay {name}` makes it"
        )
    if driver != "overlay":
        raise Problem(
            f"the network {name} (setting network) is of this node alone ({driver}): "
            "name one of the driver overlay"
        )


def _see_port(stack: Stack, found: Mapping[str, Service]) -> None:
    port = stack.settings.ingress_port
    if not port:
        return
    takers = [
        f"the service {service.name}"
        for service in found.values()
        if (port, "tcp") in service.ports
        and service.labels.get(cluster.STACK) != stack.name
    ]
    if not takers and (name := stack.engine.publisher(port)):
        takers = [f"the container {name} of this node"]
    if takers:
        raise Problem(
            f"the port {port} is taken by {takers[0]}: choose another (setting "
            "ingress-port)"
        )


def _see_volumes(workload: Workload, nodes: Sequence[Node]) -> None:
    if not workload.settings.volumes:
        return
    label = swarm.label(workload)
    having = [node for node in nodes if node.labels.get(label) == "here"]
    if not having:
        raise Problem(
            f"no node is to have the volumes: `docker node update --label-add "
            f"{label}=here NODE` names it"
        )
    if len(having) > 1:
        names = some([node.name for node in having])
        raise Problem(
            f"{len(having)} nodes are to have the volumes, {names}, and data is on "
            f"one: `docker node update --label-rm {label} NODE`"
        )


def _see_files(stack: Stack, workloads: Sequence[Workload]) -> None:
    """A Problem if the client cannot read what it is to deploy."""
    text = swarm.stack(workloads, values=True)
    if not stack.files or not _has(stack.engine, "config"):
        return
    command = ("stack", "config", *stack.options)
    answer = stack.engine.run(*command, input=text.encode(), check=False, echo=False)
    if answer.returncode:
        raise refused(stack, command, answer.stderr)


_REMEDIES = (
    ("version mismatch", 'begin each with version: "3.9", as ours does'),
    (
        "only updates to labels are allowed",
        "Swarm changes no config or secret: give what you edited a new name there",
    ),
)


def refused(stack: Stack, command: Sequence[str], said: str) -> Problem:
    """What a client that refuses the stack's files has said, and where to look."""
    problem = stack.engine.problem(command, said.strip() or SILENT)
    if not stack.files or type(problem) is not Problem:
        return problem
    found = [remedy for part, remedy in _REMEDIES if part in said.lower()]
    remedy = found[0] if found else "see to it there, if it is not of the settings"
    names = some([*map(str, stack.files)])
    return Problem(f"{problem} (--compose-file {names}: {remedy})")


def _has(engine: Engine, verb: str) -> bool:
    """Whether the client has a subcommand of `stack`: `config` came with release 25."""
    help = engine.run("stack", "--help", check=False, echo=False).stdout  # noqa: A001
    return re.search(rf"^\s+{verb}\s", help, re.MULTILINE) is not None
