"""One image, one sequence of bytes: the canonical form of what an engine has built.

What a layer *does* to the layers below it is kept, how an engine wrote it down is
not. A canonical layer has the entries that change something and their parent
directories, sorted by the bytes of their paths, as ustar with pax records only where
ustar cannot say it; numeric owners; permission bits; one time for all. Of the names
of a hard-linked file the first has the content. What is removed has one whiteout;
engines that mark a directory as opaque instead say the same. A layer that changes
nothing is left out. When WORKDIR makes its directory depends on the engine: a plain
directory above the first layer is in the layer that puts something into it, or else,
as the one of the last WORKDIR, in a last layer.

Three things of a file are not kept: its time, extended attributes other than
security.capability (the engines differ on which they store), and the root directory's
own entry (only some engines write it). Left out are also the empty mount points that
engines leave behind where they ran a command, `STUBS` and the image's volumes.

Compression is gzip by libdeflate, which the tool lock pins as the wheel `deflate`.
The standard library's zlib is whichever the machine has, and what zlib-ng and isa-l
write depends on the processor; libdeflate's compressor has no code that looks at it
(only its decompressor and checksums have), and its wheels bring it along. Docker 20.10
takes no zstd. libdeflate wants whole buffers, so a layer is a gzip file of several
members, one for each `CHUNK`: RFC 1952 allows it, every engine reads it, and memory
stays flat. The stable identity is nevertheless the digests of unpacked layers, which
need no compressor at all.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import operator
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import IO, Any

import deflate

from containerize import disk
from containerize.errors import Problem
from containerize.image import archive
from containerize.image.archive import (
    CHUNK,
    Blob,
    Entry,
    Region,
    blob_path,
    encoded,
    show,
)
from containerize.image.known import Known, LayerInfo, Memory, blobs

LEVEL = 6
"""libdeflate's compression level, 1 to 12."""

XATTRS = (b"security.capability",)
"""The extended attributes that stay."""

# The kernel's own notes, which Podman 4.3 without root saves with a layer ("Overlay
# Filesystem" of its documentation).
_OVERLAYS = (b"user.overlay.", b"trusted.overlay.")

STUBS = frozenset(
    {
        b".dockerenv",
        b"dev",
        b"dev/console",
        b"dev/mqueue",
        b"dev/pts",
        b"dev/shm",
        b"etc",
        b"etc/hostname",
        b"etc/hosts",
        b"etc/mtab",
        b"etc/resolv.conf",
        b"proc",
        b"run",
        b"run/.containerenv",
        b"run/secrets",
        b"sys",
    }
)
"""Where engines mount something of their own into every container.

An empty file of root's or a plain directory with nothing in it that appears there
above the first layer is left out: a `RUN` left it behind, or it is no different.
"""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH that every engine gives where an image has none; some write it down."""

KEPT: Mapping[str, type] = {
    "Cmd": list,
    "Entrypoint": list,
    "Env": list,
    "ExposedPorts": dict,
    "Healthcheck": dict,
    "Labels": dict,
    "OnBuild": list,
    "Shell": list,
    "StopSignal": str,
    "User": str,
    "Volumes": dict,
    "WorkingDir": str,
}
"""What stays of the config's `config`, and its type; lists hold text only."""

WORKERS = 2
"""Threads that compress; their number decides no byte."""

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
# Labels that builders add by themselves: buildah and, if asked to, buildx.
_OWN = ("io.buildah.", "com.docker.image.source.")
_ID_MAX = 0o7777777


@dataclasses.dataclass(frozen=True)
class ImageDigests:
    """What names an image, computed from the bytes of its archive."""

    manifest: str
    config: str
    layers: tuple[LayerInfo, ...]
    warnings: tuple[str, ...] = ()
    """What is doubtful in the image or could not be kept, one line each."""

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.layers)


def canonicalize(
    source: Path,
    target: Path,
    *,
    time: int,
    labels: Mapping[str, str],
    references: Sequence[str],
    architecture: str = "",
    reuse: bool = False,
) -> ImageDigests:
    """Write the image in the archive `source` canonically to `target`.

    `source` is what `docker save` or `podman save` wrote. `target` becomes a tar that
    is an OCI image layout and has the manifest.json of `docker save` too, so that
    skopeo, `docker load` and `podman load` read it; it appears whole or not at all.
    `time` is in seconds since 1970. `labels` are added to the image's own.
    `references`, each NAME:TAG, are the archive's and do not count for any digest.
    `architecture`, as OCI names it, is what the image must be for, where it is given.
    With `reuse`, layers that the last run left in `target` are not read again (see
    `known`), and this run leaves what the next one needs. Raises Problem, with the
    entry's name, for an archive that is not sound.
    """
    with (
        contextlib.ExitStack() as stack,
        archive.open_image(source) as image,
        disk.atomic(target) as file,
    ):
        out = _Archive(file, time)
        config = _config(image.config, time, labels, source.name)
        if architecture not in ("", config["architecture"]):
            # Builders name their own machine's, whatever the layers are for.
            config = {k: v for k, v in config.items() if k != "variant"}
            config["architecture"] = architecture
        stubs = STUBS | _paths(config["config"].get("Volumes", ()))
        memory = Memory(target, time, sorted(stubs)) if reuse else None
        last = stack.enter_context(blobs(target)) if reuse else {}
        root, pending = Node(_DIRECTORY), Node(None)
        warnings: list[str] = []
        layers: list[LayerInfo] = []
        limit = image.limit
        for number, blob in enumerate(image.layers, 1):
            key = memory.key(image.diff_ids[:number]) if memory else ""
            known = memory.read(key) if memory else None
            tar = Tar(blob, target.parent, limit, stack)
            upper, read = _layer(tar, known, warnings)
            limit -= read.size
            if number > 1:
                _drop_stubs(upper, root, stubs)
                _take_empty(upper, root, pending)
            _join_links(upper, root, blob.name)
            made = None
            if changes := _apply(root, upper, blob.name):
                made = read.canonical
                if made is None or not out.take_layer(made, last.get(made.digest)):
                    made = out.add_layer(changes)
                layers.append(made)
            if memory and known is None:
                memory.write(key, dataclasses.replace(read, canonical=made))
        for path in _paths([config["config"].get("WorkingDir", "/")]):
            _make_directory(pending, root, path)
        if image.layers and (changes := _apply(root, pending, source.name)):
            layers.append(out.add_layer(changes))
        _check_programs(root, config["architecture"])
        manifest_digest, config_digest = out.finish(config, layers, references)
        if memory:
            memory.forget()
        return ImageDigests(
            manifest_digest, config_digest, tuple(layers), tuple(warnings)
        )


def read_digests(path: Path) -> ImageDigests:
    """The digests of the image in an OCI archive, recomputed from its bytes.

    Raises Problem where the archive is damaged or is no OCI archive.
    """
    with archive.open_image(path) as image:
        if not image.manifest_digest:
            raise Problem(f"{path} has no OCI manifest: name an archive of `build`")
        layers = []
        limit = image.limit
        for blob in image.layers:
            with blob.unpacked(path.parent, limit) as region:
                limit -= region.size
                layers.append(
                    LayerInfo(blob.diff_id, blob.digest, region.size, blob.region.size)
                )
        return ImageDigests(image.manifest_digest, image.config_digest, tuple(layers))


def write_part(source: Path, target: Path, without: Set[str]) -> None:
    """Write a canonical archive without the blobs of these digests.

    `target` is an archive for `docker load` alone: what makes `source` an OCI image
    layout would name blobs that are not there.
    """
    left = {
        b"oci-layout",
        b"index.json",
        *(blob_path(d).encode() for d in without),
    }
    with source.open("rb") as file, target.open("wb") as out:
        whole = Region(file, 0, source.stat().st_size)
        for entry in archive.read_tar(whole, source.name):
            if entry.path not in left:
                size = 512 + entry.size + -entry.size % 512  # with its header
                for chunk in whole.part(entry.offset - 512, size).chunks():
                    out.write(chunk)
        out.write(bytes(1024))


# --- What a layer does -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tar:
    """An engine's layer, which is unpacked and checked if a byte of it is wanted."""

    blob: Blob
    scratch: Path
    """The directory that it is unpacked in."""
    limit: int
    """Bytes that it may have."""
    stack: contextlib.ExitStack
    """What ends with it."""

    @functools.cached_property
    def region(self) -> Region:
        """Its bytes. Raises Problem if they do not have the digests that they must."""
        return self.stack.enter_context(self.blob.unpacked(self.scratch, self.limit))


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What a file holds: `size` bytes from `offset` of a tar."""

    tar: Tar
    offset: int
    size: int
    machine: int
    """What machine it is a program for (ELF's e_machine), or 0."""

    def chunks(self) -> Iterator[bytes]:
        return self.tar.region.part(self.offset, self.size).chunks()


@dataclasses.dataclass(slots=True)
class Node:
    """A path of the merged file system, or of one layer."""

    entry: Entry | None
    """None for a directory that a layer goes through without an entry for it."""
    content: Content | None = None
    links: tuple[bytes, ...] = ()
    """All names of a hard-linked file, sorted."""
    children: dict[bytes, Node] = dataclasses.field(default_factory=dict)
    removed: bool = False
    """In a layer: whether it removes what was at this path before."""
    opaque: bool = False
    """In a layer: whether it removes all that was in this directory before."""

    def is_directory(self) -> bool:
        return self.entry is None or self.entry.kind == tarfile.DIRTYPE

    def only_removed(self) -> bool:
        return self.removed and self.entry is None and not self.children

    def find(self, path: bytes) -> Node | None:
        node: Node | None = self
        for part in path.split(b"/") if path else ():
            node = node.children.get(part) if node else None
        return node

    def same(self, other: Node) -> bool:
        """Whether two paths are equal in all that is kept, children aside."""
        if self.entry is None or other.entry is None:
            return self.entry is other.entry
        return (
            _kept(self.entry) == _kept(other.entry)
            and self.links == other.links
            and (
                self.content is None
                or other.content is None
                or all(map(operator.eq, self.content.chunks(), other.content.chunks()))
            )
        )


_DIRECTORY = Entry(
    path=b"",
    kind=tarfile.DIRTYPE,
    mode=0o755,
    uid=0,
    gid=0,
    owner=(b"", b""),
    size=0,
    mtime=0,
    link=b"",
    device=(0, 0),
    xattrs=(),
    offset=0,
)


def _kept(entry: Entry) -> tuple[object, ...]:
    return (
        entry.kind,
        _mode(entry),
        entry.uid,
        entry.gid,
        entry.size,
        entry.link,
        entry.device,
        _xattrs(entry),
    )


def _mode(entry: Entry) -> int:
    # The mode of a link means nothing on Linux, and what engines write differs.
    return 0o777 if entry.kind == tarfile.SYMTYPE else entry.mode & 0o7777


def _xattrs(entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(pair for pair in entry.xattrs if pair[0] in XATTRS)


def _layer(tar: Tar, known: Known | None, warnings: list[str]) -> tuple[Node, Known]:
    """The tree of a layer's entries, and the entries; hard links are left as they are.

    The entries are `known`, or else read.
    """
    root, name = Node(None), tar.blob.name
    if known is None:
        entries = tuple(archive.read_tar(tar.region, name))
        machines = tuple(_machine(tar.region, entry) for entry in entries)
        known = Known(tar.region.size, entries, machines, None)
    for entry, machine in zip(known.entries, known.machines, strict=True):
        warnings += (f"{name}: {show(entry.path)} {doubt}" for doubt in _doubts(entry))
        if not entry.path:
            continue
        node = root
        *parents, base = entry.path.split(b"/")
        for part in parents:
            node = node.children.setdefault(part, Node(None))
        if base == _OPAQUE:
            node.opaque = True
            continue
        if base.startswith(_WHITEOUT):
            base = base.removeprefix(_WHITEOUT)
            if base in (b"", b".", b"..") or base.startswith(_WHITEOUT):
                raise Problem(f"{name}: {show(entry.path)} is no whiteout: refused")
            node.children.setdefault(base, Node(None)).removed = True
            continue
        node = node.children.setdefault(base, Node(None))
        node.entry = entry
        if entry.kind == tarfile.REGTYPE:
            node.content = Content(tar, entry.offset, entry.size, machine)
    return root, known


def _machine(region: Region, entry: Entry) -> int:
    """The machine that a 64-bit little-endian ELF file is for, or 0."""
    if entry.kind != tarfile.REGTYPE or entry.size < 20:
        return 0
    start = region.part(entry.offset, 20).read()
    is_elf = start.startswith(b"\x7fELF\x02\x01")
    return int.from_bytes(start[18:20], "little") if is_elf else 0


def _doubts(entry: Entry) -> Iterator[str]:
    """What to report of an entry."""
    if stat.S_IFMT(entry.mode) == stat.S_IFSOCK:
        yield "was a socket, which no archive can hold: only its name is kept"
    if not entry.path and _kept(entry) != _kept(_DIRECTORY):
        yield "has an unusual mode or owner, which is not kept"
    if entry.kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        yield "is a device node"
    if entry.kind == tarfile.REGTYPE and entry.mode & (stat.S_ISUID | stat.S_ISGID):
        yield "runs as its owner or group (setuid or setgid)"
    if any(key in XATTRS for key, _ in entry.xattrs):
        yield "has capabilities of its own"
    for key, _ in entry.xattrs:
        if key not in XATTRS and not key.startswith(_OVERLAYS):
            yield f"has the extended attribute {show(key)[1:]}, which is not kept"


def _drop_stubs(upper: Node, root: Node, stubs: Set[bytes]) -> None:
    """Take out of a layer what an engine left behind where it ran a command."""
    for path in sorted(stubs, reverse=True):  # children first
        directory, _, base = path.rpartition(b"/")
        parent = upper.find(directory)
        node = parent.children.get(base) if parent else None
        if not parent or not node or node.children or node.removed or root.find(path):
            continue
        entry = node.entry
        if entry is None or entry.kind == tarfile.DIRTYPE:
            stub = _is_plain(node)
        else:
            stub = not (entry.size or entry.uid or entry.gid)
            stub = stub and entry.link in (b"", b"/proc/mounts")
        if stub:
            del parent.children[base]


def _is_plain(node: Node) -> bool:
    """Whether a directory is as engines make missing ones."""
    return node.entry is None or _kept(node.entry) == _kept(_DIRECTORY)


def _take_empty(upper: Node, lower: Node | None, pending: Node) -> None:
    """Take plain, new directories with nothing in them out of a layer.

    `pending` gets all directories that the layer goes through, which does no harm, and
    loses those that it removes.
    """
    for part, node in list(upper.children.items()):
        if node.removed or node.opaque or not node.is_directory():
            pending.children.pop(part, None)
        if node.only_removed() or not node.is_directory():
            continue
        below = lower.children.get(part) if lower else None
        _take_empty(node, below, pending.children.setdefault(part, Node(None)))
        fresh = below is None and not (node.removed or node.opaque)
        if fresh and not node.children and _is_plain(node):
            del upper.children[part]


def _make_directory(upper: Node, root: Node, path: bytes) -> None:
    """Make a directory and its parents where there are none in `root`."""
    parts = path.split(b"/")
    for depth in range(len(parts)):
        lower = root.find(b"/".join(parts[: depth + 1]))
        if lower and not lower.is_directory():
            return  # a symbolic link, for the engine to follow
    for part in parts:
        upper = upper.children.setdefault(part, Node(None))


def _paths(texts: Iterable[str]) -> set[bytes]:
    """A config's absolute paths as those of a tar, without what cannot be one."""
    found = {text.encode("utf-8", "replace").strip(b"/") for text in texts}
    return {path for path in found if not {b"", b".", b".."} & {*path.split(b"/")}}


def _join_links(upper: Node, root: Node, name: str) -> None:
    """Make equals of all names of each hard-linked file of a layer."""
    groups: dict[bytes, list[bytes]] = {}
    stack = [(b"", upper)]
    while stack:
        path, node = stack.pop()
        if node.entry and node.entry.kind == tarfile.LNKTYPE:
            groups.setdefault(_origin(node.entry, upper, root, name), []).append(path)
        stack += ((_join(path, part), child) for part, child in node.children.items())
    for origin, names in groups.items():
        links = tuple(sorted({origin, *names}))
        equals = {path: found for path in links if (found := upper.find(path))}
        first = equals[origin]
        for equal in equals.values():
            equal.entry, equal.content, equal.links = first.entry, first.content, links


def _origin(entry: Entry, upper: Node, root: Node, name: str) -> bytes:
    """The path that has the content of a hard link.

    Where that is in a layer below, as the naive diff of some storage drivers has it,
    the file is copied up, which is what overlayfs does.
    """
    seen = {entry.path}
    target = entry.link
    while target not in seen:
        seen.add(target)
        node = upper.find(target)
        if node is None and (below := root.find(target)) and below.entry:
            node = upper
            for part in target.split(b"/"):
                node = node.children.setdefault(part, Node(None))
            node.entry, node.content = below.entry, below.content
        if node is None or node.entry is None or node.is_directory():
            break
        if node.entry.kind != tarfile.LNKTYPE:
            return target
        target = node.entry.link
    raise Problem(
        f"{name}: {show(entry.path)} is a hard link to {show(entry.link)}, which is no "
        "file of the image: refused"
    )


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


_Changes = dict[bytes, Node | None]
"""What a layer changes, by path, with parent directories; None for a whiteout."""


def _apply(root: Node, upper: Node, name: str) -> _Changes:
    """Put a layer onto the file system `root`; returns what that has changed."""
    changes: _Changes = {}
    _merge(root, upper, b"", False, changes, name)
    for node in list(changes.values()):
        for link in node.links if node else ():
            path = link
            while path not in changes:
                changes[path] = root.find(path)
                path = path.rpartition(b"/")[0]
    changes.pop(b"", None)
    return changes


def _merge(
    lower: Node | None,
    upper: Node,
    path: bytes,
    opaque: bool,
    changes: _Changes,
    name: str,
) -> Node:
    """What is at `path` once a layer is put on; `opaque` hides what was below it."""
    if upper.children and not upper.is_directory():
        below = show(_join(path, next(iter(upper.children))))
        raise Problem(f"{name}: {below} is below {show(path)}, which is no directory")
    merges = lower is not None and lower.is_directory()
    if upper.entry is not None:
        node = Node(upper.entry, upper.content, upper.links)
    elif lower is None or opaque:
        node = Node(_DIRECTORY)  # engines make missing parents like this
    elif merges or not upper.children:
        node = Node(lower.entry, lower.content, lower.links)
    else:
        below = show(_join(path, next(iter(upper.children))))
        raise Problem(f"{name}: {below} is below {show(path)}, which is no directory")
    changed = lower is None or not lower.same(node)
    if node.is_directory():
        if merges and lower is not None:
            node.children = lower.children
        opaque = opaque or upper.opaque
        gone = [part for part in node.children if opaque and part not in upper.children]
        for part, child in upper.children.items():
            if child.only_removed():
                if part in node.children:
                    gone.append(part)
                continue
            before = len(changes)
            node.children[part] = _merge(
                node.children.get(part),
                child,
                _join(path, part),
                opaque or child.removed,
                changes,
                name,
            )
            changed = changed or len(changes) > before
        for part in gone:
            del node.children[part]
            changes[_join(path, _WHITEOUT + part)] = None
            changed = True
    if changed:
        changes[path] = node
    return node


# --- Bytes -----------------------------------------------------------------------


def _header(path: bytes, entry: Entry, time: int, link: bytes) -> bytes:
    """The header of an entry: ustar, after pax records for what ustar cannot say."""
    if entry.kind == tarfile.DIRTYPE:
        path += b"/"
    size = 0 if link and entry.kind == tarfile.REGTYPE else entry.size
    kind = tarfile.LNKTYPE if link else entry.kind
    link = link or entry.link
    records = [(archive.XATTR + key, value) for key, value in _xattrs(entry)]
    for key, text in ((b"path", path), (b"linkpath", link)):
        if len(text) > 100 or not text.isascii():
            records.append((key, text))
    numbers = {b"uid": entry.uid, b"gid": entry.gid, b"size": size}
    for key, limit in (
        (b"uid", _ID_MAX),
        (b"gid", _ID_MAX),
        (b"size", archive.MAX_SIZE),
    ):
        if numbers[key] > limit:
            records.append((key, b"%d" % numbers[key]))
            numbers[key] = 0
    pax = b""
    if records:
        data = b"".join(_record(*record) for record in sorted(records))
        pax = archive.header(b"././@PaxHeader", 0o644, len(data), time, b"x")
        pax += data + bytes(-len(data) % 512)
    return pax + archive.header(
        _ascii(path),
        _mode(entry),
        numbers[b"size"],
        time,
        kind,
        uid=numbers[b"uid"],
        gid=numbers[b"gid"],
        link=_ascii(link),
        device=entry.device,
    )


def _ascii(text: bytes) -> bytes:
    return text[:100].decode("ascii", "replace").encode("ascii", "replace")


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record, which begins with its own length in decimal."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(b"%d" % length) + len(rest):
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _content(changes: _Changes, time: int) -> Iterator[bytes]:
    """The canonical tar of a layer."""
    for path in sorted(changes):
        node = changes[path]
        if node is None:
            yield archive.header(path, 0, 0, time, tarfile.REGTYPE)
        elif node.entry is not None:
            link = node.links[0] if node.links and node.links[0] != path else b""
            yield _header(path, node.entry, time, link)
            if node.content and not link:
                yield from node.content.chunks()
                yield bytes(-node.content.size % 512)
    yield bytes(1024)


def _chunked(parts: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`, the last one shorter."""
    pending = bytearray()
    for part in parts:
        pending += part
        while len(pending) >= size:
            yield bytes(pending[:size])
            del pending[:size]
    if pending:
        yield bytes(pending)


class _Archive:
    """The archive as it is written; what has a digest goes under blobs/."""

    def __init__(self, file: IO[bytes], time: int) -> None:
        self.file, self.time = file, time
        self.layers: set[str] = set()
        archive.add_directories(file, time)

    def add(self, path: str, content: bytes) -> None:
        archive.add(self.file, path, [content], len(content), self.time)

    def add_blob(self, content: bytes) -> dict[str, object]:
        """Add a blob; returns what a descriptor says of it."""
        digest = hashlib.sha256(content).hexdigest()
        self.add(f"blobs/sha256/{digest}", content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    def add_layer(self, changes: _Changes) -> LayerInfo:
        start = self.file.tell()
        self.file.write(bytes(512))  # the header names the digest, which comes last
        plain, packed = hashlib.sha256(), hashlib.sha256()
        sizes = [0, 0]

        def compressed() -> Iterator[bytes]:
            queue: collections.deque[concurrent.futures.Future[bytes]]
            queue = collections.deque()
            with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
                for chunk in _chunked(_content(changes, self.time), CHUNK):
                    plain.update(chunk)
                    sizes[0] += len(chunk)
                    queue.append(pool.submit(_compress, chunk))
                    if len(queue) > WORKERS:
                        yield queue.popleft().result()
                while queue:
                    yield queue.popleft().result()

        for member in compressed():
            packed.update(member)
            sizes[1] += len(member)
            self.file.write(member)
        if sizes[1] > archive.MAX_SIZE:
            raise Problem(f"a layer has {sizes[1]} bytes compressed: split it")
        self.file.write(bytes(-sizes[1] % 512))
        end = self.file.tell()
        self.file.seek(start)
        digest = f"sha256:{packed.hexdigest()}"
        if digest in self.layers:  # two layers may do the same
            self.file.truncate()
        else:
            self.layers.add(digest)
            self._entry(blob_path(digest), sizes[1])
            self.file.seek(end)
        return LayerInfo(f"sha256:{plain.hexdigest()}", digest, *sizes)

    def take_layer(self, info: LayerInfo, stored: Region | None) -> bool:
        """Add a canonical layer that is `stored`; False where it is not that layer."""
        if stored is None:
            return False
        if info.digest in self.layers:
            return True
        start = self.file.tell()
        self._entry(blob_path(info.digest), stored.size)
        digest = hashlib.sha256()
        for chunk in stored.chunks():
            digest.update(chunk)
            self.file.write(chunk)
        if f"sha256:{digest.hexdigest()}" != info.digest:
            self.file.seek(start)
            self.file.truncate()
            return False
        self.file.write(bytes(-stored.size % 512))
        self.layers.add(info.digest)
        return True

    def finish(
        self, config: dict[str, Any], layers: Sequence[LayerInfo], names: Sequence[str]
    ) -> tuple[str, str]:
        """Add all that names the layers; returns the digests of manifest and config."""
        # As a comment: a scanner reads created_by as lines of a Dockerfile.
        history = {"created": config["created"], "comment": "containerize"}
        diff_ids = [layer.diff_id for layer in layers]
        config = config | {
            "history": [history] * len(layers),
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        described = self.add_blob(encoded(config))
        manifest = {
            "schemaVersion": 2,
            "mediaType": archive.MANIFEST,
            "config": {"mediaType": archive.CONFIG} | described,
            "layers": [
                {
                    "mediaType": archive.LAYER,
                    "digest": layer.digest,
                    "size": layer.compressed_size,
                }
                for layer in layers
            ],
        }
        root = {"mediaType": manifest["mediaType"]} | self.add_blob(encoded(manifest))
        root["annotations"] = names_of(names)
        index = {
            "schemaVersion": 2,
            "mediaType": archive.INDEX,
            "manifests": [root],
        }
        image = {
            "Config": blob_path(str(described["digest"])),
            "RepoTags": list(names),
            "Layers": [blob_path(layer.digest) for layer in layers],
        }
        self.add("oci-layout", encoded(archive.LAYOUT))
        self.add("index.json", encoded(index))
        self.add("manifest.json", encoded([image]))
        self.file.write(bytes(1024))
        return str(root["digest"]), str(described["digest"])

    def _entry(self, path: str, size: int) -> None:
        self.file.write(
            archive.header(path.encode(), 0o644, size, self.time, tarfile.REGTYPE)
        )


def names_of(references: Sequence[str]) -> dict[str, str]:
    """The annotations by which an archive's index names its image, of NAME:TAG each.

    By the tag skopeo finds it (OCI image spec, "Pre-Defined Annotation Keys"); the
    other is containerd's, which `podman load` takes too. Docker's containerd store
    cannot use a name without a host, and in `localhost` no registry is named. An image
    has one entry, and so one name: with two, `oci-archive:FILE` would be ambiguous.
    """
    for reference in references:
        return {
            "io.containerd.image.name": f"localhost/{reference}",
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        }
    return {}


def _compress(chunk: bytes) -> bytes:
    return bytes(deflate.gzip_compress(chunk, LEVEL))


# --- What the programs are for ---------------------------------------------------


# ELF's e_machine (elf(5)) of what is said of an image (OCI image spec).
_MACHINES = {"amd64": 62, "arm64": 183}


def _check_programs(root: Node, architecture: str) -> None:
    """Raise Problem where most programs of the image are for another machine."""
    found = collections.Counter(_machines(root)).most_common(1)
    wanted = _MACHINES.get(architecture)
    if not found or not wanted or found[0][0] == wanted:
        return
    names = {number: name for name, number in _MACHINES.items()}
    machine = names.get(found[0][0], f"ELF machine {found[0][0]}")
    raise Problem(
        f"the image is to be for {architecture}, and its programs are for {machine}: "
        "set CONTAINERIZE_ARCHITECTURE, or name a base-image for it"
    )


def _machines(node: Node) -> Iterator[int]:
    """The machines that the programs below are for."""
    if node.content and node.content.machine:
        yield node.content.machine
    for child in node.children.values():
        yield from _machines(child)


# --- What the config says --------------------------------------------------------


def _config(
    found: Any, time: int, labels: Mapping[str, str], name: str
) -> dict[str, Any]:
    """The image's config (OCI image spec, "Image Configuration") in our words.

    Kept is what changes how a container of the image behaves. Raises Problem for a
    config that no engine writes.
    """
    given = _typed(found, "config", dict, name) or {}
    config = {
        key: value
        for key, kind in KEPT.items()
        if (value := _typed(given, key, kind, name))
    }
    if config.get("WorkingDir") == "/":
        del config["WorkingDir"]
    environment = dict(item.partition("=")[::2] for item in config.get("Env", ()))
    environment.setdefault("PATH", DEFAULT_PATH)
    config["Env"] = [f"{key}={environment[key]}" for key in sorted(environment)]
    if check := config.get("Healthcheck"):
        config["Healthcheck"] = {key: value for key, value in check.items() if value}
    own = {
        key: value
        for key, value in config.get("Labels", {}).items()
        if not key.startswith(_OWN)
    }
    config["Labels"] = own | dict(labels)
    platform = {key: _typed(found, key, str, name) for key in ("architecture", "os")}
    if not all(platform.values()):
        raise Problem(f"{name}: its config names no architecture or no os")
    variant = _typed(found, "variant", str, name)
    # v8 is the default for arm64, and only some engines write it down.
    if variant and (platform["architecture"], variant) != ("arm64", "v8"):
        platform["variant"] = variant
    created = datetime.datetime.fromtimestamp(time, datetime.UTC)
    stamp = created.strftime("%Y-%m-%dT%H:%M:%SZ")
    return platform | {"config": config, "created": stamp}


def _typed(value: Any, key: str, kind: type, name: str) -> Any:
    """`value[key]`, or None where there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    texts = found if isinstance(found, list) else ()
    if found is not None and (
        not isinstance(found, kind) or not all(isinstance(t, str) for t in texts)
    ):
        raise Problem(f"{name}: {key} in its config is not as images have it")
    return found
