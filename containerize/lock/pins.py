"""Python requirements, pinned by pip-compile for the interpreters that get them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from containerize import environ
from containerize.errors import Problem

_DRIVER = Path(__file__).with_name("pipcompile.py")
_OPTIONS = (
    *("--no-config", "--no-header", "--no-emit-options", "--no-emit-index-url"),
    *("--no-emit-find-links", "--no-emit-trusted-host", "--newline=lf", "--quiet"),
    *("--generate-hashes", "--no-reuse-hashes", "--allow-unsafe", "--strip-extras"),
    "--pip-args=--only-binary :all:",
)
_PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\\n]*?))?"
    r"(?P<hashes>(?: \\\n +--hash=sha256:[0-9a-f]{64})+)\n"
    r"(?P<via>(?: +#.*\n)*)",
    re.MULTILINE,
)
_INCLUDE = re.compile(
    r"(?:-([rc])\s*|--(requirement|constraint)(?:\s+|=))([^\s=\0][^\0]*)"
)
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclasses.dataclass(frozen=True)
class Pin:
    """One release of a project."""

    name: str
    version: str
    marker: str
    """Where it is installed (PEP 508); empty for everywhere."""
    hashes: frozenset[str]
    """SHA-256, in hex, of the files that may be installed.

    For the image each architecture's pin has exactly one.
    """
    via: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    """What needs it; not read back from a lock."""

    def fits(self, target: Target) -> bool:
        """Whether it is installed there."""
        return not self.marker or Marker(self.marker).evaluate(target.environment)

    def __str__(self) -> str:
        head = f"{self.name}=={self.version}"
        if self.marker:
            head += f" ; {self.marker}"
        hashes = [f"    --hash=sha256:{digest}" for digest in sorted(self.hashes)]
        text = " \\\n".join([head, *hashes]) + "\n"
        return text + (f"    # via {', '.join(self.via)}\n" if self.via else "")


@dataclasses.dataclass(frozen=True)
class Target:
    """An interpreter that requirements are resolved for."""

    python: str
    """X.Y.Z"""
    system: str
    """`Linux` or `Darwin`"""
    machine: str
    """as `uname -m` names it"""
    platforms: tuple[str, ...]
    """Wheel platform tags, best first."""

    @property
    def environment(self) -> dict[str, str]:
        """The values of PEP 508's environment markers."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": self.system,
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": self.python.rpartition(".")[0],
            "sys_platform": self.system.lower(),
        }

    def __str__(self) -> str:
        python = self.python.rpartition(".")[0]
        return f"Python {python} on {self.system} {self.machine}"


def linux(python: str, architecture: str, glibc: str) -> Target:
    """The target with this Python, OCI architecture and C library."""
    machine = _MACHINES[architecture]
    tags = []
    # The wheels of PEP 600 and, under their older names, of PEPs 599, 571 and 513.
    older = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    for minor in range(int(glibc.partition(".")[2]), 4, -1):
        tags.append(f"manylinux_2_{minor}_{machine}")
        if minor in older:
            tags.append(f"{older[minor]}_{machine}")
    return Target(python, "Linux", machine, (*tags, f"linux_{machine}"))


def macos(python: str) -> Target:
    return Target(python, "Darwin", "arm64", ("macosx_11_0_arm64",))


@dataclasses.dataclass(frozen=True)
class Source:
    """What a .in file asks for."""

    file: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...]


def read_source(
    file: Path, new: Mapping[Path, str] | None = None, above: tuple[Path, ...] = ()
) -> Source:
    """The requirements of a .in file, in one order and spelling.

    Of pip's options it may have `-r FILE` and `-c FILE`. `new` are the texts of files
    that are not written yet, `above` the files that lead to this one. Raises Problem,
    with the line, for what does not belong in it.
    """
    requirements: set[str] = set()
    constraints: set[str] = set()
    # A lock that is a constraint has hashes, on lines of their own.
    new = new or {}
    text = new[file] if file in new else read_text(file)
    text = re.sub(r" \\\n +--hash=\S+", "", text)
    for number, line in enumerate(text.splitlines(), 1):
        entry = re.sub(r"(^|\s)#.*", "", line).strip()
        where = f"{file.name}:{number}"
        option = _INCLUDE.fullmatch(entry)
        if option:
            kind, name = option[1] or option[2], option[3].strip("\"'")
            if "://" in name:
                raise Problem(
                    f"{where}: {name} is no file, and no lock holds what an address "
                    "answers: copy it here and name the copy"
                )
            included = file.parent / name
            chain = (*above, file)
            real = os.path.realpath(included)  # which takes links that go in circles
            if real in map(os.path.realpath, chain):
                raise Problem(
                    f"{where}: {file.name} and {included.name} include each other: "
                    "take one of the two lines out"
                    if real != os.path.realpath(file)
                    else f"{where}: {file.name} includes itself: take the line out"
                )
            if included not in new and not included.exists():
                raise Problem(
                    f"{where}: {name} is missing: restore it, or take the line out"
                )
            other = read_source(included, new, chain)
            into = requirements if kind.startswith("r") else constraints
            into.update(other.requirements)
            constraints.update(other.constraints)
        elif entry:
            requirements.add(_requirement(where, entry))
    return Source(file.name, tuple(sorted(requirements)), tuple(sorted(constraints)))


def read_text(file: Path, *, missing: str | None = None) -> str:
    """The text of a file that people edit, whatever their editor puts at line ends.

    Raises Problem where it cannot be read, and where it is missing if nothing is to
    stand in for it.
    """
    try:
        return file.read_text("utf-8-sig")  # Python reads CRLF as one line's end
    except FileNotFoundError:
        if missing is None:
            raise Problem(f"{file.name} is missing: restore it") from None
        return missing
    except UnicodeDecodeError as error:
        raise Problem(
            f"{file.name} cannot be read: {error}: save it as UTF-8"
        ) from None
    except OSError as error:
        raise Problem(
            f"{file.name} cannot be read: {error.strerror}: mend that"
        ) from None


def _requirement(where: str, entry: str) -> str:
    if re.match(r"(-e|--editable)\b", entry):
        raise Problem(
            f"{where}: {entry!r} is asked for by its path, which no lock holds: name "
            "a release, or put the code into the app's directory"
        )
    if "--hash" in entry:
        raise Problem(
            f"{where}: --hash belongs into the lock, which `invoke lock` writes: name "
            "requirements only"
        )
    if entry.startswith("-"):
        raise Problem(
            f"{where}: {entry.split(maxsplit=1)[0]} does not belong here: name "
            "requirements only, and set an index in pip's configuration"
        )
    try:
        requirement = Requirement(entry)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise Problem(f"{where}: {entry!r} is no requirement: {reason}") from None
    if requirement.url:
        raise Problem(
            f"{where}: {requirement.name} is asked for by its address, which no lock "
            "holds: name a release"
        )
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)


def resolve(
    source: Source,
    targets: Sequence[Target],
    *,
    pinned: Iterable[Pin] = (),
    every_wheel: bool = False,
) -> list[Pin]:
    """Pins that meet the requirements on all targets, in the order of their names.

    They keep to `pinned` where they can. Each has the hash of the wheel that fits, or
    with `every_wheel` of all wheels of its release. Raises Problem where a
    requirement cannot be met on one of the targets.
    """
    if not source.requirements:
        return []
    pinned = tuple(pinned)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = pool.map(
            lambda target: _compile(source, target, pinned, every_wheel), targets
        )
        found: dict[Pin, list[Target]] = {}
        via: dict[Pin, set[str]] = {}
        for target, pins in zip(targets, results, strict=True):
            for pin in pins:
                found.setdefault(pin, []).append(target)
                via.setdefault(pin, set()).update(pin.via)
    merged = [
        dataclasses.replace(
            pin, marker=_marker(inside, targets), via=tuple(sorted(via[pin]))
        )
        for pin, inside in found.items()
    ]
    return sorted(merged, key=lambda pin: (pin.name, pin.version, pin.marker))


def parse(text: str) -> tuple[Pin, ...]:
    """The pins of a lock; of one edited by hand those that can be read."""
    return tuple(
        Pin(
            match["name"],
            match["version"],
            match["marker"] or "",
            frozenset(re.findall(r"sha256:([0-9a-f]{64})", match["hashes"])),
            tuple(re.findall(r"[^\s#,]+(?: \S+\.in)?", match["via"])[1:]),
        )
        for match in _PIN.finditer(text)
        if _valid(match[0].partition(" \\\n")[0])
    )


def _valid(requirement: str) -> bool:
    try:
        Requirement(requirement)
    except InvalidRequirement:
        return False
    return True


def pip_environment() -> dict[str, str]:
    """The environment of pip. Raises Problem where it cannot read its settings."""
    try:
        return environ.pip(os.environ)
    except ValueError as error:
        raise Problem(f"{error}: mend that file or variable") from None


def _compile(
    source: Source, target: Target, pinned: Iterable[Pin], every_wheel: bool
) -> tuple[Pin, ...]:
    """What pip-compile makes of the source for one target."""
    kept = [pin for pin in pinned if pin.fits(target)]
    told = {
        "name": str(target),
        "environment": target.environment,
        "platforms": target.platforms,
        "every_wheel": every_wheel,
        "hashes": {pin.name: sorted(pin.hashes) for pin in kept},
    }
    with tempfile.TemporaryDirectory(prefix="containerize-pins-") as name:
        directory = Path(name)
        for file, lines in (
            (source.file, source.requirements),
            ("constraints", source.constraints),
            ("pins", [f"{pin.name}=={pin.version}" for pin in kept]),
        ):
            text = "".join(f"{line}\n" for line in lines)
            (directory / file).write_text(text, "utf-8")
        # Python's -P: this package's modules must not stand in for others.
        command = [sys.executable, "-P", str(_DRIVER), json.dumps(told), *_OPTIONS]
        files = ["--constraint=constraints", "--output-file=pins", source.file]
        result = subprocess.run(
            [*command, *files],
            cwd=directory,
            env=pip_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if result.returncode:
            raise Problem(f"{source.file}: {essence(result.stderr)}")
        text = (directory / "pins").read_text("utf-8")
    # Which requirements apply has been decided for the target.
    return tuple(dataclasses.replace(pin, marker="") for pin in parse(text))


def essence(stderr: str) -> str:
    """The one line of pip's or pip-compile's messages that says what is wrong."""
    if "No module named 'piptools'" in stderr:
        return "pip-tools is not installed: run `./dev invoke lock`"
    unreachable = re.search(r"connection broken by '(\w+)\(.*?: (.*?)\"?\)'", stderr)
    if unreachable:
        return f"the package index cannot be reached: {unreachable[2]}"
    explained = re.search(r"^× (.+)\n╰─> (.+)", stderr, re.MULTILINE)
    if explained:
        return f"{explained[1]}: {explained[2]}"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "pip-compile failed"


def _marker(inside: Sequence[Target], targets: Sequence[Target]) -> str:
    """A marker that is true for the targets inside and for no other."""
    outside = [target.environment for target in targets if target not in inside]
    if not outside:
        return ""
    names = ("python_version", "sys_platform", "platform_machine")
    for name in names:
        values = {target.environment[name] for target in inside}
        if values.isdisjoint(environment[name] for environment in outside):
            return " or ".join(f'{name} == "{value}"' for value in sorted(values))
    return " or ".join(
        " and ".join(f'{name} == "{target.environment[name]}"' for name in names)
        for target in inside
    )
