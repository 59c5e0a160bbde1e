"""A stack file for `docker stack deploy`, of Docker 20.10 to 29."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from containerize.deploy.workload import ALONE, Workload
from containerize.deploy.yaml import Note, written
from containerize.engines import variables
from containerize.engines.volumes import Mount
from containerize.errors import Problem
from containerize.terminal import worded

HEALTH = {"interval": "5s", "timeout": "3s", "retries": 6}
"""A task counts as running at its first check that passes, which comes after one
interval; it counts as hung as late as by the image's own health check."""

_LONGEST = 63
"""Characters of a service's name with the stack's before it (RFC 1035, 2.3.4)."""

# What `docker stack deploy` replaces, without regard to case.
_REFERRED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_HEAD = """\
{name}, as [tool.containerize] in pyproject.toml has it:
  invoke manifest swarm | docker stack deploy --with-registry-auth -c - {stack}
Files of your own come after it, each with -c, and go over it.

A stack has no field for no-new-privileges (it ignores security_opt). {files}
For all that a node runs, its daemon.json can say it: "no-new-privileges": true."""
_HARMLESS = """\
No file of the
image is setuid or has capabilities, so that there is nothing to gain."""
_FOREIGN = """\
Programs of
base-image may be setuid: with no capability to have, all they gain is another user."""
_TEMPORARY = "No program runs from it: Swarm itself adds noexec, nosuid and nodev."
_VARIABLES = "Values come from the environment of `docker stack deploy`."
_DRAIN = "The drain delay comes on top of what `run` leaves to requests in flight."
_ZONES = "Over nodes in any case; over zones, if the nodes have this label."
_ROUND_ROBIN = """\
What is before it asks DNS for tasks.{name}, and each task at
/health/ready whether to send it anything."""
_MESH = """\
Each node takes connections at this port, for any task that is healthy: the mesh asks
none whether it is ready, and knows no drain delay."""
_UPDATE = "A new task serves before an old one stops; one that fails brings all back."
_BACK = "Back to what served before: nothing stops that."
_SECRETS = "Made once, by hand: docker secret create NAME FILE"
_OWNERS = "0400: for its user alone."
_DATA = """\
Data is on one node, and what writes it runs there alone:
  docker node update --label-add {label}=here NODE
A new volume is the app's if the image was built with the same setting volumes."""


def stack(workloads: Sequence[Workload], *, values: bool = False) -> str:
    """The stack of these workloads, as YAML with comments.

    Variables stand there by name, `${NAME?…}`, which `docker stack deploy` takes from
    its own environment; with `values`, which nobody but a pipe must see, as they are.
    Raises Problem for what Swarm has no way to do.
    """
    first = workloads[0]
    names = [service_name(each.name) for each in workloads]
    left = _LONGEST - max(map(len, names)) - len("_")
    # What is too long before these names is for the user to shorten.
    named = names[0] if len(names[0]) <= left else f"[UP TO {left} CHARACTERS]"
    files = _FOREIGN if first.settings.base_image else _HARMLESS
    head = _HEAD.format(name=first.settings.image, stack=named, files=files)
    return written(
        {
            Note(worded(head)): None,
            "version": "3.9",
            "services": {
                name: _service(each, values)
                for name, each in zip(names, workloads, strict=True)
            },
            "networks": {"default": _network(first)},
            **_volumes(first),
            **_secrets(first),
        }
    )


def service_name(name: str) -> str:
    """The name of a service, by which others find it: one label of DNS.

    Raises Problem if Swarm would not take it for its length.
    """
    if len(name) > _LONGEST - len("a_"):
        raise Problem(
            f"{name} is too long for a service's name, which has up to 63 characters "
            "with the stack's before it: give image or the command a shorter one"
        )
    return re.sub("[._]", "-", name)


def label(workload: Workload) -> str:
    """The label of the one node that has the volumes."""
    return f"{workload.settings.image}.volumes"


def _service(workload: Workload, values: bool) -> dict[str, Any]:
    limits = workload.confinement
    return {
        "image": workload.image,
        **_command(workload),
        "user": f"{limits.user}:{limits.group}",
        "read_only": limits.read_only,
        "cap_drop": list(limits.dropped),
        **({"sysctls": dict(limits.sysctls)} if limits.sysctls else {}),
        Note(_TEMPORARY): None,
        "volumes": [
            *(
                {"type": "tmpfs", "target": path, "tmpfs": {"size": size}}
                for path, size in limits.temporary.items()
            ),
            *map(_volume, workload.mounts("tasks")),
        ],
        **_environment(workload, values),
        **_secrets_of(workload),
        "healthcheck": _health(workload),
        "stop_grace_period": f"{workload.stop_seconds}s",
        **_ports(workload),
        "labels": workload.labels,
        "deploy": {
            "replicas": workload.replicas,
            **_endpoint(workload),
            "labels": workload.labels,
            "resources": {"limits": {"memory": limits.memory, "pids": limits.pids}},
            "placement": _placement(workload),
            "restart_policy": {"condition": "any", "delay": "5s"},
            Note(ALONE if workload.alone else _UPDATE): None,
            "update_config": _change(workload, failure_action="rollback"),
            Note(_BACK): None,
            "rollback_config": _change(workload, failure_action="continue"),
        },
    }


def _command(workload: Workload) -> dict[str, Any]:
    return (
        {"entrypoint": [_escaped(each) for each in workload.words]}
        if workload.words
        else {}
    )


def _health(workload: Workload) -> dict[str, Any]:
    """How often the image's own check is made; a command has none."""
    if not workload.serves:
        return {"disable": True}
    return {**HEALTH, "start_period": f"{workload.settings.health_timeout}s"}


def _change(workload: Workload, failure_action: str) -> dict[str, Any]:
    """How tasks are replaced: what is before them has the drain delay to see each."""
    pause = math.ceil(workload.drain_seconds)
    return {
        "parallelism": 1,
        "order": "stop-first" if workload.alone else "start-first",
        "delay": f"{pause}s",
        "monitor": f"{pause + 5}s",
        "max_failure_ratio": 0,
        "failure_action": failure_action,
    }


def _placement(workload: Workload) -> dict[str, Any]:
    if workload.settings.volumes:
        return {"constraints": [f"node.labels.{label(workload)} == here"]}
    return {Note(_ZONES): None, "preferences": [{"spread": "node.labels.zone"}]}


def _meshed(workload: Workload) -> bool:
    return bool(workload.serves and workload.settings.ingress_port)


def _endpoint(workload: Workload) -> dict[str, Any]:
    if _meshed(workload):
        return {"endpoint_mode": "vip"}
    if not workload.serves:
        return {"endpoint_mode": "dnsrr"}
    name = service_name(workload.name)
    return {Note(_ROUND_ROBIN.format(name=name)): None, "endpoint_mode": "dnsrr"}


def _ports(workload: Workload) -> dict[str, Any]:
    if not _meshed(workload):
        return {}
    settings = workload.settings
    port = {
        "target": settings.container_port,
        "published": settings.ingress_port,
        "protocol": "tcp",
        "mode": "ingress",
    }
    return {Note(_MESH): None, "ports": [port]}


def _environment(workload: Workload, values: bool) -> dict[str, Any]:
    theirs = {
        name: _escaped(literal(value), name) if values else _reference(name, value)
        for name, value in sorted(workload.theirs.items())
    }
    found: dict[str, Any] = {}
    if theirs and not values:
        found[Note(_VARIABLES)] = None
    found |= theirs
    if workload.own:
        found[Note(_DRAIN)] = None
    found |= workload.own
    return {"environment": found} if found else {}


def literal(text: str) -> str:
    """A variable's value, or a path to mount at, that a Swarm's tasks have as `text`.

    In these a Swarm reads templates (docs.docker.com, "docker service create", "Create
    services using templates").
    """
    return text.replace("{{", '{{"{{"}}')


def _reference(name: str, value: str) -> str:
    if not _REFERRED.fullmatch(name):
        raise Problem(
            f"the variable {name} cannot be referred to in a stack file: give it a "
            "name of letters, digits and '_', or use `invoke release`"
        )
    if variables.heeded(name):
        raise Problem(
            f"the variable {name} is one that `docker stack deploy` has or reads "
            "itself, so that its value would be no other: use `invoke release`"
        )
    if "{{" in value:
        raise Problem(
            f"the variable {name} has {{{{, where Swarm would read a template: use "
            "`invoke release`, which says it otherwise"
        )
    return f"${{{name}?{worded('set it, or use invoke release')}}}"


def _escaped(text: str, name: str = "a command") -> str:
    """A text of the user's, in which `docker stack deploy` replaces nothing.

    Raises Problem, without the text, if YAML cannot hold it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Problem(f"{name} is not UTF-8, which a stack file must be") from None
    return text.replace("$", "$$")


def _network(workload: Workload) -> dict[str, Any]:
    named = workload.settings.network
    if named:
        return {"external": True, "name": named}
    return {"driver": "overlay"}


def _volume(mount: Mount) -> dict[str, Any]:
    """A volume in the long form. Raises Problem for an option that no stack has."""
    options = {each for each in mount.options.split(",") if each}
    # What SELinux and Podman have for directories says nothing of a volume here.
    if unknown := options - {"rw", "ro", "nocopy", "z", "Z", "U"}:
        raise Problem(
            f"volume {mount.source}: a stack has no option {', '.join(sorted(unknown))}"
        )
    found: dict[str, Any] = {
        "type": "volume",
        "source": mount.source,
        "target": _escaped(literal(mount.path)),
    }
    if "ro" in options:
        found["read_only"] = True
    if "nocopy" in options:
        found["volume"] = {"nocopy": True}
    return found


def _volumes(workload: Workload) -> dict[str, Any]:
    """The volumes, by the names that they have under `run` too."""
    names = sorted({mount.source for mount in workload.mounts("tasks")})
    if not names:
        return {}
    note = Note(_DATA.format(label=label(workload)))
    labels = workload.labels
    return {
        note: None,
        "volumes": {each: {"name": each, "labels": labels} for each in names},
    }


def _secrets_of(workload: Workload) -> Mapping[str, Any]:
    limits = workload.confinement
    found = [
        {
            "source": name,
            "target": name,
            "uid": str(limits.user),
            "gid": str(limits.group),
            Note(_OWNERS): None,
            "mode": 0o400,
        }
        for name in workload.settings.secrets
    ]
    return {"secrets": found} if found else {}


def _secrets(workload: Workload) -> dict[str, Any]:
    found = {name: {"external": True} for name in workload.settings.secrets}
    return {Note(_SECRETS): None, "secrets": found} if found else {}
