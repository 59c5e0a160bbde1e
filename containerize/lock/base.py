"""Which Debian packages make the base: apt resolves, in a state of its own.

apt runs as any user, for any architecture, with no package of the host in sight;
the signatures of the suites are checked against the keyring of the settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from containerize.errors import Problem
from containerize.fetch import debianimage, mirrors
from containerize.settings import Settings

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# What apt's configuration of the host may say here too: how to reach a mirror and
# whether this host's clock can be believed. Never what weakens a signature.
_KEPT = re.compile(r"Acquire::(https?|Retries|ForceIPv[46]|Check-(Valid-Until|Date))\b")
_INST = re.compile(r"Inst (?P<name>\S+) \((?P<version>\S+) .*\[(?P<arch>\w+)\]\)")


@dataclasses.dataclass(frozen=True, order=True)
class Package:
    """One .deb, as a line of base.lock names it."""

    name: str
    version: str
    architecture: str
    """The image's, in Debian's terms, also for a package that fits all."""
    path: str
    """Path below a mirror's top, `pool/…`."""
    sha256: str


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What base.in asks for."""

    packages: tuple[str, ...]
    provided: tuple[str, ...]
    """Names that count as installed, so that nothing pulls them in."""


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What apt made of it."""

    time: int
    """Date of the suite's Release file: Unix seconds."""
    packages: tuple[Package, ...]
    """Those of each architecture."""
    fixes: Mapping[tuple[str, str], tuple[str, ...]]
    """Versions that the security suite offers, by name and architecture."""


def resolve(settings: Settings, wanted: Wanted) -> Resolved:
    """The packages that apt takes for what is wanted.

    The apt is this host's if it has one and Debian's keys, else that of Debian's image.
    Raises Problem where neither is to be had, a mirror or signature is bad, a package
    is unknown, or its dependencies cannot be met.
    """
    keyring = Path(settings.keyring or KEYRING)
    if settings.keyring and not os.access(keyring, os.R_OK):
        raise Problem(
            f"the keyring {keyring} cannot be read: install debian-archive-keyring "
            "or set CONTAINERIZE_KEYRING"
        )
    with contextlib.ExitStack() as stack:
        if shutil.which("apt-get") and os.access(keyring, os.R_OK):
            temporary = tempfile.TemporaryDirectory(prefix="containerize-apt-")
            place: Place = Host(stack.enter_context(temporary))
            found, keys = mirrors.find(settings), keyring.read_bytes()
        else:
            image = stack.enter_context(debianimage.start(settings))
            place, found = image, mirrors.find(settings, image.mirrors)
            keys = keyring.read_bytes() if settings.keyring else image.keyring()
        apt = _Apt(place, settings, keys, found)
        apt.update()
        packages: list[Package] = []
        fixes: dict[tuple[str, str], tuple[str, ...]] = {}
        for architecture in settings.locked_architectures:
            chosen = apt.install(wanted, architecture)
            packages += chosen
            offered = apt.security_versions([p.name for p in chosen], architecture)
            fixes |= {(name, architecture): v for name, v in offered.items()}
        return Resolved(apt.date(), tuple(packages), fixes)


class Place(Protocol):
    """Where an apt is: this host, or a container of Debian's image."""

    @property
    def top(self) -> str:
        """A directory there, of our own."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file below `top`."""

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A finished command there, in English."""

    def options(self) -> list[tuple[str, str]]:
        """What apt must be told there."""


@dataclasses.dataclass(frozen=True)
class Host:
    """This host, whose apt has our own directories."""

    top: str

    def put(self, name: str, data: bytes) -> None:
        file = Path(self.top, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return mirrors.run(*command, environment=environment)

    def options(self) -> list[tuple[str, str]]:
        return []


class _Apt:
    """apt with sources, state and cache below one directory."""

    def __init__(
        self, place: Place, settings: Settings, keyring: bytes, found: mirrors.Mirrors
    ) -> None:
        self.place = place
        self.top = top = place.top
        self.suite = settings.suite
        self.architectures = settings.locked_architectures
        # apt tells the two forms of a keyring apart by the ending.
        ascii_armor = keyring.startswith(b"-----")
        keys = "keyring.asc" if ascii_armor else "keyring.gpg"
        place.put(keys, keyring)
        for name in ("lists/partial/.keep", "etc/preferences.d/.keep"):
            place.put(name, b"")
        self.urls: dict[str, str] = {}
        lines = []
        for name, urls, named, suites in (
            ("main", found.main, settings.mirrors, ("", "-updates")),
            ("security", found.security, settings.security_mirrors, ("-security",)),
        ):
            listed = "".join(f"{url}\tpriority:{n}\n" for n, url in enumerate(urls, 1))
            place.put(f"{name}.mirrors", listed.encode())
            uri = f"mirror+file:{top}/{name}.mirrors"
            self.urls[uri] = urls[0]
            # A mirror that the settings name may be a snapshot, whose files are as old
            # as it is; one that apt uses daily must be fresh.
            old = " check-valid-until=no" if named else ""
            lines += [
                f"deb [signed-by={top}/{keys}{old}] {uri} {self.suite}{suite} main\n"
                for suite in suites
            ]
        place.put("etc/sources.list", "".join(lines).encode())
        self.options = [
            *place.options(),
            *((k, v) for k, v in mirrors.apt_options() if _KEPT.match(k)),
        ]

    def update(self) -> None:
        for architecture in self.architectures:
            self.place.put(f"{architecture}/.keep", b"")
            self.place.put(f"{architecture}.status", b"")
        result = self._run(self.architectures, "apt-get", "update", "--error-on=any")
        if result.returncode:
            raise Problem(
                f"Debian's suite {self.suite} cannot be read: {self._essence(result)}"
            )

    def date(self) -> int:
        """The date of the main suite's Release file, in seconds since the epoch."""
        # apt makes the name from the mirror's, which it chose.
        script = 'set -- "$1"/lists/*_dists_"$2"_*Release; cat "$1"'
        text = self.place.run("sh", "-c", script, "sh", self.top, self.suite).stdout
        match = re.search(r"^Date: (.+)$", text, re.MULTILINE)
        parsed = email.utils.parsedate_tz(match[1]) if match else None
        if not parsed:
            raise Problem(
                f"the Release file of Debian's suite {self.suite} has no date"
            )
        return email.utils.mktime_tz(parsed)

    def install(self, wanted: Wanted, architecture: str) -> list[Package]:
        from debian.deb822 import Deb822  # which takes a while

        status = "".join(
            f"Package: {name}\nStatus: install ok installed\nVersion: 9999:0\n"
            f"Architecture: {architecture}\nMulti-Arch: foreign\n"
            "Maintainer: none\nDescription: none\n\n"
            for name in wanted.provided
        )
        self.place.put(f"{architecture}.status", status.encode())
        run = functools.partial(self._run, (architecture,))
        result = run("apt-get", "--simulate", "install", "--", *wanted.packages)
        if result.returncode:
            raise Problem(
                f"base.in cannot be resolved for {architecture} in Debian's suite "
                f"{self.suite}: {self._essence(result)}"
            )
        chosen = [
            f"{match['name']}:{match['arch']}={match['version']}"
            for match in _INST.finditer(result.stdout)
        ]
        shown = run("apt-cache", "show", "--no-all-versions", "--", *chosen)
        packages = [
            Package(
                p["Package"], p["Version"], architecture, p["Filename"], p["SHA256"]
            )
            for p in Deb822.iter_paragraphs(
                shown.stdout.splitlines(), use_apt_pkg=False
            )
        ]
        if len(packages) != len(chosen):
            raise Problem(f"apt does not show what it chose: {self._essence(shown)}")
        return sorted(packages)

    def security_versions(
        self, names: Sequence[str], architecture: str
    ) -> dict[str, tuple[str, ...]]:
        """The versions of each package that the security suite offers.

        A Release file calls its suite `stable-security` or the like; what apt-cache(8)
        calls madison has the name that our own sources.list has.
        """
        shown = self._run((architecture,), "apt-cache", "madison", "--", *names)
        found: dict[str, tuple[str, ...]] = {}
        for line in shown.stdout.splitlines():
            name, version, source = (part.strip() for part in line.split("|"))
            if source.split()[1].startswith(f"{self.suite}-security/"):
                found[name] = (*found.get(name, ()), version)
        return found

    def _run(
        self, architectures: Sequence[str], *command: str
    ) -> subprocess.CompletedProcess[str]:
        # apt reads the file that APT_CONFIG names before all others, so these
        # paths keep it from reading the host's.
        status = f"{self.top}/{architectures[0]}.status"
        options = [
            ("Dir::Etc", f"{self.top}/etc/"),
            ("Dir::Etc::main", "/dev/null"),
            ("Dir::Etc::parts", "/dev/null"),
            ("Dir::Etc::sourceparts", "/dev/null"),
            ("Dir::State", f"{self.top}/"),
            ("Dir::State::status", status),
            ("Dir::Cache", f"{self.top}/{architectures[0]}/"),
            ("APT::Architecture", architectures[0]),
            *(("APT::Architectures::", a) for a in architectures),
            ("APT::Install-Recommends", "false"),
            ("APT::Sandbox::User", ""),
            ("Acquire::Languages", "none"),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"),
            *self.options,
        ]
        config = "".join(f'{k} "{v}";\n' for k, v in options)
        self.place.put("apt.conf", config.encode())
        environment = {"APT_CONFIG": f"{self.top}/apt.conf"}
        return self.place.run(*command, environment=environment)

    def _essence(self, result: subprocess.CompletedProcess[str]) -> str:
        """What apt says is wrong, on one line."""
        unmet = re.findall(r"^ *(\S+ : Depends: .*)", result.stdout, re.MULTILINE)
        signatures = re.findall(
            r"^[WE]: (?:GPG error|OpenPGP signature \S+ failed): (.*)",
            result.stderr,
            re.MULTILINE,
        )
        # Of a suite that was given up since another cannot be had, it says that alone.
        others = r"(?!.*\bTransaction .* aborted)"
        errors = re.findall(rf"^E: {others}(.*)", result.stderr, re.MULTILINE)
        cause = r"^Err:\d+ (\S+ \S+) .*\n +(.*)"
        errors += map(": ".join, re.findall(cause, result.stdout, re.MULTILINE))
        ended = f"apt exited with {result.returncode}"
        found = [*unmet, *signatures, *errors, ended]
        text = str(found[0]).rstrip(".")
        for file, url in self.urls.items():
            text = text.replace(file, url)
        return mirrors.shown(text)
