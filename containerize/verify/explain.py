"""What differs between two builds, and the likely cause in words.

Compared are two image archives, canonical ones or as `docker save` and `podman save`
write them; or two tars, such as packed layers; or two directories of such tars, such
as two build directories. A canonical archive shows all that decides a digest. What a
canonical form takes away, such as the time of a file or the order of entries, can be
seen in what it was made from only. Of a digest alone one can tell what in an image has
it, and nothing else: see `named`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import itertools
import json
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from containerize.errors import Problem
from containerize.image import archive
from containerize.image.archive import Blob, Entry, Region, printable, show
from containerize.image.canonical import ImageDigests

Field = Literal[
    "mode", "mtime", "owner", "xattr", "order", "bytes",
    "type", "missing", "compression", "config", "label",
]  # fmt: skip

LOOK = 16 << 20
"""Bytes up to which a file is looked into."""

LINES = 8
"""Lines of a detail that is not verbose."""

SECONDS = 120
"""What diffoscope has for one file."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing that differs, or in a short list, the first of several alike."""

    layer: str
    """What holds it: a layer, a tar, or `image`."""
    path: str
    """The file's path, or what of the image it is."""
    field: Field
    cause: str
    """The likely cause, in words."""
    remedy: str
    detail: str = ""
    """What is known more; of text, a diff."""


def compare(a: Path, b: Path, *, verbose: bool = False) -> list[Difference]:
    """What differs between `a` and `b`: archives of an image, tars, or directories.

    Without `verbose`, files of a layer that differ for one cause are one Difference,
    and details are short. Raises Problem where one is no such file, or is damaged.
    """
    with contextlib.ExitStack() as stack:
        sides = _Side(a, stack), _Side(b, stack)
        found = list(_differences(*sides, stack, verbose))
    return found if verbose else _short(found)


def named(digests: ImageDigests, digest: str) -> str:
    """What of an image has `digest`, in words; empty where nothing has."""
    names = {digests.manifest: "its manifest", digests.config: "its config"}
    for number, layer in enumerate(digests.layers, 1):
        names.setdefault(layer.diff_id, f"layer {number}, unpacked")
        names.setdefault(layer.digest, f"layer {number}, compressed")
    return names.get(digest, "")


def _short(found: list[Difference]) -> list[Difference]:
    groups: dict[tuple[str, str, str], list[Difference]] = {}
    for difference in found:
        key = difference.layer, difference.field, difference.cause
        groups.setdefault(key, []).append(difference)
    return [
        dataclasses.replace(group[0], path=f"{group[0].path} and {len(group) - 1} more")
        if len(group) > 1
        else group[0]
        for group in groups.values()
    ]


class _Side:
    """What is compared: layers by name, and of an image, its config."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self.config: dict[str, Any] | None = None
        self.named = path.is_dir()
        self.layers: dict[str, Blob] = {}
        self.limit = archive.GENEROUS
        files = sorted(path.glob("*.tar*")) if self.named else [path]
        if not files:
            raise Problem(f"{path} has no tars: name one that has, or an archive")
        if not self.named and _is_image(path):
            image = stack.enter_context(archive.open_image(path))
            self.config, self.limit = image.config, image.limit
            for number, blob in enumerate(image.layers, 1):
                self.layers[f"layer {number}"] = blob
            return
        for file in files:
            region = _region(file, stack)
            self.limit = max(self.limit, archive.RATIO * region.size)
            self.layers[file.name] = Blob(region, "", region.sha256, file.name)

    def unpack(self, blob: Blob, stack: contextlib.ExitStack) -> Region:
        scratch = Path(tempfile.gettempdir())
        return stack.enter_context(blob.unpacked(scratch, self.limit))


def _region(path: Path, stack: contextlib.ExitStack) -> Region:
    try:
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    return Region(file, 0, path.stat().st_size)


def _is_image(path: Path) -> bool:
    with contextlib.ExitStack() as stack:
        region = _region(path, stack)
        if region.part(0, min(2, region.size)).read() == b"\x1f\x8b":
            return False
        names = {entry.path for entry in archive.read_tar(region, path.name)}
        return bool(names & {b"index.json", b"manifest.json"})


def _differences(
    a: _Side, b: _Side, stack: contextlib.ExitStack, verbose: bool
) -> Iterator[Difference]:
    if a.config is not None and b.config is not None:
        yield from _configs(a.config, b.config)
    for name, old, new in _pairs(a, b):
        if old is None or new is None:
            side, blob = (b, new) if new else (a, old)
            files = _files(side.unpack(blob, stack), name) if blob else []
            yield Difference(
                name,
                "the whole layer",
                "missing",
                f"only the {'second' if old is None else 'first'} has this layer",
                "compare the steps of the two Dockerfiles, or canonical archives: "
                "engines differ in the empty layers that they write",
                _cut(files, verbose),
            )
        elif old.digest != new.digest:
            regions = a.unpack(old, stack), b.unpack(new, stack)
            stamps = _stamp(a.config), _stamp(b.config)
            found = list(_layers(name, *regions, stamps, verbose))
            if not found and regions[0].sha256() == regions[1].sha256():
                found = [_compression(name, old.region, new.region)]
            elif not found:
                found = [_format(name)]
            yield from found


def _files(region: Region, name: str) -> list[str]:
    """The paths in a layer, but for directories."""
    entries = archive.read_tar(region, name)
    return [show(entry.path) for entry in entries if entry.kind != tarfile.DIRTYPE]


def _pairs(a: _Side, b: _Side) -> Iterator[tuple[str, Blob | None, Blob | None]]:
    """The layers that stand for one another."""
    if a.named and b.named:
        for name in sorted(a.layers.keys() | b.layers.keys()):
            yield name, a.layers.get(name), b.layers.get(name)
        return
    old, new = list(a.layers.items()), list(b.layers.items())
    matcher = difflib.SequenceMatcher(
        None,
        [blob.diff_id for _, blob in old],
        [blob.diff_id for _, blob in new],
        autojunk=False,
    )
    for _, i, j, k, m in matcher.get_opcodes():
        for left, right in itertools.zip_longest(old[i:j], new[k:m]):
            name = left[0] if left else right[0]
            yield name, left and left[1], right and right[1]


# --- Config ----------------------------------------------------------------------

_REBUILD = "rebuild from the same files, or where the change is meant, keep it"

_CONFIG = {
    "created": (
        "the time of the image, which builders take from the clock, and a canonical "
        "image from base.lock",
        "compare canonical archives of the same base.lock",
    ),
    "history": (
        "the builder's own notes on each step, with times",
        "compare canonical archives, which have none",
    ),
    "config.Hostname": (
        "the host name of the container that the builder used",
        "compare canonical archives, which have none",
    ),
}


def _configs(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    old, new = dict(_flat(a)), dict(_flat(b))
    for key in sorted(old.keys() | new.keys()):
        x, y = old.get(key), new.get(key)
        if x == y or key == "rootfs.diff_ids":
            continue
        detail = f"{printable(json.dumps(x))} against {printable(json.dumps(y))}"
        label = key.removeprefix("config.Labels.")
        if label != key:
            cause, remedy = _label(label)
            yield Difference(
                "image", f"label {printable(label)}", "label", cause, remedy, detail
            )
            continue
        top = key.removeprefix("container_")
        cause, remedy = _CONFIG.get(
            top,
            (
                "the Dockerfile, the base image or the builder sets it otherwise",
                "compare the Dockerfiles and base images; canonical archives hold "
                "only what decides how a container runs",
            ),
        )
        yield Difference(
            "image", f"config {printable(key)}", "config", cause, remedy, detail
        )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _label(label: str) -> tuple[str, str]:
    lock = label.removeprefix("containerize.")
    if lock.endswith((".lock", ".txt")):
        return (
            f"a changed lock input: the two were built from different {lock}",
            f"take the same {lock}; where its change is meant, that is why the digest "
            "is another one",
        )
    if label.startswith("io.buildah."):
        return (
            "a label that Podman adds by itself",
            "compare canonical archives, which have none",
        )
    return "the label is set otherwise", _REBUILD


# --- Layers ----------------------------------------------------------------------


def _compression(name: str, a: Region, b: Region) -> Difference:
    return Difference(
        name,
        "the compressed layer",
        "compression",
        "another compressor: the unpacked layer is the same, but another program, "
        "release or level has compressed it",
        "compare diff IDs, which need no compressor, or compress with the one that "
        "tools.txt pins",
        f"{_compressor(a)} against {_compressor(b)}",
    )


def _compressor(region: Region) -> str:
    head = region.part(0, min(10, region.size)).read()
    if head[:2] != b"\x1f\x8b":
        return f"not compressed, {region.size} bytes"
    time = int.from_bytes(head[4:8], "little")
    return f"gzip, {region.size} bytes, time {time}, flags {head[8]}, system {head[9]}"


def _format(name: str) -> Difference:
    return Difference(
        name,
        "the tar itself",
        "bytes",
        "another tar writer: the entries are the same, but their headers or the "
        "padding are of another format",
        "write it with the same tool, or compare canonical archives",
    )


def _stamp(config: Mapping[str, Any] | None) -> int | None:
    """The time of a canonical image in nanoseconds; None for a tar alone; else 0."""
    if config is None:
        return None
    try:  # engines write fractions of a second
        found = datetime.datetime.strptime(config["created"], "%Y-%m-%dT%H:%M:%S%z")
        return int(found.timestamp()) * 10**9
    except (KeyError, TypeError, ValueError):
        return 0


def _layers(
    name: str,
    a: Region,
    b: Region,
    stamps: tuple[int | None, int | None],
    verbose: bool,
) -> Iterator[Difference]:
    old = {entry.path: entry for entry in archive.read_tar(a, name)}
    new = {entry.path: entry for entry in archive.read_tar(b, name)}
    times = [{entry.mtime for entry in side.values()} for side in (old, new)]
    one_time = min(len(old), len(new)) > 1 and all(
        len(found) == 1 and stamp in (None, *found)
        for found, stamp in zip(times, stamps, strict=True)
    )
    if one_time and times[0] != times[1]:
        yield Difference(
            name,
            "every entry",
            "mtime",
            "the one time that all entries have differs: it is the date in base.lock",
            "take the same base.lock",
            " against ".join(_time(time) for side in times for time in side),
        )
    for path in sorted(old.keys() | new.keys()):
        x, y = old.get(path), new.get(path)
        if x is None or y is None:
            which = "second" if x is None else "first"
            yield Difference(name, show(path), "missing", *_missing(path, which))
            continue
        for field, cause, remedy, detail in _entries(x, y):
            if field == "mtime" and one_time:
                continue
            yield Difference(name, show(path), field, cause, remedy, detail)
        if x.kind == y.kind and x.kind == tarfile.REGTYPE:
            parts = a.part(x.offset, x.size), b.part(y.offset, y.size)
            if x.size != y.size or parts[0].sha256() != parts[1].sha256():
                yield Difference(
                    name, show(path), "bytes", *_contents(path, *parts, verbose)
                )
    first = [path for path in old if path in new]
    second = [path for path in new if path in old]
    if first != second:
        yield _order(name, first, second)


def _order(name: str, first: list[bytes], second: list[bytes]) -> Difference:
    moved = next(x for x, y in zip(first, second, strict=True) if x != y)
    lists = {"first": first, "second": second}
    unsorted = [which for which, paths in lists.items() if paths != sorted(paths)]
    which = f" (the {unsorted[0]})" if len(unsorted) == 1 else ""
    return Difference(
        name,
        show(moved),
        "order",
        f"an unsorted archive{which}: the same entries stand in another order, as "
        "the file system happened to list them",
        "sort the names when the archive is written (tar --sort=name)",
    )


def _missing(path: bytes, which: str) -> tuple[str, str]:
    if path.endswith(b".pyc"):
        return (
            f"only the {which} has this bytecode: Python wrote it during the build",
            "set PYTHONDONTWRITEBYTECODE=1 in that step, or compile all of it",
        )
    return f"only the {which} build made it", _REBUILD


_Found = tuple[Field, str, str, str]


def _entries(x: Entry, y: Entry) -> Iterator[_Found]:
    """What differs between two entries, their content aside."""
    if x.kind != y.kind:
        kinds = f"type {x.kind!r} against {y.kind!r}"
        yield "type", "one is not of the other's kind", _REBUILD, kinds
        return
    if x.device != y.device:
        yield "type", "it is another device", _REBUILD, f"{x.device}, {y.device}"
    elif x.link != y.link:
        links = f"{show(x.link)[1:]} against {show(y.link)[1:]}"
        yield "bytes", "the link names another path", _REBUILD, links
    if x.mode != y.mode:
        yield "mode", *_mode(x.mode, y.mode), f"{x.mode:o} against {y.mode:o}"
    owners = (x.uid, x.gid, *x.owner), (y.uid, y.gid, *y.owner)
    if owners[0] != owners[1]:
        if owners[0][:2] == owners[1][:2]:
            cause = "only names of users differ, which are those of the machine"
            remedy = "write numeric owners (tar --numeric-owner)"
        else:
            cause = "its owner differs: another user made it or copied it"
            remedy = "set the owner in the step that makes it (COPY --chown, chown)"
        yield "owner", cause, remedy, " against ".join(map(str, owners))
    if x.mtime != y.mtime:
        yield "mtime", *_mtime(x.mtime, y.mtime)
    if x.xattrs != y.xattrs:
        names = {key for key, _ in {*x.xattrs} ^ {*y.xattrs}}
        yield (
            "xattr",
            "extended attributes differ: one engine or file system stored them",
            "set them in the build, or leave them away; a canonical image keeps "
            "security.capability only",
            ", ".join(show(key)[1:] for key in sorted(names)),
        )


def _mode(x: int, y: int) -> tuple[str, str]:
    differs = stat.S_IMODE(x) ^ stat.S_IMODE(y)
    if not differs:
        return (
            "only one writer puts the type of the file into its mode",
            "compare canonical archives, which have permission bits only",
        )
    if not differs & ~0o077 and differs in (differs & x, differs & y):
        return (
            f"an umask leak: one was made under an umask that takes {differs:03o} away",
            "set the mode where the file is made (chmod, install -m), or set the "
            "umask there",
        )
    return "its permissions are set otherwise", "set the mode in the step that makes it"


def _mtime(x: int, y: int) -> tuple[str, str, str]:
    times = f"{_time(x)} against {_time(y)}"
    if x // 10**9 == y // 10**9:
        return (
            "only one writer keeps fractions of a second",
            "compare canonical archives, which have whole seconds",
            times,
        )
    return (
        "a fresh mtime: the file has the time of the clock when it was made",
        "set the time in the step that makes it (touch -d @N); a canonical image has "
        "one time for all",
        times,
    )


def _time(nanoseconds: int) -> str:
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    try:
        return str(epoch + datetime.timedelta(microseconds=nanoseconds // 1000))
    except OverflowError:
        return f"{nanoseconds} ns"


# --- Contents --------------------------------------------------------------------

_Why = tuple[str, str, str]
"""Cause, remedy, detail."""


def _contents(path: bytes, a: Region, b: Region, verbose: bool) -> _Why:
    """Why the contents of a file differ."""
    if max(a.size, b.size) > LOOK:
        sizes = f"{a.size} and {b.size} bytes"
        return "its content differs, and is too large to look into", _REBUILD, sizes
    x, y = a.read(), b.read()
    return (
        _bytecode(path, x, y)
        or _gzip(x, y)
        or _text(path, x, y, verbose)
        or _rest(path, x, y, verbose)
    )


def _bytecode(path: bytes, x: bytes, y: bytes) -> _Why | None:
    """Bytecode: magic, flags, then time and size or hash of the source (PEP 552)."""
    if not path.endswith(b".pyc") or x[2:4] != b"\r\n" or y[2:4] != b"\r\n":
        return None
    detail = f"{_pyc(x)} against {_pyc(y)}"
    if x[:4] != y[:4]:
        cause, remedy = "another Python compiled it", "compile with the image's Python"
    elif x[4:12] != y[4:12] and not (x[4] & y[4] & 1):
        cause = "a .pyc with a time stamp: it holds the time of its source"
        remedy = "compile with --invalidation-mode unchecked-hash"
    elif x[:16] != y[:16]:
        cause, remedy = "its source or its flags differ", "compare the source first"
    else:
        cause = "the same source compiled to other bytes: paths, order or references"
        remedy = "compile in one process, in one order, with PYTHONHASHSEED=0"
    return cause, remedy, detail


def _pyc(data: bytes) -> str:
    number = int.from_bytes(data[:2], "little")
    flags = int.from_bytes(data[4:8], "little")
    if flags & 1:
        kind = "checked" if flags & 2 else "unchecked"
        stamp = f"{kind} hash {data[8:16].hex()}"
    else:
        stamp = f"source of {_time(int.from_bytes(data[8:12], 'little') * 10**9)}"
    return f"magic {number}, flags {flags}, {stamp}, {len(data)} bytes"


def _gzip(x: bytes, y: bytes) -> _Why | None:
    if x[:2] != b"\x1f\x8b" or x[:2] != y[:2] or x[4:8] == y[4:8]:
        return None
    return (
        "a gzip file with a time stamp in its header",
        "pack it with gzip --no-name",
        f"{x[4:8].hex()} against {y[4:8].hex()}",
    )


_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"

_PATTERNS = (
    (
        "the date of the build is written into it",
        "do not write it, or take it from SOURCE_DATE_EPOCH",
        r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\w*\b[\w :+,-]{8,40}"
        rf"|\b(?:\d{{1,2}} )?(?:{_MONTHS})[a-z]* \d{{1,4}}[\w :+,-]{{0,30}}"
        r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?"
        r"(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?"
        r"|\b\d{1,2}:\d\d:\d\d(?:\.\d+)?\b"
        r"|\b1[5-9]\d{8}(?:\.\d+|\d{3}|\d{6}|\d{9})?\b"
        r"|\b20\d{6}(?:\d{4}|\d{6})?\b",
    ),
    (
        "the host name of the machine or the build container is written into it",
        "do not write it, or set it in that step",
        # Containers are named by the first twelve digits of their ID.
        r"\bbuildkitsandbox\b|\blocalhost(?:\.\w+)*\b|\b[0-9a-f]{12}\b"
        r"|(?i:host_?(?:name)?[\"']?\s*[:=]\s*[\"']?)[\w.-]+",
    ),
    (
        "a random ID, made anew by each build, is written into it",
        "do not write it, or derive it from the content",
        r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
        r"|\b[0-9a-fA-F]{16,}\b|\b0x[0-9a-fA-F]{6,}\b",
    ),
    (
        "a path of the build is written into it",
        "build at one path, or map it (-ffile-prefix-map)",
        r"(?:/[\w.@+~-]+){2,}",
    ),
)


def _text(path: bytes, x: bytes, y: bytes, verbose: bool) -> _Why | None:
    if b"\0" in x + y:
        return None
    try:
        old, new = x.decode().splitlines(), y.decode().splitlines()
    except UnicodeDecodeError:
        return None
    lines = [
        line
        for line in difflib.unified_diff(old, new, n=0, lineterm="")
        if not line.startswith(("---", "+++"))
    ]
    detail = _cut(lines, verbose)
    if sorted(old) == sorted(new):
        return (
            "the same lines in another order: a directory's or a hash's order",
            "sort them where they are written, or set PYTHONHASHSEED=0",
            detail,
        )
    if path == b"etc/hostname":
        return *_PATTERNS[1][:2], detail
    return *(_written(old, new) or ("its text differs", _REBUILD)), detail


def _written(old: list[str], new: list[str]) -> tuple[str, str] | None:
    """The kinds of text that account for all lines that differ, in words."""
    found: dict[str, str] = {}
    for a, b in itertools.zip_longest(old, new):
        if a == b:
            continue
        if a is None or b is None or not (causes := _line(a, b)):
            return None
        found |= causes
    return "; ".join(found), "; ".join(found.values())


def _line(a: str, b: str) -> dict[str, str]:
    """The kinds of text by which two lines differ, if by nothing else, and remedies."""
    for cause, remedy, pattern in _PATTERNS:
        if re.sub(pattern, "", a) == re.sub(pattern, "", b):
            return {cause: remedy}
    found = {}
    for cause, remedy, pattern in _PATTERNS:
        if re.findall(pattern, a) != re.findall(pattern, b):
            found[cause] = remedy
        a, b = re.sub(pattern, "", a), re.sub(pattern, "", b)
    return found if a == b else {}


def _rest(path: bytes, x: bytes, y: bytes, verbose: bool) -> _Why:
    at = next(
        (i for i, pair in enumerate(zip(x, y, strict=False)) if pair[0] != pair[1]),
        min(len(x), len(y)),
    )
    detail = f"{len(x)} and {len(y)} bytes, which differ from byte {at}"
    tool = shutil.which("diffoscope")
    if tool:
        detail += "\n" + _cut(_diffoscope(tool, path, x, y), verbose)
    remedy = "see what the step that makes it depends on"
    if not tool:
        remedy += "; diffoscope, where it is installed, says more"
    return "its content differs", remedy, detail


def _diffoscope(tool: str, path: bytes, x: bytes, y: bytes) -> list[str]:
    # The name tells diffoscope the file's kind.
    name = re.sub(r"[^\w.+-]", "_", show(path).rpartition("/")[2]) or "file"
    with tempfile.TemporaryDirectory() as scratch:
        for side, data in (("a", x), ("b", y)):
            Path(scratch, side).mkdir()
            Path(scratch, side, name).write_bytes(data)
        try:
            done = subprocess.run(
                [tool, "--text", "-", f"a/{name}", f"b/{name}"],
                cwd=scratch,
                capture_output=True,
                check=False,
                timeout=SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired):
            return []
    return done.stdout.decode("utf-8", "replace").splitlines()


def _cut(lines: list[str], verbose: bool) -> str:
    """Lines for a detail, each printable; without `verbose`, few and short ones."""
    kept = [printable(part) for line in lines for part in line.splitlines()]
    if verbose:
        return "\n".join(kept)
    more = [f"… and {len(kept) - LINES} lines more"] if len(kept) > LINES else []
    return "\n".join([*(line[:120] for line in kept[:LINES]), *more])
