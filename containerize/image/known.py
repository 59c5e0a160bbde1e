"""What is known of an engine's layers from the last build, so that none is read twice.

A layer is known by the chain of diff IDs that ends with it: what entries it has, and
the digest of the canonical layer that comes of it, whose bytes the last archive has.
So a build hashes, parses and compresses the layers that are new to it and no others.

Nothing is believed that this user has not written with this very code: what is known
stands in files that begin with the SHA-256 of what follows, and of which the key says
by what it was made. One that is edited, truncated, a link, or another's counts for
nothing, and a canonical layer is taken only if its bytes have the digest. So damage
costs time. It is no proof, since who can write here can write a right SHA-256 too:
`verify` and builds without cache do not look.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from containerize import disk
from containerize.errors import Problem
from containerize.image import archive
from containerize.image.archive import Entry, Region

MOST = 50_000
"""Entries of a layer beyond which it is not kept: 10 MB of JSON."""


@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """Digests, as `sha256:` and hex, and sizes in bytes of one layer."""

    diff_id: str
    digest: str
    size: int
    compressed_size: int


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of an engine's layer."""

    size: int
    """Bytes of its tar."""
    entries: tuple[Entry, ...]
    machines: tuple[int, ...]
    """For each entry, the machine that it is a program for (ELF's e_machine), or 0."""
    canonical: LayerInfo | None
    """What it becomes; None if it changes nothing."""


def directory(target: Path) -> Path:
    """Where it stands what is known of the layers of an archive."""
    return target.with_suffix(".layers")


class Memory:
    """What the last build has left beside its archive, and this one will leave."""

    def __init__(self, target: Path, *made_by: object) -> None:
        """`made_by` is, besides this code, what decides the canonical layers."""
        self._directory = directory(target)
        self._made_by = [_code(), version("deflate"), *map(str, made_by)]
        self._used: set[str] = set()

    def key(self, diff_ids: Sequence[str]) -> str:
        """The name of the layer that a chain of diff IDs ends with."""
        text = json.dumps([self._made_by, list(diff_ids)])
        return hashlib.sha256(text.encode()).hexdigest()

    def read(self, key: str) -> Known | None:
        """The layer of that key, if it is known and nothing is wrong with the file."""
        self._used.add(key)
        try:
            seal, _, text = _own(self._directory / key).partition(b"\n")
            if seal.decode() != hashlib.sha256(text).hexdigest():
                return None
            found = json.loads(text)
            if found["key"] != key:
                return None
            info = found["canonical"]
            return Known(
                size=found["size"],
                entries=tuple(_entry(row) for row in found["entries"]),
                machines=tuple(found["machines"]),
                canonical=LayerInfo(*info) if info else None,
            )
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, key: str, known: Known) -> None:
        """Keep what is known of a layer; where that cannot be, do without."""
        if len(known.entries) > MOST:
            return
        info = known.canonical
        text = json.dumps(
            {
                "key": key,
                "size": known.size,
                "entries": [_row(entry) for entry in known.entries],
                "machines": known.machines,
                "canonical": dataclasses.astuple(info) if info else None,
            },
            separators=(",", ":"),
        ).encode()
        path = self._directory / key
        with contextlib.suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # a link must not lead elsewhere
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with open(os.open(path, flags, 0o644), "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)

    def forget(self) -> None:
        """Remove what this build has not asked for."""
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                if path.name not in self._used:
                    path.unlink()


@contextlib.contextmanager
def blobs(target: Path) -> Iterator[dict[str, Region]]:
    """The blobs of an archive by digest, unchecked; none if it cannot be read."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Region] = {}
        with contextlib.suppress(OSError, Problem):
            file = stack.enter_context(target.open("rb"))
            whole = Region(file, 0, os.fstat(file.fileno()).st_size)
            for entry in archive.read_tar(whole, target.name):
                digest = os.fsdecode(entry.path).removeprefix("blobs/sha256/")
                found[f"sha256:{digest}"] = whole.part(entry.offset, entry.size)
        yield found


def _code() -> str:
    """The SHA-256 of the modules that read and write images."""
    modules = sorted(Path(__file__).parent.glob("*.py"))
    return "".join(map(disk.sha256, modules))


def _own(path: Path) -> bytes:
    """A file of this user's that no other may write; OSError for any other thing."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError
        return file.read()


def _row(entry: Entry) -> list[object]:
    """An entry for JSON: bytes as the text whose characters they number."""
    return [
        entry.path.decode("latin-1"),
        entry.kind.decode("latin-1"),
        entry.mode,
        entry.uid,
        entry.gid,
        [name.decode("latin-1") for name in entry.owner],
        entry.size,
        entry.mtime,
        entry.link.decode("latin-1"),
        entry.device,
        [[part.decode("latin-1") for part in pair] for pair in entry.xattrs],
        entry.offset,
    ]


def _entry(row: Any) -> Entry:
    path, kind, mode, uid, gid, owner, size, mtime, link, device, xattrs, offset = row
    return Entry(
        path=path.encode("latin-1"),
        kind=kind.encode("latin-1"),
        mode=mode,
        uid=uid,
        gid=gid,
        owner=(owner[0].encode("latin-1"), owner[1].encode("latin-1")),
        size=size,
        mtime=mtime,
        link=link.encode("latin-1"),
        device=(device[0], device[1]),
        xattrs=tuple((a.encode("latin-1"), b.encode("latin-1")) for a, b in xattrs),
        offset=offset,
    )
