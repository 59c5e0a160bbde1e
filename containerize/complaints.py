"""What engines complain about, as Problems: what it means and what to do about it.

Knows the texts of Docker 20.10 to 29 and of Podman 4 and 5.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import grp
import os
import re
from collections.abc import Callable
from pathlib import Path

from containerize.errors import Problem

INSTALL = "`invoke engine --install` sees to it"


class NoEngine(Problem):
    """No engine answers, and installing or starting one would help."""


@dataclasses.dataclass(frozen=True)
class Complaint:
    """What an engine wrote when a subcommand failed."""

    kind: str
    """`docker` or `podman`."""
    subcommand: str
    message: str
    published_by: Callable[[int], str]
    """The name of the engine's container that publishes a port; empty for none."""


def explain(complaint: Complaint) -> Problem:
    """The Problem behind a complaint; where none is known, its last line."""
    for pattern, explanation in _MEANINGS:
        if match := pattern.search(complaint.message):
            return explanation(complaint, match)
    lines = [line.strip() for line in complaint.message.splitlines()]
    lines = [line for line in lines if line and not _NOISE.match(line)]
    said = _PREFIX.sub("", lines[-1]) if lines else "it does not say why"
    if len(said) > 2 * _HALF:
        said = f"{said[:_HALF].rstrip()} … {said[-_HALF:].lstrip()}"
    return Problem(f"`{complaint.kind} {complaint.subcommand}` failed: {said}")


def listener(port: int) -> str:
    """The process that listens on a TCP port of this host; empty where unknown."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for row in Path(table).read_text().splitlines()[1:]:
                fields = row.split()
                listens = fields[3] == "0A"
                if listens and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for link in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        # Other users' processes keep their files to themselves, and any may end.
        with contextlib.suppress(OSError):
            if str(link.readlink()) in inodes:
                name = link.parents[1].joinpath("comm").read_text().strip()
                return f"{name} (process {link.parts[2]})"
    return ""


_HALF = 120
"""How much is shown of each end of a long complaint."""

_NOISE = re.compile(r"See '|Run '|Usage: |time=.* level=(info|warning)|DEPRECATED")
_PREFIX = re.compile(r"(docker: |Error: |ERROR: |Error response from daemon: )+")
_Explanation = Callable[[Complaint, "re.Match[str]"], Problem]


def _first(match: re.Match[str]) -> str:
    """The group that matched; empty where none did."""
    return next((group for group in match.groups() if group), "")


def _refused(_: Complaint, match: re.Match[str]) -> Problem:
    socket, user, group = _first(match), str(os.geteuid()), "docker"
    with contextlib.suppress(OSError, KeyError):  # a user without a name
        user = getpass.getuser()
    with contextlib.suppress(OSError, KeyError):
        group = grp.getgrgid(Path(socket).stat().st_gid).gr_name
    remedy = f"add it to the group {group} (`sudo usermod -aG {group} {user}`)"
    return Problem(
        f"the Docker daemon{socket and f' at {socket}'} refuses user {user}: "
        f"{remedy} and log in anew, or install Podman, which needs no daemon"
    )


def _down(_: Complaint, match: re.Match[str]) -> Problem:
    where = _first(match).rstrip(".;")
    return NoEngine(f"no Docker daemon answers{where and f' at {where}'}: {INSTALL}")


def _port(complaint: Complaint, match: re.Match[str]) -> Problem:
    port = int(_first(match))
    container = complaint.published_by(port)
    by = f"the container {container}" if container else listener(port)
    return Problem(
        f"port {port} is taken{by and f' by {by}'}: free it or choose another (--port)"
    )


def _full(complaint: Complaint, _: re.Match[str]) -> Problem:
    kind = complaint.kind
    where = f"where {kind} keeps its data"
    if complaint.subcommand == "save":
        where = f"where the image is saved, or {where}"
    return Problem(
        f"the disk is full {where}: make room (`{kind} system df` shows what it "
        "holds), then repeat"
    )


def _say(text: str) -> _Explanation:
    """An explanation that needs nothing but the complaint and what matched."""

    def explanation(complaint: Complaint, match: re.Match[str]) -> Problem:
        return Problem(
            text.format(
                kind=complaint.kind,
                command=f"{complaint.kind} {complaint.subcommand}",
                name=_first(match),
            )
        )

    return explanation


_MEANINGS: tuple[tuple[re.Pattern[str], _Explanation], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), explanation)
    for pattern, explanation in (
        (
            r"permission denied while trying to connect to the docker (?:daemon socket"
            r"|API)(?: at unix://([^\s:]+))?"
            r"|dial unix (\S+): connect: permission denied",
            _refused,
        ),
        (
            r"cannot connect to the docker daemon(?: at (\S+))?"
            r"|failed to connect to the docker API(?: at (\S+))?",
            _down,
        ),
        (
            r"container name \"?/?([^\s\"]+?)\"? is already in use",
            _say(
                "a container called {name} is there already: `invoke stop` removes it "
                "where it is this project's; --name chooses another"
            ),
        ),
        (
            r"bind for \S+?:(\d+) failed: port is already allocated"
            r"|:(\d+): bind: address already in use"
            r"|failed to bind (?:host )?port (?:for )?\S+?:(\d+)",
            _port,
        ),
        (
            r"no such image: (\S+?):?(?:\s|$)|inspecting object: (\S+): image not known"
            r"|unable to find image '([^']+)'|short-name \"([^\"]+)\" did not resolve"
            r"|(\S+): image not known|failed to resolve reference \"([^\"]+)\"",
            _say("{kind} has no image {name}: `invoke build` makes it"),
        ),
        (
            r"no such container:? \"?([^\s\"]+)"
            r"|no container with (?:name or )?ID \"([^\"]+)\" found",
            _say("{kind} has no container {name}: `invoke ps` lists them"),
        ),
        (r"no space left on device|disk quota exceeded", _full),
        (
            r"buildx component is missing or broken",
            _say(
                "DOCKER_BUILDKIT asks for BuildKit, but the client has no buildx: "
                "install docker-buildx or unset DOCKER_BUILDKIT"
            ),
        ),
        (
            r"hybrid mode not supported",
            _say(
                "crun cannot work with this host's mix of cgroup v1 and v2: install "
                "runc, which is then used instead"
            ),
        ),
    )
)
