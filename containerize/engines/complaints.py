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
    named: str = ""
    """What names the engine, as `DOCKER_HOST=…`; empty for the client's default."""


def explain(complaint: Complaint) -> Problem:
    """The Problem behind a complaint; where none is known, its last line."""
    return known(complaint) or _unknown(complaint)


def _unknown(complaint: Complaint) -> Problem:
    lines = [line.strip() for line in complaint.message.splitlines()]
    lines = [line for line in lines if line and not _NOISE.match(line)]
    said = _PREFIX.sub("", lines[-1]) if lines else "it does not say why"
    if len(said) > 2 * _HALF:
        said = f"{said[:_HALF].rstrip()} … {said[-_HALF:].lstrip()}"
    return Problem(f"`{complaint.kind} {complaint.subcommand}` failed: {said}")


def known(complaint: Complaint) -> Problem | None:
    """The Problem behind a complaint, or None for one that is not known."""
    for pattern, explanation in _MEANINGS:
        if match := pattern.search(complaint.message):
            return explanation(complaint, match)
    return None


_HALF = 120
"""How much is shown of each end of a long complaint."""

_NOISE = re.compile(
    r"See '|Run '|Usage: |time=.* level=(info|warning)"
    # The notice of clients without buildx, which ends with an address.
    r"|DEPRECATED|Install the buildx component|https?://\S+$"
)
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


def _down(complaint: Complaint, match: re.Match[str]) -> Problem:
    where = _first(match).rstrip(".;:,")
    said = f"no Docker daemon answers{where and f' at {where}'}"
    if complaint.named:
        # Another one in its place would not be what was asked for.
        return Problem(f"{said}, which {complaint.named} names: {_mend(complaint)}")
    return NoEngine(f"{said}: {INSTALL}")


def _mend(complaint: Complaint) -> str:
    """What to do about an engine that is named, or about one that is not."""
    if not complaint.named:
        return "see that it runs and is reachable"
    if complaint.named.startswith("`"):
        return "start it there, or go back with `docker context use default`"
    return f"start it there, or mend or unset {complaint.named.partition('=')[0]}"


def _port(complaint: Complaint, match: re.Match[str]) -> Problem:
    port = int(_first(match))
    container = complaint.published_by(port)
    by = f" by the container {container}" if container else ""
    return Problem(f"port {port} is taken{by}: free it or choose another (--port)")


def _no_image(complaint: Complaint, match: re.Match[str]) -> Problem:
    if complaint.subcommand in ("build", "pull"):
        # Another's image, of which a registry says why it cannot be had.
        return _unknown(complaint)
    return Problem(
        f"{complaint.kind} has no image {_first(match)}: `invoke build` makes it"
    )


def _no_command(complaint: Complaint, match: re.Match[str]) -> Problem:
    said = f"the image has no command {_first(match)}: see its PATH, or name a path"
    if complaint.subcommand == "build":
        # A step of the Dockerfile names it, not the user.
        return Problem(f"`{complaint.kind} build` failed: {said}")
    return Problem(said)


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
                groups=match.groups(),
                named=complaint.named or "the engine's address",
                mend=_mend(complaint),
            )
        )

    return explanation


# What is wrong with the way to an engine. Each names what leads there.
_ADDRESSES: tuple[tuple[str, _Explanation], ...] = (
    (
        r"client version (\S+) is too new\. Maximum supported API version is (\S+)",
        _say(
            "the client asks for API {groups[0]}, but the daemon has {groups[1]} at "
            "most: unset DOCKER_API_VERSION, or use an older client or a newer daemon"
        ),
    ),
    (
        r"client version (\S+) is too old\. Minimum supported API version is ([\d.]+)",
        _say(
            "the client asks for API {groups[0]}, but the daemon wants {groups[1]} at "
            "least: unset DOCKER_API_VERSION, or use a newer client"
        ),
    ),
    (
        r"context \"?([^\s\":]+)\"?: (?:context )?not found"
        r"|context \"([^\"]+)\" does not exist",
        _say("docker has no context {name}, which {named} names: `docker context ls`"),
    ),
    (
        r"unable to parse docker host|invalid bind address format"
        r"|invalid bind address|is not a supported schema|strconv.Atoi: parsing \"\"",
        _say(
            "{named} is no address of an engine: mend it (unix:///path, "
            "tcp://host:port or ssh://user@host) or unset it"
        ),
    ),
    (
        r"exec: \"ssh\": executable file not found",
        _say("{named} asks for ssh, which is not installed: install openssh-client"),
    ),
    (
        r"error during connect:[^\n]*command \[ssh [^\n]*stderr=([^\n]*)",
        _say("the engine cannot be reached, {named}: {name}: {mend}"),
    ),
    (
        r"(?:error during connect|unable to connect to Podman)[^\n]*"
        r"lookup (\S+?)(?: on \S+)?: [^\n]*",
        _say("there is no host {name}, which {named} names: {mend}"),
    ),
    (
        r"unable to resolve docker endpoint: (open [^\n]*\.pem: [^\n]*)"
        r"|error during connect:[^\n]*?((?:x509|tls): [^\n]*"
        r"|server gave HTTP response to HTTPS client"
        r"|client sent an HTTP request to an HTTPS server)"
        r"|response from daemon: (client sent an HTTP request to an HTTPS server)",
        _say(
            "the engine of {named} cannot be reached by TLS: {name}: see "
            "DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and the certificates"
        ),
    ),
    (
        r"error during connect:[^\n]*: (dial [^\n]*|EOF|context deadline[^\n]*"
        r"|[^\n]*connection re(?:set|fused)[^\n]*)"
        r"|unable to connect to Podman[^\n]*: (dial [^\n]*|EOF)",
        _say("no engine answers, {named}: {name}: {mend}"),
    ),
    (
        r"Error response from daemon: (?:<!DOCTYPE|<html|page not found|404)",
        _say("what answers is no engine, {named}: mend or unset it"),
    ),
)

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
        *_ADDRESSES,
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
            _no_image,
        ),
        (
            r"no such container:? \"?([^\s\"]+)"
            r"|no container with (?:name or )?ID \"([^\"]+)\" found",
            _say("{kind} has no container {name}: `invoke ps` lists them"),
        ),
        (
            r"exec:? \"([^\"]+)\": (?:executable file not found|stat \S+ no such file)"
            r"|executable file [`']([^`']+)[`'] not found",
            _no_command,
        ),
        (
            r"unable to find network with name or ID ([^\s:]+)|network (\S+) not found",
            _say(
                "{kind} has no network {name}: `{kind} network create {name}` makes it"
            ),
        ),
        (
            r"bind source path does not exist: ([^\n]+)"
            r"|Mounts denied:?[^\n/]*\s*The path (\S+) is not shared"
            r"|statfs ([^\n]+): no such file or directory",
            _say(
                "{kind} does not see {name}, which is to be mounted: share it with the "
                "machine that the engine is on"
            ),
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
            r"/dev/net/tun",
            _say(
                "Podman without root gives a container its network through "
                "/dev/net/tun, which is missing or closed here: `sudo modprobe tun` "
                "(for a container, --device=/dev/net/tun), or use Docker"
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
