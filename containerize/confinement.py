"""What a container of the project may do and take, whoever starts it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from containerize.settings import Settings, size_in_bytes

USER = 65532
"""The image's user and group, `USER` of the Dockerfile that `init` writes."""

_FIRST_PORT = "net.ipv4.ip_unprivileged_port_start"
"""The first port on which a user without capabilities can listen."""
_UNSAID = 1024
"""What that is if nobody says it (kernel.org, "IP Sysctl")."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confinement:
    """What an engine, a Swarm and a cluster each say in words of their own."""

    memory: str
    """The limit, as the setting has it: a number, and k, m or g."""
    pids: int
    user: int = USER
    group: int = USER
    read_only: bool = True
    """Whether the image's files are; what is mounted is not among them."""
    temporary: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"/tmp": 64 << 20}  # noqa: S108 - the container's
    )
    """Directories in memory, from which no program runs: sizes in bytes by path."""
    dropped: tuple[str, ...] = ("ALL",)
    """Capabilities that it has not."""
    new_privileges: bool = False
    """Whether a program may get more than what starts it has, as by setuid."""

    sysctls: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Parameters of the kernel for the container's own network, as sysctl(8) names."""

    @property
    def memory_bytes(self) -> int:
        return size_in_bytes(self.memory)


def of(settings: Settings) -> Confinement:
    """That of every container of the project."""
    port = settings.container_port
    # Docker lets any user listen there; Podman and Kubernetes do not by themselves.
    sysctls = {_FIRST_PORT: str(port)} if port < _UNSAID else {}
    return Confinement(memory=settings.memory, pids=settings.pids, sysctls=sysctls)
