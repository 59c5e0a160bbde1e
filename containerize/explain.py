"""What differs between two archives, and why."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

Field = Literal[
    "mode", "mtime", "owner", "xattr", "order", "bytes",
    "type", "missing", "compression", "config", "label",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Difference:
    layer: str
    path: str
    field: Field
    cause: str
    remedy: str
    detail: str = ""


def compare(a: Path, b: Path, *, verbose: bool = False) -> list[Difference]:
    return []
