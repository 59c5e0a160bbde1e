"""The verbs that bring an image to many machines."""

from __future__ import annotations

import sys

from containerize.terminal import aside, put
from containerize.verbs import GIVEN, Session, verb

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
        aside(
            f"note: {named} is not what dist/ holds, {held}: `invoke push` sends that"
        )
    put(text, end="")
