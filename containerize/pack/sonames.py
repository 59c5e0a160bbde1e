"""The answer to `ldconfig -p`, which ctypes.util.find_library asks for (issue 8, B16).

The image has no ldconfig; a Python script in its place prints what it would say of the
Debian packages' libraries. It reads nothing at run time.
"""

from __future__ import annotations

import posixpath
import struct
import tarfile

from containerize.pack import tree

_LIBRARIES = {62: ("x86_64-linux-gnu", "x86-64"), 183: ("aarch64-linux-gnu", "AArch64")}
"""By ELF's e_machine: Debian's directory and ldconfig's word."""

_LOAD, _DYNAMIC = 1, 2  # of a program header (ELF gABI, "Program Header")
_STRTAB, _SONAME = 5, 14  # of the dynamic section


def script(root: tree.Tree, python: str) -> bytes:
    """A script that prints the libraries of `root` as `ldconfig -p` does."""
    lines = []
    for machine, (directory, word) in _LIBRARIES.items():
        for top in (f"usr/lib/{directory}", "usr/lib"):
            for path in root.children(top):
                if posixpath.dirname(path) != top:
                    continue
                name = posixpath.basename(path)
                if soname(_content(root, path)) == (machine, name):
                    lines.append(f"\t{name} (libc6,{word}) => /{path}\n")
    listing = f"{len(lines)} libs found in cache `/etc/ld.so.cache'\n" + "".join(lines)
    return f"#!/usr/bin/python{python} -IS\nprint({listing!r}, end='')\n".encode()


def _content(root: tree.Tree, path: str) -> bytes:
    """What is at `path`; of a link, what it leads to in its own directory."""
    for _ in range(8):
        entry = root.entries.get(path)
        if entry is None:
            return b""
        if entry.kind == tarfile.LNKTYPE:
            path = entry.target
        elif entry.kind == tarfile.SYMTYPE:
            joined = posixpath.join("/", posixpath.dirname(path), entry.target)
            path = posixpath.normpath(joined).lstrip("/")
        else:
            return entry.content
    return b""


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
