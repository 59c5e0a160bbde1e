"""A bundle: all that a commit's images are made of, in one canonical tar.

    bundle.json     what follows: names, sizes, SHA-256; the commit; architectures
    packages/       the Debian packages of every architecture
    source.tar      the commit's files, themselves in a canonical tar
    wheels/         of the images, and of what builds here, for each Linux host

The same commit gives the same bytes, for any user on any machine. What is read is
trusted in nothing: a file gets into the input cache under a hash that a lock names,
after its bytes were found to have it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import containerize
from containerize import disk
from containerize.errors import Problem, some
from containerize.fetch import inputs
from containerize.image import archive
from containerize.image.archive import Region, printable
from containerize.lock import locks
from containerize.pack import selection, tree
from containerize.progress import Progress, step
from containerize.publish import commit
from containerize.settings import Settings

FORMAT = 1
"""Goes up if an older version of this tool cannot read a bundle."""
LIST, SOURCE = "bundle.json", "source.tar"


def default_path(settings: Settings) -> Path:
    return settings.dist_dir / f"{settings.image}-bundle.tar"


@dataclasses.dataclass(frozen=True)
class Item:
    """A file of a bundle."""

    name: str
    """Its path there."""
    sha256: str
    """In hex."""
    size: int
    label: str
    """What messages call it beside its name; empty if that says it."""

    def __str__(self) -> str:
        return f"{printable(self.name)}{self.label and f' ({printable(self.label)})'}"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What was written."""

    path: Path
    digest: str
    """`sha256:` and hex, of the whole file."""
    commit: str
    items: tuple[Item, ...]
    hosts: tuple[str, ...]
    """The hosts whose tools are in it, such as `Python 3.13 on Linux x86_64`."""
    has_tool: bool
    """Whether this tool itself is in it, as a wheel or among the commit's files."""
    ignored: tuple[str, ...]
    """Files of an image that a .gitignore names, so that without git it lacks them."""
    held_back: tuple[str, ...]
    """Files that the commit has and the bundle has not: `env-file` and `secrets`."""

    @property
    def size(self) -> int:
        """Bytes of the files in it."""
        return sum(item.size for item in self.items)


@dataclasses.dataclass(frozen=True)
class Restored:
    """What was read."""

    taken: int
    """Files that the cache lacked."""
    held: int
    """Files that it had."""
    foreign: int
    """Files that these locks do not name."""
    commit: str
    """The bundle's."""
    here: str
    """The checkout's; empty if it is none."""

    def told(self) -> Iterator[str]:
        """What people should know of it, a line each."""
        if self.here and self.here != self.commit:
            yield f"checkout  {self.here}, another commit: its locks say what is taken"
        yield f"taken     {self.taken} files; {self.held} were there"
        if self.foreign:
            yield f"left      {self.foreign} files that these locks do not name"


# --- Writing ---------------------------------------------------------------------


def write(
    settings: Settings, output: Path | None = None, *, progress: Progress
) -> Bundle:
    """Write the bundle of the checkout's commit, after fetching what the cache lacks.

    It appears whole or not at all. Raises Problem if files are not as committed, if an
    input cannot be had, and if an image is built on one that an engine pulls.
    """
    if settings.base_image:
        raise Problem(
            "no bundle holds a base-image: without a registry no engine takes an "
            "image back by its digest; keep a registry, or build on Debian's packages"
        )
    path = output or default_path(settings)
    found = commit.read(settings.root, selection.held_back(settings))
    packed = selection.app(settings).files
    found.check(packed)
    with disk.scratch(path.parent):  # that nothing can be there is told first
        chosen = inputs.fetch_choices(settings, progress=progress)
        files = _files(settings, chosen, progress)
    with disk.scratch(path.parent) as scratch, disk.atomic(path) as file:
        source = scratch / SOURCE
        with step(progress, SOURCE), source.open("w+b") as written:
            found.write(written, scratch)
        files[SOURCE] = (disk.sha256(source), source, "")
        items = tuple(
            Item(name, digest, where.stat().st_size, label)
            for name, (digest, where, label) in sorted(files.items())
        )
        facts = {
            "format": FORMAT,
            "tool": containerize.FORMAT,
            "image": settings.image,
            "commit": found.digest,
            "architectures": list(settings.image_architectures),
            "choices": {choice.name: wheels for choice, wheels in chosen.items()},
            "items": [dataclasses.asdict(item) for item in items],
        }
        total = sum(item.size for item in items)
        hashed = _Hashed(file)
        with step(progress, path.name, total):
            _write(hashed, found.time, facts, items, files, progress)
    return Bundle(
        path,
        f"sha256:{hashed.digest.hexdigest()}",
        found.digest,
        items,
        tuple(dict.fromkeys(str(choice.target) for choice in chosen)),
        _has_tool(settings),
        found.ignored(packed),
        found.held_back,
    )


def _has_tool(settings: Settings) -> bool:
    own = Path(containerize.__file__).is_relative_to(settings.root)
    return own or any(
        pin.name == containerize.DISTRIBUTION for pin in locks.read_tools(settings)
    )


_Files = dict[str, tuple[str, Path, str]]
"""By their names in a bundle: SHA-256, where they are, and what messages call them."""


def _files(
    settings: Settings,
    chosen: Mapping[inputs.Choice, Mapping[str, str]],
    progress: Progress,
) -> _Files:
    """All inputs, without the files of the commit."""
    labels = inputs.named(settings)
    wheels: dict[str, str] = {}
    files: _Files = {}
    for architecture in settings.image_architectures:
        one = inputs.fetch(settings.for_architecture(architecture), progress=progress)
        for package, where in one.packages:
            name = f"packages/{posixpath.basename(package.path)}"
            files[name] = (package.sha256, where, labels[package.sha256])
        own = settings.cache_dir
        wheels |= {w.sha256: w.name for w in one.wheels if w.path.parent == own}
    for found in chosen.values():
        wheels |= {digest: name for name, digest in found.items()}
    for digest, name in sorted(wheels.items()):
        at = f"wheels/{name}"
        if at in files:  # two wheels whose metadata tell them not apart
            at = f"wheels/{digest}/{name}"
        files[at] = (digest, settings.cache_dir / digest, labels[digest])
    return files


def _write(
    target: IO[bytes] | _Hashed,
    time: int,
    facts: Mapping[str, Any],
    items: tuple[Item, ...],
    files: _Files,
    progress: Progress,
) -> None:
    """Write the tar. Raises Problem if a file changes meanwhile."""
    text = json.dumps(facts, indent=1, sort_keys=True).encode() + b"\n"
    entry = tree.file(b"")
    with tree.canonical(target, time) as add:  # type: ignore[arg-type]
        add(LIST, entry, len(text), io.BytesIO(text))
        for item in items:
            with files[item.name][1].open("rb") as stream:
                content = _Read(stream, progress)
                add(item.name, entry, item.size, content)  # type: ignore[arg-type]
            if content.digest.hexdigest() != item.sha256:
                raise Problem(f"{item} changed while it was read: repeat")


class _Hashed:
    """A file that is written, and its digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()


class _Read:
    """A file that is read, and its digest."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self._file, self._progress = file, progress
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self._progress.advance(len(data))
        return data


# --- Reading ---------------------------------------------------------------------


def restore(settings: Settings, path: Path, *, progress: Progress) -> Restored:
    """Put what the locks name from a bundle into the input cache; uses no network.

    What the cache has stays. Raises Problem, with the file's name, if one is damaged or
    missing, if the bundle does not have what the images of these locks need, and if it
    is none. What is whole and was read before that stays in the cache.
    """
    labels = inputs.named(settings)
    with _opened(path) as region:
        entries = archive.read_tar(region, path.name)
        facts = _facts(path, region, next(entries, None))
        items = facts.items
        offered = {item.sha256 for item in items.values()}
        _check_needs(settings, path, facts, offered)
        counts = {"taken": 0, "held": 0, "foreign": 0}
        total = sum(item.size for item in items.values())
        with inputs.taking(settings, progress) as put, step(progress, path.name, total):
            left = dict(items)
            for entry in entries:
                item = left.pop(entry.path.decode("utf-8", "replace"), None)
                if item is None or entry.kind != tarfile.REGTYPE:
                    raise Problem(
                        f"{path.name}: {archive.show(entry.path)[1:]} is not in its "
                        "list: get the bundle again"
                    )
                if entry.size != item.size:
                    raise Problem(
                        f"{path.name}: {item} has {entry.size} bytes, not {item.size}: "
                        "get the bundle again"
                    )
                content = region.part(entry.offset, entry.size)
                where = settings.cache_dir / item.sha256
                if item.sha256 not in labels or inputs.is_there(where):
                    kind = "held" if item.sha256 in labels else "foreign"
                    _check(path, item, content, progress)
                else:
                    kind = "taken"
                    _take(path, item, content, put, progress)
                counts[kind] += item.name != SOURCE
        if left:
            raise Problem(
                f"{path.name} lacks {some([str(item) for item in left.values()])}, "
                "which its list names: get the bundle again"
            )
    _remember(settings, facts)
    return Restored(
        **counts, commit=facts.commit, here=commit.identifier(settings.root)
    )


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What the list of a bundle says."""

    image: str
    commit: str
    items: dict[str, Item]
    choices: dict[str, Any]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Region]:
    """The bytes of a bundle, which a tar's first name says that it is."""
    if path.exists() and not path.is_file():
        raise Problem(f"{path} is no file, as a bundle must be: name one")
    try:
        file = path.open("rb")
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}: mend that") from None
    with file:
        if file.read(len(LIST) + 1) != LIST.encode() + b"\0":
            raise Problem(f"{path} is no bundle: `invoke bundle` makes one")
        yield Region(file, 0, os.fstat(file.fileno()).st_size)


def _facts(path: Path, region: Region, entry: archive.Entry | None) -> _Facts:
    """The list of a bundle, which is its first entry."""
    damaged = Problem(f"{path.name}: {LIST} is damaged: get the bundle again")
    if entry is None or entry.path != LIST.encode() or entry.kind != tarfile.REGTYPE:
        raise damaged
    if entry.size > archive.MAX_JSON:
        raise Problem(f"{path.name}: {LIST} is larger than {archive.MAX_JSON} bytes")
    try:
        found = json.loads(region.part(entry.offset, entry.size).read())
        number = int(found["format"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise damaged from None
    if number > FORMAT:
        raise Problem(
            f"{path.name} is of format {number}, and this version of the tool reads up "
            f"to {FORMAT}: take the version that made it"
        )
    try:
        items = [
            Item(
                str(one["name"]),
                str(one["sha256"]),
                int(one["size"]),
                str(one["label"]),
            )
            for one in found["items"]
        ]
        return _Facts(
            str(found["image"]),
            str(found["commit"]),
            {item.name: item for item in items},
            dict(found["choices"]),
        )
    except (ValueError, TypeError, KeyError):
        raise damaged from None


def _check_needs(
    settings: Settings, path: Path, facts: _Facts, offered: set[str]
) -> None:
    """Raise Problem if the images of these locks need more than the bundle has."""
    for architecture in settings.image_architectures:
        needed = inputs.missing(settings.for_architecture(architecture))
        lacking = [label for digest, label in needed.items() if digest not in offered]
        if lacking:
            raise Problem(
                f"{path.name} lacks {some(lacking)} for {architecture}: it is of "
                f"{printable(facts.image)} at commit {printable(facts.commit[:12])}; "
                "check that out, or make a bundle of these locks"
            )


def _check(path: Path, item: Item, content: Region, progress: Progress) -> None:
    """Raise Problem if a file of a bundle is not what the list says."""
    digest = content.sha256().removeprefix("sha256:")
    progress.advance(content.size)
    if digest != item.sha256:
        raise _damaged(path, item, digest)


def _take(
    path: Path, item: Item, content: Region, put: inputs.Put, progress: Progress
) -> None:
    """Put a file of a bundle into the cache."""

    def chunks() -> Iterator[bytes]:
        for chunk in content.chunks():
            progress.advance(len(chunk))
            yield chunk

    try:
        put(item.sha256, chunks())
    except ValueError as error:
        raise _damaged(path, item, str(error)) from None


def _damaged(path: Path, item: Item, found: str) -> Problem:
    return Problem(
        f"{path.name}: {item} is damaged: expected SHA-256 {printable(item.sha256)}, "
        f"found {found}: get the bundle again"
    )


def _remember(settings: Settings, facts: _Facts) -> None:
    """Have the cache know which tools a bundle has, so that one can be made of it."""
    for choice in inputs.choices(settings):
        found = facts.choices.get(choice.name)
        if inputs.is_choice(found, choice):
            inputs.write_choice(settings.cache_dir, choice, found)
