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
"""The committed digests, by architecture, each with the inputs that they come from."""


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
    for name in (*("image", "app", "base_image", "python"), "image_architecture"):
        found[f"setting {name.replace('_', '-')}"] = str(getattr(settings, name))
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


def save_golden(settings: Settings, digests: ImageDigests) -> None:
    """Put the digests of the last build into digests.json, for its architecture.

    Raises Problem where files have changed since, which those digests are not of.
    """
    found = read(settings)
    if found.get("manifest") != digests.manifest:
        raise Problem("files changed since the build: `invoke digest --save` again")
    known = read_golden(golden_path(settings)) if golden_path(settings).exists() else {}
    known[settings.image_architecture] = facts(digests, found["inputs"])
    _write(golden_path(settings), known)


def read_golden(file: Path) -> dict[str, Any]:
    """A file like digests.json. Raises Problem where it is missing or is none."""
    try:
        found = json.loads(file.read_bytes())
        if all("manifest" in facts for facts in found.values()):
            return dict(found)
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
