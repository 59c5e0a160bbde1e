"""YAML with comments, written; nothing here reads any."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Words that every version of YAML reads as the text that they are.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_NOT_TEXT = re.compile(r"(?i)y|yes|n|no|on|off|true|false|null|nan|inf")

# What YAML does not print, or takes for the end of a line (YAML 1.1, 5.1 and 5.4).
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


class Note(str):
    """A key of a mapping that is a comment, its value is not looked at."""

    __slots__ = ()


def written(value: Mapping[str, Any]) -> str:
    """A document: mappings, sequences, texts, numbers; a `Note` as a comment above."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> Iterator[str]:
    """The lines of a mapping or a sequence that is not empty."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if isinstance(key, Note):
                yield from (f"# {line}".rstrip() for line in key.splitlines())
            elif _nests(each):
                yield f"{_scalar(key)}:"
                yield from (f"  {line}" for line in _lines(each))
            else:
                yield f"{_scalar(key)}: {_scalar(each)}"
        return
    for each in value:
        if not _nests(each):
            yield f"- {_scalar(each)}"
            continue
        for number, line in enumerate(_lines(each)):
            yield f"{'  ' if number else '- '}{line}"


def _nests(value: Any) -> bool:
    return bool(value) and (
        isinstance(value, Mapping)
        or (isinstance(value, Sequence) and not isinstance(value, str))
    )


def _scalar(value: Any) -> str:
    """A text, number, truth or empty collection; JSON is YAML, if it is printable."""
    plain = isinstance(value, str) and _PLAIN.fullmatch(value)
    if plain and not _NOT_TEXT.fullmatch(value):
        return str(value)
    # Beyond U+FFFF JSON escapes a character as two, which YAML reads as two.
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
