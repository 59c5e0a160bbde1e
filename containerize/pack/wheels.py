"""Unpack wheels as pip does, by pypa's `installer`.

Three things differ from `installer`: a path that comes twice is no error in itself,
`.data` directories count whatever their name (as in pip), and a script that an entry
point also makes is left to the entry point.
"""

from __future__ import annotations

import email.parser
import posixpath
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import installer
import installer.destinations
import installer.records
import installer.sources
import installer.utils

if TYPE_CHECKING:
    from installer.sources import WheelContentElement
    from installer.utils import Scheme

Record = installer.records.RecordEntry


def file_name(name: str, version: str, path: Path) -> str:
    """The file name (PEP 427) of the wheel at `path`, as what is in it tells.

    Where the WHEEL file has no tags, which pip never asks for, those of a wheel for
    all. Raises ValueError or zipfile.BadZipFile where `path` is no wheel.
    """
    with zipfile.ZipFile(path) as archive:
        [file] = {
            entry
            for entry in archive.namelist()
            if re.fullmatch(r"[^/]+\.dist-info/WHEEL", entry)
        }
        fields = email.parser.Parser().parsestr(archive.read(file).decode())
    build = [text.split()[0] for text in fields.get_all("Build", []) if text.strip()]
    tags = [text.strip().split("-") for text in fields.get_all("Tag", [])]
    tags = [tag for tag in tags if len(tag) == 3] or [["py3", "none", "any"]]
    parts = [".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True)]
    stem = file.removesuffix(".dist-info/WHEEL")
    if stem.count("-") != 1:
        stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    return "-".join([stem, *build[:1], *parts]) + ".whl"


def install(wheel: Path, stage: Path, site: str, interpreter: str) -> None:
    """Unpack one wheel into the empty directory `stage`, `site` being its purelib.

    Raises what zipfile and `installer` raise.
    """
    with _Source.open(wheel) as source:
        destination = _Destination(
            scheme_dict={
                "purelib": f"/{site}",
                "platlib": f"/{site}",
                "headers": f"/usr/local/include/{source.distribution}",
                "scripts": "/usr/local/bin",
                "data": "/usr/local",
            },
            interpreter=interpreter,
            script_kind="posix",
            destdir=str(stage),
        )
        installer.install(source, destination, {"INSTALLER": b"containerize\n"})


class _Source(installer.sources.WheelFile):
    """A wheel's files in pip's order, of which the last one at a path stands."""

    def get_contents(self) -> Iterator[WheelContentElement]:
        listed = self.dist_info_filenames
        text = self.read_dist_info("entry_points.txt") if _ENTRIES in listed else ""
        made = {entry[0] for entry in installer.utils.parse_entrypoints(text)}
        for last in (False, True):
            for record, stream, is_executable in super().get_contents():
                path = record[0]
                head, _, rest = path.partition("/")
                data = bool(rest) and head.endswith(".data")
                if data != last or "__pycache__" in path.split("/")[:-1]:
                    continue  # the image compiles its modules itself
                if data:
                    scheme, _, inner = rest.partition("/")
                    if scheme == "scripts" and inner in made:
                        continue
                    path = f"{self.data_dir}/{rest}"
                yield (path, *record[1:]), stream, is_executable


class _Destination(installer.destinations.SchemeDictionaryDestination):
    """Takes a path twice, as pip does; the later file stands, with one record."""

    def write_to_fs(
        self, scheme: Scheme, path: str, stream: BinaryIO, is_executable: bool
    ) -> Record:
        target = self._path_with_destdir(scheme, path)
        target.unlink(missing_ok=True)
        return super().write_to_fs(scheme, path, stream, is_executable)

    def finalize_installation(
        self,
        scheme: Scheme,
        record_file_path: str,
        records: Iterable[tuple[Scheme, Record]],
    ) -> None:
        last = {
            posixpath.join(self.scheme_dict[where], record.path): (where, record)
            for where, record in records
        }
        super().finalize_installation(scheme, record_file_path, last.values())


_ENTRIES = "entry_points.txt"
