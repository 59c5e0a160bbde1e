"""What of an image would give a process more rights than it starts with."""

from __future__ import annotations

import json
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def gaining(path: Path) -> list[str]:
    """Names in any layer of an OCI archive that are setuid, setgid or have xattrs."""
    with tarfile.open(path) as archive:

        def blob(digest: str) -> IO[bytes]:
            found = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert found
            return found

        index = archive.extractfile("index.json")
        assert index
        [image] = json.load(index)["manifests"]
        layers = json.load(blob(image["digest"]))["layers"]
        assert len(layers) > 1
        return [name for each in layers for name in of_layer(blob(each["digest"]))]


def of_layer(layer: IO[bytes]) -> Iterator[str]:
    with tarfile.open(fileobj=layer, mode="r:*") as members:
        for member in members:
            special = member.mode & (stat.S_ISUID | stat.S_ISGID)
            xattrs = any(".xattr." in key for key in member.pax_headers)
            if (special and not member.isdir()) or xattrs:
                yield member.name
