"""What an image's archive says of what it holds: packages, wheels, licences, layers."""

from __future__ import annotations

import dataclasses
import email.message
import email.parser
import functools
import os
import posixpath
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

from packaging.utils import canonicalize_name

from containerize.errors import Problem
from containerize.image import archive
from containerize.image.archive import Region

_CONTROL = "var/lib/dpkg/status.d/"
_METADATA = re.compile(
    r"usr/local/lib/python[^/]+/site-packages/[^/]+\.dist-info/METADATA"
)
_READ = re.compile(
    rf"{re.escape(_CONTROL)}[^/]+(?<!\.md5sums)|usr/share/doc/[^/]+/copyright"
    rf"|{_METADATA.pattern}|(?:usr/lib|etc)/os-release"
)
# Where the app's own files and their compiled modules are.
_APP = re.compile(r"(?:pycache/)?srv/.")
_GONE = ".wh."  # the OCI image spec's whiteout

Fields = email.message.Message


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer by its digests, as `sha256:` and hex."""

    digest: str
    diff_id: str
    of_app: bool
    """Whether it has files of the app, or their compiled modules."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """An image, and the files in it that say what it holds."""

    name: str
    """What messages call its archive."""
    manifest: str
    config: str
    layers: tuple[Layer, ...]
    files: Mapping[str, bytes]
    """By path, without a slash at the start."""

    @functools.cached_property
    def packages(self) -> dict[str, Fields]:
        """The control fields of the Debian packages, by name."""
        return {
            path.removeprefix(_CONTROL): fields(content)
            for path, content in self.files.items()
            if path.startswith(_CONTROL)
        }

    def copyright(self, package: str) -> bytes | None:
        """A Debian package's copyright file."""
        return self.files.get(f"usr/share/doc/{package}/copyright")

    @functools.cached_property
    def distributions(self) -> dict[str, Fields]:
        """The metadata of what is in site-packages, by normalized name."""
        found = [
            fields(content)
            for path, content in sorted(self.files.items())
            if _METADATA.fullmatch(path)
        ]
        return {canonicalize_name(str(each["Name"])): each for each in found}

    @functools.cached_property
    def system(self) -> dict[str, str]:
        """The fields of os-release(5); none if there is no such file."""
        text = self.files.get("usr/lib/os-release") or self.files.get("etc/os-release")
        pairs = re.findall(r'^(\w+)="?(.*?)"?$', _text(text or b""), re.MULTILINE)
        return dict(pairs)


def read(path: Path) -> Contents:
    """The contents of an OCI archive, each layer checked by its digests.

    Raises Problem where the archive is damaged or is none.
    """
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    layers = []
    with archive.open_image(path) as image:
        limit = image.limit
        for blob in image.layers:
            with blob.unpacked(path.parent, limit) as region:
                limit -= region.size
                of_app = _take(region, blob.name, files, links)
            layers.append(Layer(blob.digest, blob.diff_id, of_app))
        manifest, config = image.manifest_digest, image.config_digest
    for link, target in links.items():
        if target in files:
            files.setdefault(link, files[target])
    return Contents(path.name, manifest, config, tuple(layers), files)


def digest(path: Path) -> str:
    """The digest of the manifest in an archive; empty if that cannot be read."""
    try:
        with archive.open_image(path) as image:
            return image.manifest_digest
    except Problem:
        return ""


def fields(content: bytes) -> Fields:
    """The fields at the head of a control file or of a wheel's metadata."""
    return email.parser.HeaderParser().parsestr(_text(content))


def _take(
    region: Region, name: str, files: dict[str, bytes], links: dict[str, str]
) -> bool:
    """Read a layer's files into `files`; returns whether it has the app's."""
    of_app = False
    regions: dict[str, Region] = {}
    for entry in archive.read_tar(region, name):
        path = os.fsdecode(entry.path)
        of_app = of_app or bool(_APP.match(path))
        base = posixpath.basename(path)
        if base.startswith(_GONE):
            gone = posixpath.join(posixpath.dirname(path), base.removeprefix(_GONE))
            for known in [*files, *links]:
                if known == gone or known.startswith(f"{gone}/"):
                    files.pop(known, None)
                    links.pop(known, None)
        if entry.kind == tarfile.REGTYPE and entry.size <= archive.MAX_JSON:
            regions[path] = region.part(entry.offset, entry.size)
        target = regions.get(os.fsdecode(entry.link))
        if entry.kind == tarfile.LNKTYPE and target:  # which came before it
            regions[path] = target
        if not _READ.fullmatch(path):
            continue
        files.pop(path, None)
        links.pop(path, None)
        if path in regions:
            files[path] = regions[path].read()
        elif entry.kind == tarfile.SYMTYPE:
            link = posixpath.join("/", posixpath.dirname(path), os.fsdecode(entry.link))
            links[path] = posixpath.normpath(link).lstrip("/")
    return of_app


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
