"""A base image of the user's own: of an index, the manifest of each architecture.

An engine takes from an index what is for its own processor. So the index is read here,
once: it lies in the input cache like all inputs, under the SHA-256 that names it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from containerize import disk
from containerize.errors import Problem
from containerize.progress import Progress, step
from containerize.settings import Settings, this_machine


def reference(settings: Settings) -> str:
    """What a Dockerfile's FROM names for the image's architecture; "" without a base.

    Uses no network. Raises Problem if the setting is of several architectures and the
    cache lacks what its digest names, or that has nothing for this one.
    """
    named = settings.base_reference
    if not wanted(settings):
        return named
    name = named.partition("@")[0]
    path = _path(settings)
    try:
        if disk.sha256(path) != path.name:
            raise Problem(
                f"the base image's index in the input cache is corrupt: delete {path}, "
                "and run `invoke fetch`"
            )
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Problem(
            f"the input cache lacks the index of {named}: run `invoke fetch`"
        ) from None
    except ValueError:
        raise Problem(f"{named} is no image: name another in base-image") from None
    if not isinstance(found, dict) or "manifests" not in found:
        return named
    chosen = _chosen(found, settings.image_architecture)
    if not chosen:
        raise Problem(
            f"base-image {named} has nothing for {settings.image_architecture}: take "
            "one that has, or set a table of one for each architecture"
        )
    return f"{name}@{chosen}"


def wanted(settings: Settings) -> bool:
    """Whether it must be known what the digest of `base-image` names."""
    if not isinstance(settings.base_image, str) or not settings.base_image:
        return False
    several = len(settings.image_architectures) > 1
    return several or settings.image_architecture != this_machine()


def collect(settings: Settings) -> list[Path]:
    """The file in the input cache that `reference` reads, if it reads one."""
    return [_path(settings)] if wanted(settings) else []


def fetch(settings: Settings, progress: Progress) -> None:
    """Put what the digest names into the input cache, if it is wanted and not there.

    Raises Problem if the registry does not give it.
    """
    from containerize.publish import reference, registry

    if not wanted(settings) or _path(settings).exists():
        return
    with step(progress, f"asking what {settings.base_reference} is"):
        named = reference.parse(settings.base_reference)
        place = registry.Repository.at(named, settings.insecure_registries)
        found = place.read_manifest(named.digest)
    with disk.atomic(_path(settings)) as file:
        file.write(found.content)


def _path(settings: Settings) -> Path:
    return settings.cache_dir / settings.base_reference.rpartition("sha256:")[2]


def _chosen(index: dict[str, Any], architecture: str) -> str:
    """The digest of the manifest for an architecture; nothing if there is none."""
    try:
        for descriptor in index["manifests"]:
            platform = descriptor.get("platform") or {}
            if (platform.get("os"), platform.get("architecture")) == (
                "linux",
                architecture,
            ):
                return str(descriptor["digest"])
    except (LookupError, TypeError, AttributeError):
        pass
    return ""
