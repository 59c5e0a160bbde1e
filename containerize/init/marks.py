"""The mark on a generated file: by which format it was made, and whether it still is.

The first line is `# containerize format N sha256:HEX`, with the first half of the
digest of all that follows it: short enough for linters, long enough to tell an edit. A
file that lost the line, or never had it, is the user's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from containerize.disk import atomic
from containerize.errors import Problem

_MARK = re.compile(r"# containerize format ([1-9][0-9]*) sha256:([0-9a-f]{32})\n")


@dataclasses.dataclass(frozen=True)
class State:
    """Whose a file is: `untouched` or `edited`, which are ours, or `foreign`."""

    kind: str
    format: int = 0


def marked(body: str, format: int) -> str:  # noqa: A002
    """`body` under its mark."""
    return f"# containerize format {format} sha256:{_half(body)}\n{body}"


def _half(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:32]


def state(text: str) -> State:
    """Whose a file with this text is; line ends that Git changed do not count."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found = _MARK.match(text)
    if not found:
        return State("foreign")
    same = _half(text[found.end() :]) == found[2]
    return State("untouched" if same else "edited", int(found[1]))


@dataclasses.dataclass(frozen=True)
class Refreshed:
    """Paths, from the repository's top."""

    written: tuple[str, ...]
    edited: tuple[str, ...]
    """Older ones that somebody edited, which are left as they are."""


def refresh(root: Path, templates: Mapping[str, str], format: int) -> Refreshed:  # noqa: A002
    """Rewrite what an older format made and nobody edited.

    `templates` maps a path to the body that this format gives it. Files that are
    missing, foreign, or made by this or a newer format stay as they are. Raises
    Problem if a file cannot be read or written.
    """
    written, edited = [], []
    for name, body in sorted(templates.items()):
        file = root / name
        try:
            text = file.read_bytes().decode()
        except (FileNotFoundError, UnicodeDecodeError):
            continue
        except OSError as error:
            raise Problem(f"cannot read {name}: {error.strerror}: mend it") from None
        found = state(text)
        if found.kind == "foreign" or found.format >= format:
            continue
        if found.kind == "edited":
            edited.append(name)
            continue
        with atomic(file.resolve()) as output:
            output.write(marked(body, format).encode())
        written.append(name)
    return Refreshed(tuple(written), tuple(edited))


def check(file: Path, format: int) -> None:  # noqa: A002
    """Raises Problem if another format of this tool made a file."""
    if line := other_format(file.name, file.read_text("utf-8", "replace"), format):
        raise Problem(line)


def other_format(name: str, text: str, format: int) -> str:  # noqa: A002
    """A line, if another format of this tool made a file with this text.

    What is marked by this format, or by none, is believed.
    """
    found = state(text)
    if found.format in (0, format):
        return ""
    mend = "install that version, or a newer one"
    if found.format < format:
        mend = "`invoke lock` rewrites it"
        if found.kind == "edited":
            mend = (
                "move it away, run `containerize init`, and put your changes into the "
                "new one"
            )
    return (
        f"{name} is of format {found.format} of this tool, which now writes "
        f"format {format}: {mend}"
    )
