"""What a build came from and what came out, as JSON: dist/*.json, digests.json.

Nothing of it is in the image, where the commit or the time of a build would change
the digest though nothing else has changed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from containerize import FORMAT, disk
from containerize.errors import Problem
from containerize.image.canonical import ImageDigests
from containerize.lock.locks import BACKEND, BASE, needs_base
from containerize.pack import layers, project, selection, sources
from containerize.settings import Settings, check_volume

GOLDEN = "digests.json"
"""The committed digests, by architecture, each with the inputs that they come from.

And, beside the architectures, `index`: the digest of the index of them all."""


def path(settings: Settings) -> Path:
    """The record of the last build, beside its archive."""
    return settings.dist_dir / f"{settings.image}-{settings.image_architecture}.json"


def golden_path(settings: Settings) -> Path:
    return settings.root / GOLDEN


def locks(settings: Settings) -> tuple[str, ...]:
    """The locks that decide the image."""
    own = (BACKEND,) if settings.installs_project else ()
    base = (BASE,) if needs_base(settings) else ()
    return (*base, settings.requirements_lock_name, *own)


def inputs(settings: Settings, app: selection.App | None = None) -> dict[str, str]:
    """All that decides the image, engine aside: the SHA-256 of each file, and settings.

    The files of the app are those of `app`, or read here if that is not given.
    Packages and wheels are in it through the locks that name them, and the code that
    packs them as the number of its format.
    """
    found = beneath(settings)
    if settings.installs_project:
        found |= {file.path: _state(file) for file in project.reads(settings)}
    found |= {
        file.path: _state(file) for file in (app or selection.app(settings)).files
    }
    served = "".join(map(disk.sha256, layers.service_files()))
    found["package served"] = f"sha256:{hashlib.sha256(served.encode()).hexdigest()}"
    return found


def beneath(settings: Settings) -> dict[str, str]:
    """Of the `inputs` those that the app stands on: neither its files nor the service.

    The app's own pyproject.toml is among them if that says what is installed.
    """
    found = {
        name: f"sha256:{text_sha256(settings.root / name)}"
        if (settings.root / name).is_file()
        else "missing"
        for name in (settings.dockerfile, *locks(settings))
    }
    if settings.installs_project:
        own = (f for f in project.reads(settings) if f.path == "pyproject.toml")
        found |= {file.path: _state(file) for file in own}
    found["containerize format"] = str(FORMAT)
    for name in ("image", "app", "python", "image_architecture"):
        found[f"setting {name.replace('_', '-')}"] = str(getattr(settings, name))
    found["setting base-image"] = settings.base_reference
    found["setting interpreter"] = settings.interpreter_path
    volumes = [check_volume(text)[1] for text in settings.volumes]
    found["setting volumes"] = ", ".join(volumes)
    return found


def text_sha256(file: Path) -> str:
    """The SHA-256 of a text file, in hex: that of its lines, however they end."""
    return hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _state(file: sources.File) -> str:
    if file.target is not None:
        return f"link to {file.target}"
    executable = " executable" if file.executable else ""
    return f"sha256:{hashlib.sha256(file.content).hexdigest()}{executable}"


def facts(digests: ImageDigests, sources: Mapping[str, str]) -> dict[str, Any]:
    """The digests of an image and the inputs they come from, ready for JSON."""
    return {
        "format": FORMAT,
        "manifest": digests.manifest,
        "config": digests.config,
        "diff_ids": list(digests.diff_ids),
        "inputs": dict(sources),
    }


def write(
    settings: Settings,
    digests: ImageDigests,
    *,
    sources: Mapping[str, str],
    names: Sequence[str],
    loaded: Mapping[str, str],
) -> None:
    """Write the record of a build from the inputs `sources`, as `inputs` gives them.

    `loaded` is each engine's own ID of the image.
    """
    status = _git(settings, "status", "--porcelain")
    _write(
        path(settings),
        facts(digests, sources)
        | {
            "references": list(names),
            "loaded": dict(loaded),
            "commit": _git(settings, "rev-parse", "HEAD"),
            "dirty": None if status is None else bool(status),
            "built": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )


def read(settings: Settings) -> dict[str, Any]:
    """The record of the last build where that was of the files as they are, else {}."""
    found = last(settings)
    return found if found.get("inputs") == inputs(settings) else {}


def read_beneath(settings: Settings) -> dict[str, Any]:
    """The record of the last build if what the app stands on is as it was, else {}."""
    found = last(settings)
    before = found.get("inputs")
    same = isinstance(before, dict) and beneath(settings).items() <= before.items()
    return found if same else {}


def last(settings: Settings) -> dict[str, Any]:
    """The record of the last build, or {}."""
    try:
        found = json.loads(path(settings).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def save_golden(settings: Settings, *digests: ImageDigests, index: str = "") -> None:
    """Put the digests of the last builds into digests.json, and that of their index.

    They are of `image_architectures` in turn, or of the one that is built alone, whose
    digests then take the place of that architecture's. Raises Problem where files have
    changed since, which those digests are not of.
    """
    file = golden_path(settings)
    each = [settings]
    if len(digests) > 1:
        each = settings.for_each()
    new: dict[str, Any] = {"index": index} if index else {}
    for one, found in zip(each, digests, strict=True):
        last = read(one)
        if last.get("manifest") != found.manifest:
            raise Problem("files changed since the build: `invoke digest --save` again")
        new[one.image_architecture] = facts(found, last["inputs"])
    known = read_golden(file) if file.exists() and not index else {}
    _write(file, known | new)


def read_golden(file: Path) -> dict[str, Any]:
    """The digests by architecture of a file like digests.json.

    Raises Problem where it is missing or is none.
    """
    return {name: facts for name, facts in _golden(file).items() if name != "index"}


def read_golden_index(file: Path) -> str:
    """The digest of the index of a file like digests.json; nothing if it has none.

    Raises Problem as `read_golden` does.
    """
    return str(_golden(file).get("index", ""))


def _golden(file: Path) -> dict[str, Any]:
    try:
        found = dict(json.loads(file.read_bytes()).items())
        index = found.get("index", "")
        if isinstance(index, str) and all(
            "manifest" in facts for name, facts in found.items() if name != "index"
        ):
            return found
    except OSError as error:
        raise Problem(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, AttributeError, TypeError):
        pass
    raise Problem(f"{file} has no digests as `invoke digest --save` writes them")


def changes(settings: Settings, golden: Mapping[str, Any]) -> list[str]:
    """Which inputs are others than those that committed digests come from."""
    now, before = inputs(settings), golden.get("inputs", {})
    return sorted(name for name in {*now, *before} if now.get(name) != before.get(name))


def _write(file: Path, value: object) -> None:
    with disk.atomic(file) as out:
        out.write(json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def _git(settings: Settings, *arguments: str) -> str | None:
    """What git answers, or None without git or a repository."""
    answer = sources.git(settings.root, *arguments)
    if answer is None or answer.returncode:
        return None
    return answer.stdout.decode(errors="replace").strip()
