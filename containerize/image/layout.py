"""What an index of anyone's names, and archives of one image, made of parts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from containerize.errors import Problem
from containerize.image import archive
from containerize.image.archive import MAX_MANIFESTS, Region, printable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """An image that an index names."""

    os: str
    architecture: str
    variant: str
    digest: str
    size: int

    @property
    def platform(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """An index, as `docker buildx`, this tool and others write it."""

    digest: str
    images: tuple[Entry, ...]
    others: int
    """How many attestations it names, which are no images."""


def read(content: Any, digest: str, name: str) -> Index | None:
    """The images that an index names; None where `content` is no index.

    Attestations, which BuildKit puts beside the images, are only counted. Raises
    Problem, with `name`, where it is not as the OCI image spec has it ("Image Index").
    """
    if not isinstance(content, dict) or "manifests" not in content:
        return None
    found = content["manifests"]
    if not isinstance(found, list) or len(found) > MAX_MANIFESTS:
        raise Problem(f"{name}: its index names no images, or too many to be one")
    images, others = [], 0
    for each in found:
        entry = _entry(each, name)
        if entry is None:
            others += 1
        else:
            images.append(entry)
    return Index(digest=digest, images=tuple(images), others=others)


def _entry(descriptor: Any, name: str) -> Entry | None:
    """What an index says of an image; None for an attestation."""
    try:
        named, size = str(descriptor["digest"]), int(descriptor["size"])
        platform = descriptor.get("platform") or {}
        os, architecture = str(platform["os"]), str(platform["architecture"])
        variant = str(platform.get("variant") or "")
        annotations = descriptor.get("annotations") or {}
        attests = "vnd.docker.reference.type" in annotations
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Problem(
            f"{name}: its index names what is for no processor: is it an image?"
        ) from None
    if attests or (os, architecture) == ("unknown", "unknown"):
        return None
    if not archive.DIGEST.fullmatch(named) or not 0 <= size <= archive.MAX_JSON:
        raise Problem(f"{name}: its index names a manifest by no digest or no size")
    # v8 is the default for arm64, and only some tools write it down.
    if (architecture, variant) == ("arm64", "v8"):
        variant = ""
    return Entry(
        os=printable(os),
        architecture=printable(architecture),
        variant=printable(variant),
        digest=named,
        size=size,
    )


def read_archive(path: Path) -> Index | None:
    """The index that an OCI archive is of; None where it is of one image."""
    with archive.open_files(path) as files:
        if "index.json" not in files.regions:
            return None
        content = files.json("index.json")
        roots = files.field(content, "manifests", list, "index.json")
        if len(roots) != 1:
            return None
        inner, digest = files.blob(roots[0], "index.json")
        return read(files.json(inner), digest, path.name)


def take(path: Path, manifest: str, target: Path) -> None:
    """Write the image of an archive that has this manifest to an archive of its own.

    Raises Problem where something of it is missing.
    """
    with archive.open_files(path) as files:
        inner = archive.blob_path(manifest)
        files.checked(inner)
        content = files.json(inner)
        layers = files.field(content, "layers", list, inner)
        named = [files.field(content, "config", dict, inner), *layers]
        blobs = {}
        for descriptor in named:
            place, region = files.located(descriptor, inner)
            blobs[f"sha256:{place.rpartition('/')[2]}"] = region
        write(target, files.region(inner).read(), blobs)


def write(target: Path, manifest: bytes, blobs: Mapping[str, Region]) -> None:
    """Write an OCI archive of an image: its manifest, and by digest what that names."""
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    root = {"mediaType": archive.MANIFEST, "digest": digest, "size": len(manifest)}
    texts = {
        archive.blob_path(digest): manifest,
        "oci-layout": archive.encoded(archive.LAYOUT),
        "index.json": archive.encoded({"schemaVersion": 2, "manifests": [root]}),
    }
    try:
        with target.open("wb") as out:
            for named, region in blobs.items():
                path = archive.blob_path(named)
                archive.add(out, path, region.chunks(), region.size)
            for path, text in texts.items():
                archive.add(out, path, [text], len(text))
            out.write(bytes(1024))
    except OSError as error:
        raise Problem(
            f"cannot write {target}: {error.strerror}: make room or mend it"
        ) from None
