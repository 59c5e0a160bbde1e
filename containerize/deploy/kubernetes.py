"""Manifests for `kubectl apply`: Deployments, a Service, a PodDisruptionBudget."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from containerize.deploy.workload import ALONE, Workload
from containerize.deploy.yaml import Note, written
from containerize.engines import volumes
from containerize.engines.volumes import Mount
from containerize.errors import Problem
from containerize.terminal import worded

Object = dict[str, Any]

MIN_READY = 10
"""Seconds for which a replica must be well before an update goes on."""

_ARRIVAL = 120
"""Seconds that a pod has to get a node and the image, before it starts."""
_TIMEOUT = 3
"""Seconds that a probe has, as the image's own health check."""
_LONGEST = 63
"""Characters of a label of DNS (RFC 1035, 2.3.4), which a Service's name is."""
_LARGEST = 256 << 10
"""Bytes of JSON that `kubectl apply` can note of an object, in an annotation of it
(TotalAnnotationSizeLimitB of k8s.io/apimachinery); a Secret itself may have 1 MiB."""

_HEAD = """\
{image}, as [tool.containerize] in pyproject.toml has it:
  invoke manifest kubernetes | kubectl apply -f -
Changes of your own go over it with kustomize. Nothing rolls back by itself:
  kubectl rollout status deployment/{name} || kubectl rollout undo deployment/{name}"""
_SECRETS = """\
Its Secrets come first. If a value changes, make them again and restart the pods:
  invoke manifest kubernetes --secrets | kubectl apply -f -
  kubectl rollout restart deployment --selector {project}
`kubectl create secret --from-env-file` takes quotes and ${{NAME}} for a value's own."""
_SIZE = "No setting says how much: say it in a kustomization."
_STOP = "Longer than the service takes, which the drain delay is a part of."
_STOP_COMMAND = "As under `run`: the setting stop-timeout."
_NODE = "A volume is on one node at a time, and so is all that mounts it."
_STARTED = "Restarted if it has not been ready once within the setting health-timeout."
_READY = """\
After {seconds} s what sends requests knows that a pod is not ready; one that stops
takes them for {drain:g} s, its drain delay."""
_PIDS = (
    "No field limits processes ({pids} under `run`): podPidsLimit of each node does."
)
_MODE = "0440: for its group, which is fsGroup."
_TEMPORARY = "No field forbids to run a program from /tmp, as `run` does."
_BUDGET = "A node can be drained at any time; replicas leave one by one."


def manifests(workloads: Sequence[Workload]) -> str:
    """The objects of these workloads, as YAML documents with comments.

    Variables come from the Secret `NAME-environment`, and files from `NAME-secrets`,
    which are not among them: see `secrets`. Raises Problem for what Kubernetes has no
    way to do.
    """
    service = workloads[0]
    objects = [
        *_claims(service),
        *(_deployment(each) for each in workloads),
        _service(service),
        _budget(service),
    ]
    return _documents([{Note(_head(service)): None, **objects[0]}, *objects[1:]])


def secrets(workloads: Sequence[Workload]) -> str:
    """The Secrets that the manifests name, with the values, as YAML documents.

    That is for a pipe: nobody else must see it. Raises Problem if there are none, for
    a file that cannot be read, and for a value that no Secret can hold.
    """
    service = workloads[0]
    variables = {
        name: _encoded(value, f"the variable {name}")
        for name, value in sorted(service.theirs.items())
    }
    files = {each.name: _read(each) for each in volumes.secrets(service.settings)}
    found = [
        _secret(service, name, values)
        for name, values in (
            (_environment(service), variables),
            (_files(service), files),
        )
        if values
    ]
    if not found:
        raise Problem(
            "there is nothing that a Secret would hold: set env-file or secrets, or "
            "give --env"
        )
    return _documents(found)


def name(workload: Workload) -> str:
    """The name of its Deployment, and of the Service if it serves.

    Raises Problem if the image's name makes none.
    """
    return _label(workload.name, "image" if workload.serves else "command")


def has_secrets(service: Workload) -> bool:
    """Whether the manifests name Secrets: those that `secrets` writes."""
    return bool(service.theirs or service.settings.secrets)


def _documents(objects: Sequence[Object]) -> str:
    return "---\n".join(map(written, objects))


def _head(service: Workload) -> str:
    """What whoever applies the manifests wants to know."""
    parts = [_HEAD]
    if has_secrets(service):
        parts.append(_SECRETS)
    settings = service.settings
    names = {"image": settings.image, "name": name(service), "project": settings.label}
    return worded("\n".join(parts).format(**names))


# What there is of each workload.


def _deployment(workload: Workload) -> Object:
    started = workload.settings.health_timeout if workload.serves else 0
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            **_metadata(workload),
            # What `kubectl rollout history` shows of each release.
            "annotations": {"kubernetes.io/change-cause": workload.image},
        },
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": _labels(workload)},
            **_strategy(workload),
            "minReadySeconds": MIN_READY,
            "progressDeadlineSeconds": _ARRIVAL + started + MIN_READY,
            "revisionHistoryLimit": 5,
            "template": {
                "metadata": {"labels": _labels(workload)},
                "spec": _pod(workload),
            },
        },
    }


def _strategy(workload: Workload) -> Object:
    if workload.alone:
        return {Note(ALONE): None, "strategy": {"type": "Recreate"}}
    gradual = {"maxSurge": 1, "maxUnavailable": 0}
    return {"strategy": {"type": "RollingUpdate", "rollingUpdate": gradual}}


def _pod(workload: Workload) -> Object:
    limits = workload.confinement
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        Note(_STOP if workload.serves else _STOP_COMMAND): None,
        "terminationGracePeriodSeconds": workload.stop_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": limits.user,
            "runAsGroup": limits.group,
            "fsGroup": limits.group,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
            **_sysctls(limits.sysctls),
        },
        **_placement(workload),
        "containers": [_container(workload)],
        "volumes": list(_volumes(workload)),
    }


def _sysctls(found: Mapping[str, str]) -> Object:
    listed = [{"name": name, "value": value} for name, value in found.items()]
    return {"sysctls": listed} if listed else {}


def _container(workload: Workload) -> Object:
    limits = workload.confinement
    memory = {"memory": _memory(limits.memory)}
    return {
        "name": name(workload),
        "image": workload.image,
        **_command(workload),
        **_given(workload),
        **_probes(workload),
        Note(_PIDS.format(pids=limits.pids)): None,
        "resources": {"requests": memory, "limits": memory},
        "securityContext": {
            "allowPrivilegeEscalation": limits.new_privileges,
            "capabilities": {"drop": list(limits.dropped)},
            "readOnlyRootFilesystem": limits.read_only,
        },
        Note(_TEMPORARY): None,
        "volumeMounts": list(_mounts(workload)),
    }


def _command(workload: Workload) -> Object:
    if not workload.words:
        return {}
    entry, *rest = map(_unexpanded, workload.words)
    return {"command": [entry], **({"args": rest} if rest else {})}


def _unexpanded(word: str) -> str:
    """A word of a command in which Kubernetes replaces no `$(NAME)`, and no `$$`."""
    _encoded(word, "a command")
    return word.replace("$", "$$")


def _given(workload: Workload) -> Object:
    """The variables of a container: the user's by reference, ours over them."""
    found: Object = {}
    if workload.theirs:
        reference = {"name": _environment(workload), "optional": False}
        found["envFrom"] = [{"secretRef": reference}]
    if workload.own:
        found["env"] = [
            {"name": key, "value": workload.own[key]} for key in workload.own
        ]
    return found


def _probes(workload: Workload) -> Object:
    """Its port, and when to start it again, or to send it nothing."""
    if not workload.serves:
        return {}
    period, failures = readiness(workload)
    ready = _READY.format(seconds=period * failures, drain=workload.drain_seconds)
    health = workload.settings.health_timeout
    return {
        "ports": [{"name": "http", "containerPort": workload.settings.container_port}],
        Note(_STARTED): None,
        "startupProbe": _probe("/health/started", period=1, failures=health),
        "livenessProbe": _probe("/health/live", period=10, failures=3),
        Note(ready): None,
        "readinessProbe": _probe("/health/ready", period=period, failures=failures),
    }


def _probe(path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": min(_TIMEOUT, period),
        "failureThreshold": failures,
    }


def readiness(workload: Workload) -> tuple[int, int]:
    """Seconds from one readiness probe to the next, and how many have to fail.

    Their product is less than the drain delay. Raises Problem if that is too short:
    a probe comes once in whole seconds.
    """
    drain = workload.drain_seconds
    if drain <= 1:
        raise Problem(
            f"a drain delay of {drain:g} s is over before Kubernetes can see that a "
            "pod is not ready: set drain-delay to 2 or more"
        )
    failures = 2 if drain > 2 else 1
    return min(5, (math.ceil(drain) - 1) // failures), failures


def _placement(workload: Workload) -> Object:
    """On which nodes pods are: spread, or all that mount a volume on one."""
    settings = workload.settings
    if settings.volumes and settings.commands:
        term = {
            "labelSelector": {"matchLabels": workload.labels},
            "topologyKey": "kubernetes.io/hostname",
        }
        required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        return {Note(_NODE): None, "affinity": {"podAffinity": required}}
    if workload.alone:
        return {}
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _labels(workload)},
                # Else the pods that an update is about to remove would count too.
                "matchLabelKeys": ["pod-template-hash"],
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ]
    }


# What there is of the service alone.


def _service(service: Workload) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(service),
        "spec": {
            "selector": _labels(service),
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def _budget(service: Workload) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(service),
        "spec": {
            Note(_BUDGET): None,
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": _labels(service)},
        },
    }


def _secret(service: Workload, name: str, values: Mapping[str, bytes]) -> Object:
    made = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(service, name),
        "data": {
            key: base64.b64encode(value).decode() for key, value in values.items()
        },
    }
    if len(json.dumps(made)) > _LARGEST:
        raise Problem(
            f"the Secret {name} would be larger than the 256 KiB that `kubectl apply` "
            "takes: use a volume"
        )
    return made


def _claims(service: Workload) -> Iterator[Object]:
    for claim in dict.fromkeys(map(_claim, _named(service))):
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": _metadata(service, claim),
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                Note(_SIZE): None,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }


# What pods find in their file system.


def _volumes(workload: Workload) -> Iterator[Object]:
    for path, size in workload.confinement.temporary.items():
        memory = {"medium": "Memory", "sizeLimit": f"{size >> 20}Mi"}
        yield {"name": _part(path), "emptyDir": memory}
    for claim in dict.fromkeys(map(_claim, _named(workload))):
        yield {
            "name": f"volume-{claim}",
            "persistentVolumeClaim": {"claimName": claim},
        }
    names = workload.settings.secrets
    if names:
        secret = {
            "secretName": _files(workload),
            Note(_MODE): None,
            "defaultMode": 0o440,
            "items": [{"key": name, "path": name} for name in names],
            "optional": False,
        }
        yield {"name": "secrets", "secret": secret}


def _mounts(workload: Workload) -> Iterator[Object]:
    for path in workload.confinement.temporary:
        yield {"name": _part(path), "mountPath": path}
    for mount in _named(workload):
        read_only = {"readOnly": True} if "ro" in mount.options.split(",") else {}
        name = f"volume-{_claim(mount)}"
        yield {"name": name, "mountPath": mount.path, **read_only}
    if workload.settings.secrets:
        yield {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True}


def _part(path: str) -> str:
    """The name of the pod's volume that stands at a path of the tool's."""
    return path.strip("/").replace("/", "-")


def _named(workload: Workload) -> list[Mount]:
    """What it mounts. Raises Problem for a directory, and for names that become one."""
    found = list(workload.mounts("pods"))
    sources: dict[str, str] = {}
    for mount in found:
        other = sources.setdefault(_claim(mount), mount.source)
        if other != mount.source:
            raise Problem(
                f"the volumes {other} and {mount.source} would both be {_claim(mount)} "
                "in Kubernetes: give one another name"
            )
    return found


def _claim(mount: Mount) -> str:
    """The name of the PersistentVolumeClaim that is a volume of the settings."""
    return _label(mount.source.lower(), "volume", beside=len("volume-"))


def _read(secret: volumes.Secret) -> bytes:
    secret.see()
    try:
        return secret.file.read_bytes()
    except OSError as error:
        raise Problem(
            f"the secret {secret.name}: {secret.file} cannot be read: {error.strerror}"
        ) from None


def _encoded(text: str, what: str) -> bytes:
    """A text in UTF-8; a Problem, without it, if that has no way to say it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Problem(f"{what} is not UTF-8, which Kubernetes asks for") from None


# Names and sizes, as Kubernetes has them.


def _environment(workload: Workload) -> str:
    return f"{_label(workload.settings.image, 'image')}-environment"


def _files(workload: Workload) -> str:
    return f"{_label(workload.settings.image, 'image')}-secrets"


def _metadata(workload: Workload, named: str = "") -> Object:
    return {"name": named or name(workload), "labels": _labels(workload)}


def _labels(workload: Workload) -> dict[str, str]:
    """What its pods are known by: a selector must be the same in each release.

    The project's label is as the settings have it. So of two images with one name in
    Kubernetes the second is refused, and does not take the place of the first.
    """
    return {"app.kubernetes.io/name": name(workload), **workload.labels}


def _label(text: str, kind: str, *, beside: int = 0) -> str:
    """A name as a label of DNS that begins with a letter, as a Service's must.

    `beside` so many other characters. Raises Problem if it makes none.
    """
    made = re.sub("[._]", "-", text)
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", made):
        raise Problem(
            f"{kind} {text!r} is no name in Kubernetes: begin it with a letter, and "
            "end it with a letter or a digit"
        )
    if len(made) > _LONGEST - beside:
        raise Problem(
            f"{kind} {text!r} has more than the {_LONGEST - beside} characters that a "
            "name in Kubernetes can have: shorten it"
        )
    return made


def _memory(size: str) -> str:
    """A size as `run` has it: to Kubernetes 128m would be 0.128 bytes."""
    return size[:-1] + {"k": "Ki", "m": "Mi", "g": "Gi"}[size[-1]]
