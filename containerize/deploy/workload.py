"""What an orchestrator keeps running: the service, and the settings' commands."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping

from containerize.errors import Problem
from containerize.publish import push, reference
from containerize.settings import Settings

GRACE_PERIOD, DRAIN_DELAY = "SERVED_GRACE_PERIOD", "SERVED_DRAIN_DELAY"
"""What the service in the image reads; see served/settings.py."""


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

    @property
    def serves(self) -> bool:
        """Whether it answers requests, and so has health checks."""
        return not self.words

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
    """The service, then the settings' commands, as `run` has them (issue 12)."""
    service = Workload(
        settings=settings, image=image, name=settings.image, environment=environment
    )
    return (
        service,
        *(
            dataclasses.replace(
                service, name=f"{settings.image}-{key}", words=tuple(shlex.split(words))
            )
            for key, words in settings.commands.items()
        ),
    )


def image(settings: Settings, named: str = "") -> str:
    """The image by its digest: `named`, or else what was pushed last.

    Raises Problem if neither is there, and if `named` has no digest.
    """
    if not named:
        named = str(push.last(settings).get("reference", ""))
    if not named:
        raise Problem(
            "nothing was pushed from here yet: `invoke push REGISTRY/NAME`, or name "
            "an image, --image REGISTRY/NAME@sha256:…"
        )
    found = reference.parse(named)
    if not found.digest:
        raise Problem(
            f"{named} names no digest, so nodes could run different images: say "
            f"{found.repository}@sha256:…"
        )
    return str(dataclasses.replace(found, tag=""))
