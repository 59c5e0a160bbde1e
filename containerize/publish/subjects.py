"""What evidence is on: images in their archives, and what they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from packageurl import PackageURL

from containerize.image import index, record
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
    below: Below | None
    """The base image, if there is one."""


@dataclasses.dataclass(frozen=True)
class Below:
    """A base image of the user's own, as the setting names it."""

    name: str
    sha256: str
    """In hex; of its manifest or index."""
    url: PackageURL


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


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of all architectures, in their archives."""

    subjects: tuple[Subject, ...]
    archive: Path
    """What holds them all: their index, or the one image."""
    index: str = ""
    """The digest of the index; empty if there is one architecture."""

    @property
    def digest(self) -> str:
        """That of what a tag is to point to."""
        return self.index or self.subjects[0].manifest


def current(given: Sequence[tuple[Settings, Path]], joined: Path) -> Images | None:
    """The images that are of the files as they are, if all are.

    `given` is each architecture's settings and archive, `joined` the archive of the
    index. No layer is read: who uses one checks it.
    """
    found = [one for each in given if (one := subject(*each))]
    if len(found) < len(given):
        return None
    if len(found) == 1:
        return Images(tuple(found), found[0].archive)
    digest = index.of_all([one.archive for one in found], joined)
    return Images(tuple(found), joined, digest) if digest else None


def locked(settings: Settings) -> Locked:
    """What the locks name. Raises Problem where one is not in step."""
    base = locks.read_base(settings)
    architecture = settings.image_architecture
    target = locks.image_target(settings, architecture, str(base))
    packages = [] if settings.base_image else base.for_architecture(architecture)
    pins = [pin for pin in locks.read_requirements(settings) if pin.fits(target)]
    below = _below(settings.base_reference) if settings.base_reference else None
    return Locked(base, target, tuple(packages), tuple(pins), below)


def _below(reference: str) -> Below:
    name, _, digest = reference.partition("@")
    short = name.rpartition("/")[2].partition(":")[0]
    url = PackageURL("oci", name=short, version=digest)
    return Below(name, digest.removeprefix("sha256:"), url)


def sbom_path(settings: Settings) -> Path:
    """The SBOM of this architecture's image."""
    name = f"{settings.image}-{settings.image_architecture}.cdx.json"
    return settings.dist_dir / name


def provenance_path(settings: Settings) -> Path:
    """The statement on the images of all architectures."""
    return settings.dist_dir / f"{settings.image}.provenance.json"
