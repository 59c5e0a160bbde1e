"""Patterns of a .gitignore file, byte for byte as git reads them (gitignore(5)).

Not pathspec's: it reads `[[:digit:]]`, `[\\]]`, a tab at the end and names that are not
ASCII otherwise than git, so that what git ignores, a secret perhaps, would be packed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

_CLASSES = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"!-~",
    b"lower": rb"a-z",
    b"print": rb" -~",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t\n\r",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}


class _NeverMatches(Exception):
    """A pattern that git takes for broken: it matches nothing."""


@dataclasses.dataclass(frozen=True)
class _Pattern:
    regex: re.Pattern[bytes]
    negated: bool
    only_directories: bool
    only_name: bool
    """Whether the last part of a path is looked at, as there is no slash in it."""


class Rules:
    """The patterns of one file; of two that match, the later one decides."""

    def __init__(self, data: bytes) -> None:
        lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        # A file that ends without a line feed is read as if it had one.
        lines = [line.removesuffix(b"\r") for line in lines]
        self._patterns = [p for line in reversed(lines) for p in _parsed(line)]

    def ignores(self, path: bytes, directory: bool) -> bool | None:
        """Whether they name `path`, from the file's directory; None: no word of it."""
        name = path.rpartition(b"/")[2]
        for pattern in self._patterns:
            if pattern.only_directories and not directory:
                continue
            if pattern.regex.fullmatch(name if pattern.only_name else path):
                return not pattern.negated
        return None


def _parsed(line: bytes) -> Iterator[_Pattern]:
    if line.startswith(b"#"):
        return
    # Blanks at the end go, unless a backslash stands before.
    line = re.sub(rb"^((?:\\.|[^\\])*?) +$", rb"\1", line, flags=re.DOTALL)
    negated = line.startswith(b"!")
    line = line[negated:]
    only_directories = line.endswith(b"/")
    line = line[: len(line) - only_directories]
    only_name = b"/" not in line
    try:
        regex = re.compile(_regex(line.removeprefix(b"/")), re.DOTALL)
    except _NeverMatches:
        return
    yield _Pattern(regex, negated, only_directories, only_name)


def _regex(glob: bytes) -> bytes:
    out, at = b"", 0
    while at < len(glob):
        if stars := re.compile(rb"\*+").match(glob, at):
            alone = at == 0 or glob[at - 1 : at] == b"/"
            rest = glob[stars.end() :]
            if len(stars[0]) > 1 and alone and rest.startswith(b"/"):
                out += rb"(?:.*/)?"
                at = stars.end() + 1
                continue
            last = not rest or rest.startswith(b"\\/")
            out += b".*" if len(stars[0]) > 1 and alone and last else b"[^/]*"
            at = stars.end()
        elif glob[at : at + 1] == b"?":
            out += b"[^/]"
            at += 1
        elif glob[at : at + 1] == b"[":
            part, at = _bracket(glob, at + 1)
            out += part
        else:
            at += glob[at : at + 1] == b"\\"
            if at == len(glob):
                raise _NeverMatches
            out += re.escape(glob[at : at + 1])
            at += 1
    return out


def _bracket(glob: bytes, at: int) -> tuple[bytes, int]:
    """The regular expression of a bracket from behind its `[`, and where it ends."""
    negated = glob[at : at + 1] in (b"!", b"^")
    at += negated
    parts: list[bytes] = []
    before = b""
    """The character that a range could begin with."""
    first = True
    while first or glob[at : at + 1] != b"]":
        first = False
        named = re.compile(rb"\[:([^\]]*)\]").match(glob, at)
        if glob[at : at + 2] == b"[:" and not named:
            raise _NeverMatches
        if named and named[1].endswith(b":"):
            if named[1][:-1] not in _CLASSES:
                raise _NeverMatches
            parts.append(_CLASSES[named[1][:-1]])
            before, at = b"", named.end()
        elif (
            glob[at : at + 1] == b"-"
            and before
            and glob[at + 1 : at + 2] not in (b"", b"]")
        ):
            last, at = _character(glob, at + 1)
            if before <= last:
                parts.append(re.escape(before) + b"-" + re.escape(last))
            before = b""
        else:
            before, at = _character(glob, at)
            parts.append(re.escape(before))
    inside = b"".join(parts)
    if negated:
        return rb"[^/%s]" % inside, at + 1
    # No bracket matches a slash, and an empty one nothing at all.
    return rb"(?!/)[%s]" % inside if inside else rb"(?!)", at + 1


def _character(glob: bytes, at: int) -> tuple[bytes, int]:
    at += glob[at : at + 1] == b"\\"
    if at >= len(glob):
        raise _NeverMatches
    return glob[at : at + 1], at + 1
