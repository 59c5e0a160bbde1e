"""Licences as SPDX names them, of Debian packages and of wheels.

A licence is said in clauses, of which each holds for a part of a package.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from email.message import Message

from cyclonedx import spdx

# Short names of https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
# where SPDX has another name for the same text.
_DEBIAN = {
    "apache-1": "Apache-1.0",
    "apache-2": "Apache-2.0",
    "artistic": "Artistic-1.0",
    "artistic-1": "Artistic-1.0",
    "artistic-2": "Artistic-2.0",
    "bsl-1": "BSL-1.0",
    "cc0": "CC0-1.0",
    "expat": "MIT",
    "mpl-1": "MPL-1.0",
    "mpl-2": "MPL-2.0",
    "psf-2": "PSF-2.0",
    "python-2": "Python-2.0",
}
_GNU = re.compile(
    r"(A?GPL|LGPL|GFDL)(-NIV)?-(\d)(?:\.(\d))?(?:\.0)?(\+?)", re.IGNORECASE
)

# Trove classifiers that name one licence, as "BSD License" does not.
_CLASSIFIERS = {
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}


@dataclasses.dataclass(frozen=True, order=True)
class Clause:
    """A licence, or several that are joined by AND and OR."""

    text: str
    is_spdx: bool
    """Whether the text is an SPDX expression, else it is somebody's own name."""


def debian(text: str) -> tuple[Clause, ...]:
    """What a machine-readable copyright file (DEP-5) says of the files, sorted.

    None if the file is not of that format.
    """
    if not re.search(r"^Format:.*(copyright-format|dep5)", text, re.I | re.M):
        return ()
    stanzas = re.split(r"\n[ \t]*\n", text)
    of_files = [s for s in stanzas if re.search(r"^Files:", s, re.M)]
    names = {
        " ".join(match[1].split())
        for stanza in of_files or stanzas[:1]
        if (match := re.search(r"^License:[ \t]*(\S.*)$", stanza, re.M))
    }
    return tuple(sorted(set(map(_clause, names))))


def wheel(metadata: Message) -> tuple[Clause, ...]:
    """What a wheel's metadata says, in the order of what says most."""
    expression = str(metadata.get("License-Expression") or "").strip()
    if expression:
        return (Clause(expression, spdx.is_expression(expression)),)
    own = str(metadata.get("License") or "").strip()
    if known := _identifier(own) or (spdx.is_expression(own) and own):
        return (Clause(known, True),)
    last = "License :: OSI Approved :: "
    classified = {
        str(each).removeprefix(last).removeprefix("License :: ")
        for each in metadata.get_all("Classifier", [])
        if str(each).startswith("License ::")
    } - {"OSI Approved"}
    if classified and classified <= _CLASSIFIERS.keys():
        return tuple(sorted(Clause(_CLASSIFIERS[each], True) for each in classified))
    if own and "\n" not in own and len(own) < 80:  # some put the whole text there
        return (Clause(own, False),)
    return tuple(sorted(Clause(each, False) for each in classified))


def joined(clauses: Iterable[Clause]) -> str:
    """One SPDX expression of clauses that are all SPDX."""
    texts = [clause.text for clause in clauses]
    several = len(texts) > 1
    return " AND ".join(f"({t})" if several and " OR " in t else t for t in texts)


def _clause(text: str) -> Clause:
    """A clause of Debian's: «or» binds less than «and», a comma before them least."""
    outer = re.split(r",\s+(and|or)\s+", text)
    parts = [_inner(part) for part in outer[::2]]
    if not all(parts):
        return Clause(text, False)
    if len(parts) > 1:
        parts = [f"({part})" if " " in part else part for part in parts]
    words = [word.upper() for word in outer[1::2]]
    return Clause(_alternating(parts, words), True)


def _inner(text: str) -> str:
    """The expression; empty if a name in it is not SPDX's."""
    split = re.split(r"\s+(and|or)\s+", text)
    names = [_identifier(name) for name in split[::2]]
    words = [word.upper() for word in split[1::2]]
    return _alternating(names, words) if all(names) else ""


def _alternating(parts: list[str], words: list[str]) -> str:
    rest = [f" {word} {part}" for word, part in zip(words, parts[1:], strict=True)]
    return parts[0] + "".join(rest)


def _identifier(name: str) -> str:
    """SPDX's identifier of a licence; empty if none can be told."""
    name = re.sub(r"\s+", "-", name.strip())
    if gnu := _GNU.fullmatch(name):
        invariants = "no-invariants-" if gnu[2] else ""
        later = "or-later" if gnu[5] else "only"
        name = f"{gnu[1].upper()}-{gnu[3]}.{gnu[4] or 0}-{invariants}{later}"
    return spdx.fixup_id(_DEBIAN.get(name.lower(), name)) or ""
