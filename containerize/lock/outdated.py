"""What a relock would take now, and what is known against what is locked."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from containerize import environ
from containerize.errors import Problem, some
from containerize.lock import locks, pins
from containerize.lock.base import Package
from containerize.lock.pins import Pin
from containerize.progress import Progress
from containerize.settings import ARCHITECTURES, Settings

_DRIVER = Path(__file__).with_name("pipindex.py")


@dataclasses.dataclass(frozen=True)
class Update:
    """One package that `lock --upgrade` would take otherwise."""

    lock: str
    name: str
    old: str
    """Its version, or versions and where each is; empty if it is new."""
    new: str
    """As `old`; empty if it is dropped, the same if only its files are others."""
    security: str = ""
    """The version of Debian's security suite that the old one lacks and the new has.

    It need not be the new one: the same may come by a point release, or a later one.
    """

    def __str__(self) -> str:
        head = f"{self.lock}: {self.name}"
        if not self.old:
            return f"{head} {self.new} added"
        if not self.new:
            return f"{head} {self.old} removed"
        if self.old == self.new:
            return f"{head} {self.old}: other files of the same version"
        text = f"{head} {self.old} → {self.new}"
        if not self.security:
            return text
        if self.security == self.new:
            return f"{text} (from the security suite)"
        return f"{text} (the security suite has {self.security})"


@dataclasses.dataclass(frozen=True)
class Known:
    """What the package index says against a release that is locked."""

    lock: str
    name: str
    version: str
    what: str
    security: bool = False
    """Whether it is an advisory."""

    def __str__(self) -> str:
        return f"{self.lock}: {self.name} {self.version} {self.what}"


@dataclasses.dataclass(frozen=True)
class Told:
    """What the indexes say of all that is locked."""

    known: tuple[Known, ...] = ()
    advised: int = 0
    """How many releases an index has told advisories on, or that there are none."""
    untold: tuple[str, ...] = ()
    """What nobody could be asked about, a line each."""


@dataclasses.dataclass(frozen=True)
class Outdated:
    """What was found."""

    asked: tuple[str, ...]
    """The locks that were resolved anew."""
    rewritten: tuple[str, ...]
    """Those whose lines would be others, whatever the packages."""
    updates: tuple[Update, ...]
    told: Told
    failed: str
    """Why not all is known, in one line; empty if it is."""

    def about_security(self) -> Outdated:
        """That of it which is known to concern security."""
        known = tuple(one for one in self.told.known if one.security)
        return dataclasses.replace(
            self,
            updates=tuple(one for one in self.updates if one.security),
            told=dataclasses.replace(self.told, known=known),
        )

    def names(self) -> list[str]:
        """The packages that it is about."""
        found = {update.name for update in self.updates}
        return sorted(found | {known.name for known in self.told.known})

    def summary(self) -> str:
        """How much a relock would change, in a line."""
        if not self.rewritten:
            return f"A relock would change nothing in {', '.join(self.asked)}."
        if not self.updates:
            names = ", ".join(self.rewritten)
            return f"A relock would rewrite {names}, with the same packages."
        count, fixes = len(self.updates), len(self.about_security().updates)
        packages = f"{count} packages" if count > 1 else "1 package"
        return f"A relock would change {packages}, {fixes} for security."

    def clearance(self) -> str:
        """What is known to be without a security update, in a line."""
        found = []
        if locks.BASE in self.asked:
            found.append(f"the security suite has nothing newer than {locks.BASE}")
        if self.told.advised:
            found.append(f"no advisory is on the {self.told.advised} releases asked of")
        text = ", and ".join(found) or "nobody could be asked about any"
        return f"No security update is known: {text}."


def find(settings: Settings, *, progress: Progress) -> Outdated:
    """What `lock --upgrade` would change, and what is known of what is locked.

    It writes no lock. Raises Problem if the locks are not in step.
    """
    if stale := locks.check(settings):
        raise Problem("; ".join(dict.fromkeys(stale)))
    made: list[locks.New] = []
    told = Told()
    failures = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, settings)
        try:
            made = locks.propose(settings, upgrade=True, progress=progress)
        except Problem as problem:
            failures.append(f"a relock cannot be made now: {problem}")
        try:
            told = asking.result()
        except Problem as problem:
            failures.append(str(problem))
    return Outdated(
        tuple(one.name for one in made),
        tuple(one.name for one in made if one.text != _text(settings, one.name)),
        tuple(update for one in made for update in _updates(one)),
        told,
        "; ".join(failures),
    )


def ask(settings: Settings) -> Told:
    """What the package indexes of pip's settings say of what is locked.

    Raises Problem if a lock is not in step or an index does not answer.
    """
    held = locks.read_all(settings)
    own = frozenset(locks.own_wheels(settings).values())
    theirs = {name: [p for p in of if not p.hashes <= own] for name, of in held.items()}
    report = _ask([pin for of in theirs.values() for pin in of])
    releases = report["releases"]
    return Told(
        tuple(_known(theirs, releases)),
        sum(one["advisories"] is not None for one in releases),
        tuple(_untold(settings, own, report)),
    )


def _text(settings: Settings, name: str) -> str:
    return pins.read_text(settings.root / name, missing="")


def _ask(pinned: Sequence[Pin]) -> dict[str, Any]:
    """What the driver reports. Raises Problem if an index does not answer."""
    versions: dict[str, list[str]] = {}
    for pin in pinned:
        found = versions.setdefault(canonicalize_name(pin.name), [])
        if pin.version not in found:
            found.append(pin.version)
    with tempfile.TemporaryDirectory(prefix="containerize-index-") as name:
        command = [sys.executable, "-P", str(_DRIVER), json.dumps(versions)]
        done = environ.heard(command, pins.pip_environment(), Path(name))
        if done.returncode:
            raise Problem(
                f"the package index was not asked: {pins.essence(done.stderr)}"
            )
        report: dict[str, Any] = json.loads(Path(name, "report").read_text("utf-8"))
    if report["failed"]:
        raise Problem(
            f"the package index {report['failed']}: mend that or try again "
            "later; what was yanked is not known without it"
        )
    return report


def _updates(new: locks.New) -> Iterator[Update]:
    before, after = _by_name(new.old), _by_name(new.new)
    for name in sorted({*before, *after}):
        old, now = before.get(name, []), after.get(name, [])
        if old != now:
            fix = _fix(old, now, new.fixes)
            yield Update(new.name, name, _versions(old), _versions(now), fix)


def _by_name(items: Iterable[Pin | Package]) -> dict[str, list[Pin | Package]]:
    found: dict[str, list[Pin | Package]] = {}
    for one in items:
        found.setdefault(one.name, []).append(one)
    return found


def _versions(items: Sequence[Pin | Package]) -> str:
    """Their version; where several differ, each with where it is."""
    where: dict[str, list[str]] = {}
    for one in items:
        where.setdefault(one.version, []).append(_where(one))
    if len(where) < 2:
        return "".join(where)
    return ", ".join(f"{v} ({', '.join(places)})" for v, places in where.items())


def _where(one: Pin | Package) -> str:
    if isinstance(one, Package):
        return one.architecture
    machine = re.fullmatch(r'platform_machine == "(\w+)"', one.marker)
    return ARCHITECTURES[machine[1]] if machine else one.marker


def _fix(
    old: Sequence[Pin | Package],
    now: Sequence[Pin | Package],
    fixes: Mapping[tuple[str, str], tuple[str, ...]],
) -> str:
    """The newest version of the security suite between the two; empty for none."""
    from debian.debian_support import NativeVersion  # which takes a while

    between = [
        NativeVersion(fix)
        for before in old
        for after in now
        if _where(before) == _where(after)
        for fix in fixes.get((before.name, _where(before)), ())
        if NativeVersion(before.version) < NativeVersion(fix)
        if NativeVersion(fix) <= NativeVersion(after.version)
    ]
    return str(max(between, default=""))


def _known(
    pinned: Mapping[str, Sequence[Pin]], releases: Sequence[Mapping[str, Any]]
) -> Iterator[Known]:
    told = {(one["project"], one["version"]): one for one in releases}
    for lock, of in pinned.items():
        hashes: dict[tuple[str, str], set[str]] = {}
        for pin in of:
            hashes.setdefault((pin.name, pin.version), set()).update(pin.hashes)
        for (name, version), locked in hashes.items():
            if (canonicalize_name(name), version) not in told:
                continue  # no index is set
            release = told[canonicalize_name(name), version]
            # An index that names no hash means the file that it has.
            files = [f for f in release["files"] if not f[1] or f[1] in locked]
            for what in _about_files(files):
                yield Known(lock, name, version, what)
            for one in release["advisories"] or ():
                first, *others = one["ids"] or ["without a name"]
                also = f" ({', '.join(others)})" if others else ""
                fixed = ", ".join(one["fixed"])
                mended = f"fixed in {fixed}" if fixed else "no release fixes it"
                what = f"has an advisory, {first}{also}: {mended}"
                yield Known(lock, name, version, what, security=True)


def _about_files(files: Sequence[Sequence[Any]]) -> Iterator[str]:
    if not files:
        yield "is on no index any more, as it was locked"
        return
    yanked = {name: reason for name, _, reason in files if reason is not None}
    if yanked:
        every = {name for name, *_ in files}
        part = f", {len(yanked)} of its {len(every)} files"
        reasons = "; ".join(dict.fromkeys(filter(None, yanked.values())))
        yield (
            "was yanked"
            + (part if len(yanked) < len(every) else "")
            + (f": {reasons}" if reasons else "")
        )


def _untold(
    settings: Settings, own: frozenset[str], told: Mapping[str, Any]
) -> Iterator[str]:
    without = [one for one in told["releases"] if one["advisories"] is None]
    if not told["indexes"]:
        yield "No package index is set: what was yanked is not known, nor advisories."
    elif without and len(without) == len(told["releases"]):
        yield "The index has no advisories: it says nothing for or against a release."
    elif without:
        names = some([f"{one['project']} {one['version']}" for one in without])
        yield f"The index has no word on advisories for {names}."
    if own:
        yield f"No index was asked about the wheels in {pins.WHEELS}/."
    if settings.base_image:
        yield f"Nobody was asked about the base image {settings.base_image}."
