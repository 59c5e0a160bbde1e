"""The inputs of a build, in a cache with one file per SHA-256.

`fetch` is the only code of a build that uses the network. A file gets its name, the
hash, by a rename after its bytes were found to have it, so a name is never wrong
about its file, whatever was killed or full; `collect` checks it once more before use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import http.client
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard
from urllib.response import addinfourl

from packaging.markers import Marker
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from containerize import disk, environ
from containerize.errors import Problem, some
from containerize.fetch import bases, mirrors
from containerize.lock import locks
from containerize.lock.base import Package
from containerize.lock.locks import BaseLock
from containerize.lock.pins import WHEELS, Pin, Target, essence, pip_environment
from containerize.pack import wheels
from containerize.progress import Progress, step
from containerize.settings import Settings, this_machine

_CHUNK = 1 << 18
_TRIES = 3  # a mirror that breaks off is asked again


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A wheel in the cache."""

    name: str
    """Its file name (PEP 427), as what is in it tells."""
    path: Path
    sha256: str


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the locks name for the image's architecture, checked."""

    wheels: tuple[Wheel, ...]
    packages: tuple[tuple[Package, Path], ...]
    base: BaseLock
    """What named the packages, of which none count on a base image."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where they all are."""
        wheels = (wheel.path for wheel in self.wheels)
        return (*wheels, *(path for _, path in self.packages))


class Superseded(Problem):
    """The mirrors have dropped packages that base.lock names."""

    def __init__(self, packages: Sequence[Package]) -> None:
        self.packages = tuple(packages)
        names = some([_label(package) for package in packages])
        super().__init__(
            f"the Debian mirrors no longer have {names}: run `invoke lock` to take "
            "what came after, or set CONTAINERIZE_MIRRORS and "
            "CONTAINERIZE_SECURITY_MIRRORS to Debian's snapshot archive of the day on "
            "which base.lock was committed"
        )


def collect(settings: Settings) -> Inputs:
    """The inputs from the cache, without a network.

    Raises Problem where a lock is not in step, and where a file is missing, corrupt or
    unreadable.
    """
    return _checked(settings, _wanted(settings))


def collect_base(settings: Settings) -> Inputs:
    """As `collect`, the Debian packages alone: what an interpreter stands on."""
    wanted = dataclasses.replace(_wanted(settings), pins=[])
    return _checked(settings, wanted)


def _checked(settings: Settings, wanted: _Wanted) -> Inputs:
    """The inputs, each hashed here."""
    missing = []
    own = _own(settings)
    items: list[Pin | Package] = [*wanted.pins, *wanted.packages]
    for item in items:
        path = settings.cache_dir / _sha256(item)
        found = path.name if path.name in own else _hash(path)
        if found is None:
            missing.append(_label(item))
        elif found != path.name:
            raise Problem(
                f"{_label(item)} in the input cache is corrupt: expected SHA-256 "
                f"{path.name}, found {found}; run `invoke fetch`, which replaces it"
            )
    if missing:
        raise Problem(f"the input cache lacks {some(missing)}: run `invoke fetch`")
    return _found(settings, wanted, own)


def _found(settings: Settings, wanted: _Wanted, own: dict[str, Path]) -> Inputs:
    """The inputs, which have been hashed."""
    return Inputs(
        tuple(_wheel(pin, _sha256(pin), settings, own) for pin in wanted.pins),
        tuple((p, settings.cache_dir / p.sha256) for p in wanted.packages),
        wanted.base,
    )


def fetch(
    settings: Settings, *, progress: Progress, offline: bool = False, host: str = ""
) -> Inputs:
    """The inputs, after what the cache lacks was downloaded.

    For another processor than `host`, this machine's unless it is given, what compiles
    there is fetched too (`collect_base`).
    Uses no network where it lacks nothing, nor with `offline`. Raises Superseded where
    the mirrors have dropped packages, and Problem where something cannot be had.
    """
    if not offline:
        bases.fetch(settings, progress)
    wanted = _wanted(settings)
    own = _own(settings)
    pins = [pin for pin in wanted.pins if _sha256(pin) not in own]
    packages = [*wanted.packages, *_compiling(settings, wanted.base, host)]
    items: list[Pin | Package] = [*pins, *packages]
    lacks = offline or bool(_lacking(settings.cache_dir, items))
    if lacks and not offline:
        with _locked(settings.cache_dir, progress) as cache:
            needed = _lacking(cache, items, progress)
            lacked = [pin for pin in pins if pin in needed]
            if lacked:
                _fetch_wheels(settings, cache, wanted.target, lacked, progress)
            debs = [package for package in packages if package in needed]
            if debs:
                _fetch_packages(settings, cache, debs, progress)
    found = _checked(settings, wanted) if lacks else _found(settings, wanted, own)
    lacking = [] if offline else _backend(settings)[1]
    if lacking:
        with _locked(settings.cache_dir, progress) as cache:
            _fetch_wheels(settings, cache, None, lacking, progress)
    return found


def _compiling(settings: Settings, base: BaseLock, host: str) -> list[Package]:
    """The packages that a foreign image's modules are compiled with."""
    host = host or this_machine() or settings.image_architecture
    if settings.base_image or host == settings.image_architecture:
        return []
    return base.for_architecture(host)


def collect_backend(settings: Settings) -> tuple[Wheel, ...]:
    """The wheels, for this host, of what builds the app's [project].

    Uses no network. Raises Problem where the lock is not in step, and where a wheel
    is missing; there are none if the app is not installed.
    """
    found, lacking = _backend(settings)
    if lacking:
        names = some([_label(pin) for pin in lacking])
        raise Problem(f"the input cache lacks {names}: run `invoke fetch`")
    return found


def _backend(settings: Settings) -> tuple[tuple[Wheel, ...], list[Pin]]:
    """What builds the [project] here, and the pins that no wheel is there for."""
    own = _own(settings)
    fitting = {str(tag): number for number, tag in enumerate(sys_tags())}
    found, lacking = [], []
    for pin in locks.read_backend(settings):
        if pin.marker and not Marker(pin.marker).evaluate():
            continue
        best: tuple[int, Wheel] | None = None
        for digest in sorted(pin.hashes):
            if digest not in own and _hash(settings.cache_dir / digest) != digest:
                continue
            wheel = _wheel(pin, digest, settings, own)
            *_, tags = parse_wheel_filename(wheel.name)
            ranks = [fitting[str(tag)] for tag in tags if str(tag) in fitting]
            if ranks and (best is None or min(ranks) < best[0]):
                best = min(ranks), wheel
        if best:
            found.append(best[1])
        else:
            lacking.append(pin)
    return tuple(found), lacking


@dataclasses.dataclass(frozen=True)
class Choice:
    """What pip chooses of a lock for one kind of host, as the cache remembers it.

    A lock of tools names every wheel of a release, for whatever host there is.
    """

    target: Target
    pins: tuple[Pin, ...]

    @property
    def name(self) -> str:
        """The file in the cache that says which wheels these are."""
        asked = "".join(str(dataclasses.replace(pin, via=())) for pin in self.pins)
        text = json.dumps([asked, str(self.target), self.target.platforms])
        return f"choice-{hashlib.sha256(text.encode()).hexdigest()}"


def choices(settings: Settings) -> list[Choice]:
    """What hosts need to build here: the tools, and what builds the app's [project].

    A choice for each Linux host with a processor of the images and a Python that the
    locks are made for. Raises Problem where a lock is not in step.
    """
    hosts = locks.linux_hosts(settings.image_architectures)
    found = []
    for pins in (locks.read_tools(settings), locks.read_backend(settings)):
        for target in hosts:
            fitting = tuple(pin for pin in pins if pin.fits(target))
            found += [Choice(target, fitting)] if fitting else []
    return found


def fetch_choices(
    settings: Settings, *, progress: Progress
) -> dict[Choice, dict[str, str]]:
    """The wheels of each choice: the SHA-256 of each by its file name.

    They are in the cache then. Uses no network where they were before. Raises Problem
    where one cannot be had.
    """
    cache = settings.cache_dir
    chosen: dict[Choice, dict[str, str]] = {}
    whole: set[str] = set()
    for choice in choices(settings):
        found = read_choice(cache, choice)
        new = set(found.values()) - whole
        whole |= {digest for digest in new if is_there(cache / digest)}
        if not found or not whole.issuperset(found.values()):
            with _locked(cache, progress):
                found = _fetch_wheels(
                    settings, cache, choice.target, choice.pins, progress
                )
                write_choice(cache, choice, found)
            whole |= set(found.values())
        chosen[choice] = found
    return chosen


def read_choice(cache: Path, choice: Choice) -> dict[str, str]:
    """The wheels that were chosen before; none if that is not known."""
    try:
        found = json.loads((cache / choice.name).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if is_choice(found, choice) else {}


def is_choice(found: object, choice: Choice) -> TypeGuard[dict[str, str]]:
    """Whether these can be the wheels of a choice: one for each of its pins."""
    if not isinstance(found, dict) or len(found) != len(choice.pins):
        return False
    left = {digest: pin for pin in choice.pins for digest in pin.hashes}
    try:
        named = {
            parse_wheel_filename(name)[0]: digest for name, digest in found.items()
        }
    except (InvalidWheelFilename, TypeError):
        return False
    return len(named) == len(choice.pins) and all(
        isinstance(digest, str) and digest in left and left[digest].name == name
        for name, digest in named.items()
    )


def write_choice(cache: Path, choice: Choice, found: Mapping[str, str]) -> None:
    """Have the cache remember which wheels a choice is."""
    with disk.atomic(cache / choice.name) as file:
        file.write(json.dumps(found, sort_keys=True).encode())


def missing(settings: Settings) -> dict[str, str]:
    """What the cache lacks of the image's inputs: by SHA-256, what messages call it.

    What is corrupt is missing. Raises Problem where a lock is not in step.
    """
    wanted = _wanted(settings)
    own = _own(settings)
    items = [pin for pin in wanted.pins if _sha256(pin) not in own]
    lacking = _lacking(settings.cache_dir, [*items, *wanted.packages])
    return {_sha256(item): _label(item) for item in lacking}


def named(settings: Settings) -> dict[str, str]:
    """All that the locks name, by SHA-256, for hosts and images of whatever kind.

    Raises Problem where a lock is not in step.
    """
    found = {_sha256(p): _label(p) for p in locks.read_base(settings).packages}
    for read in (locks.read_requirements, locks.read_tools, locks.read_backend):
        for pin in read(settings):
            found |= dict.fromkeys(pin.hashes, _label(pin))
    return found


def is_there(path: Path) -> bool:
    """Whether the cache has this file, whole."""
    return _hash(path) == path.name


Put = Callable[[str, Iterable[bytes]], None]


@contextlib.contextmanager
def taking(settings: Settings, progress: Progress) -> Iterator[Put]:
    """A function that puts a file with this SHA-256 into the cache from its bytes.

    It raises ValueError, and puts nothing, where the bytes have another. Raises
    Problem where the cache cannot be written.
    """
    with _locked(settings.cache_dir, progress) as cache:

        def put(sha256: str, content: Iterable[bytes]) -> None:
            part = cache / f"{sha256}.part"
            digest = hashlib.sha256()
            try:
                with part.open("wb") as file:
                    for chunk in content:
                        digest.update(chunk)
                        file.write(chunk)
                if digest.hexdigest() != sha256:
                    raise ValueError(digest.hexdigest())
                part.replace(cache / sha256)
            finally:
                part.unlink(missing_ok=True)

        yield put


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What the locks name, each read once."""

    base: BaseLock
    target: Target
    pins: list[Pin]
    packages: list[Package]


def _wanted(settings: Settings) -> _Wanted:
    architecture = settings.image_architecture
    base = locks.read_base(settings)
    target = locks.image_target(settings, architecture, str(base))
    pins = [pin for pin in locks.read_requirements(settings) if pin.fits(target)]
    packages = [] if settings.base_image else base.for_architecture(architecture)
    if settings.base_image:
        bases.reference(settings)  # what has nothing for a processor is told here
    if base.packages and not packages and not settings.base_image:
        raise Problem(
            f"{locks.BASE} names no package for {architecture}: run `invoke lock`"
        )
    return _Wanted(base, target, pins, packages)


def _lacking(
    cache: Path, items: Sequence[Pin | Package], progress: Progress | None = None
) -> list[Pin | Package]:
    """What is missing or corrupt; the latter is deleted where progress is told."""
    found: list[Pin | Package] = []
    for item in items:
        path = cache / _sha256(item)
        actual = _hash(path)
        if actual == path.name:
            continue
        found.append(item)
        if actual and progress:
            progress.note(
                f"{_label(item)} in the input cache is corrupt: expected SHA-256 "
                f"{path.name}, found {actual}; fetching it again"
            )
            path.unlink()
    return found


@contextlib.contextmanager
def _locked(cache: Path, progress: Progress) -> Iterator[Path]:
    """The cache, to ourselves; the kernel unlocks it however a process ends."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress.note("waiting for another fetch into the same cache")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield cache
    except OSError as error:
        advice = (
            "free some space"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "mend that"
        )
        raise Problem(
            f"the input cache {cache} cannot be written ({error.strerror}): {advice}, "
            "or set CONTAINERIZE_CACHE to another directory"
        ) from None


def _fetch_packages(
    settings: Settings, cache: Path, packages: Sequence[Package], progress: Progress
) -> None:
    found = mirrors.find(settings)
    gone = []
    for package in packages:
        try:
            _download(package, found.urls(package.path), cache, progress)
        except FileNotFoundError:
            gone.append(package)
    if gone:
        raise Superseded(gone)


def _download(
    package: Package, urls: Sequence[str], cache: Path, progress: Progress
) -> None:
    """Raises FileNotFoundError where every mirror says that it has no such file."""
    part = cache / f"{package.sha256}.part"
    failures = []
    for url in urls:
        for _ in range(_TRIES):
            try:
                _get(url, part, _label(package), progress)
            except _BrokenOffError as error:
                if mirrors.is_gone(error.cause):
                    break
                failures.append(f"{url}: {error}")
                continue
            actual = _hash(part)
            if actual == package.sha256:
                part.replace(cache / package.sha256)
                return
            part.unlink()
            failures.append(f"{url}: expected SHA-256 {package.sha256}, found {actual}")
            break
    if not failures:
        raise FileNotFoundError
    why = mirrors.shown(failures[-1])
    raise Problem(f"{_label(package)} cannot be fetched: {why}")


class _BrokenOffError(Exception):
    def __init__(self, cause: OSError | http.client.HTTPException) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.cause = cause


def _get(url: str, part: Path, name: str, progress: Progress) -> None:
    """Download a file. Raises _BrokenOffError where a mirror fails."""
    try:
        answer = mirrors.open_url(url)
    except OSError as error:
        raise _BrokenOffError(error) from None
    with answer:
        length = answer.headers["Content-Length"] or ""
        total = int(length) if length.isdecimal() else None
        received = 0
        with step(progress, name, total), part.open("wb") as file:
            while chunk := _chunk(answer):
                file.write(chunk)
                received += len(chunk)
                progress.advance(len(chunk))
    if total is not None and received < total:
        raise _BrokenOffError(OSError(f"it ended after {received} of {total} bytes"))


def _chunk(answer: addinfourl) -> bytes:
    try:
        chunk: bytes = answer.read1(_CHUNK)  # `read` would wait until it is full
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(error) from None
    return chunk


def _fetch_wheels(
    settings: Settings,
    cache: Path,
    target: Target | None,
    pins: Sequence[Pin],
    progress: Progress,
) -> dict[str, str]:
    """Download what fits the target, or this host if there is none.

    Returns the SHA-256 of each wheel by its file name.
    """
    staging = cache / ".wheels"  # the lock makes it ours; an older one is a leftover
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    # Which pins apply is decided: pip would judge the markers by this host.
    lines = [str(dataclasses.replace(pin, marker="", via=())) for pin in pins]
    (staging / "pins").write_text("".join(lines), "utf-8")
    progress.start(some([_label(pin) for pin in pins]), None)
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
        *("--disable-pip-version-check", "--require-hashes", "--no-deps"),
        *("--only-binary=:all:", f"--dest={staging}"),
        f"--requirement={staging / 'pins'}",
    ]
    if target:
        command += ["--implementation=cp", f"--python-version={target.python}"]
        command += [f"--platform={platform}" for platform in target.platforms]
    if _own(settings):
        command.append(f"--find-links={settings.root / WHEELS}")
    result = environ.heard(command, pip_environment())
    found = {}
    if not result.returncode:
        for wheel in sorted(staging.glob("*.whl")):
            size = wheel.stat().st_size
            found[wheel.name] = str(_hash(wheel))
            wheel.replace(cache / found[wheel.name])
            progress.advance(size)
    progress.done()
    shutil.rmtree(staging)
    if result.returncode:
        raise Problem(_pip_essence(result.stderr, target))
    return found


def _pip_essence(stderr: str, target: Target | None) -> str:
    """The line of pip's that says what is wrong."""
    wrong = re.search(
        r"^ *(\S+)(?: from .*)?:\s+Expected sha256 (\w+)\s+Got +(\w+)", stderr, re.M
    )
    if wrong:
        return (
            f"{wrong[1].replace('==', ' ')} on the package index is not what was "
            f"locked: expected SHA-256 {wrong[2]}, found {wrong[3]}"
        )
    return essence(stderr) + (f" ({target})" if target else "")


def _own(settings: Settings) -> dict[str, Path]:
    """The project's own wheels, by their SHA-256."""
    return {
        digest: path
        for path in sorted((settings.root / WHEELS).glob("*.whl"))
        if (digest := _hash(path))
    }


def _wheel(pin: Pin, digest: str, settings: Settings, own: dict[str, Path]) -> Wheel:
    """A wheel that is there, its file name made from its metadata."""
    path = own.get(digest, settings.cache_dir / digest)
    try:
        name = wheels.file_name(pin.name, pin.version, path)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise Problem(f"{_label(pin)} is no wheel: {error}") from None
    return Wheel(name, path, digest)


def _hash(path: Path) -> str | None:
    """The file's SHA-256, None where there is none."""
    try:
        return disk.sha256(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Problem(
            f"the input cache cannot be read: {path}: {error.strerror}"
        ) from None


def _sha256(item: Pin | Package) -> str:
    if isinstance(item, Package):
        return item.sha256
    [digest] = item.hashes
    return digest


def _label(item: Pin | Package) -> str:
    if isinstance(item, Package):
        return f"{item.name} {item.version} ({item.architecture})"
    return f"{item.name} {item.version}"
