"""Python requirements, pinned by pip-compile for the interpreters that get them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import re
import shlex
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
_BUILD_IT = (
    "name a release, or build a wheel of it (`pip wheel --no-deps --wheel-dir wheels "
    "…`), commit that, and name its release"
)
# More at once would only wait for a processor, fewer for the network.
_SLOTS = threading.Semaphore(max(4, 2 * (os.cpu_count() or 1)))

WHEELS = "wheels"
"""Directory of the project's own wheels, which are there in place of an index's."""
SERVICE = "what serves the app"
"""What stands in a lock after `via` for what the service needs."""

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
    """What a file of requirements asks for."""

    file: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Names of the files that it includes."""
    service: tuple[str, ...] = ()
    """What the service needs beside it."""


def read_source(
    file: Path, new: Mapping[Path, str] | None = None, above: tuple[Path, ...] = ()
) -> Source:
    """The requirements of a file, in one order and spelling.

    In a pyproject.toml they are those of its [project]. Of pip's options another may
    have `-r FILE` and `-c FILE`. `new` are the texts of files that are not written
    yet, `above` the files that lead to this one. Raises Problem, with the line, for
    what does not belong in it.
    """
    if file.suffix == ".toml":
        return _read_project(file)
    requirements: set[str] = set()
    constraints: set[str] = set()
    files: set[str] = set()
    # A lock that is a constraint has hashes, on lines of their own.
    new = new or {}
    text = new[file] if file in new else read_text(file)
    text = re.sub(r" *\\\n +--hash=\S+", "", text)
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
            files.update((name, *other.files))
        elif entry:
            requirements.add(_requirement(where, entry))
    return Source(
        file.name,
        tuple(sorted(requirements)),
        tuple(sorted(constraints)),
        tuple(sorted(files)),
    )


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


def _read_project(file: Path) -> Source:
    """What the [project] table of a pyproject.toml asks for."""
    tables = read_toml(file)
    project = tables.get("project")
    if not isinstance(project, dict):
        raise Problem(
            f"{file.name} has no [project] table: list the requirements there, or set "
            "requirements to the file that lists them"
        )
    found: set[str] = set()
    constraints: tuple[str, ...] = ()
    if "dependencies" in strings(project.get("dynamic")):
        # https://setuptools.pypa.io/en/latest/userguide/pyproject_config.html
        dynamic = subtable(tables, "tool", "setuptools", "dynamic", "dependencies")
        files = dynamic.get("file")
        names = strings(files)
        if not names:
            raise Problem(
                f"{file.name}: [project] takes its dependencies from elsewhere "
                "(dynamic): set requirements to a file that lists them"
            )
        for name in names:
            other = read_source(file.parent / name)
            found.update(other.requirements)
            constraints += other.constraints
    for entry in strings(project.get("dependencies")):
        found.add(_requirement(f"{file.name}: [project]", entry))
    elsewhere = subtable(tables, "tool", "uv", "sources")
    for name, source in elsewhere.items():
        named = {canonicalize_name(Requirement(one).name) for one in found}
        if canonicalize_name(name) in named and not _index_only(source):
            own = file.parent / WHEELS
            if not any(own.glob(f"{canonicalize_name(name).replace('-', '_')}-*.whl")):
                raise Problem(
                    f"{file.name}: [tool.uv.sources] takes {name} from elsewhere than "
                    f"an index, which no lock holds: {_BUILD_IT}"
                )
    return Source(file.name, tuple(sorted(found)), tuple(sorted(set(constraints))))


def _index_only(source: object) -> bool:
    sources = source if isinstance(source, list) else [source]
    return all(isinstance(one, dict) and "index" in one for one in sources)


def read_backend(file: Path) -> Source:
    """What [build-system] of a pyproject.toml asks for (PEP 518).

    Raises Problem, as `read_source` does.
    """
    table = read_toml(file).get("build-system") or {}
    backend = table.get("build-backend", "setuptools.build_meta:__legacy__")
    asked = strings(table.get("requires")) if table else ["setuptools"]
    if str(backend).startswith("setuptools"):
        asked = [*asked, "wheel"]  # before 70.1 it asked for that once it ran
    entries = {_requirement(f"{file.name}: [build-system]", entry) for entry in asked}
    return Source(file.name, tuple(sorted(entries)))


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises Problem if it is missing or broken."""
    try:
        return tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise Problem(f"{file.name} cannot be read: {error}") from None


def subtable(table: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The table under a path of keys; an empty one if something else stands there."""
    found: object = table
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else {}


def strings(value: object) -> list[str]:
    """The strings of a list, or a string alone."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]


def preferred(root: Path) -> dict[str, dict[str, set[str]]]:
    """The versions that locks of other tools hold: by file, by project.

    Raises Problem if one of them is broken.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for name in ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml"):
        if (root / name).is_file():
            tables = read_toml(root / name)
            listed = tables.get("package", tables.get("packages", []))
            for one in listed if isinstance(listed, list) else []:
                if isinstance(one, dict) and {"name", "version"} <= one.keys():
                    project = canonicalize_name(str(one["name"]))
                    versions = found.setdefault(name, {}).setdefault(project, set())
                    versions.add(str(one["version"]))
    return found


def pinned_versions(text: str) -> dict[str, set[str]]:
    """The versions that the lines of a requirements.txt pin with `==`."""
    found: dict[str, set[str]] = {}
    pattern = r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*==\s*([\w.!+-]+)\s*(?:[;\\#]|$)"
    for name, version in re.findall(pattern, text, re.MULTILINE):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


def _requirement(where: str, entry: str) -> str:
    bare = re.sub(r"^(-e|--editable)\b[\s=]*", "", entry)
    if bare != entry or re.match(
        r"\.{0,2}/|\.$|file:|[^@:]*\.(whl|zip|tar\.\w+)$", bare
    ):
        raise Problem(
            f"{where}: {entry!r} is asked for by its path, which no lock holds: "
            f"{_BUILD_IT}"
        )
    if re.match(r"[\w+]+://|[\w+]+\+[\w.]+@", bare):
        raise Problem(
            f"{where}: {entry!r} is asked for by its address, which no lock holds: "
            f"{_BUILD_IT}"
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
            f"holds: {_BUILD_IT}"
        )
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What came of a resolution."""

    pins: tuple[Pin, ...]
    """In the order of their names."""
    unfit: Mapping[str, tuple[Target, ...]]
    """Preferred projects that have no wheel of that version, and where."""


def resolve(
    source: Source,
    targets: Sequence[Target],
    *,
    pinned: Iterable[Pin] = (),
    preferred: Mapping[str, str] | None = None,
    every_wheel: bool = False,
    wheels: Path | None = None,
) -> Resolved:
    """Pins that meet the requirements on all targets.

    They keep to the versions in `preferred`, then to `pinned`, where they can. Each
    has the hash of the wheel that fits, or with `every_wheel` of all wheels of its
    release; what the directory `wheels` has comes from there. Raises Problem where
    requirements cannot be met on one of the targets, with all that have no wheel.
    """
    if not source.requirements:
        return Resolved((), {})
    told = {
        "every_wheel": every_wheel,
        "wheels": str(wheels) if wheels and wheels.is_dir() else "",
        "preferred": dict(preferred or {}),
    }
    pinned, environment = tuple(pinned), pip_environment()
    with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
        results = pool.map(
            lambda target: _compile(source, target, pinned, told, environment), targets
        )
        compiled = dict(zip(targets, results, strict=True))
    _refuse_missing(source, compiled)
    found: dict[Pin, list[Target]] = {}
    via: dict[Pin, set[str]] = {}
    unfit: dict[str, tuple[Target, ...]] = {}
    for target, one in compiled.items():
        for pin in one.pins:
            found.setdefault(pin, []).append(target)
            via.setdefault(pin, set()).update(pin.via)
        for name in one.unfit:
            unfit[name] = (*unfit.get(name, ()), target)
    merged = [
        dataclasses.replace(
            pin, marker=_marker(inside, targets), via=tuple(sorted(via[pin]))
        )
        for pin, inside in found.items()
    ]
    merged.sort(key=lambda pin: (pin.name, pin.version, pin.marker))
    return Resolved(tuple(merged), unfit)


def _refuse_missing(source: Source, compiled: Mapping[Target, _Compiled]) -> None:
    """Raises Problem with all that cannot be had."""
    unmet: dict[str, list[Target]] = {}
    newest: dict[str, str] = {}
    exists: dict[str, bool] = {}
    yanked: set[str] = set()
    for target, one in compiled.items():
        for project in one.missing:
            asked = project["asked"]
            unmet.setdefault(asked, []).append(target)
            newest[asked] = project["newest"]
            exists[asked] = project["exists"]
            if project["yanked"]:
                yanked.add(asked)
    if not unmet:
        return
    lines = []
    for asked, targets in sorted(unmet.items()):
        if not exists[asked]:
            lines.append(f"{asked} is not on the package index")
            continue
        where = " and ".join(sorted(map(str, targets)))
        if asked in yanked:
            lines.append(f"{asked} has no wheel for {where} that was not yanked")
            continue
        other = f" ({newest[asked]} has one)" if newest[asked] else ""
        lines.append(f"{asked} has no wheel for {where}{other}")
    ways = ""
    if unbuilt := [
        asked.partition(", which ")[0] for asked in sorted(unmet) if exists[asked]
    ]:
        build = shlex.join(
            ["pip", "wheel", "--no-deps", "--wheel-dir", WHEELS, *unbuilt]
        )
        ways = (
            f": ask for a version that has one, build a wheel (`{build}`) and commit "
            f"{WHEELS}/, or take it from a base-image and leave it out here"
        )
    raise Problem(f"{source.file}: {'; '.join(lines)}{ways}")


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
    """The environment of a pip that asks nobody, such as for a password.

    Raises Problem where it cannot read its settings.
    """
    try:
        return environ.pip(os.environ) | {"PIP_NO_INPUT": "1"}
    except ValueError as error:
        raise Problem(f"{error}: mend that file or variable") from None


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """What pip-compile makes of a source for one target."""

    pins: tuple[Pin, ...]
    missing: list[dict[str, Any]]
    unfit: list[str]


def _compile(
    source: Source,
    target: Target,
    pinned: Iterable[Pin],
    told: Mapping[str, Any],
    environment: Mapping[str, str],
) -> _Compiled:
    kept = [pin for pin in pinned if pin.fits(target)]
    versions = {pin.name: pin.version for pin in kept} | told["preferred"]
    told = {
        **told,
        "environment": target.environment,
        "platforms": target.platforms,
        "hashes": {pin.name: sorted(pin.hashes) for pin in kept},
    }
    with (
        _SLOTS,
        tempfile.TemporaryDirectory(prefix="containerize-pins-") as name,
    ):
        directory = Path(name)
        for file, lines in (
            ("asked.in", source.requirements),
            ("served.in", source.service),
            ("constraints", source.constraints),
            ("pins", [f"{name}=={version}" for name, version in versions.items()]),
        ):
            text = "".join(f"{line}\n" for line in lines)
            (directory / file).write_text(text, "utf-8")
        # Python's -P: this package's modules must not stand in for others.
        command = [sys.executable, "-P", str(_DRIVER), json.dumps(told), *_OPTIONS]
        files = ["--constraint=constraints", "--output-file=pins"]
        command += [*files, "asked.in", "served.in"]
        result = environ.heard(command, environment, directory)
        if result.returncode:
            raise Problem(f"{source.file}: {essence(result.stderr)}")
        report = json.loads((directory / "report").read_text("utf-8"))
        if report["error"]:
            raise Problem(f"{source.file}: {report['error']}")
        text = (directory / "pins").read_text("utf-8")
    names = {"-r asked.in": f"-r {source.file}", "-r served.in": SERVICE}
    # Which requirements apply has been decided for the target.
    pins = tuple(
        dataclasses.replace(
            pin, marker="", via=tuple(names.get(one, one) for one in pin.via)
        )
        for pin in parse(text)
    )
    return _Compiled(pins, report["missing"], report["unfit"])


def essence(stderr: str) -> str:
    """The one line of pip's or pip-compile's messages that says what is wrong."""
    if "No module named 'piptools'" in stderr:
        return "pip-tools is not installed: run `./dev invoke lock`"
    unreachable = _unreachable(stderr)
    if unreachable:
        return unreachable
    explained = re.search(r"^× (.+)\n╰─> (.+)", stderr, re.MULTILINE)
    if explained:
        return f"{explained[1]}: {explained[2]}"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "pip-compile failed"


def _unreachable(stderr: str) -> str:
    found = re.search(r"connection broken by '(\w+)\(.*?: (.*?)\"?\)'", stderr)
    return f"the package index cannot be reached: {found[2]}" if found else ""


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
