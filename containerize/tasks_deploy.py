"""The verbs that bring an image to many machines."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from containerize.terminal import Meter, aside, put, say, worded
from containerize.verbs import ENGINE, GIVEN, Session, verb

KINDS = ("swarm", "kubernetes")


@verb(
    None,
    positional=["kind"],
    iterable=["env"],
    help={
        "kind": "swarm, or kubernetes",
        "image": "REGISTRY/NAME@sha256:…; by default what was pushed last",
        "env": GIVEN["env"],
        "env-file": GIVEN["env-file"],
        "secrets": "of kubernetes: the Secrets alone, with their values, for a pipe",
    },
)
def manifest(
    s: Session,
    env: list[str],
    kind: str,
    image: str = "",
    env_file: str = "",
    secrets: bool = False,
) -> None:
    """Print a stack file, or Kubernetes manifests: manifest swarm, … kubernetes."""
    from containerize import build
    from containerize.deploy import kubernetes, swarm, workload
    from containerize.errors import Problem

    if kind not in KINDS:
        raise Problem(f"{kind!r} is none: say manifest swarm, or manifest kubernetes")
    settings, environment = s.given(env=env, env_file=env_file)
    if secrets:
        if kind != "kubernetes":
            raise Problem("a Swarm's secrets are made by `docker secret create`")
        if sys.stdout.isatty():
            raise Problem("--secrets writes values: add `| kubectl apply -f -`")
        put(kubernetes.secrets(workload.workloads(settings, "", environment)), end="")
        return
    named = workload.image(settings, image)
    found = workload.workloads(settings, named, environment)
    text = swarm.stack(found) if kind == "swarm" else kubernetes.manifests(found)
    held = build.held(settings)
    if held and not named.endswith(held):
        note = (
            f"note: {named} is not what dist/ holds, {held}: `invoke push` sends that"
        )
        aside(worded(note))
    put(text, end="")


def _dry_release(
    s: Session,
    target: str,
    tag: Sequence[str] = (),
    env: Sequence[str] = (),
    stack: str = "",
    env_file: str = "",
    kubernetes: bool = False,
    **flags: Any,
) -> str:
    from containerize.deploy import swarm
    from containerize.publish import push, reference

    if kubernetes:
        _see_printed(**flags, stack=stack)
        return "\n".join(_kubernetes(s, target, tag, env, env_file))
    name = stack or swarm.service_name(s.settings.image)
    sent = "" if reference.parse(target).digest else "push it, "
    if sent:
        target = ", ".join(map(str, push.targets(s.settings, target, tag)))
    return (
        f"Would {sent}see that each node pulls {target}, and deploy it as the stack "
        f"{name}."
    )


def _see_printed(**flags: Any) -> None:
    """A Problem for a flag that the commands which are printed would not follow."""
    from containerize.errors import Problem

    if given := [f"--{name.replace('_', '-')}" for name, it in flags.items() if it]:
        raise Problem(
            f"--kubernetes prints commands, which have no {given[0]}: leave it out, "
            "and do that by hand"
        )


def _kubernetes(
    s: Session, target: str, tag: Sequence[str], env: Sequence[str], env_file: str
) -> list[str]:
    """The commands that release through Kubernetes."""
    import shlex

    from containerize.deploy import kubernetes, workload
    from containerize.publish import push, reference

    named, first, image = reference.parse(target), [], [f"--image={target}"]
    if not named.digest:
        tags = [f"--tag={each.tag}" for each in push.targets(s.settings, target, tag)]
        first, image = [shlex.join(["invoke", "push", named.repository, *tags])], []
    settings, environment = s.given(env=env, env_file=env_file)
    given = [f"--env-file={env_file}"] if env_file else []
    given += [f"--env={each}" for each in env]
    loads = workload.workloads(settings, target, environment)
    names = map(kubernetes.name, loads)

    def applied(*words: str) -> str:
        line = shlex.join(["invoke", "manifest", "kubernetes", *words, *given])
        return f"{line} | kubectl apply -f -"

    return [
        *first,
        *([applied("--secrets")] if kubernetes.has_secrets(loads[0]) else []),
        applied(*image),
        *(
            f"kubectl rollout status deployment/{name} || "
            f"kubectl rollout undo deployment/{name}"
            for name in names
        ),
    ]


@verb(
    _dry_release,
    positional=["target"],
    iterable=["tag", "compose_file", "env"],
    help={
        "target": "REGISTRY[:PORT]/NAME to push to, or what was pushed before, "
        "REGISTRY/NAME@sha256:…",
        "tag": "tag to give; can be repeated; by default those of the settings",
        "stack": "name of the stack; by default the image's",
        "compose-file": "stack file of your own over ours; can be repeated",
        "before": "command to run once on the new image before any task is replaced",
        "verify": "rebuild the image first, and go on only if it is equal",
        "no-evidence": "push neither SBOM nor provenance, which go beside the image",
        "env": GIVEN["env"],
        "env-file": GIVEN["env-file"],
        "kubernetes": "only print the commands that do it there",
        "engine": ENGINE,
    },
)
def release(
    s: Session,
    tag: list[str],
    compose_file: list[str],
    env: list[str],
    target: str,
    stack: str = "",
    before: str = "",
    verify: bool = False,
    no_evidence: bool = False,
    env_file: str = "",
    kubernetes: bool = False,
    engine: str = "",
) -> None:
    """Push, deploy through Docker Swarm, and wait: release REGISTRY/NAME."""
    from containerize import tasks
    from containerize.deploy import once, rollout, workload
    from containerize.deploy import release as releasing
    from containerize.errors import Problem
    from containerize.publish import push, reference
    from containerize.tasks_publish import built, send
    from containerize.verify import pushed

    if kubernetes:
        _see_printed(
            stack=stack, compose_file=compose_file, before=before, verify=verify,
            no_evidence=no_evidence, engine=engine,
        )  # fmt: skip
        for line in _kubernetes(s, target, tag, env, env_file):
            say(line)
        return
    named = reference.parse(target)
    if named.digest and tag:
        raise Problem(f"{target} is there already: leave out --tag")
    wanted = [] if named.digest else push.targets(s.settings, target, tag)
    words = releasing.check_command(before) if before else []
    using = s.engine
    settings, environment = s.given(env=env, env_file=env_file)
    where = releasing.stack(settings, using, stack, compose_file, tell=say)
    releasing.check_manager(where)
    architectures = settings.image_architectures
    if named.digest:
        image = workload.image(settings, target)
        found = pushed.read(settings, image, progress=Meter())
        architectures = tuple(found.images)
    else:
        image = f"{named.repository}@sha256:{'0' * 64}"
    loads = workload.workloads(settings, image, environment)
    standing = releasing.check(where, loads, architectures)
    with once.alone(where, loads[0]):
        if named.digest:
            if verify:
                tasks.compare(s, [using], image)
        else:
            s.warn_of_packed(env_file)
            images = built(s)
            if verify:
                tasks.compare(s, [using], str(images.archive))
            send(s, images, wanted, evidence=not no_evidence)
            image = f"{named.repository}@{images.digest}"
            loads = tuple(dataclasses.replace(one, image=image) for one in loads)
        once.see_pulled(where, loads[0])
        once.see_port(where, loads[0], standing)
        once.give_volumes(where, loads[0])
        if words:
            once.run_before(where, loads[0], words)
        serving = rollout.deploy(where, loads, standing)
    say(serving)
