"""Which Debian packages make the base: apt resolves, in a state of its own.

apt runs as any user, for any architecture, with no package of the host in sight;
the signatures of the suites are checked against the keyring of the settings.
"""

from __future__ import annotations

import dataclasses
import email.utils
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from debian.deb822 import Deb822

from containerize.errors import Problem
from containerize.fetch import mirrors
from containerize.settings import ARCHITECTURES, Settings

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


def resolve(settings: Settings, wanted: Wanted) -> tuple[int, tuple[Package, ...]]:
    """The date of the suite's Release file, and the packages of each architecture.

    Raises Problem where apt is missing, a mirror or signature is bad, a package is
    unknown, or its dependencies cannot be met.
    """
    if not shutil.which("apt-get"):
        raise Problem(
            "this host has no apt-get, which resolves the base packages: "
            "run `invoke lock` on Debian or Ubuntu, or in a container of one"
        )
    keyring = Path(settings.keyring or KEYRING)
    if not os.access(keyring, os.R_OK):
        raise Problem(
            f"the keyring {keyring} cannot be read: install debian-archive-keyring "
            "or set INVOKE_KEYRING"
        )
    with tempfile.TemporaryDirectory(prefix="containerize-apt-") as directory:
        apt = _Apt(Path(directory), settings, keyring.resolve(), mirrors.find(settings))
        apt.update()
        packages = [
            package
            for architecture in dict.fromkeys(ARCHITECTURES.values())
            for package in apt.install(wanted, architecture)
        ]
        return apt.date(), tuple(packages)


class _Apt:
    """apt with sources, state and cache below one directory."""

    def __init__(
        self, top: Path, settings: Settings, keyring: Path, found: mirrors.Mirrors
    ) -> None:
        self.top = top
        self.suite = settings.suite
        for name in ("lists/partial", "etc/preferences.d"):
            (top / name).mkdir(parents=True)
        self.urls: dict[str, str] = {}
        lines = []
        for name, urls, named, suites in (
            ("main", found.main, settings.mirrors, ("", "-updates")),
            ("security", found.security, settings.security_mirrors, ("-security",)),
        ):
            file = top / f"{name}.mirrors"
            file.write_text(
                "".join(f"{url}\tpriority:{n}\n" for n, url in enumerate(urls, 1))
            )
            self.urls[f"mirror+file:{file}"] = urls[0]
            # A mirror that the settings name may be a snapshot, whose files are as old
            # as it is; one that apt uses daily must be fresh.
            old = " check-valid-until=no" if named else ""
            lines += [
                f"deb [signed-by={keyring}{old}] mirror+file:{file} "
                f"{self.suite}{suite} main\n"
                for suite in suites
            ]
        (top / "etc/sources.list").write_text("".join(lines))

    def update(self) -> None:
        architectures = tuple(dict.fromkeys(ARCHITECTURES.values()))
        result = self._run(architectures, "apt-get", "update", "--error-on=any")
        if result.returncode:
            raise Problem(
                f"Debian's suite {self.suite} cannot be read: {self._essence(result)}"
            )

    def date(self) -> int:
        """The date of the main suite's Release file, in seconds since the epoch."""
        [file] = [
            file
            for name in ("InRelease", "Release")
            for file in self.top.glob(f"lists/*_dists_{self.suite}_{name}")
        ]
        match = re.search(r"^Date: (.+)$", file.read_text("utf-8"), re.MULTILINE)
        parsed = email.utils.parsedate_tz(match[1]) if match else None
        if not parsed:
            raise Problem(
                f"the Release file of Debian's suite {self.suite} has no date"
            )
        return email.utils.mktime_tz(parsed)

    def install(self, wanted: Wanted, architecture: str) -> list[Package]:
        (self.top / f"{architecture}.status").write_text(
            "".join(
                f"Package: {name}\nStatus: install ok installed\nVersion: 9999:0\n"
                f"Architecture: {architecture}\nMulti-Arch: foreign\n"
                "Maintainer: none\nDescription: none\n\n"
                for name in wanted.provided
            )
        )
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

    def _run(
        self, architectures: Sequence[str], *command: str
    ) -> subprocess.CompletedProcess[str]:
        # apt reads the file that APT_CONFIG names before all others, so these
        # paths keep it from reading the host's.
        (self.top / architectures[0]).mkdir(exist_ok=True)
        status = self.top / f"{architectures[0]}.status"
        status.touch()
        options = [
            ("Dir::Etc", f"{self.top}/etc/"),
            ("Dir::Etc::main", "/dev/null"),
            ("Dir::Etc::parts", "/dev/null"),
            ("Dir::Etc::sourceparts", "/dev/null"),
            ("Dir::State", f"{self.top}/"),
            ("Dir::State::status", str(status)),
            ("Dir::Cache", f"{self.top}/{architectures[0]}/"),
            ("APT::Architecture", architectures[0]),
            *(("APT::Architectures::", a) for a in architectures),
            ("APT::Install-Recommends", "false"),
            ("APT::Sandbox::User", ""),
            ("Acquire::Languages", "none"),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"),
            *((k, v) for k, v in mirrors.apt_options() if _KEPT.match(k)),
        ]
        config = self.top / "apt.conf"
        config.write_text("".join(f'{k} "{v}";\n' for k, v in options))
        return mirrors.run(*command, environment={"APT_CONFIG": str(config)})

    def _essence(self, result: subprocess.CompletedProcess[str]) -> str:
        """What apt says is wrong, on one line."""
        unmet = re.findall(r"^ *(\S+ : Depends: .*)", result.stdout, re.MULTILINE)
        signatures = re.findall(
            r"^[WE]: (?:GPG error|OpenPGP signature \S+ failed): (.*)",
            result.stderr,
            re.MULTILINE,
        )
        errors = re.findall(r"^E: (.*)", result.stderr, re.MULTILINE)
        found = [*unmet, *signatures, *errors, f"apt exited with {result.returncode}"]
        text = str(found[0]).rstrip(".")
        for file, url in self.urls.items():
            text = text.replace(file, url)
        return text
