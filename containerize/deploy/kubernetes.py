"""Manifests for `kubectl apply`: Deployments, a Service, a PodDisruptionBudget."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from containerize.deploy import yaml
from containerize.deploy.workload import Workload
from containerize.deploy.yaml import Note
from containerize.engines import volumes
from containerize.engines.volumes import Mount
from containerize.errors import Problem

Object = dict[str, Any]

_LONGEST = 63
"""Characters of a DNS label (RFC 1123, 2.1), which names of Services are."""
_LARGEST = 1024 * 1024
"""Bytes that a Secret may hold (Kubernetes, "Secrets")."""


def manifests(workloads: Sequence[Workload]) -> str:
    """The objects of these workloads, as YAML documents with comments.

    Variables come from the Secret `NAME-environment`, files from `NAME-secrets`, which
    are not among them: `secrets` has these. Raises Problem if a setting has a value
    that Kubernetes has no place for.
    """
    service = workloads[0]
    return _documents(
        [
            *_claims(service),
            *map(_deployment, workloads),
            _service(service),
            _budget(service),
        ],
        _introduction(service),
    )


def secrets(workloads: Sequence[Workload]) -> str:
    """The Secrets that the manifests name, with the values of variables and files.

    To be piped: nobody but the cluster must see it. Raises Problem if there are none,
    and for a file that cannot be read.
    """
    service = workloads[0]
    found = {
        _environment(service): {
            name: value.encode() for name, value in service.environment.items()
        },
        _files(service): {
            name: _read(service.settings.root / Path(file).expanduser())
            for name, file in service.settings.secrets.items()
        },
    }
    if not any(found.values()):
        raise Problem(
            "there is nothing secret: neither env-file nor secrets is set, and no --env"
        )
    for name, values in found.items():
        if sum(map(len, values.values())) > _LARGEST:
            raise Problem(f"the Secret {name} would be larger than 1 MiB: use a volume")
    return _documents(
        [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": _metadata(service, name),
                "type": "Opaque",
                "data": {
                    key: base64.b64encode(value).decode()
                    for key, value in values.items()
                },
            }
            for name, values in found.items()
            if values
        ]
    )


def _documents(objects: Sequence[Object], introduction: str = "") -> str:
    head = "".join(f"# {line}\n" for line in introduction.splitlines())
    return head + "---\n".join(map(yaml.written, objects))


def _introduction(service: Workload) -> str:
    """What whoever applies the manifests has to know."""
    name = _name(service)
    lines = [
        f"Nothing rolls back by itself: `kubectl rollout status deployment/{name}` says",
        f"whether an update ended well, `kubectl rollout undo deployment/{name}` goes "
        "back.",
    ]
    if service.environment or service.settings.secrets:
        lines += [
            "Its Secrets come first, and again if a value changes, then `kubectl rollout",
            "restart`: `invoke manifest kubernetes --secrets | kubectl apply -f -`. "
            "Not by",
            "--from-env-file: kubectl takes quotes and ${NAME} for parts of a value.",
        ]
    return "\n".join(lines)


def _deployment(workload: Workload) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(workload)
        | {
            # What `kubectl rollout history` shows.
            "annotations": {"kubernetes.io/change-cause": workload.image}
        },
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": _selector(workload)},
            "strategy": _strategy(workload),
            # A replica that ends so soon after its start stops an update.
            "minReadySeconds": MIN_READY,
            "progressDeadlineSeconds": _progress_deadline(workload),
            "revisionHistoryLimit": 5,
            "template": {
                "metadata": {"labels": _labels(workload)},
                "spec": _pod(workload),
            },
        },
    }


MIN_READY = 10
"""Seconds for which a replica must be well before an update goes on."""


def _progress_deadline(workload: Workload) -> int:
    """Seconds after which an update that stands still counts as failed.

    Two minutes are for the scheduler and the pull.
    """
    return 120 + workload.settings.health_timeout + MIN_READY


def _strategy(workload: Workload) -> Object:
    if workload.alone:
        return {
            Note("Never two at once: the old one stops before the new one starts."): 0,
            "type": "Recreate",
        }
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }


def _pod(workload: Workload) -> Object:
    confined = workload.confinement
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        Note(
            "Above the service's own grace period, which has the drain delay in it."
            if workload.serves
            else "As `run` has it: stop-timeout."
        ): 0,
        "terminationGracePeriodSeconds": workload.stop_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": confined.user,
            "runAsGroup": confined.group,
            "fsGroup": confined.group,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **_placement(workload),
        "containers": [_container(workload)],
        "volumes": [
            *_volumes(workload),
        ],
    }


def _container(workload: Workload) -> Object:
    settings, confined = workload.settings, workload.confinement
    found: Object = {"name": _name(workload), "image": workload.image}
    if workload.words:
        entry, *rest = map(_unexpanded, workload.words)
        found |= {"command": [entry], "args": rest}
    if workload.environment:
        found["envFrom"] = [{"secretRef": {"name": _environment(workload)}}]
    if workload.own:
        found["env"] = [
            {"name": name, "value": value} for name, value in workload.own.items()
        ]
    if workload.serves:
        found["ports"] = [{"name": "http", "containerPort": settings.container_port}]
        found |= _probes(workload)
    memory = _memory(confined.memory)
    return found | {
        Note(
            f"No field says how many processes there may be ({confined.pids} under "
            "`run`):\nthe kubelet's podPidsLimit does."
        ): 0,
        "resources": {"requests": {"memory": memory}, "limits": {"memory": memory}},
        "securityContext": {
            "allowPrivilegeEscalation": confined.new_privileges,
            "capabilities": {"drop": list(confined.dropped)},
            "readOnlyRootFilesystem": confined.read_only,
        },
        Note("No field says noexec, nosuid, nodev, which /tmp has under `run`."): 0,
        "volumeMounts": list(_mounts(workload)),
    }


def _unexpanded(word: str) -> str:
    """A word of a command in which Kubernetes finds no `$(NAME)`."""
    return word.replace("$(", "$$(")


def _probes(workload: Workload) -> Object:
    """Once started, restart by /health/live, route by /health/ready."""
    period, failures = _readiness(workload)
    return {
        Note("For health-timeout, until it has been ready once."): 0,
        "startupProbe": _probe(
            "/health/started", 1, workload.settings.health_timeout
        ),
        "livenessProbe": _probe("/health/live", 10, 3),
        Note(
            f"Not ready is known within {period * failures} s, before the drain delay of "
            f"{workload.drain_seconds:g} s is over."
        ): 0,
        "readinessProbe": _probe("/health/ready", period, failures),
    }


def _probe(path: str, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _readiness(workload: Workload) -> tuple[int, int]:
    """Seconds from probe to probe, and how many must fail.

    Their product is below the drain delay, whole seconds of at least one are all that
    a probe can have. Raises Problem if the delay is too short for any.
    """
    delay = workload.drain_seconds
    if delay <= 1:
        raise Problem(
            f"a drain delay of {delay:g} s is over before Kubernetes can see that a pod "
            "is not ready: set drain-delay to 2 or more"
        )
    failures = 2 if delay > 2 else 1
    below = -int(-delay // 1) - 1  # the largest whole number that is less
    return min(5, below // failures), failures


def _placement(workload: Workload) -> Object:
    """On which nodes its pods are: spread, or all where their volume is."""
    project = {"matchLabels": {PROJECT: workload.settings.image}}
    if _named(workload) and workload.settings.commands:
        return {
            Note("One node at a time has a volume: all that mounts it is there."): 0,
            "affinity": {
                "podAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "labelSelector": project,
                            "topologyKey": "kubernetes.io/hostname",
                        }
                    ]
                }
            },
        }
    if workload.alone:
        return {}
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _selector(workload)},
                "matchLabelKeys": ["pod-template-hash"],
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ]
    }


def _service(workload: Workload) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(workload),
        "spec": {
            "selector": _selector(workload),
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def _budget(workload: Workload) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(workload),
        "spec": {
            Note("A node can always be drained, one replica at a time."): 0,
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": _selector(workload)},
        },
    }


# What stands in the pods' file system.


def _claims(workload: Workload) -> Iterator[Object]:
    for name in dict.fromkeys(_claim(mount) for mount in _named(workload)):
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": _metadata(workload, name),
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                Note("No setting says how much: overlay what your data need."): 0,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }


def _named(workload: Workload) -> list[Mount]:
    """What it mounts; a Problem for a directory, which no other machine has."""
    found = list(volumes.mounts(workload.settings))
    for mount in found:
        if not mount.named:
            raise Problem(
                f"{mount.source}, mounted at {mount.path}, is a directory of this "
                f"machine, which no node has: name a volume, NAME:{mount.path}"
            )
    names = {mount.source: _claim(mount) for mount in found}
    for name in names.values():
        alike = [source for source, claim in names.items() if claim == name]
        if len(alike) > 1:
            raise Problem(
                f"the volumes {' and '.join(alike)} would both be {name} in "
                "Kubernetes: rename one"
            )
    return found


def _claim(mount: Mount) -> str:
    return _label(mount.source.lower(), "volume", reserved=len("volume-"))


def _volumes(workload: Workload) -> Iterator[Object]:
    for path, size in workload.confinement.temporary.items():
        memory = {"medium": "Memory", "sizeLimit": f"{size >> 20}Mi"}
        yield {"name": _part(path), "emptyDir": memory}
    for name in dict.fromkeys(_claim(mount) for mount in _named(workload)):
        claim = {"claimName": name}
        yield {"name": f"volume-{name}", "persistentVolumeClaim": claim}
    if workload.settings.secrets:
        keys = [{"key": name, "path": name} for name in workload.settings.secrets]
        yield {
            "name": "secrets",
            "secret": {
                "secretName": _files(workload),
                Note("0440: the group is fsGroup."): 0,
                "defaultMode": 0o440,
                "items": keys,
                "optional": False,
            },
        }


def _mounts(workload: Workload) -> Iterator[Object]:
    for path in workload.confinement.temporary:
        yield {"name": _part(path), "mountPath": path}
    for mount in _named(workload):
        found: Object = {
            "name": f"volume-{_claim(mount)}",
            "mountPath": mount.path,
        }
        read_only = "ro" in mount.options.split(",")
        yield found | ({"readOnly": True} if read_only else {})
    if workload.settings.secrets:
        yield {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True}


def _part(path: str) -> str:
    """The name of the pod's volume at a path of ours."""
    return path.strip("/").replace("/", "-")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Problem(f"{path} cannot be read: {error.strerror}") from None


# Names, labels and numbers, as Kubernetes has them.

PROJECT = "containerize.project"
"""The label that the image, and all that is made of it, has."""


def _metadata(workload: Workload, name: str = "") -> Object:
    return {"name": name or _name(workload), "labels": _labels(workload)}


def _labels(workload: Workload) -> dict[str, str]:
    return _selector(workload)


def _selector(workload: Workload) -> dict[str, str]:
    """What tells its pods from all others; a selector can never be changed."""
    return {
        "app.kubernetes.io/name": _name(workload),
        PROJECT: workload.settings.image,
    }


def _name(workload: Workload) -> str:
    return _label(workload.name, "image" if workload.serves else "command")


def _environment(workload: Workload) -> str:
    return f"{_label(workload.settings.image, 'image')}-environment"


def _files(workload: Workload) -> str:
    return f"{_label(workload.settings.image, 'image')}-secrets"


def _label(name: str, kind: str, *, reserved: int = 0) -> str:
    """`name` as a DNS label that begins with a letter, as a Service's has to."""
    made = re.sub(r"[._]+", "-", name)
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", made):
        raise Problem(
            f"{kind} {name!r} is no name for Kubernetes: begin it with a letter, and "
            "end it with a letter or digit"
        )
    if len(made) + reserved > _LONGEST:
        raise Problem(
            f"{kind} {name!r} is longer than the {_LONGEST - reserved} characters that "
            "Kubernetes takes: shorten it"
        )
    return made


def _memory(size: str) -> str:
    """A size as `run` has it; Kubernetes would take 128m for 0.128 bytes."""
    return size[:-1] + {"k": "Ki", "m": "Mi", "g": "Gi"}[size[-1]]

