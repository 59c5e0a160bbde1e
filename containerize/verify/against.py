"""What `--against` names: a digest, a file, an image in a registry, or what runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.image.archive import DIGEST
from containerize.progress import Progress
from containerize.settings import Settings
from containerize.verify import expected, pushed, running, service
from containerize.verify.expected import Target

# Of a container or a service (dockerd's RestrictedNameChars).
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def find(
    settings: Settings,
    engines: Sequence[Engine],
    text: str,
    *,
    every: bool = False,
    progress: Progress,
) -> Target:
    """What `text` names; what digests.json has, where it is empty.

    In this order: a digest, a file, an image in a registry, a container, a service; the
    last two of the first of the engines that has one. `every` processor's image is
    taken of a file like digests.json. Raises Problem where it is none of these, or
    nothing that this project could have made.
    """
    if not text:
        return expected.golden(settings, every=every)
    file = Path(text).is_file()
    if file and _is_json(Path(text)):
        return expected.golden(settings, text, every=every)
    if every:
        raise Problem(
            f"{text} is no file like digests.json, which is what --all compares with: "
            "leave out --all, or name one"
        )
    if DIGEST.fullmatch(text):
        return expected.digest(settings, text)
    if file:
        return expected.archive(settings, text)
    if "/" in text:
        return pushed.find(settings, text, progress=progress).target
    if _NAME.fullmatch(text):
        found = running.find(settings, engines, text)
        found = found or service.find(settings, engines, text, progress=progress)
        if found:
            return found
    kinds = " and ".join(dict.fromkeys(engine.kind for engine in engines))
    raise Problem(
        f"{text} is no file and no digest, and {kinds or 'no engine'} has no container "
        "and no service of that name: name an archive of `invoke build`, a file like "
        "digests.json, sha256:…, REGISTRY/NAME:TAG, or what runs"
    )


def _is_json(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(1) == b"{"
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
