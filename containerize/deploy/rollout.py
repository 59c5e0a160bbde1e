"""A stack deployed: waited for, and taken back as a whole if a part of it fails."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence

from containerize import signals
from containerize.deploy import cluster, release, swarm
from containerize.deploy.cluster import Part, Service, Task, Unanswered
from containerize.deploy.release import Stack
from containerize.deploy.workload import Workload
from containerize.engines import container
from containerize.engines.container import LOG_LINES
from containerize.errors import Problem, some
from containerize.image.archive import printable

_MARGIN = 10
"""Seconds that Swarm has to tell of a task that has ended."""


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
    had = cluster.parts(engine, stack.name)
    text = swarm.stack(workloads, values=True)
    command = ["stack", "deploy", "--with-registry-auth", *stack.options, stack.name]
    if "--detach" in engine.run("stack", "deploy", "--help", echo=False).stdout:
        command.insert(2, "--detach=true")
    told = f"Swarm goes on by itself: `docker stack ps {stack.name}` shows it"
    failed: Problem | None = None
    try:
        with signals.later():  # else half of the stack could be deployed
            answer = engine.run(*command, input=text.encode(), check=False)
            made = cluster.services(engine, stack.name)
            new = cluster.parts(engine, stack.name) - had
            told += _remedy(stack, before, made)
            if answer.returncode:
                failed = release.refused(stack, command, answer.stderr)
                told = f"what it changed is taken back; {failed}"
                going = _take_back(stack, before, made, new)
        try:
            if failed:
                raise failed
            _see_images(stack, workloads, made)
            _tell_scaled(stack, before, made)
            _wait(stack, before, known)
            serving = _seen(stack, workloads)
        except (_Paused, Unanswered):
            raise
        except Problem as problem:
            if not failed:
                going = _take_back(stack, before, made, new)
                told = f"what it changed is taken back; {problem}"
            now = _now(stack, workloads, before, going)
            raise Problem(f"{now}; {problem}") from None
    except (KeyboardInterrupt, SystemExit, Unanswered):
        stack.tell(told)
        raise
    wanted = {stack.service(workload) for workload in workloads}
    for name, service in before.items():
        if cluster.ours(stack.settings, service) and name not in wanted:
            stack.tell(
                f"note      {name} is of no setting any more, and runs on: `docker "
                f"service rm {name}`"
            )
    return serving


def _remedy(
    stack: Stack, before: Mapping[str, Service], made: Mapping[str, Service]
) -> str:
    """Words that say how a person takes back what a release has made, if anything."""
    if not before:
        return f", `docker stack rm {stack.name}` takes it back"
    changed = [n for n in made if n in before and made[n].said != before[n].said]
    words = [f"docker service rollback {name}" for name in sorted(changed)]
    if new := sorted(made.keys() - before.keys()):
        words.append(f"docker service rm {' '.join(new)}")
    return f", `{' && '.join(words)}` takes it back" if words else ""


def _tell_scaled(
    stack: Stack, before: Mapping[str, Service], made: Mapping[str, Service]
) -> None:
    """Tell of replicas whose number is no longer what somebody set by hand."""
    for name in sorted(before.keys() & made.keys()):
        had, has = before[name].replicas, made[name].replicas
        if had != has and None not in (had, has):
            stack.tell(
                f"note      {name} had {had} replicas and is to have {has}, as the "
                "settings and files say"
            )


def _see_images(
    stack: Stack, workloads: Sequence[Workload], made: Mapping[str, Service]
) -> None:
    """A Problem if a service is to run another image than what is released."""
    for workload in workloads:
        service = made.get(stack.service(workload))
        if service and service.image != workload.image:
            raise Problem(
                f"a --compose-file names another image for {service.name}, "
                f"{printable(service.image)}: leave its image out"
            )


def _said(services: Mapping[str, Service]) -> dict[str, object]:
    return {name: service.said for name, service in services.items()}


class _Paused(Problem):
    """An update that waits for its user, who has told Swarm so."""


def _wait(stack: Stack, before: Mapping[str, Service], known: set[str]) -> None:
    """Return once all tasks of the stack run as it is now. Raises Problem if not."""
    patience = cluster.Patience(stack.settings.health_timeout)
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
            running = sum(
                service.content(t) and t.image == service.image for t in tasks
            )
            wanted = service.replicas
            if wanted is None:
                wanted = 0 if service.job else len({task.node for task in tasks})
            if service.update in cluster.UNDER_WAY:
                going = True
            elif answerable and running < wanted:
                calm.pop(name, None)
                going = True
            elif answerable and service.update != "completed":
                # Nothing but this watches what is new, or has nothing to change.
                first = calm.setdefault(name, time.monotonic())
                going |= time.monotonic() - first < service.monitor
            if answerable:
                for task in tasks:
                    patience.see(task)
            image = service.digest[:19] or service.image
            line = f"{name}: {running} of {wanted} tasks run {image}"
            if told.get(name) != line:
                told[name] = line
                stack.tell(line)
        if not going:
            return
        time.sleep(cluster.PAUSE)


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
        words = _last_words(stack, service, task)
        raise Problem(f"{service.name} is rolled back: {words}")
    if service.update == "paused":
        raise _Paused(
            f"the update of {service.name} is paused, as a --compose-file has it: "
            f"{service.message}"
        )
    if service.update or not answerable:
        return
    for task in tasks:
        if _failed(task, known) and not service.content(task):
            raise Problem(f"{service.name} fails: {_last_words(stack, service, task)}")


def _failed(task: Task, known: set[str]) -> bool:
    return task.state in cluster.ENDED and task.identity not in known


def _last_words(stack: Stack, service: Service, task: Task | None) -> str:
    """How a task has ended, and the end of its log; without one, what Swarm says."""
    if task is None:
        return service.message
    nodes = {node.identity: node.name for node in cluster.nodes(stack.engine)}
    on = f" on {nodes[task.node]}" if len(nodes) > 1 and task.node in nodes else ""
    words = ("service", "logs", "--raw", f"--tail={LOG_LINES}", task.identity)
    said = ""
    with contextlib.suppress(Problem):
        answer = stack.engine.run(
            *words, check=False, echo=False, merge=True, timeout=30
        )
        said = "" if answer.returncode else answer.stdout.strip()
    log = f"the end of its log:\n{said}" if said else "Swarm has no log of it"
    # Swarm says no more of it: it stops what is not healthy.
    why = ": it was not healthy, or ended by itself" if service.checked else ""
    how = task.end + (why if task.state == "complete" else "")
    return "\n".join(
        [f"a task{on} {how}; {log}", *filter(None, [container.writing(said)])]
    )


def _take_back(
    stack: Stack,
    before: Mapping[str, Service],
    made: Mapping[str, Service],
    new: set[Part],
) -> set[Part]:
    """Have Swarm set the stack back to what it was before; returns what is to go.

    `made` has the services as this release has left them, and `new` what was not there
    before. What somebody else has changed since stays.
    """
    engine = stack.engine
    now = cluster.services(engine, stack.name)
    ours = {n: s for n, s in now.items() if n in made and s.said == made[n].said}
    old = {n: s for n, s in now.items() if n in before and s.said == before[n].said}
    others = now.keys() - ours.keys() - old.keys()
    # What is no service may be in use by what another release has made.
    going = {
        part
        for part in new
        if (part.name in ours if part.kind == "service" else not others)
    }
    with signals.undisturbed():
        cluster.remove(engine, going)
        back = [
            service
            for name, service in ours.items()
            # What Swarm rolls back itself has nothing to be rolled back to.
            if name in before
            and service.said != before[name].said
            and before[name].said == service.kept
        ]
        # Those that may have to be waited for come last.
        for service in sorted(back, key=lambda one: one.stops_first):
            if service.stops_first:
                _see_stopped(stack, service)
            cluster.change(engine, "service", "rollback", "--detach", service.name)
    return going


def _see_stopped(stack: Stack, service: Service) -> None:
    """Wait until no task of the service stops any more.

    A rollback does not wait for such a task: it would start the next one beside it.
    """
    deadline = time.monotonic() + service.grace + _MARGIN
    told = False
    while any(map(_stopping, cluster.tasks(stack.engine, service.identity))):
        if time.monotonic() > deadline:
            return
        if not told:
            told = True
            stack.tell(f"{service.name}: waits for its earlier task to end")
        time.sleep(cluster.PAUSE)


def _stopping(task: Task) -> bool:
    return task.under_way and task.wanted != "running"


def _now(
    stack: Stack,
    workloads: Sequence[Workload],
    before: Mapping[str, Service],
    going: set[Part],
) -> str:
    """What serves once a stack that was taken back has settled, and what did not go
    of what was `going`."""
    patience = stack.settings.health_timeout + max(w.stop_seconds for w in workloads)
    _settle(stack, patience)
    left = _left(stack, going, patience)
    if before or cluster.services(stack.engine, stack.name):
        said = _serving(stack, workloads[0]).words
    else:
        said = (
            f"nothing of the stack {stack.name} served before, and it is removed again"
        )
    if left:
        later = some([f"`docker {part.kind} rm {part.name}`" for part in left])
        said += f", but something still uses a part of it: later, {later} removes it"
    return said


def _left(stack: Stack, going: set[Part], patience: float) -> list[Part]:
    """What is still there of what was `going`, after so many seconds at most.

    A Swarm that is asked to remove a network keeps it if a task still uses it.
    """
    deadline = time.monotonic() + patience
    while left := going & cluster.parts(stack.engine, stack.name):
        cluster.remove(stack.engine, left, echo=False)
        if time.monotonic() > deadline:
            return sorted(left)
        time.sleep(cluster.PAUSE)
    return []


def _settle(stack: Stack, patience: float) -> None:
    """Wait until the tasks of the stack run again, or nothing changes for so many
    seconds."""
    before: object = None
    while True:
        services = cluster.services(stack.engine, stack.name).values()
        found = {
            one.name: (one.update, cluster.tasks(stack.engine, one.name, current=True))
            for one in services
        }
        if all(
            one.update not in cluster.UNDER_WAY
            and sum(map(one.content, found[one.name][1])) >= (one.replicas or 0)
            and not any(map(_stopping, cluster.tasks(stack.engine, one.name)))
            for one in services
        ):
            return
        if found != before:
            before, changed = found, time.monotonic()
        if time.monotonic() - changed > patience:
            return
        time.sleep(cluster.PAUSE)


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
