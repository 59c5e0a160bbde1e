"""A release through Docker Swarm: looked at, then deployed whole, or taken back."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from containerize.deploy import cluster, swarm
from containerize.deploy.cluster import Node, Service, Task
from containerize.deploy.workload import Workload
from containerize.engines import container, variables, volumes
from containerize.engines.container import LOG_LINES, undisturbed
from containerize.engines.engine import Engine, ignore
from containerize.errors import Problem, some
from containerize.image.archive import printable
from containerize.publish import reference
from containerize.settings import Settings

_STACK = re.compile(r"[a-z0-9]+(?:[-_]+[a-z0-9]+)*")
_LONGEST = 63
"""Characters of a service's name, its stack's included (RFC 1035, 2.3.4)."""

ONCE = "containerize.release"
"""Label of a service that is there for a release alone: which one."""

_PULL = 600
"""Seconds that every node has to pull the image."""
_PAUSE = 0.5
"""Seconds between two looks at a Swarm."""


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
    def once(self) -> str:
        """The name of what is there for a release alone, which no service of a stack
        has: two releases do not fit beside one another."""
        return f"release-of-{self.name}"


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
            raise Problem(f"there is no file {file}: mend --compose-file")
    paths = tuple(Path(file).expanduser() for file in files)
    return Stack(settings=settings, engine=engine, name=name, files=paths, tell=tell)


# --- What can be refused with nothing changed ------------------------------------


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
    if lacking := sorted({*settings.secrets} - cluster.secrets(engine)):
        raise Problem(
            f"the Swarm has no secret {some(lacking)}: `docker secret create "
            f"{lacking[0]} FILE` makes it"
        )
    _see_network(stack)
    _see_port(stack, found)
    _see_volumes(workloads[0], nodes)
    _see_files(stack, workloads)
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
    key, _, own = stack.settings.label.partition("=")
    owners = {str(each.labels[key]) for each in standing.values() if key in each.labels}
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
    for name in (stack.once, *map(stack.service, workloads)):
        if len(name) > _LONGEST:
            raise Problem(
                f"{name} is longer than the {_LONGEST} characters that a service's "
                "name can have: choose a shorter name, --stack"
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
    command = ("stack", "config", *_files(stack))
    stack.engine.run(*command, input=text.encode(), echo=False)


def _files(stack: Stack) -> list[str]:
    return [f"--compose-file={file}" for file in ("-", *stack.files)]


def _has(engine: Engine, verb: str) -> bool:
    """Whether the client has a subcommand of `stack`: `config` came with release 25."""
    help = engine.run("stack", "--help", check=False, echo=False).stdout  # noqa: A001
    return re.search(rf"^\s+{verb}\s", help, re.MULTILINE) is not None


# --- Whether each node can have it -----------------------------------------------


def see_pulled(stack: Stack, workload: Workload) -> None:
    """Have every node that takes tasks pull the image and run it once.

    Raises Problem with the names of those that cannot, and why.
    """
    nodes = {one.identity: one for one in cluster.nodes(stack.engine) if one.active}
    trial = ("--mode=global", "--entrypoint=python3")
    with _once(stack, workload, trial, ("-I", "-S", "-c", "pass")) as service:
        deadline = time.monotonic() + _PULL
        while True:
            tasks = cluster.tasks(stack.engine, service)
            ended = {task.node: task for task in tasks if task.state in cluster.ENDED}
            waiting = [nodes[each].name for each in nodes if each not in ended]
            if not waiting:
                break
            if time.monotonic() > deadline:
                raise Problem(
                    f"{some(waiting)} did not pull {workload.image} within {_PULL} s"
                )
            time.sleep(_PAUSE)
    failed = {
        nodes[each]: task
        for each, task in ended.items()
        if each in nodes and task.state != "complete"
    }
    if failed:
        raise _unpulled(stack, workload, failed)
    count = len(nodes)
    stack.tell(f"pulled    by {count} node{'s' if count > 1 else ''}")


def _unpulled(stack: Stack, workload: Workload, failed: Mapping[Node, Task]) -> Problem:
    names = some([node.name for node in failed])
    ran = next(
        (t for t in failed.values() if "no such image" not in t.error.lower()), None
    )
    if ran:
        return Problem(f"{names} cannot run {workload.image}: it {ran.end}")
    # What kept a node from pulling is told to nobody but its own daemon's log.
    answer = stack.engine.run("pull", "--quiet", workload.image, check=False)
    host = reference.parse(workload.image).registry
    why = (
        reason(host, answer.stderr)
        if answer.returncode
        else f"this node can, so see in the log of each one's daemon why {host} is not "
        "to be reached from there"
    )
    return Problem(f"{names} cannot pull {workload.image}: {why}")


_REASONS = (
    (
        r"server gave HTTP response to HTTPS client",
        "{host} has no TLS, which a daemon must be told: insecure-registries in the "
        "daemon.json of each node",
    ),
    (
        r"x509|certificate",
        "its certificate is not trusted: put its CA into "
        "/etc/docker/certs.d/{host}/ca.crt of each node",
    ),
    (
        r"unauthorized|denied|authentication required|no basic auth",
        "{host} wants to know who pulls: `docker login {host}` here, which the release "
        "passes on",
    ),
    (r"lookup |no such host", "no resolver there knows the host of {host}"),
    (
        r"connection refused|no route to host|timeout|deadline|canceled",
        "{host} does not answer there: see its address and the firewalls",
    ),
    (r"manifest unknown|not found", "{host} has it no more: push it"),
)
"""What daemons say if they cannot pull, and what it means."""


def reason(host: str, said: str) -> str:
    for pattern, meaning in _REASONS:
        if re.search(pattern, said, re.IGNORECASE):
            return meaning.format(host=host)
    return printable((said.strip().splitlines() or ["it does not say why"])[-1])


# --- What runs once before -------------------------------------------------------


def run_before(stack: Stack, workload: Workload, words: Sequence[str]) -> None:
    """Run a command once on the new image, as the service would run there.

    It has the service's variables, secrets, volumes and limits, and the networks of
    the one that serves, or else that of the settings. What it writes is told. Raises
    Problem if it fails.
    """
    entry, *rest = words
    engine = stack.engine
    values = {k: swarm.literal(v) for k, v in workload.environment.items()}
    with (
        variables.handed(values) as (passed, environ),
        _once(
            stack,
            workload,
            (
                "--mode=replicated",
                *passed,
                *_belongings(stack, workload),
                f"--entrypoint={entry}",
            ),
            rest,
            environ,
        ) as service,
    ):
        said: list[list[str]] = [[], []]
        patience = _Patience(stack.settings.health_timeout)
        while not (task := _ended(cluster.tasks(engine, service), patience)):
            _tell_new(stack, service, said)
            time.sleep(_PAUSE)
        _tell_new(stack, service, said, whole=True)
    if task.state != "complete":
        last = next((line for lines in reversed(said) for line in lines[-1:]), "")
        also = f"; its last words: {printable(last)}" if last else ""
        command = printable(shlex.join(words))
        raise Problem(f"`{command}` {task.end}, so nothing is deployed{also}")


def _ended(tasks: Sequence[Task], patience: _Patience) -> Task | None:
    """The task that has ended, if it has. Raises Problem if none ever will."""
    for task in tasks:
        if task.state in cluster.ENDED:
            return task
        if task.wanted in ("shutdown", "remove"):
            raise Problem(
                "its node has gone while it ran: see what it has done, then repeat"
            )
        patience.see(task)
    return None


class _Patience:
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


def _belongings(stack: Stack, workload: Workload) -> Iterator[str]:
    """The options that give a service what the app's has beside its variables."""
    limits = workload.confinement
    for name in workload.settings.secrets:
        owner = f"uid={limits.user},gid={limits.group},mode=0400"
        yield f"--secret=source={name},target={name},{owner}"
    for mount in volumes.mounts(workload.settings):
        kept = ",readonly" if "ro" in mount.options.split(",") else ""
        path = swarm.literal(mount.path)
        yield f"--mount=type=volume,source={mount.source},target={path}{kept}"
    if workload.settings.volumes:
        yield f"--constraint=node.labels.{swarm.label(workload)}==here"
    serving = cluster.services(stack.engine, stack.name).get(stack.service(workload))
    if serving:
        for network in serving.spec["TaskTemplate"].get("Networks") or ():
            yield f"--network={network['Target']}"
    elif workload.settings.network:
        yield f"--network={workload.settings.network}"


def _tell_new(
    stack: Stack, service: str, said: list[list[str]], *, whole: bool = False
) -> None:
    """Tell what a service has written since; a line that it still writes only if
    `whole`."""
    words = ("service", "logs", "--raw", service)
    with contextlib.suppress(Problem):  # it may be had at the next look
        answer = stack.engine.run(*words, check=False, echo=False, timeout=30)
        for known, text in zip(said, (answer.stdout, answer.stderr), strict=True):
            end = len(text) if whole else text.rfind("\n") + 1
            for line in text[:end].splitlines()[len(known) :]:
                known.append(line)
                stack.tell(f"  {printable(line)}")


@contextlib.contextmanager
def _once(
    stack: Stack,
    workload: Workload,
    options: Sequence[str],
    words: Sequence[str],
    environ: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A service whose tasks run once, as confined as the app's; it goes in the end.

    Not one of the modes for jobs: the containers of these stay when it is removed
    (moby #42789). Two of a stack cannot be, so that two releases are not either.
    """
    engine, mark = stack.engine, secrets.token_hex(8)
    command = (
        *("service", "create", "--detach", "--quiet", f"--name={stack.once}"),
        *(f"--label={ONCE}={mark}", f"--label={stack.settings.label}"),
        *("--with-registry-auth", "--no-resolve-image", "--restart-condition=none"),
        *("--no-healthcheck", *_confined(workload), *options),
        *(workload.image, *words),
    )
    try:
        answer = engine.run(*command, check=False, variables=environ)
        if "name conflicts" in answer.stderr:
            raise Problem(
                f"another release of the stack {stack.name} is under way; if none is, "
                f"one was killed: `docker service rm {stack.once}`"
            )
        if answer.returncode:
            raise engine.problem(("service",), answer.stderr)
        yield stack.once
    finally:
        with undisturbed():
            _remove(engine, f"{ONCE}={mark}")


def _remove(engine: Engine, label: str) -> None:
    """Remove the services with a label, one that a client just asked for as well."""
    for _ in range(3):
        if found := engine.listing(
            "service", "ls", "--quiet", f"--filter=label={label}"
        ):
            engine.run("service", "rm", *found, check=False, echo=False)
            return
        time.sleep(0.2)


def _confined(workload: Workload) -> Iterator[str]:
    """The options of `docker service create` for what a container may do."""
    limits = workload.confinement
    if limits.read_only:
        yield "--read-only"
    for path, size in limits.temporary.items():
        yield f"--mount=type=tmpfs,target={path},tmpfs-size={size}"
    yield from (f"--cap-drop={each}" for each in limits.dropped)
    yield f"--user={limits.user}:{limits.group}"
    yield f"--limit-memory={limits.memory_bytes}"
    yield f"--limit-pids={limits.pids}"


# --- Deployed, or taken back -----------------------------------------------------


def deploy(
    stack: Stack, workloads: Sequence[Workload], standing: Mapping[str, Service]
) -> str:
    """Deploy the workloads and wait until all tasks run; what serves now, in a line.

    `standing` is what `check` has found. If one service fails, all are as before.
    Raises Problem then, with the failed task's last words, and if someone else has
    changed the stack since.
    """
    engine = stack.engine
    before = cluster.services(engine, stack.name)
    if _said(before) != _said(standing):
        raise Problem(
            f"someone else has changed the stack {stack.name} meanwhile: repeat if "
            "this is to go over it"
        )
    known = {t.identity for name in before for t in cluster.tasks(engine, name)}
    text = swarm.stack(workloads, values=True)
    command = ["stack", "deploy", "--with-registry-auth", *_files(stack), stack.name]
    if "--detach" in engine.run("stack", "deploy", "--help", echo=False).stdout:
        command.insert(2, "--detach=true")
    try:
        try:
            engine.run(*command, input=text.encode())
            _wait(stack, before, known)
        except _Paused:
            raise
        except Problem as problem:
            raise Problem(_taken_back(stack, workloads, before, problem)) from None
    except (KeyboardInterrupt, SystemExit):
        stack.tell(
            f"Swarm goes on by itself: `docker stack ps {stack.name}` shows it, "
            f"`docker service rollback {stack.service(workloads[0])}` takes it back"
        )
        raise
    return _seen(stack, workloads)


def _said(services: Mapping[str, Service]) -> dict[str, object]:
    return {name: service.said for name, service in services.items()}


class _Paused(Problem):
    """An update that waits for its user, who has told Swarm so."""


def _wait(stack: Stack, before: Mapping[str, Service], known: set[str]) -> None:
    """Return once all tasks of the stack run as it is now. Raises Problem if not."""
    patience = _Patience(stack.settings.health_timeout)
    calm: dict[str, float] = {}
    told: dict[str, str] = {}
    while True:
        going = False
        for name, found in cluster.services(stack.engine, stack.name).items():
            service = _since(found, before.get(name))
            tasks = cluster.tasks(stack.engine, service.identity, current=True)
            # What somebody else's service does by itself is not this release's.
            answerable = name not in before or cluster.ours(stack.settings, service)
            _see_well(stack, service, tasks, known, answerable=answerable)
            for task in tasks:
                patience.see(task)
            running = sum(t.runs and t.image == service.image for t in tasks)
            wanted = service.replicas
            if wanted is None:
                wanted = 0 if service.job else max(1, len({t.node for t in tasks}))
            # Nothing but this watches a service that is new, or has nothing to change.
            watched = service.update == "completed" or not answerable
            if running < wanted or service.update in cluster.UNDER_WAY:
                calm.pop(name, None)
                going = True
            elif not watched:
                first = calm.setdefault(name, time.monotonic())
                going |= time.monotonic() - first < service.monitor
            line = f"{name}: {running} of {wanted} tasks run {service.digest[:19]}"
            if told.get(name) != line:
                told[name] = line
                stack.tell(line)
        if not going:
            return
        time.sleep(_PAUSE)


def _since(service: Service, earlier: Service | None) -> Service:
    """The service without the state of an update that has ended before."""
    if earlier and service.begun == earlier.begun:
        return dataclasses.replace(service, update="")
    return service


def _see_well(
    stack: Stack,
    service: Service,
    tasks: Sequence[Task],
    known: set[str],
    *,
    answerable: bool,
) -> None:
    """A Problem if a service fails, by a task that is not among those `known` before.

    If it is not `answerable`, only if Swarm says so.
    """
    if service.update.startswith("rollback"):
        every = cluster.tasks(stack.engine, service.identity)
        task = next((task for task in every if _failed(task, known)), None)
        words = _last_words(stack, task, service.message)
        raise Problem(f"{service.name} is rolled back: {words}")
    if service.update == "paused":
        raise _Paused(
            f"the update of {service.name} is paused, as a --compose-file has it: "
            f"{service.message}"
        )
    if service.update or not answerable:
        return
    for task in tasks:
        if _failed(task, known):
            raise Problem(f"{service.name} fails: {_last_words(stack, task)}")


def _failed(task: Task, known: set[str]) -> bool:
    return task.state in cluster.ENDED and task.identity not in known


def _last_words(stack: Stack, task: Task | None, otherwise: str = "") -> str:
    """How a task has ended, and the end of its log."""
    if task is None:
        return otherwise
    nodes = {node.identity: node.name for node in cluster.nodes(stack.engine)}
    on = f" on {nodes[task.node]}" if len(nodes) > 1 and task.node in nodes else ""
    words = ("service", "logs", "--raw", f"--tail={LOG_LINES}", task.identity)
    said = ""
    with contextlib.suppress(Problem):
        answer = stack.engine.run(
            *words, check=False, echo=False, merge=True, timeout=30
        )
        said = "" if answer.returncode else answer.stdout.strip()
    log = f"the end of its log:\n{said}" if said else "it wrote no log"
    return "\n".join(
        [f"a task{on} {task.end}; {log}", *filter(None, [container.writing(said)])]
    )


def _taken_back(
    stack: Stack,
    workloads: Sequence[Workload],
    before: Mapping[str, Service],
    problem: Problem,
) -> str:
    """Have the stack as it was before; the problem, and what serves then."""
    engine = stack.engine
    now = cluster.services(engine, stack.name)
    made = [name for name in now if name not in before]
    with undisturbed():
        if made and not before:
            engine.run("stack", "rm", stack.name, check=False)
        elif made:
            engine.run("service", "rm", *made, check=False)
        for name, earlier in before.items():
            # What Swarm rolls back itself has nothing to be rolled back to.
            service = now.get(name)
            if service and service.said != earlier.said == service.kept:
                engine.run("service", "rollback", "--detach", name, check=False)
    if not before:
        return (
            f"nothing of the stack {stack.name} served before, and it is removed "
            f"again; {problem}"
        )
    _settle(stack, max(one.stop_seconds for one in workloads))
    return f"{_serving(stack, workloads[0]).words}; {problem}"


def _settle(stack: Stack, stop_seconds: float) -> None:
    """Wait until the tasks of the stack run again, or nothing changes any more."""
    patience = stack.settings.health_timeout + stop_seconds
    before: object = None
    while True:
        services = cluster.services(stack.engine, stack.name).values()
        found = {
            one.name: (one.update, cluster.tasks(stack.engine, one.name, current=True))
            for one in services
        }
        if all(
            one.update not in cluster.UNDER_WAY
            and sum(task.runs for task in found[one.name][1]) >= (one.replicas or 0)
            for one in services
        ):
            return
        if found != before:
            before, changed = found, time.monotonic()
        if time.monotonic() - changed > patience:
            return
        time.sleep(_PAUSE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serving:
    """What the tasks of a service run, as they say themselves."""

    service: str
    digests: tuple[str, ...]
    running: int
    wanted: int

    @property
    def words(self) -> str:
        what = " and ".join(self.digests) or "nothing"
        return (
            f"{self.service} serves {what} with {self.running} of {self.wanted} tasks"
        )


def _serving(stack: Stack, workload: Workload) -> Serving:
    name = stack.service(workload)
    service = cluster.services(stack.engine, stack.name).get(name)
    tasks = cluster.tasks(stack.engine, name)
    running = [task for task in tasks if task.runs]
    wanted = service.replicas if service else 0
    return Serving(
        service=name,
        digests=tuple(sorted({task.image.partition("@")[2] for task in running})),
        running=len(running),
        wanted=len(running) if wanted is None else wanted,
    )


def _seen(stack: Stack, workloads: Sequence[Workload]) -> str:
    """What serves now. Raises Problem if it is not what was released."""
    found = [_serving(stack, workload) for workload in workloads]
    digest = workloads[0].image.partition("@")[2]
    if others := [one for one in found if one.digests != (digest,)]:
        raise Problem(
            f"{others[0].words}, which is not what was released, {digest}: see whether "
            "a --compose-file or someone else names another image"
        )
    return found[0].words
