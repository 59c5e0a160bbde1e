"""The files of the checkout's commit, as a canonical tar."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from containerize.errors import Problem, some
from containerize.pack import sources, tree
from containerize.pack.sources import EXECUTABLE, LINK, SUBMODULE, File, shown

_LISTED = re.compile(rb"(\d{6}) (?:blob|commit) ([0-9a-f]+)\t(.+)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Blob:
    """A file or a link of a commit."""

    path: bytes
    """Below the directory of the checkout that it was read in."""
    mode: str
    """As git has it: EXECUTABLE, LINK or a plain file's."""
    digest: str
    """git's name of the content."""


@dataclasses.dataclass(frozen=True)
class Commit:
    """The commit that a checkout is at."""

    root: Path
    digest: str
    time: int
    """When it was made: Unix seconds."""
    blobs: tuple[Blob, ...]
    """Sorted by path."""
    held_back: tuple[str, ...]
    """What it has besides, of what no image gets."""
    named: frozenset[bytes]
    """Those that a .gitignore names."""

    def check(self, packed: Iterable[File]) -> None:
        """Raise Problem if one of these files, which an image has, is not the commit's.

        As a file is that a filter of git's (Git LFS) has made, or an ignored one.
        """
        known = {blob.path: blob for blob in self.blobs}
        other = [shown(_path(f)) for f in packed if not self._is_in(known, f)]
        if other:
            raise Problem(
                f"the image packs what the commit does not have so: {some(other)}: "
                "commit it as it is, or name it in exclude"
            )

    def ignored(self, packed: Iterable[File]) -> tuple[str, ...]:
        """Which of these files a .gitignore names, so that only git sees them here."""
        found = self.named.intersection(map(_path, packed))
        return tuple(shown(path) for path in sorted(found))

    def _is_in(self, known: dict[bytes, Blob], file: File) -> bool:
        blob = known.get(_path(file))
        if blob is None:
            return False
        content = file.content
        if file.target is not None:
            content = file.target.encode("utf-8", "surrogateescape")
        kind = "sha1" if len(blob.digest) == 40 else "sha256"
        found = hashlib.new(kind, b"blob %d\0" % len(content) + content).hexdigest()
        return found == blob.digest

    def write(self, target: IO[bytes], scratch: Path) -> None:
        """Write the files, with the bytes that git has, as a canonical tar.

        `scratch` is a directory for as many bytes more.
        """
        asked, answered = scratch / "asked", scratch / "answered"
        asked.write_text("".join(f"{blob.digest}\n" for blob in self.blobs))
        with asked.open("rb") as stdin, answered.open("w+b") as contents:
            _git(self.root, "cat-file", "--batch", stdin=stdin, stdout=contents)
            contents.seek(0)
            with tree.canonical(target, self.time) as add:
                for blob in self.blobs:
                    _add(add, blob, contents)
        answered.unlink()


def _path(file: File) -> bytes:
    return file.path.encode("utf-8", "surrogateescape")


def _add(add: tree.Add, blob: Blob, contents: IO[bytes]) -> None:
    """Add a file from what `cat-file --batch` writes, at the place of the next one."""
    found = contents.readline().split()
    if found[:2] != [blob.digest.encode(), b"blob"]:
        raise Problem(f"git does not have {shown(blob.path)} as committed: git fsck")
    size = int(found[2])
    path = blob.path.decode("utf-8", "surrogateescape")
    if blob.mode == LINK:
        target = contents.read(size).decode("utf-8", "surrogateescape")
        add(path, tree.symlink(target), 0, io.BytesIO())
    else:
        mode = 0o755 if blob.mode == EXECUTABLE else 0o644
        add(path, tree.file(b"", mode), size, contents)
    contents.read(1)  # the line's end after a content


def identifier(root: Path) -> str:
    """git's name of the commit that the checkout is at; empty if it has none."""
    answer = sources.git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    return answer.stdout.decode().strip() if answer and not answer.returncode else ""


def read(root: Path, held_back: Callable[[bytes], bool]) -> Commit:
    """The commit that the checkout in `root` is at.

    `held_back` tells the paths of what no image gets (`selection.held_back`): such a
    file may be in the commit or not. Raises Problem if it is no checkout or has no
    commit, and if other files are in none.
    """
    digest = identifier(root)
    changed = sources.changed(root)
    if not digest or changed is None:
        raise Problem(
            f"{root} has no commit that git reads, and a bundle is of one: use a "
            "clone, with git installed"
        )
    if other := [shown(path) for path in changed if not held_back(path)]:
        raise Problem(
            f"a bundle is of a commit, and these are in none: {some(other)}: "
            "commit or remove them"
        )
    time = _git(
        root, "show", "-s", "--no-show-signature", "--format=%ct", "HEAD"
    ).split()[-1]
    listed = _git(root, "ls-tree", "-r", "-z", "HEAD")
    ignored = _git(root, "ls-files", "-ciz", "--exclude-per-directory=.gitignore")
    named = frozenset(_items(ignored))
    blobs = tuple(_blobs(listed))
    secret = {blob.path for blob in blobs if held_back(blob.path)}
    kept = tuple(blob for blob in blobs if blob.path not in secret)
    return Commit(
        root, digest, int(time), kept, tuple(map(shown, sorted(secret))), named
    )


def _blobs(listed: bytes) -> Iterator[Blob]:
    for item in _items(listed):
        found = _LISTED.fullmatch(item)
        if not found:
            raise Problem(f"git lists {item!r} where a file was asked: update git")
        mode = found[1].decode()
        if mode == SUBMODULE:
            raise Problem(
                f"{shown(found[3])} is a submodule, of which a commit holds no files: "
                "copy them in without their .git, or install them as a wheel"
            )
        yield Blob(found[3], mode, found[2].decode())


def _items(output: bytes) -> list[bytes]:
    return output.split(b"\0")[:-1]


def _git(root: Path, *arguments: str, **streams: IO[bytes]) -> bytes:
    answer = sources.git(root, *arguments, **streams)
    if answer is None or answer.returncode:
        said = (answer.stderr if answer else b"").decode(errors="replace").split("\n")
        raise Problem(f"git {arguments[0]} fails in {root}: {said[0]}: mend that first")
    return answer.stdout or b""
