"""Read image archives and layer tars that nobody vouches for, and never unpack them.

What is read: the tar formats v7, ustar, GNU and pax, and in them the image formats
that `docker save` and `podman save` write. What is odd is refused with a Problem
that names the entry. The target of a symbolic link is data: images have absolute
ones and ones with `..`, and nothing here follows them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import posixpath
import re
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import zstandard

from containerize.errors import Problem

# Media types (OCI image spec, "OCI Image Media Types").
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

CHUNK = 1 << 20
"""Bytes that are read at a time."""

# Far above what images have and engines take, and low enough to stay in memory.
MAX_ENTRIES = 2_000_000
MAX_JSON = 4 << 20  # the OCI distribution spec's limit for manifests
MAX_PATH = 4096
MAX_DEPTH = 200
MAX_EXTENSION = 1 << 20
MAX_DEVICE = 0o7777777
MAX_LAYERS = 1000
MAX_MANIFESTS = 100

# An image's layers may grow to GENEROUS bytes; bigger ones are a bomb if they grow by
# more than RATIO. Deflate's best is 1032, and real layers stay below 20.
GENEROUS = 1 << 30
RATIO = 100

MAX_SIZE = (8 << 30) - 1
"""Bytes of a file whose size a ustar header can say."""

MAX_WINDOW = 128 << 20
"""Bytes of memory that a zstd layer may ask for, as much as the engines grant it."""

XATTR = b"SCHILY.xattr."

_BLOCK = 512
_STEP = 1024  # bytes of zstd that are unpacked at a time
_ZSTD = b"\x28\xb5\x2f\xfd"
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_SECONDS = re.compile(rb"(-?)(\d{1,12})(?:\.(\d{1,9})\d*)?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_KINDS = (
    tarfile.REGTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """`size` bytes of an open file from `start`."""

    file: IO[bytes]
    start: int
    size: int

    def part(self, offset: int, size: int) -> Region:
        """The `size` bytes from `offset` of this region."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise Problem(f"{self.file.name} is truncated: get it again")
        return Region(self.file, self.start + offset, size)

    def read(self) -> bytes:
        """All bytes of the region."""
        data = os.pread(self.file.fileno(), self.size, self.start)
        if len(data) != self.size:
            raise Problem(f"{self.file.name} is truncated: get it again")
        return data

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the region, `CHUNK` at a time."""
        for offset in range(0, self.size, CHUNK):
            yield self.part(offset, min(CHUNK, self.size - offset)).read()

    def sha256(self) -> str:
        """The digest of the bytes, as `sha256:` and hex."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return f"sha256:{digest.hexdigest()}"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a tar, as its header and pax records give it."""

    path: bytes
    """Relative, without `.`, `..`, empty parts or a slash at the end."""
    kind: bytes
    """tarfile's type flag, one of REGTYPE, LNKTYPE, …, FIFOTYPE."""
    mode: int
    """All bits of the header, those of the file's type too where they are there."""
    uid: int
    gid: int
    owner: tuple[bytes, bytes]
    """The names of the user and the group."""
    size: int
    mtime: int
    """Nanoseconds since 1970."""
    link: bytes
    """What a link names: for a hard link a path like `path`, for a symbolic link any
    text."""
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    """Names and values, sorted."""
    offset: int
    """Where the content starts in the tar."""


def show(path: bytes) -> str:
    """A path as text for a message, on one line whatever bytes are in it."""
    return "/" + printable(path.decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """`text` on one line, with an escape for each character that cannot be printed."""
    if text.isprintable():  # nearly all are, of a hundred thousand paths
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def read_tar(region: Region, name: str) -> Iterator[Entry]:
    """The entries of a tar, in its order.

    `name` is what messages call the tar. Raises Problem, with the entry's name, for
    an entry that leaves the tree by `..`, comes twice, is sparse or of
    an unknown type, does not fit into the tar, or has a broken header.
    """
    seen: set[bytes] = set()
    offset = 0
    records: dict[bytes, bytes] = {}
    long: dict[bytes, bytes] = {}
    while True:
        if offset + _BLOCK > region.size:
            raise Problem(f"{name} is truncated: its end marker is missing")
        block = region.part(offset, _BLOCK).read()
        offset += _BLOCK
        if not any(block):
            return
        fields = _HEADER.unpack(block)
        raw = fields[0].split(b"\0", 1)[0]
        where = f"{name}: {show(long.get(b'L') or records.get(b'path') or raw)}"
        total = sum(block[:148]) + sum(block[156:]) + 8 * 0x20
        if _number(fields[6], where) != total:
            raise Problem(f"{where}: its header is damaged")
        kind = fields[7]
        size = _number(fields[4], where)
        if kind in b"xgLK":
            if size > MAX_EXTENSION:
                raise Problem(f"{where}: its extended header has {size} bytes")
            data = _part(region, offset, size, where).read()
            offset += _padded(size)
            if kind == b"x":
                records = _pax(data, where)
            elif kind in b"LK":
                long[kind] = data.split(b"\0", 1)[0]
            # Go's reader, the engines', does not apply global records ("g") either.
            continue
        entry = _entry(fields, records, long, where, offset)
        _part(region, offset, entry.size, where)
        offset += _padded(entry.size)
        records, long = {}, {}
        if entry.path in seen:
            raise Problem(f"{where} comes twice")
        if len(seen) >= MAX_ENTRIES:
            raise Problem(f"{name} has more than {MAX_ENTRIES} entries")
        seen.add(entry.path)
        yield entry


def _entry(
    fields: tuple[bytes, ...],
    records: dict[bytes, bytes],
    long: dict[bytes, bytes],
    where: str,
    offset: int,
) -> Entry:
    name, mode, uid, gid, size, mtime, _, kind, link, magic = fields[:10]
    user, group, major, minor, prefix = fields[10:]
    path = name.split(b"\0", 1)[0]
    if magic == b"ustar\x0000" and prefix[0]:
        path = prefix.split(b"\0", 1)[0] + b"/" + path
    path = records.get(b"path", long.get(b"L", path))
    link = records.get(b"linkpath", long.get(b"K", link.split(b"\0", 1)[0]))
    if kind in (b"\0", b"7"):
        kind = tarfile.DIRTYPE if path.endswith(b"/") else tarfile.REGTYPE
    if kind not in _KINDS or any(key.startswith(b"GNU.sparse") for key in records):
        what = "a sparse file" if kind in (b"S", *_KINDS) else f"of type {kind!r}"
        raise Problem(f"{where} is {what}, which no engine writes: refused")
    device = (0, 0)
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        device = _number(major, where), _number(minor, where)
        if max(device) > MAX_DEVICE:
            raise Problem(f"{where}: its device number is too large: refused")
    length = _decimal(records.get(b"size"), size, where)
    if length and kind != tarfile.REGTYPE:
        raise Problem(f"{where} is no file but has content: refused")
    if kind == tarfile.LNKTYPE:
        link = _clean(link, f"{where} links to {show(link)[1:]}, which")
    elif kind == tarfile.SYMTYPE and (not link or len(link) > MAX_PATH or 0 in link):
        raise Problem(f"{where} is a symbolic link to no path: refused")
    return Entry(
        path=_clean(path, where),
        kind=kind,
        mode=_number(mode, where),
        uid=_decimal(records.get(b"uid"), uid, where),
        gid=_decimal(records.get(b"gid"), gid, where),
        owner=(
            records.get(b"uname", user.split(b"\0", 1)[0]),
            records.get(b"gname", group.split(b"\0", 1)[0]),
        ),
        size=length,
        mtime=_nanoseconds(records.get(b"mtime"), mtime, where),
        link=link if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else b"",
        device=device,
        xattrs=tuple(
            sorted(
                (key.removeprefix(XATTR), value)
                for key, value in records.items()
                if key.startswith(XATTR)
            )
        ),
        offset=offset,
    )


def _part(region: Region, offset: int, size: int, where: str) -> Region:
    if offset + _padded(size) > region.size:
        raise Problem(f"{where} says that it has {size} bytes: the tar ends before")
    return region.part(offset, size)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _clean(path: bytes, where: str) -> bytes:
    """`path` without empty parts and `.`; empty for the root itself.

    Slashes at the start count for nothing, as in the engines, which join each name to
    the image's root.
    """
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise Problem(f"{where} leaves the tree by '..': refused")
    if not path or 0 in path or len(path) > MAX_PATH or len(parts) > MAX_DEPTH:
        raise Problem(f"{where} is no path that a file system takes: refused")
    return b"/".join(parts)


def _number(field: bytes, where: str) -> int:
    """A number of a header: octal, or GNU's base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    try:
        if text and not text.isdigit():  # int() takes signs and underscores
            raise ValueError
        return int(text or b"0", 8)
    except ValueError:
        raise Problem(f"{where}: a number in its header is damaged") from None


def _decimal(record: bytes | None, field: bytes, where: str) -> int:
    """A number of a pax record, or where there is none, of the header."""
    if record is None:
        return _number(field, where)
    if not record.isdigit() or len(record) > 18:
        raise Problem(f"{where}: a number in its pax header is damaged")
    return int(record)


def _nanoseconds(record: bytes | None, field: bytes, where: str) -> int:
    if record is None:
        if field[0] == 0xFF:  # before 1970
            return int.from_bytes(field, "big", signed=True) * 10**9
        return _number(field, where) * 10**9
    match = _SECONDS.fullmatch(record)
    if not match:
        raise Problem(f"{where}: the time in its pax header is damaged")
    sign, seconds, fraction = match.groups()
    value = int(seconds) * 10**9 + int((fraction or b"0").ljust(9, b"0"))
    return -value if sign else value


def _pax(data: bytes, where: str) -> dict[bytes, bytes]:
    """The records of a pax header (POSIX pax, "pax Extended Header")."""
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(data):
        digits, space, _ = data[start : start + 20].partition(b" ")
        end = start + int(digits) if space and digits.isdigit() else start
        key, equals, value = data[start + len(digits) + 1 : end - 1].partition(b"=")
        if not equals or end > len(data) or data[end - 1 : end] != b"\n":
            raise Problem(f"{where}: its pax header is damaged")
        records[key] = value
        start = end
    return records


LAYOUT = {"imageLayoutVersion": "1.0.0"}
"""The content of oci-layout (OCI image spec, "Image Layout")."""


def blob_path(digest: str) -> str:
    """Where an OCI archive has the blob of that digest."""
    return f"blobs/{digest.replace(':', '/')}"


def encoded(value: object) -> bytes:
    """JSON, the same bytes for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def add_directories(out: IO[bytes], time: int) -> None:
    """Begin an OCI archive with an entry for each directory, as some readers want."""
    for path in ("blobs/", "blobs/sha256/"):
        out.write(header(path.encode(), 0o755, 0, time, tarfile.DIRTYPE))


def add(
    out: IO[bytes], path: str, content: Iterable[bytes], size: int, time: int = 0
) -> None:
    """Add a file of `size` bytes to a tar that is being written."""
    out.write(header(path.encode(), 0o644, size, time, tarfile.REGTYPE))
    for chunk in content:
        out.write(chunk)
    out.write(bytes(-size % 512))


def header(
    path: bytes,
    mode: int,
    size: int,
    time: int,
    kind: bytes,
    *,
    uid: int = 0,
    gid: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """The header block of an entry (POSIX.1-1988 ustar), without names of owners."""
    block = _HEADER.pack(
        path,
        b"%07o" % mode,
        b"%07o" % uid,
        b"%07o" % gid,
        b"%011o" % size,
        b"%011o" % time,
        b" " * 8,
        kind,
        link,
        b"ustar\x0000",
        b"",
        b"",
        b"%07o" % device[0],
        b"%07o" % device[1],
        b"",
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


@dataclasses.dataclass(frozen=True)
class Blob:
    """A layer as the archive has it."""

    region: Region
    diff_id: str
    """What the image's config says of the unpacked layer; empty where there is none."""
    check: Callable[[], str]
    """Digest of the bytes, which is what the archive says, or there is a Problem."""
    name: str
    """What messages call it."""

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the bytes as they are stored. Raises Problem if it is wrong."""
        return self.check()

    @contextlib.contextmanager
    def unpacked(self, scratch: Path, limit: int) -> Iterator[Region]:
        """The layer's tar, checked against its digest and its diff ID.

        A compressed layer is unpacked into a nameless file in the directory
        `scratch`, which goes when the context ends, or with the process. Raises
        Problem where it would have more than `limit` bytes.
        """
        stored = self.digest
        with contextlib.ExitStack() as stack:
            start = self.region.part(0, min(4, self.region.size)).read()
            if start.startswith(b"\x1f\x8b"):
                file = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
                region, digest = _gunzip(self, file, limit)
            elif start == _ZSTD or start[1:] == b"\x2a\x4d\x18":
                file = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
                region, digest = _unzstd(self, file, limit)
            else:
                region, digest = self.region, stored
            if self.diff_id and digest != self.diff_id:
                raise Problem(
                    f"{self.name} does not have the digest that the image says: "
                    f"expected {self.diff_id}, found {digest}: get the archive again"
                )
            yield region


def _gunzip(blob: Blob, file: IO[bytes], limit: int) -> tuple[Region, str]:
    return _stored(blob, file, limit, _inflate(blob))


def _unzstd(blob: Blob, file: IO[bytes], limit: int) -> tuple[Region, str]:
    try:
        return _stored(blob, file, limit, _frames(blob))
    except zstandard.ZstdError as error:
        raise Problem(f"{blob.name} is damaged: {error}") from None


def _stored(
    blob: Blob, file: IO[bytes], limit: int, pieces: Iterator[bytes]
) -> tuple[Region, str]:
    """Write the pieces to `file`, no more than `limit` bytes of them."""
    digest = hashlib.sha256()
    size = 0
    for data in pieces:
        digest.update(data)
        file.write(data)
        size += len(data)
        if size > limit:
            raise Problem(
                f"{blob.name} unpacks to more than an archive of this size "
                "may: refused as a decompression bomb"
            )
    file.flush()
    return Region(file, 0, size), f"sha256:{digest.hexdigest()}"


def _inflate(blob: Blob) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for chunk in blob.region.chunks():
            left = chunk
            while left:
                if unpacker.eof:  # a gzip file may have several members
                    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
                yield unpacker.decompress(left, CHUNK)
                left = unpacker.unconsumed_tail or unpacker.unused_data
        yield unpacker.flush()
    except zlib.error as error:
        raise Problem(f"{blob.name} is damaged: {error}") from None
    if not unpacker.eof:
        raise Problem(f"{blob.name} is truncated: get the archive again")


def _frames(blob: Blob) -> Iterator[bytes]:
    """What a zstd stream (RFC 8878) unpacks to, in pieces that do not grow with it."""
    new = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj
    unpacker = new()
    for chunk in blob.region.chunks():
        # A block of 128 KiB takes at least 4 bytes: a step unpacks to 32 MiB at most.
        for start in range(0, len(chunk), _STEP):
            left = chunk[start : start + _STEP]
            while left:
                if unpacker.eof:  # a stream may have several frames
                    unpacker = new()
                yield unpacker.decompress(left)
                left = unpacker.unused_data
    if not unpacker.eof:
        raise Problem(f"{blob.name} is truncated: get the archive again")


@dataclasses.dataclass(frozen=True)
class Image:
    """The one image of an archive."""

    config: dict[str, Any]
    config_digest: str
    manifest_digest: str
    """Empty where the archive has no OCI manifest."""
    layers: tuple[Blob, ...]
    limit: int
    """Bytes that the layers may have unpacked before they are a bomb."""

    @property
    def diff_ids(self) -> list[str]:
        return [layer.diff_id for layer in self.layers]


@contextlib.contextmanager
def open_image(path: Path) -> Iterator[Image]:
    """The image in a docker-archive or an oci-archive.

    What names the layers is checked by digest here, a layer when it is unpacked.
    Raises Problem where the file is no such archive, has not exactly one image, or
    a digest in it is wrong.
    """
    with open_files(path) as files:
        if "index.json" in files.regions:
            yield _oci_image(files)
        elif "manifest.json" in files.regions:
            yield _docker_image(files)
        else:
            raise Problem(
                f"{path} is no image archive: it has no index.json and no manifest.json"
            )


@contextlib.contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """The files of an image archive, of which nothing is checked yet."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    with file:
        region = Region(file, 0, os.fstat(file.fileno()).st_size)
        yield Files(path.name, region)


class Files:
    """The files of an image archive by path."""

    def __init__(self, name: str, region: Region) -> None:
        self.name = name
        self.limit = max(GENEROUS, RATIO * region.size)
        self.regions: dict[str, Region] = {}
        self.digests: dict[str, str] = {}
        links: dict[str, str] = {}
        for entry in read_tar(region, name):
            path = os.fsdecode(entry.path)
            if entry.kind == tarfile.REGTYPE:
                self.regions[path] = region.part(entry.offset, entry.size)
            elif entry.kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                links[path] = os.fsdecode(entry.link)
                if entry.kind == tarfile.SYMTYPE:
                    links[path] = posixpath.join(posixpath.dirname(path), links[path])
        # Docker links layers that are equal to one another.
        for path, link in links.items():
            target = posixpath.normpath(link)
            if target in self.regions:
                self.regions.setdefault(path, self.regions[target])

    def json(self, path: str) -> Any:
        region = self.region(path)
        if region.size > MAX_JSON:
            raise Problem(
                f"{self.name}: {printable(path)} is larger than {MAX_JSON} bytes"
            )
        try:
            return json.loads(region.read())
        except (ValueError, RecursionError) as error:
            raise Problem(
                f"{self.name}: {printable(path)} is no JSON: {error}"
            ) from None

    def region(self, path: str) -> Region:
        if path not in self.regions:
            raise Problem(
                f"{self.name}: {printable(path)} is missing: get the archive again"
            )
        return self.regions[path]

    def field(self, value: Any, key: str, kind: type[_T], where: str) -> _T:
        """`value[key]`, of type `kind`, of a JSON object in `where`."""
        found = value.get(key) if isinstance(value, dict) else None
        if not isinstance(found, kind):
            raise Problem(
                f"{self.name}: {printable(where)} has no {key} as images have it"
            )
        return found

    def blob(self, descriptor: Any, where: str) -> tuple[str, str]:
        """Path and digest of what an OCI descriptor names, checked."""
        path, _ = self.located(descriptor, where)
        return path, self.checked(path)

    def located(self, descriptor: Any, where: str) -> tuple[str, Region]:
        """Path and bytes of what an OCI descriptor names, of the size that it says."""
        digest = self.field(descriptor, "digest", str, where)
        if not DIGEST.fullmatch(digest):
            raise Problem(f"{self.name}: {where} has a digest that is no sha256")
        path = blob_path(digest)
        region = self.region(path)
        size = self.field(descriptor, "size", int, where)
        if region.size != size:
            raise Problem(
                f"{self.name}: {path} has {region.size} bytes, not {size} as {where} "
                "says: get the archive again"
            )
        return path, region

    def checked(self, path: str) -> str:
        """The digest of a file, which is the one that its name says."""
        if path not in self.digests:
            self.digests[path] = self.region(path).sha256()
        digest = self.digests[path]
        named = re.fullmatch(r"(?:.*/)?([0-9a-f]{64})(?:\.json|\.tar)?", path)
        if named and digest != f"sha256:{named[1]}":
            raise Problem(
                f"{self.name}: {printable(path)} does not have the digest of its name, "
                f"found {digest}: get the archive again"
            )
        return digest

    def diff_ids(self, config: Any, path: str, layers: int) -> list[str]:
        rootfs = self.field(config, "rootfs", dict, path)
        found = self.field(rootfs, "diff_ids", list, path)
        if layers > MAX_LAYERS:
            raise Problem(f"{self.name} has more than {MAX_LAYERS} layers")
        for diff_id in found:
            if not isinstance(diff_id, str) or not DIGEST.fullmatch(diff_id):
                raise Problem(
                    f"{self.name}: {printable(path)} has a diff ID that is no sha256"
                )
        if len(found) != layers:
            raise Problem(
                f"{self.name}: {printable(path)} names {len(found)} layers, "
                f"the manifest {layers}"
            )
        return found


def _oci_image(files: Files) -> Image:
    found = _manifests(files, "index.json", files.json("index.json"))
    if len(found) != 1:
        raise Problem(f"{files.name} has {len(found)} images: save one")
    ((digest, path),) = found.items()
    manifest = files.json(path)
    layers = files.field(manifest, "layers", list, path)
    config_path, config_digest = files.blob(
        files.field(manifest, "config", dict, path), path
    )
    config = files.json(config_path)
    diff_ids = files.diff_ids(config, config_path, len(layers))
    blobs = []
    for number, (layer, diff_id) in enumerate(zip(layers, diff_ids, strict=True), 1):
        layer_path, region = files.located(layer, path)
        check = functools.partial(files.checked, layer_path)
        name = f"{files.name}: layer {number}"
        blobs.append(Blob(region, diff_id, check, name))
    return Image(config, config_digest, digest, tuple(blobs), files.limit)


def _manifests(files: Files, where: str, index: Any, depth: int = 0) -> dict[str, str]:
    """The images' manifests below an index: digest and path.

    BuildKit puts a build's attestations beside the image; they are left out.
    """
    found: dict[str, str] = {}
    manifests = files.field(index, "manifests", list, where)
    if len(manifests) > MAX_MANIFESTS:
        raise Problem(f"{files.name} has more than {MAX_MANIFESTS} manifests")
    for descriptor in manifests:
        annotations = (
            descriptor.get("annotations") if isinstance(descriptor, dict) else 0
        )
        if isinstance(annotations, dict) and "vnd.docker.reference.type" in annotations:
            continue
        path, digest = files.blob(descriptor, where)
        content = files.json(path)
        if not isinstance(content, dict) or "manifests" not in content:
            found[digest] = path
        elif depth < 2:
            found |= _manifests(files, path, content, depth + 1)
    return found


def _docker_image(files: Files) -> Image:
    where = "manifest.json"
    images = files.json(where)
    if not isinstance(images, list) or len(images) != 1:
        raise Problem(f"{files.name} has not one image: save one")
    layers = files.field(images[0], "Layers", list, where)
    config_path = files.field(images[0], "Config", str, where)
    config_digest = files.checked(config_path)
    config = files.json(config_path)
    diff_ids = files.diff_ids(config, config_path, len(layers))
    blobs = []
    for number, (path, diff_id) in enumerate(zip(layers, diff_ids, strict=True), 1):
        if not isinstance(path, str):
            raise Problem(f"{files.name}: {where} names a layer that is no path")
        name = f"{files.name}: layer {number}"
        check = functools.partial(files.checked, path)
        blobs.append(Blob(files.region(path), diff_id, check, name))
    return Image(config, config_digest, "", tuple(blobs), files.limit)
