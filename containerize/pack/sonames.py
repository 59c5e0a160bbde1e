"""The C libraries that programs find by name: ldconfig's cache, and its listing.

`ctypes.CDLL("libx.so.1")` looks into the cache, `ctypes.util.find_library("x")` asks
`ldconfig -p` (issue 8, B16). The image has no ldconfig; a Python script in its place
prints what it would say of the Debian packages' libraries. It reads nothing when run.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import struct
from collections.abc import Sequence

from containerize.pack import tree

_MACHINES = {
    62: ("x86_64-linux-gnu", "x86-64", 0x0303),
    183: ("aarch64-linux-gnu", "AArch64", 0x0A03),
}
"""By ELF's e_machine: Debian's directory, ldconfig's word, the cache's flags."""

_LOAD, _DYNAMIC = 1, 2  # of a program header (ELF gABI, "Program Header")
_STRTAB, _SONAME = 5, 14  # of the dynamic section
_MAGIC = b"glibc-ld.so.cache1.1"
_LITTLE_ENDIAN = 2  # of the cache's flags


@dataclasses.dataclass(frozen=True)
class Library:
    """What a name leads to: ELF's e_machine, the name, the path with its slash."""

    machine: int
    name: str
    path: str


def libraries(root: tree.Tree) -> list[Library]:
    """The libraries of `root` by name, in the order of ldconfig(8)'s cache.

    Of equal names the first directory's stands. Left out are names that have variants
    for newer processors: the loader finds those itself, in its own directories.
    """
    variants = {
        posixpath.basename(path) for path in root.entries if "/glibc-hwcaps/" in path
    }
    found: dict[tuple[int, str], Library] = {}
    for directory in _directories(root):
        for path in root.children(directory):
            name = posixpath.basename(path)
            if posixpath.dirname(path) != directory or name in variants:
                continue
            if not re.match(r"(lib|ld-).*\.so", name):
                continue
            machine, own = soname(root.content(path)) or (0, "")
            if machine in _MACHINES and own == name:
                library = Library(machine, name, f"/{path}")
                found.setdefault((machine, name), library)
    return sorted(
        found.values(), key=lambda lib: (_key(lib.name), lib.machine), reverse=True
    )


def _directories(root: tree.Tree) -> list[str]:
    """Where ldconfig looks: where packages tell it to, then the loader's own."""
    named = []
    for path in root.children("etc/ld.so.conf.d"):
        if path.endswith(".conf"):
            for line in root.content(path).decode(errors="replace").splitlines():
                named.append(line.partition("#")[0].strip())
    ours = [f"/usr/lib/{directory}" for directory, *_ in _MACHINES.values()]
    every = [*named, "/usr/local/lib", *ours, "/usr/lib"]
    return list(dict.fromkeys(real for top in every if (real := root.real(top))))


def _key(name: str) -> list[tuple[int, int]]:
    """The cache's order: numbers by value, and after all other characters."""
    parts = re.findall(r"([0-9]+)|(.)", name, re.DOTALL)
    return [(1, int(digits)) if digits else (0, ord(text)) for digits, text in parts]


def cache(found: Sequence[Library]) -> bytes:
    """/etc/ld.so.cache of `libraries` (glibc, sysdeps/generic/dl-cache.h)."""
    entries, strings = b"", b""
    start = 48 + 24 * len(found)
    for library in found:
        key = start + len(strings)
        strings += library.name.encode() + b"\0"
        value = start + len(strings)
        strings += library.path.encode() + b"\0"
        flags = _MACHINES[library.machine][2]
        entries += struct.pack("<iIIIQ", flags, key, value, 0, 0)
    numbers = len(found), len(strings), _LITTLE_ENDIAN
    return struct.pack("<20sIIB3x4I", _MAGIC, *numbers, 0, 0, 0, 0) + entries + strings


def script(found: Sequence[Library], python: str) -> bytes:
    """A script that prints what `ldconfig -p` says of `libraries`."""
    listing = f"{len(found)} libs found in cache `/etc/ld.so.cache'\n" + "".join(
        f"\t{lib.name} (libc6,{_MACHINES[lib.machine][1]}) => {lib.path}\n"
        for lib in found
    )
    return f"#!/usr/bin/python{python} -IS\nprint({listing!r}, end='')\n".encode()


def soname(data: bytes) -> tuple[int, str] | None:
    """e_machine and DT_SONAME of a 64-bit little-endian ELF library, if it is one."""
    if data[:6] != b"\x7fELF\x02\x01":
        return None
    try:
        machine = struct.unpack_from("<H", data, 18)[0]
        start = struct.unpack_from("<Q", data, 32)[0]
        size, count = struct.unpack_from("<HH", data, 54)
        headers = [
            struct.unpack_from("<IIQQQQ", data, start + size * n) for n in range(count)
        ]
        [(offset, length)] = [(h[2], h[5]) for h in headers if h[0] == _DYNAMIC]
        dynamic = dict(struct.iter_unpack("<QQ", data[offset : offset + length]))
        address = dynamic[_STRTAB]
        [table] = [
            h[2] + address - h[3]
            for h in headers
            if h[0] == _LOAD and h[3] <= address < h[3] + h[5]
        ]
        begin = table + dynamic[_SONAME]
        return machine, data[begin : data.index(b"\0", begin)].decode()
    except (KeyError, ValueError, OverflowError, struct.error):
        return None
