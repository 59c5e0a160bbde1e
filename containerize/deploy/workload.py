"""What an orchestrator keeps running: the service, and the settings' commands."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
from collections.abc import Mapping

from containerize import confinement
from containerize.confinement import Confinement
from containerize.engines import volumes
from containerize.engines.volumes import Mount
from containerize.errors import Problem
from containerize.publish import push, reference
from containerize.publish.reference import Reference
from containerize.settings import PROJECT, Settings
from served import settings as served

GRACE_PERIOD, DRAIN_DELAY = "SERVED_GRACE_PERIOD", "SERVED_DRAIN_DELAY"
"""What the service in the image reads; see served/settings.py."""

ALONE = "Never two at a time: one ends before the next starts."
"""What a manifest says of a workload that is `alone`."""

_MARGIN = 5
"""Seconds that a container has at least beyond what the service takes to stop."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """Containers of one kind, alike but for their names."""

    settings: Settings
    image: str
    """The image, `REGISTRY/NAME@sha256:…`."""
    name: str
    """The image's name; a command's follows it, as in `shop-worker`."""
    words: tuple[str, ...] = ()
    """A command in place of the service."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The user's variables, whose values are no manifest's."""
    own: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Variables over them that stand in the manifest: how long the service drains."""
    stop_seconds: int
    """Seconds from the signal to stop to the kill, more than the service takes."""
    confinement: Confinement

    @property
    def labels(self) -> dict[str, str]:
        """Those by which its project finds it."""
        return {PROJECT: self.settings.image}

    @property
    def theirs(self) -> dict[str, str]:
        """The user's variables that are not set by our `own`."""
        return {k: v for k, v in self.environment.items() if k not in self.own}

    def mounts(self, what: str) -> tuple[Mount, ...]:
        """The volumes that it mounts; `what` it is made of, on other machines.

        Raises Problem for a directory, which is of this machine alone.
        """
        found = volumes.mounts(self.settings)
        for mount in found:
            if not mount.named:
                raise Problem(
                    f"{mount.source} is a directory of this machine, and {what} run on "
                    f"others: mount a volume, NAME:{mount.path}, or leave it out"
                )
        return found

    @property
    def serves(self) -> bool:
        """Whether it answers requests, and so has health checks."""
        return not self.words

    @property
    def drain_seconds(self) -> float:
        """Seconds for which a service that stops still takes connections."""
        return float(self.own[DRAIN_DELAY]) if self.serves else 0

    @property
    def alone(self) -> bool:
        """Whether never two may run: what writes a volume, and each command."""
        return bool(self.words or self.settings.volumes)

    @property
    def replicas(self) -> int:
        return 1 if self.alone else self.settings.replicas


def workloads(
    settings: Settings, image: str, environment: Mapping[str, str]
) -> tuple[Workload, ...]:
    """The service, then the settings' commands, as `run` has them.

    The requests in flight have as long to end as under `run`: the drain delay comes on
    top of the grace period, and both on top of the time to stop. Raises Problem for a
    variable that the service would not take.
    """
    under_run = _served(environment)
    drain = float(settings.drain_delay)
    if DRAIN_DELAY in environment:
        drain = under_run.drain_delay
    more = drain - under_run.drain_delay
    grace = under_run.grace_period + more
    own = {DRAIN_DELAY: f"{drain:g}", GRACE_PERIOD: f"{grace:g}"}
    _served({**environment, **own})  # a sum may be too much
    if under_run.port != settings.container_port:
        raise Problem(
            f"the service would listen on {under_run.port} (SERVED_PORT), and "
            f"container-port is {settings.container_port}: make them the same"
        )
    stop = max(settings.stop_timeout, under_run.grace_period + _MARGIN) + more
    service = Workload(
        settings=settings,
        image=image,
        name=settings.image,
        environment=environment,
        own=own,
        stop_seconds=math.ceil(stop),
        confinement=confinement.of(settings),
    )
    return (
        service,
        *(
            dataclasses.replace(
                service,
                name=f"{settings.image}-{key}",
                words=tuple(shlex.split(words)),
                own={},
                stop_seconds=settings.stop_timeout,
            )
            for key, words in settings.commands.items()
        ),
    )


def _served(environment: Mapping[str, str]) -> served.Settings:
    """How the service would be set; a Problem if it would not start."""
    try:
        return served.load(environment)
    except served.SettingsError as error:
        raise Problem(f"{error} (env-file, --env, drain-delay)") from None


def image(settings: Settings, named: str = "") -> str:
    """The image by its digest: `named`, or else what was pushed last.

    Raises Problem if neither is there, for a record of pushes that is damaged, and if
    `named` has no digest.
    """
    found = reference.parse(named) if named else _pushed(settings)
    if not found.digest:
        raise Problem(
            f"{named} names no digest, so nodes could run different images: say "
            f"{found.repository}@sha256:…"
        )
    return str(dataclasses.replace(found, tag=""))


def _pushed(settings: Settings) -> Reference:
    """What was pushed last. Raises Problem if there is no record, or no sense in it."""
    record = push.record_path(settings)
    again = (
        "`invoke push REGISTRY/NAME`, or name an image, --image REGISTRY/NAME@sha256:…"
    )
    if not os.path.lexists(record):
        raise Problem(f"nothing was pushed from here yet: {again}")
    try:
        found = reference.parse(str(push.last(settings).get("reference", "")))
    except Problem:
        found = None
    if not (found and found.digest):
        raise Problem(f"{record} is damaged, or not to be read by this user: {again}")
    return found
