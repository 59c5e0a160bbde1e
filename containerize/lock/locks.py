"""The locks: what an image and its tools are made of, named by SHA-256.

Three text files, each made from one that people edit: base.lock from base.in by apt,
requirements.txt and tools.txt from their .in files by pip-compile. The head of each
holds a hash of what it was made from and one of its own lines, so that whether it is
in step can be told without a network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from containerize.errors import Problem
from containerize.fetch import mirrors
from containerize.lock import base, pins
from containerize.lock.base import Package, Wanted
from containerize.lock.pins import Pin, Target
from containerize.settings import ARCHITECTURES, Settings

__all__ = ["BaseLock", "Package", "Pin", "Progress", "check", "image_target", "lock"]
__all__ += ["read_base", "read_requirements", "read_tools"]

BASE, REQUIREMENTS, TOOLS = "base.lock", "requirements.txt", "tools.txt"
_SOURCES = {BASE: "base.in", REQUIREMENTS: "requirements.in", TOOLS: "tools.in"}

_HOST_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_HOST_GLIBC = "2.28"  # Debian 10's, older than any host that runs these Pythons

_HEAD = re.compile(
    r"(?:#.*\n)*# inputs sha256:(?P<inputs>[0-9a-f]{64})\n"
    r"# content sha256:(?P<content>[0-9a-f]{64})\n"
)


class Progress(Protocol):
    """What a caller shows of work that takes its time."""

    def start(self, name: str, total: int | None) -> None:
        """Something begins; `total` is its size in bytes, where that is known."""

    def advance(self, size: int) -> None:
        """So many bytes more are done."""

    def done(self) -> None:
        """What began last has ended."""

    def note(self, text: str) -> None:
        """One line that the user should see."""


@dataclasses.dataclass(frozen=True)
class BaseLock:
    """The Debian packages of the image's base."""

    suite: str
    time: int
    """Date of the suite's Release file, the image's time stamp: Unix seconds."""
    packages: tuple[Package, ...]

    def for_architecture(self, architecture: str) -> list[Package]:
        return [p for p in self.packages if p.architecture == architecture]

    def __str__(self) -> str:
        date = datetime.datetime.fromtimestamp(self.time, datetime.UTC)
        lines = [f"suite {self.suite}", f"date {date:%Y-%m-%dT%H:%M:%SZ}"]
        lines += [" ".join(dataclasses.astuple(package)) for package in self.packages]
        return "".join(f"{line}\n" for line in lines)


def read_base(settings: Settings) -> BaseLock:
    """The contents of base.lock.

    Raises Problem where it is missing, edited by hand or out of step.
    """
    return _parse_base(_read(settings, BASE, _base_inputs(settings)))


def read_requirements(settings: Settings) -> tuple[Pin, ...]:
    """The pins of requirements.txt. Raises Problem as `read_base` does."""
    return pins.parse(_read(settings, REQUIREMENTS, _image_inputs(settings)))


def read_tools(settings: Settings) -> tuple[Pin, ...]:
    """The pins of tools.txt. Raises Problem as `read_base` does."""
    return pins.parse(_read(settings, TOOLS, _tool_inputs(settings)))


def check(settings: Settings) -> list[str]:
    """What is not in step, a line each; needs no network and touches nothing."""
    found = []
    for read in (read_base, read_requirements, read_tools):
        if read is read_base and settings.base_image:
            continue
        try:
            read(settings)
        except Problem as problem:
            found.append(str(problem))
    return found


def lock(settings: Settings, *, upgrade: bool, progress: Progress) -> list[str]:
    """Bring the locks in step; returns what changed in them, a line each.

    Without `upgrade` what is pinned stays where it can, and a lock in step stays as
    it is unless the mirrors have dropped a package that it names. All locks are
    written or none: raises Problem where something cannot be resolved, and leaves
    them as they were.
    """
    inputs = _image_inputs(settings)  # needs no network, so it goes first
    made = []
    if not settings.base_image:
        made.append(_make_base(settings, upgrade, progress))
    base_text = made[0].text if made else None
    image = [
        _image_target(settings, architecture, base_text)
        for architecture in dict.fromkeys(ARCHITECTURES.values())
    ]
    hosts = [pins.linux(f"{v}.0", "amd64", _HOST_GLIBC) for v in _HOST_PYTHONS]
    newest = f"{_HOST_PYTHONS[-1]}.0"
    hosts += [pins.linux(newest, "arm64", _HOST_GLIBC), pins.macos(newest)]
    made.append(
        _make_pins(settings, REQUIREMENTS, inputs, image, upgrade, progress, {})
    )
    # In this order: the tools are constrained by the requirements.
    new = {settings.root / REQUIREMENTS: made[-1].text}
    inputs = _tool_inputs(settings, new)
    made.append(_make_pins(settings, TOOLS, inputs, hosts, upgrade, progress, new))
    return _write(settings, made)


def image_target(settings: Settings, architecture: str) -> Target:
    """The image's interpreter, X.Y.Z where base.lock tells Z, else X.Y.0."""
    return _image_target(settings, architecture, None)


def _image_target(settings: Settings, architecture: str, base: str | None) -> Target:
    """`base` is the text of a base.lock that is not written yet."""
    text = _text(settings.root / BASE) if base is None else base
    text = "" if settings.base_image else text
    package = re.search(rf"^python{settings.python} ([\d.]+)", text, re.MULTILINE)
    version = package[1] if package else f"{settings.python}.0"
    return pins.linux(version, architecture, settings.glibc)


def lock_base(settings: Settings, *, upgrade: bool, progress: Progress) -> list[str]:
    """`lock` for base.lock alone."""
    return _write(settings, [_make_base(settings, upgrade, progress)])


@dataclasses.dataclass(frozen=True)
class _Lock:
    """A lock that is not written yet."""

    name: str
    text: str
    changes: list[str]


def _make_base(settings: Settings, upgrade: bool, progress: Progress) -> _Lock:
    inputs = _base_inputs(settings)
    try:
        recorded, body = _open(settings, BASE)
        old = _parse_base(body)
    except Problem:
        recorded, old = "", None
    if (
        old
        and recorded == inputs
        and not upgrade
        and not _gone(settings, old, progress)
    ):
        return _Lock(BASE, _text(settings.root / BASE), [])
    wanted = _read_wanted(settings)
    with _shown(progress, f"resolving {BASE}"):
        time, packages = base.resolve(settings, wanted)
    if old and (old.suite, old.packages) == (settings.suite, packages):
        # The date alone would change the image.
        time = old.time
    changes = _changes(BASE, old.packages if old else (), packages)
    body = str(BaseLock(settings.suite, time, packages))
    return _Lock(BASE, _lines(BASE, inputs, body), changes)


def _gone(settings: Settings, old: BaseLock, progress: Progress) -> bool:
    """Whether the mirrors have dropped a package; no mirror, no news."""
    with _shown(progress, "asking the mirrors for the locked packages"):
        try:
            return bool(mirrors.gone(settings, [p.path for p in old.packages]))
        except Problem:
            return False


@contextlib.contextmanager
def _shown(progress: Progress, name: str) -> Iterator[None]:
    progress.start(name, None)
    try:
        yield
    finally:
        progress.done()


def _make_pins(
    settings: Settings,
    name: str,
    inputs: str,
    targets: list[Target],
    upgrade: bool,
    progress: Progress,
    new_texts: Mapping[Path, str],
) -> _Lock:
    try:
        recorded, _ = _open(settings, name)
        if recorded == inputs and not upgrade:
            return _Lock(name, _text(settings.root / name), [])
    except Problem:
        pass  # what can be read of an edited one still says what to keep
    old = pins.parse(_text(settings.root / name))
    source = pins.read_source(settings.root / _SOURCES[name], new_texts)
    with _shown(progress, f"resolving {name}"):
        new = pins.resolve(
            source, targets, pinned=() if upgrade else old, every_wheel=name == TOOLS
        )
    body = "".join(map(str, new))
    return _Lock(name, _lines(name, inputs, body), _changes(name, old, new))


def _base_inputs(settings: Settings) -> str:
    wanted = _read_wanted(settings)
    return _digest(json.dumps([settings.suite, wanted.packages, wanted.provided]))


def _image_inputs(settings: Settings) -> str:
    source = pins.read_source(settings.root / _SOURCES[REQUIREMENTS])
    asked = [source.requirements, source.constraints]
    return _digest(json.dumps([*asked, settings.python, settings.glibc]))


def _tool_inputs(settings: Settings, new: Mapping[Path, str] | None = None) -> str:
    source = pins.read_source(settings.root / _SOURCES[TOOLS], new)
    return _digest(json.dumps([source.requirements, source.constraints, _HOST_PYTHONS]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_wanted(settings: Settings) -> Wanted:
    file = settings.root / _SOURCES[BASE]
    packages, provided = set(), set()
    for number, line in enumerate(_text(file).splitlines(), 1):
        entry = line.partition("#")[0].strip()
        # Debian Policy, 5.6.7
        if entry and not re.fullmatch(r"-?[a-z0-9][a-z0-9+.-]+", entry):
            raise Problem(
                f"{file.name}:{number}: {entry!r} is no package name: name one a line"
            )
        if entry.startswith("-"):
            provided.add(entry[1:])
        elif entry:
            packages.add(entry)
    if not packages:
        raise Problem(f"{file.name} is missing or names no package: restore it")
    return Wanted(tuple(sorted(packages)), tuple(sorted(provided)))


def _parse_base(text: str) -> BaseLock:
    lines = [line.split() for line in text.splitlines() if line[:1] != "#"]
    values = dict(line for line in lines if len(line) == 2)
    return BaseLock(
        values["suite"],
        int(datetime.datetime.fromisoformat(values["date"]).timestamp()),
        tuple(Package(*line) for line in lines if len(line) == 5),
    )


def _text(file: Path) -> str:
    """The file's text, nothing where it is missing."""
    return pins.read_text(file, missing="")


def _read(settings: Settings, name: str, inputs: str) -> str:
    """The lock's lines, where it is in step."""
    recorded, body = _open(settings, name)
    if recorded != inputs:
        raise Problem(
            f"{name} is out of step with {_SOURCES[name]} or the settings: "
            "run `invoke lock`"
        )
    return body


def _open(settings: Settings, name: str) -> tuple[str, str]:
    """The hash of what the lock was made from, and its lines."""
    text = _text(settings.root / name)
    if not text:
        raise Problem(f"{name} is missing: run `invoke lock`")
    head = _HEAD.match(text)
    if not head or head["content"] != _digest(text[head.end() :]):
        raise Problem(
            f"{name} was edited by hand: say in {_SOURCES[name]} what it should hold, "
            "then run `invoke lock`"
        )
    return head["inputs"], text[head.end() :]


def _lines(name: str, inputs: str, body: str) -> str:
    """A lock's text."""
    return (
        f"# Made by `invoke lock` from {_SOURCES[name]}; do not edit.\n"
        f"# inputs sha256:{inputs}\n# content sha256:{_digest(body)}\n{body}"
    )


def _write(settings: Settings, locks: Iterable[_Lock]) -> list[str]:
    """Write the locks that change, all or none; returns how they change.

    Only a crash between two renames can part them, and `check` tells that.
    """
    changes: list[str] = []
    new: list[tuple[Path, Path]] = []
    old: list[tuple[Path, str]] = []
    try:
        for lock in locks:
            file = settings.root / lock.name
            before = _text(file)
            if lock.text == before:
                continue
            temporary = file.with_name(f".{lock.name}.{os.getpid()}")
            new.append((temporary, file))
            temporary.write_text(lock.text, "utf-8")
            old.append((file, before))
            changes += lock.changes or [
                f"{lock.name}: rewritten, with the same versions"
            ]
        for number, (temporary, file) in enumerate(new):
            try:
                temporary.replace(file)
            except BaseException:
                for done, before in old[:number]:
                    done.write_text(before, "utf-8") if before else done.unlink()
                raise
    except OSError as error:
        raise Problem(f"{file.name} cannot be written: {error.strerror}") from None
    finally:
        for temporary, _ in new:
            temporary.unlink(missing_ok=True)
    return changes


def _changes(
    name: str, old: Iterable[Pin | Package], new: Iterable[Pin | Package]
) -> list[str]:
    changes = []
    before, after = _versions(old), _versions(new)
    for project in sorted({*before, *after}):
        if project not in before:
            changes.append(f"{name}: {project} {after[project]} added")
        elif project not in after:
            changes.append(f"{name}: {project} {before[project]} removed")
        elif before[project] != after[project]:
            changes.append(f"{name}: {project} {before[project]} → {after[project]}")
    return changes


def _versions(locked: Iterable[Pin | Package]) -> dict[str, str]:
    """Each project's version, or versions where they differ by platform."""
    found: dict[str, set[str]] = {}
    for one in locked:
        found.setdefault(one.name, set()).add(one.version)
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}
