"""One image for several processors: the index of their manifests, and its archive."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from containerize import disk
from containerize.errors import Problem
from containerize.image import archive, canonical
from containerize.image.archive import (
    INDEX,
    MANIFEST,
    Region,
    add,
    blob_path,
    encoded,
)


@dataclasses.dataclass(frozen=True, order=True)
class Manifest:
    """An image's manifest, as an index names it."""

    architecture: str
    """In OCI's terms, and the variant after a slash if the image names one."""
    os: str
    digest: str
    size: int
    """Of the manifest, in bytes."""

    def descriptor(self) -> dict[str, object]:
        """What an index says of it (OCI image spec, "Image Index")."""
        architecture, _, variant = self.architecture.partition("/")
        platform = {"architecture": architecture, "os": self.os}
        return {
            "mediaType": MANIFEST,
            "digest": self.digest,
            "size": self.size,
            "platform": platform | ({"variant": variant} if variant else {}),
        }


def describe(path: Path) -> Manifest:
    """The manifest of the one image in an OCI archive.

    Raises Problem if the archive is damaged, has not one image or is no OCI archive.
    """
    with archive.open_image(path) as image:
        if not image.manifest_digest:
            raise Problem(f"{path} has no OCI manifest: name an archive of `build`")
        with _blobs(path) as blobs:
            size = blobs[blob_path(image.manifest_digest)].size
        variant = image.config.get("variant")
        architecture = str(image.config.get("architecture"))
        return Manifest(
            f"{architecture}/{variant}" if variant else architecture,
            str(image.config.get("os")),
            image.manifest_digest,
            size,
        )


def content(manifests: Sequence[Manifest]) -> bytes:
    """The index of these manifests: the same bytes in whatever order they come."""
    return encoded(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [manifest.descriptor() for manifest in sorted(manifests)],
        }
    )


def digest(manifests: Sequence[Manifest]) -> str:
    """The digest of the index of these manifests."""
    return f"sha256:{hashlib.sha256(content(manifests)).hexdigest()}"


def write(
    archives: Sequence[Path], target: Path, *, time: int, references: Sequence[str]
) -> str:
    """Write one OCI archive of canonical ones' images; returns the index's digest.

    Its index.json names the index, which is a blob. A layer that several images have is
    there once. `time` is in seconds since 1970, `references`, each NAME:TAG, count for
    no digest. The file appears whole or not at all. Raises Problem as `describe` does,
    and if two images are for one processor.
    """
    found = sorted((describe(path), path) for path in archives)
    manifests = [manifest for manifest, _ in found]
    if len({manifest.architecture for manifest in manifests}) < len(manifests):
        raise Problem("two of the images are for one processor: name each once")
    whole = content(manifests)
    root = {"mediaType": INDEX, "digest": digest(manifests), "size": len(whole)}
    named: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [root | {"annotations": canonical.names_of(references)}],
    }
    with disk.atomic(target) as out:
        archive.add_directories(out, time)
        written: set[str] = set()
        for _, source in found:
            with _blobs(source) as blobs:
                for name, blob in blobs.items():
                    if name not in written:
                        written.add(name)
                        add(out, name, blob.chunks(), blob.size, time)
        add(out, blob_path(str(root["digest"])), [whole], len(whole), time)
        for name, value in (("oci-layout", archive.LAYOUT), ("index.json", named)):
            text = encoded(value)
            add(out, name, [text], len(text), time)
        out.write(bytes(1024))
    return str(root["digest"])


def of_all(archives: Sequence[Path], joined: Path) -> str:
    """The digest of the index in `joined`, if that is the index of these archives.

    Empty if it is not, and if a file is missing or damaged.
    """
    try:
        found = digest([describe(path) for path in archives])
        return found if read_digest(joined) == found else ""
    except Problem:
        return ""


def read_digest(path: Path) -> str:
    """The digest of the index that an OCI archive of `write` holds, from its bytes.

    Raises Problem if the file cannot be read or is no such archive.
    """
    try:
        with path.open("rb") as file:
            whole = Region(file, 0, os.fstat(file.fileno()).st_size)
            files = {
                os.fsdecode(entry.path): whole.part(entry.offset, entry.size)
                for entry in archive.read_tar(whole, path.name)
            }
            [descriptor] = json.loads(files["index.json"].read())["manifests"]
            found = str(descriptor["digest"])
            if (
                descriptor["mediaType"] == INDEX
                and files[blob_path(found)].sha256() == found
            ):
                return found
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError):
        pass
    raise Problem(f"{path} has no index as `build --all` writes it: build it again")


@contextlib.contextmanager
def _blobs(path: Path) -> Iterator[dict[str, Region]]:
    """The blobs of an archive, by path, in its order."""
    with path.open("rb") as file:
        whole = Region(file, 0, os.fstat(file.fileno()).st_size)
        yield {
            os.fsdecode(entry.path): whole.part(entry.offset, entry.size)
            for entry in archive.read_tar(whole, path.name)
            if entry.kind == tarfile.REGTYPE and entry.path.startswith(b"blobs/")
        }
