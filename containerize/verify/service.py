"""What a Swarm service runs: its image, its tasks, and what it sets besides."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.image.archive import printable
from containerize.progress import Progress
from containerize.settings import Settings
from containerize.verify import pushed, running
from containerize.verify.expected import Target
from containerize.verify.running import Launch

# What of a task decides which code it runs.
_DECIDES = ("Image", "Command", "Args", "Env", "Dir", "Mounts", "Configs", "Secrets")


def find(
    settings: Settings, engines: Sequence[Engine], name: str, *, progress: Progress
) -> Target | None:
    """What the service of that name, or ID, runs; None without one.

    Its image is read from its registry where the service names it by digest; else in
    the tasks' containers on this node. Raises Problem where no task runs, and where
    the image is not one of this project's.
    """
    for engine in engines:
        if engine.kind == "docker" and (
            found := running.inspect(engine, "service", name)
        ):
            return _target(settings, engine, f"service {name}", found, progress)
    return None


def _target(
    settings: Settings,
    engine: Engine,
    title: str,
    found: Mapping[str, Any],
    progress: Progress,
) -> Target:
    spec = found["Spec"]["TaskTemplate"]["ContainerSpec"]
    tasks = _tasks(engine, str(found["ID"]))
    if not any(_runs(task) for task in tasks):
        raise Problem(f"{title} has no task that runs: see `docker service ps`")
    own = _containers(engine, tasks)
    image = str(spec["Image"])
    if "@sha256:" in image:
        read = pushed.find(settings, image, progress=progress)
        target, configs = read.target, [one.launch for one in read.images.values()]
        name = f"{title}, {image}"
    else:
        target, about = _of_containers(settings, engine, title, own, tasks)
        name, configs = title, [about]
    config = configs[0]  # of one build, and so are the others'
    launch = launched(spec, config)

    def besides(made: Path) -> list[str]:
        tree = running.read_tree(made)
        lines = running.differences(settings, launch, config, tree)
        for container in own:
            lines += running.changes(engine, container, launch, tree)
        return lines

    state = str((found.get("UpdateStatus") or {}).get("State") or "completed")
    update = f"an update of {title} is under way ({printable(state)})"
    return dataclasses.replace(
        target,
        name=name,
        notes=(*target.notes, *([] if state.endswith("completed") else [update])),
        unlike=(*target.unlike, *unlike(title, spec, tasks)),
        besides=besides,
    )


def _containers(
    engine: Engine, tasks: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The containers of those tasks that run on this node."""
    form = ("info", "--format", "{{.Swarm.NodeID}}")
    here = engine.run(*form, echo=False).stdout.strip()
    found = []
    for task in tasks:
        about = task["Status"].get("ContainerStatus") or {}
        if _runs(task) and task.get("NodeID") == here and about.get("ContainerID"):
            one = running.inspect(engine, "container", about["ContainerID"])
            found += [one] if one else []
    return found


def _of_containers(
    settings: Settings,
    engine: Engine,
    title: str,
    own: Sequence[Mapping[str, Any]],
    tasks: Sequence[Mapping[str, Any]],
) -> tuple[Target, Mapping[str, Any]]:
    """The image of a service's containers on this node, and what it says of them."""
    if not own:
        raise Problem(
            f"{title} names its image by no digest, and none of its tasks is on this "
            "node: ask on theirs, or push the image and name it by digest"
        )
    unlike = []
    images = {str(container["Image"]) for container in own}
    if len(images) > 1:
        unlike.append(f"its containers on this node are of {len(images)} images")
    if elsewhere := len([task for task in tasks if _runs(task)]) - len(own):
        unlike.append(
            f"{elsewhere} of its {len(own) + elsewhere} tasks are on other nodes, and "
            "the service names its image by no digest: ask there, or push the image"
        )
    wanted, config = running.image(settings, engine, title, own[0])
    return Target(name=title, images=(wanted,), unlike=tuple(unlike)), config


def _tasks(engine: Engine, service: str) -> list[dict[str, Any]]:
    """The tasks that a service wants to run."""
    wanted = ("--quiet", "--no-trunc", "--filter=desired-state=running")
    found = engine.listing("service", "ps", *wanted, service)
    if not found:
        return []
    answer = engine.run("inspect", "--type=task", *found, echo=False)
    return list(json.loads(answer.stdout))


def _runs(task: Mapping[str, Any]) -> bool:
    return bool(task["Status"]["State"] == "running")


def unlike(
    title: str, spec: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]
) -> list[str]:
    """That not all tasks run what the service says, if that is so."""
    lines = []
    wanted = [spec.get(key) or None for key in _DECIDES]
    others = [
        task["Spec"]["ContainerSpec"]
        for task in tasks
        if [task["Spec"]["ContainerSpec"].get(key) or None for key in _DECIDES]
        != wanted
    ]
    if others:
        images = {printable(str(other["Image"])) for other in others}
        lines.append(
            f"{len(others)} of the {len(tasks)} tasks of {title} run "
            f"{', '.join(sorted(images))} as it was set before: see `docker service ps`"
        )
    if idle := [task["Status"]["State"] for task in tasks if not _runs(task)]:
        lines.append(
            f"{len(idle)} of the {len(tasks)} tasks of {title} do not run "
            f"({printable(', '.join(sorted({*idle})))}): see `docker service ps`"
        )
    return lines


def launched(spec: Mapping[str, Any], config: Mapping[str, Any]) -> Launch:
    """What a service sets for its containers, whose image says `config`."""
    own, entry = config.get("Cmd") or (), config.get("Entrypoint") or ()
    if command := spec.get("Command"):  # without the image's arguments then
        words = (*command, *(spec.get("Args") or ()))
    else:
        words = (*entry, *(spec.get("Args") or own))
    mounts = {
        mount["Target"]: mount.get("Source") or mount.get("Type", "")
        for mount in spec.get("Mounts") or ()
    }
    for kind in ("Config", "Secret"):
        for each in spec.get(f"{kind}s") or ():
            if place := (each.get("File") or {}).get("Name"):
                top = "/" if kind == "Config" else "/run/secrets"
                path = str(Path(top, place))
                mounts[path] = f"the {kind.lower()} {each.get(f'{kind}Name', '')}"
    environment = running.variables(config.get("Env")) | running.variables(
        spec.get("Env")
    )
    return Launch(
        words=words,
        directory=spec.get("Dir") or config.get("WorkingDir") or "/",
        environment=environment,
        mounts=mounts,
    )
