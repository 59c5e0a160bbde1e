"""A file tree in memory and its canonical tar: one tree, one sequence of bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO

from containerize.errors import Problem

_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One file, directory, symbolic link or hard link of a tree."""

    kind: bytes
    """tarfile's type flag: REGTYPE, DIRTYPE, SYMTYPE or LNKTYPE."""
    mode: int
    """Permission bits, 0 to 0o7777."""
    uid: int = 0
    gid: int = 0
    target: str = ""
    """What a link names; for a hard link, a path in the tree."""
    content: bytes = b""


Add = Callable[[str, Entry, int, IO[bytes]], None]

DIRECTORY = Entry(kind=tarfile.DIRTYPE, mode=0o755)


def file(content: bytes, mode: int = 0o644) -> Entry:
    return Entry(kind=tarfile.REGTYPE, mode=mode, content=content)


def symlink(target: str) -> Entry:
    return Entry(kind=tarfile.SYMTYPE, mode=0o777, target=target)


@contextlib.contextmanager
def canonical(target: IO[bytes], time: int) -> Iterator[Add]:
    """A function that adds an entry, and as many bytes of a file, to a canonical tar.

    Every entry's mtime is `time`, in seconds since 1970; owners are numbers; the format
    is POSIX pax with no record that is not needed. The content is what is read of the
    file, not the entry's own.
    """
    with tarfile.TarFile(
        fileobj=target,
        mode="w",
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
        copybufsize=_CHUNK,
    ) as tar:

        def add(path: str, entry: Entry, size: int, content: IO[bytes]) -> None:
            info = tarfile.TarInfo(path)
            info.type = entry.kind
            info.mode = entry.mode & 0o7777
            info.uid, info.gid = entry.uid, entry.gid
            info.mtime = time
            info.linkname = entry.target
            info.size = size
            tar.addfile(info, content)

        yield add


class Tree:
    """Entries by path; paths are relative, with no `.` or `..` in them."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.warnings: list[str] = []
        """What people should know of it, a line each."""

    def add(self, path: str, entry: Entry) -> None:
        """Put `entry` at `path`, with any parent directories that are missing.

        A directory may be added again, and then the first one stands. Raises
        Problem for anything else that is already there with another content, and
        for a path that leaves the tree.
        """
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            raise Problem(f"{path!r} is no path inside an image: refused")
        name = "/".join(parts)
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if self.entries.setdefault(parent, DIRECTORY).kind != tarfile.DIRTYPE:
                raise Problem(f"{name!r} is below {parent!r}, which is no directory")
        known = self.entries.setdefault(name, entry)
        if known != entry and not known.kind == entry.kind == tarfile.DIRTYPE:
            raise Problem(f"{name!r} comes twice, with different contents")

    def replace(self, path: str, entry: Entry) -> None:
        """Put `entry` at `path`, whatever was there."""
        self.entries.pop(path, None)
        self.add(path, entry)

    def children(self, directory: str) -> list[str]:
        """The paths below `directory`, sorted."""
        return sorted(p for p in self.entries if p.startswith(directory + "/"))

    def real(self, path: str) -> str | None:
        """The path of what `path` leads to through links; None where nothing is.

        `path` may begin with a slash, which is the tree's top.
        """
        todo, found = [*reversed(PurePosixPath(path).parts)], ""
        for _ in range(1000):  # links may lead in a circle
            if not todo:
                return found
            part = todo.pop()
            if part in ("/", ".."):
                found = "" if part == "/" else found.rpartition("/")[0]
                continue
            inner = f"{found}/{part}".lstrip("/")
            entry = self.entries.get(inner)
            if entry is None:
                return None
            if entry.kind == tarfile.SYMTYPE:
                todo += reversed(PurePosixPath(entry.target).parts)
            else:
                found = inner
        return None

    def content(self, path: str) -> bytes:
        """The content of the file that `path` leads to; empty where there is none."""
        real = self.real(path)
        if real and self.entries[real].kind == tarfile.LNKTYPE:
            real = self._origin(real)
        return self.entries[real].content if real else b""

    def write(self, target: IO[bytes], time: int) -> None:
        """Write the tree as a canonical tar, as `canonical` does.

        Entries are sorted by the bytes of their path, which puts each directory
        before what it holds. Of the paths of a hard-linked file the first has the
        content.
        """
        entries = dict(self._without_dangling_links())
        with canonical(target, time) as add:
            for path in sorted(entries, key=os.fsencode):
                entry = entries[path]
                add(path, entry, len(entry.content), io.BytesIO(entry.content))

    def _without_dangling_links(self) -> Iterator[tuple[str, Entry]]:
        """The entries with each hard-link group led by its first path."""
        groups: dict[str, list[str]] = {}
        for path, entry in self.entries.items():
            if entry.kind == tarfile.LNKTYPE:
                groups.setdefault(self._origin(path), []).append(path)
        first = {origin: min([origin, *names]) for origin, names in groups.items()}
        for path, entry in self.entries.items():
            origin = self._origin(path) if entry.kind == tarfile.LNKTYPE else path
            if origin not in first:
                yield path, entry
                continue
            source = self.entries[origin]
            if path == first[origin]:
                yield path, source
            else:
                link = dataclasses.replace(
                    source, kind=tarfile.LNKTYPE, content=b"", target=first[origin]
                )
                yield path, link

    def _origin(self, path: str) -> str:
        """The path that holds the content of the hard link at `path`."""
        seen = [path]
        while (entry := self.entries[seen[-1]]).kind == tarfile.LNKTYPE:
            if entry.target in seen or entry.target not in self.entries:
                raise Problem(f"{path!r} is a hard link to {entry.target!r}, not there")
            seen.append(entry.target)
        return seen[-1]
