"""What runs once for a release, as a service that goes when it has ended."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from containerize import signals
from containerize.deploy import cluster, swarm
from containerize.deploy.cluster import Service, Task
from containerize.deploy.release import Stack
from containerize.deploy.workload import Workload
from containerize.engines import variables, volumes
from containerize.engines.engine import Engine
from containerize.errors import Problem, some
from containerize.image.archive import printable
from containerize.publish import reference

ONCE = "containerize.release"
"""Label of such a service: which release it is of."""

_PULL = 600
"""Seconds that every node has to pull the image and run it."""


def see_pulled(stack: Stack, workload: Workload) -> None:
    """Have every node that takes tasks pull the image and run it once.

    Raises Problem with the names of those that cannot, and why.
    """
    count, failed = _everywhere(stack, workload, (), "pass")
    if failed:
        raise _unpulled(stack, workload, failed)
    stack.tell(f"pulled    by {count} node{'s' if count > 1 else ''}")


_LISTENED = 98
"""The exit code of what finds that something listens: EADDRINUSE."""

_LISTENS = """
import os, sys
port, code = map(int, sys.argv[1:])
for name in filter(os.path.exists, ("/proc/net/tcp", "/proc/net/tcp6")):
    with open(name) as sockets:
        for _, local, _, state, *_ in map(str.split, sockets):
            if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                sys.exit(code)
"""
"""Exits with a code if something listens on a port (proc_net_tcp of Linux)."""


def see_port(stack: Stack, workload: Workload, standing: Mapping[str, Service]) -> None:
    """A Problem if the setting ingress-port is one that a node does not have free.

    `standing` are the stack's services, of which one may have it already.
    """
    port = workload.settings.ingress_port
    if not port or any((port, "tcp") in one.ports for one in standing.values()):
        return
    # A node's own network takes none of the parameters of a container's.
    limits = dataclasses.replace(workload.confinement, sysctls={})
    there = dataclasses.replace(workload, confinement=limits)
    words = (_LISTENS, str(port), str(_LISTENED))
    _, failed = _everywhere(stack, there, ("--network=host",), *words)
    if taken := [name for name, task in failed.items() if task.code == _LISTENED]:
        raise Problem(
            f"something listens on port {port} of {some(taken)}: end it, or choose "
            "another port (setting ingress-port)"
        )
    if failed:
        name, task = next(iter(failed.items()))
        raise Problem(
            f"whether port {port} of {name} is free cannot be seen: it {task.end}"
        )


def _everywhere(
    stack: Stack, workload: Workload, options: Sequence[str], *program: str
) -> tuple[int, dict[str, Task]]:
    """Run a program of Python once on every node that takes tasks.

    Returns how many these are, and the tasks that failed by their nodes' names.
    """
    nodes = {one.identity: one for one in cluster.nodes(stack.engine) if one.active}
    given = ("--mode=global", "--entrypoint=python3", *options)
    with _once(stack, workload, given, ("-I", "-S", "-c", *program)) as service:
        deadline = time.monotonic() + _PULL
        while True:
            tasks = cluster.tasks(stack.engine, service)
            ended = {task.node: task for task in tasks if task.state in cluster.ENDED}
            waiting = [nodes[each].name for each in nodes if each not in ended]
            if not waiting:
                break
            if time.monotonic() > deadline:
                raise Problem(
                    f"{some(waiting)} did not run {workload.image} within {_PULL} s"
                )
            time.sleep(cluster.PAUSE)
    failed = {
        nodes[each].name: task
        for each, task in ended.items()
        if each in nodes and task.state != "complete"
    }
    return len(nodes), failed


def _unpulled(stack: Stack, workload: Workload, failed: Mapping[str, Task]) -> Problem:
    names = some([*failed])
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
    """What a daemon that cannot pull from `host` has said, in words."""
    for pattern, meaning in _REASONS:
        if re.search(pattern, said, re.IGNORECASE):
            return meaning.format(host=host)
    return printable((said.strip().splitlines() or ["it does not say why"])[-1])


# --- What runs once before -------------------------------------------------------

_GIVE = """
import os, sys
user, group, *paths = sys.argv[1:]
for path in paths:
    if os.stat(path).st_uid == 0 and not os.listdir(path):
        os.chown(path, int(user), int(group))
"""


def give_volumes(stack: Stack, workload: Workload) -> None:
    """Have the image's user own the volumes that are new, as `run` has it.

    A Swarm makes them for root, whose they stay if the image has no such directory.
    Raises Problem if that cannot be done.
    """
    found = volumes.mounts(workload.settings)
    paths = [each.path for each in found if "ro" not in each.options.split(",")]
    if not paths:
        return
    limits = workload.confinement
    options = ("--user=0:0", "--cap-add=CHOWN", "--entrypoint=python3")
    words = ("-I", "-S", "-c", _GIVE, str(limits.user), str(limits.group), *paths)
    given = (*options, *_mounted(workload))
    with _once(stack, workload, given, words) as service:
        task = _end(stack, service)
    if task.state != "complete":
        raise Problem(
            f"the volumes cannot be given to user {limits.user}: it {task.end}"
        )


def run_before(stack: Stack, workload: Workload, words: Sequence[str]) -> None:
    """Run a command once on the new image, as the service would run there.

    It has the service's variables, secrets, volumes and limits, and the networks of
    the one that serves, or else that of the settings. What it writes is told. Raises
    Problem if it fails.
    """
    entry, *rest = words
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
                # Docker takes it apart as a shell does.
                f"--entrypoint={shlex.quote(entry)}",
            ),
            rest,
            environ,
        ) as service,
    ):
        said: list[list[str]] = [[], []]
        task = _end(stack, service, lambda: _tell_new(stack, service, said))
        _tell_new(stack, service, said, whole=True)
    if task.state != "complete":
        last = next((line for lines in reversed(said) for line in lines[-1:]), "")
        also = f"; its last words: {printable(last)}" if last else ""
        command = printable(shlex.join(words))
        raise Problem(f"`{command}` {task.end}, so nothing is deployed{also}")


def _end(
    stack: Stack, service: str, on_look: Callable[[], None] = lambda: None
) -> Task:
    """The one task of a service, once it has ended. Raises Problem if it never will."""
    patience = cluster.Patience(stack.settings.health_timeout)
    while True:
        for task in cluster.tasks(stack.engine, service):
            if task.state in cluster.ENDED:
                return task
            if task.wanted in ("shutdown", "remove"):
                raise Problem(
                    "its node has gone while it ran: see what it has done, then repeat"
                )
            patience.see(task)
        on_look()
        time.sleep(cluster.PAUSE)


def _belongings(stack: Stack, workload: Workload) -> Iterator[str]:
    """The options that give a service what the app's has beside its variables."""
    limits = workload.confinement
    for name in workload.settings.secrets:
        owner = f"uid={limits.user},gid={limits.group},mode=0400"
        yield f"--secret=source={name},target={name},{owner}"
    yield from _mounted(workload)
    serving = cluster.services(stack.engine, stack.name).get(stack.service(workload))
    if serving:
        for network in serving.spec["TaskTemplate"].get("Networks") or ():
            yield f"--network={network['Target']}"
    elif workload.settings.network:
        yield f"--network={workload.settings.network}"


def _mounted(workload: Workload) -> Iterator[str]:
    """The options that give a service the volumes, where they are."""
    for mount in volumes.mounts(workload.settings):
        kept = ",readonly" if "ro" in mount.options.split(",") else ""
        path = swarm.literal(mount.path)
        place = f"type=volume,source={mount.source},target={path}{kept}"
        # One that is made by this is the project's.
        yield f"--mount={place},volume-label={workload.settings.label}"
    if workload.settings.volumes:
        yield f"--constraint=node.labels.{swarm.label(workload)}==here"


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
def alone(stack: Stack, workload: Workload) -> Iterator[None]:
    """Have no other release of the stack begin until this one has ended.

    A service of no tasks says that it is under way. Raises Problem if another one is.
    """
    with _service(stack, stack.mark, "--replicas=0", workload.image):
        yield


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
    (moby #42789).
    """
    given = (
        *("--with-registry-auth", "--restart-condition=none", "--no-healthcheck"),
        # It ends Python at once, as Ctrl-C does. SIGTERM does not: the kernel keeps it
        # from the first process of a container.
        *("--stop-signal=SIGINT", *_confined(workload), *options),
        *(workload.image, *words),
    )
    with _service(stack, stack.once, *given, environ=environ):
        try:
            yield stack.once
        finally:
            with signals.undisturbed():
                _stop(stack)


@contextlib.contextmanager
def _service(
    stack: Stack,
    name: str,
    *words: str,
    environ: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """A service of that name, until this ends. Raises Problem if one is there."""
    engine, mark = stack.engine, secrets.token_hex(8)
    command = (
        *("service", "create", "--detach", "--quiet", f"--name={name}"),
        *(f"--label={ONCE}={mark}", f"--label={stack.settings.label}"),
        *("--no-resolve-image", *words),
    )
    try:
        answer = engine.run(*command, check=False, variables=environ)
        if "name conflicts" in answer.stderr:
            left = sorted({stack.mark, stack.once} & cluster.services(engine).keys())
            raise Problem(
                f"another release of the stack {stack.name} is under way; if none is, "
                f"one was killed: `docker service rm {' '.join(left) or name}`"
            )
        if answer.returncode:
            raise engine.problem(("service",), answer.stderr)
        yield
    finally:
        with signals.undisturbed():
            _remove(engine, f"{ONCE}={mark}")


_STOP = 15
"""Seconds until a task must have ended: Swarm kills it after ten."""


def _stop(stack: Stack) -> None:
    """End a task that still runs, before its service goes and another may come."""
    engine, deadline = stack.engine, time.monotonic() + _STOP

    def runs() -> bool:
        return any(task.under_way for task in cluster.tasks(engine, stack.once))

    if not runs():
        return
    words = ("service", "update", "--detach", "--replicas=0", stack.once)
    if not cluster.change(engine, *words, echo=False):
        return  # one on every node, which ends by itself
    while runs():
        if time.monotonic() > deadline:
            stack.tell("note      what it began may go on: its node does not say")
            return
        time.sleep(cluster.PAUSE)


def _remove(engine: Engine, label: str) -> None:
    """Remove the services with a label, one that a client just asked for as well."""
    for _ in range(3):
        words = ("service", "ls", "--quiet", f"--filter=label={label}")
        found = cluster.ask(engine, *words).split()
        gone = ("service", "rm", *found)
        if found and not engine.run(*gone, check=False, echo=False).returncode:
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
    yield from (f"--sysctl={name}={value}" for name, value in limits.sysctls.items())
    yield f"--limit-pids={limits.pids}"
