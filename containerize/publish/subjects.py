"""What evidence is on: images in their archives, and what they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from containerize.image import record
from containerize.lock import locks
from containerize.lock.base import Package
from containerize.lock.locks import BaseLock
from containerize.lock.pins import Pin, Target
from containerize.publish import contents
from containerize.settings import Settings


@dataclasses.dataclass(frozen=True)
class Locked:
    """What the locks name for one architecture."""

    base: BaseLock
    target: Target
    packages: tuple[Package, ...]
    pins: tuple[Pin, ...]


@dataclasses.dataclass(frozen=True)
class Subject:
    """The image of one architecture, in its archive."""

    settings: Settings
    """Those for the architecture."""
    archive: Path
    manifest: str
    """The manifest's digest, as `sha256:` and hex."""
    inputs: Mapping[str, str]
    """What decides the image (`record.inputs`)."""

    @property
    def architecture(self) -> str:
        return self.settings.image_architecture


def subject(settings: Settings, archive: Path) -> Subject | None:
    """The image in an archive of this architecture's.

    None if there is none, or if files that decide the image have changed since.
    """
    found = record.read(settings)
    manifest = contents.digest(archive) if found else ""
    if not manifest or manifest != found.get("manifest"):
        return None
    return Subject(settings, archive, manifest, found["inputs"])


def locked(settings: Settings) -> Locked:
    """What the locks name. Raises Problem where one is not in step."""
    base = locks.read_base(settings)
    architecture = settings.image_architecture
    target = locks.image_target(settings, architecture, str(base))
    packages = [] if settings.base_image else base.for_architecture(architecture)
    pins = [pin for pin in locks.read_requirements(settings) if pin.fits(target)]
    return Locked(base, target, tuple(packages), tuple(pins))


def sbom_path(settings: Settings) -> Path:
    """The SBOM of this architecture's image."""
    name = f"{settings.image}-{settings.image_architecture}.cdx.json"
    return settings.dist_dir / name


def provenance_path(settings: Settings) -> Path:
    """The statement on the images of all architectures."""
    return settings.dist_dir / f"{settings.image}.provenance.json"
