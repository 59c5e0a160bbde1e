"""The names of images in registries, `REGISTRY[:PORT]/NAME[:TAG][@sha256:…]`."""

from __future__ import annotations

import dataclasses
import ipaddress
import re

from containerize.errors import Problem
from containerize.settings import check_tag

# distribution/reference, "Grammar"; the OCI distribution spec's <name> is the path.
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX = 255
"""Characters of registry and name together that every registry takes."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """An image in a registry, or the repository where neither tag nor digest is."""

    registry: str
    """Host, with a port where one is named."""
    name: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.registry}/{self.name}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return self.repository + tag + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """The parts of a reference.

    A name without a registry is refused: which one it stands for is each engine's own.
    Raises Problem where no registry would take it.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise Problem(
            f"{text!r} has no digest after its '@': use sha256:… of 64 digits"
        )
    registry, slash, path = rest.partition("/")
    if not slash or not (set(".:") & set(registry) or registry == "localhost"):
        raise Problem(
            f"{text!r} names no registry: put its host before, as in REGISTRY/{text}"
        )
    name, colon, tag = path.partition(":")
    check_host(registry)
    if not _NAME.fullmatch(name) or len(rest) - len(colon + tag) > _MAX:
        raise Problem(
            f"{name!r} is a name that no registry takes: use lower-case letters and "
            "digits, with '.', '_', '-' and '/' between them"
        )
    if colon:
        check_tag(tag)
    return Reference(registry, name, tag, digest)


def check_host(host: str) -> str:
    """`host` itself; a Problem where it is no `HOST` or `HOST:PORT`."""
    port = host.rpartition(":")[2] if re.search(r":\d+$", host) else "1"
    if not _HOST.fullmatch(host) or not 1 <= int(port) <= 65535:
        raise Problem(f"{host!r} is no registry's name: use HOST or HOST:PORT")
    return host


def is_loopback(host: str) -> bool:
    """Whether a host, without a port, is this machine, whatever a resolver says."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
