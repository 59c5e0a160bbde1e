"""Debian's own image, whose apt stands in where this host's is not Debian's.

Files go in and out through the engine's standard streams, so nothing of the host is
mounted: it may be another machine's engine, or one that sees part of the file system.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shlex
import ssl
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from containerize.engines import engine
from containerize.errors import Problem
from containerize.fetch import keyring, mirrors
from containerize.settings import Settings

KEYRINGS = "/usr/share/keyrings/debian-archive-keyring"
"""Without the ending, which differs between releases."""

_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_LIFETIME = 3600
"""Seconds after which a container that was left behind ends by itself."""


@dataclasses.dataclass(frozen=True)
class DebianImage:
    """A running container of it."""

    name: str
    using: engine.Engine
    container: str
    top: str = "/tmp/apt"  # noqa: S108 (in a container of its own)

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A finished command of apt in it, in English."""
        values = {"LC_ALL": "C.UTF-8", **(environment or {})}
        for name in (*_PROXIES, *map(str.upper, _PROXIES)):
            if name in os.environ:
                values[name] = os.environ[name]
        options = [f"--env={name}={value}" for name, value in values.items()]
        return self.using.run(
            "exec", *options, self.container, *command, check=False, echo=False
        )

    def put(self, name: str, data: bytes) -> None:
        """Write a file below `top`."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo(f"{self.top}/{name}".lstrip("/"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        unpack = ("exec", "--interactive", self.container, "tar", "-xC", "/")
        self.using.run(*unpack, input=buffer.getvalue(), echo=False)

    def mirrors(self) -> mirrors.Mirrors:
        """Those that its apt has."""
        text = self.run("cat", "/etc/os-release").stdout
        fields = (line.partition("=") for line in text.splitlines())
        release = {key: "".join(shlex.split(value)) for key, _, value in fields}
        return mirrors.of_apt(self.run, release)

    def keyring(self) -> bytes:
        """Debian's keys in it, those alone whose fingerprints are known.

        Raises Problem where it has none.
        """
        script = f"cat {KEYRINGS}.gpg 2>/dev/null || cat {KEYRINGS}.pgp"
        command = ("exec", self.container, "sh", "-c", script)
        try:
            with self.using.pipe(*command, echo=False) as stream:
                found = keyring.trusted(stream.read())
        except (Problem, ValueError):
            found = b""
        if not found:
            raise Problem(
                f"the image {self.name} has no archive key of Debian's that is known "
                "here: name another in CONTAINERIZE_DEBIAN_IMAGE, or a keyring of your "
                "own in CONTAINERIZE_KEYRING"
            )
        return found

    def options(self) -> list[tuple[str, str]]:
        """What its apt must be told of this host: the certificates it trusts."""
        bundle = ssl.get_default_verify_paths().cafile
        if not bundle:
            return []
        self.put("certificates.pem", Path(bundle).read_bytes())
        return [("Acquire::https::CAInfo", f"{self.top}/certificates.pem")]


@contextlib.contextmanager
def start(settings: Settings) -> Iterator[DebianImage]:
    """A container of the image that the settings name, gone afterwards.

    Raises Problem, with the ways out, where there is no engine or no image.
    """
    name = settings.debian_image_name
    try:
        using = engine.find(settings)
        if using.run("image", "inspect", name, check=False, echo=False).returncode:
            using.run("pull", "--quiet", name)
        # The host's network, for its proxies and its names.
        started = using.run(
            *("run", "--detach", "--rm", "--network=host", "--cap-drop=ALL"),
            *("--security-opt=no-new-privileges", f"--label={settings.label}"),
            *("--entrypoint=sleep", name, str(_LIFETIME)),
            echo=False,
        )
    except Problem as problem:
        raise Problem(
            "this host's apt lacks mirrors of Debian, mirrors of its security suite, "
            f"or their keys, and Debian's image {name} cannot stand in ({problem}): on "
            "Debian add what apt lacks (keys: debian-archive-keyring), or set "
            "CONTAINERIZE_MIRRORS and CONTAINERIZE_SECURITY_MIRRORS; elsewhere start "
            "an engine that can pull that image, or one that "
            "CONTAINERIZE_DEBIAN_IMAGE names"
        ) from None
    container = started.stdout.split()[-1]
    try:
        yield DebianImage(name, using, container)
    finally:
        using.discard(container, echo=False)
