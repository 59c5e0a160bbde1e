"""The layers of an image, packed from checked inputs as canonical tars."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import importlib.util
import json
import os
import posixpath
import re
import shutil
import stat
import tarfile
import tempfile
import types
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from installer.exceptions import InstallerError

from containerize import FORMAT, disk
from containerize.errors import Problem
from containerize.fetch import inputs
from containerize.lock import locks
from containerize.pack import (
    LAYERS,
    compile_modules,
    project,
    scripts,
    selection,
    sonames,
    sources,
    tree,
    wheels,
)
from containerize.settings import Settings, check_volume

if TYPE_CHECKING:
    from debian.debfile import DebFile

LARGE = 32 * 1024
"""From this size on, in bytes, a file of the app that is no module is in a layer below
the app's, so that a push after an edit of a small one leaves it out."""

USER = 65532
"""The user and group `nonroot`, as distroless images number it."""

APP = "srv"
"""The directory that holds the app's directory."""

SERVICE = "usr/local/lib/served"
"""The directory of the package that serves the app, where nothing else is found."""

SYSTEM = (
    *("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc"),
    *("pycache", "root", "run", "sbin", "sys", "tmp", "usr"),
)
"""Top directories that no volume may hide."""

COMPILE = Path(compile_modules.__file__)
"""The program that a step of the Dockerfile runs."""

WHEEL_ERRORS = (OSError, KeyError, ValueError, zipfile.BadZipFile, InstallerError)

# What Debian's own slim images leave out (dpkg's path-exclude), copyrights kept.
LEFT_OUT = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/man",
    "usr/share/pixmaps",
)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A packed layer: its name, its file, the file's SHA-256 and size in bytes."""

    name: str
    path: Path
    sha256: str
    size: int
    warnings: tuple[str, ...] = ()
    """What the layer does not have that people may expect, a line each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """What the build directory holds, and what it was made from."""

    layers: tuple[Layer, ...]
    locked: locks.BaseLock
    left_out: tuple[str, ...]
    """As `selection.App` has it."""
    notes: tuple[str, ...]


def pack(
    settings: Settings,
    collected: inputs.Inputs | None = None,
    app: selection.App | None = None,
) -> Packed:
    """Pack the layers, `LAYERS`, into the build directory.

    rootfs and deps are left as they are where they already come from these inputs.
    `collected` and `app` are read here if they are not given. Raises Problem where a
    lock or an input is missing or wrong.
    """
    collected = collected or inputs.collect(settings)
    locked = collected.base
    app = app or selection.app(settings)
    check_app(settings, app.files, [wheel.path for wheel in collected.wheels])
    own = project.Made({}, False)
    if settings.installs_project:
        backend = inputs.collect_backend(settings)
        own = project.build(settings, app.files, backend, locked.time)
    unpack = [(wheel.name, wheel.path) for wheel in collected.wheels]
    fixed = _fixed(settings, locked)
    digests = [wheel.sha256 for wheel in collected.wheels]
    large, small = split(application(settings, app.files, own.entries))
    parts: tuple[tuple[Callable[[], tree.Tree], Sequence[object] | None], ...] = (
        _base(settings, collected),
        (lambda: dependencies(settings, unpack), (*fixed, *digests)),
        (service, None),
        (lambda: large, None),
        (lambda: small, None),
    )
    with concurrent.futures.ThreadPoolExecutor(2) as pool:  # to hash takes no lock
        futures = [
            pool.submit(_packed, settings, name, locked.time, *part)
            for name, part in zip(LAYERS, parts, strict=True)
        ]
        made = [future.result() for future in futures]
    if not _holds(settings.build_dir / COMPILE.name, disk.sha256(COMPILE)):
        with disk.atomic(settings.build_dir / COMPILE.name) as file:
            file.write(COMPILE.read_bytes())
    return Packed(
        layers=tuple(made),
        locked=locked,
        left_out=app.left_out,
        notes=(*app.notes, *filter(None, [own.note])),
    )


def pack_base(settings: Settings, collected: inputs.Inputs) -> None:
    """Pack what an interpreter stands on, which may be nothing, and no other layer.

    `collected` has its packages. Raises Problem as `pack` does.
    """
    _packed(settings, "rootfs", collected.base.time, *_base(settings, collected))


def _base(
    settings: Settings, collected: inputs.Inputs
) -> tuple[Callable[[], tree.Tree], Sequence[object]]:
    """What makes the root file system, and what it is made from."""
    debs = [path for _, path in collected.packages]
    packages = [package.sha256 for package, _ in collected.packages]
    made_from = (*_fixed(settings, collected.base), *packages)
    return lambda: rootfs(debs, settings.python), made_from


def _fixed(settings: Settings, locked: locks.BaseLock) -> tuple[object, ...]:
    """What each layer of locked inputs is made from, besides these."""
    return (
        FORMAT,
        code(),
        settings.image_architecture,
        settings.python,
        settings.interpreter_path,
        locked.time,
    )


def code() -> str:
    """The SHA-256, in hex, of the modules that pack."""
    modules = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256("".join(map(disk.sha256, modules)).encode()).hexdigest()


def stage(settings: Settings) -> Path:
    """The build's context: what was packed and the Dockerfile, and nothing else.

    Apart from the repository, whose .dockerignore could hide them. Raises Problem if
    they are not there, or if a Dockerfile of the user's adds a part of the app alone.
    """
    context = settings.build_dir / "context"
    _stage(settings, context, [*(f"{name}.tar" for name in LAYERS), COMPILE.name])
    text = (context / "Dockerfile").read_text("utf-8", "replace")
    if "build/app.tar" in text and "build/large.tar" not in text:
        raise Problem(
            f"{settings.dockerfile} leaves out the app's large files: write "
            "`ADD build/large.tar /` above the line that adds build/app.tar"
        )
    return context


def stage_base(settings: Settings, context: Path) -> None:
    """Make `context` that of a build of the Dockerfile's first stage, from `pack_base`.

    Raises Problem as `stage` does.
    """
    _stage(settings, context, ["rootfs.tar"])


def _stage(settings: Settings, context: Path, names: Sequence[str]) -> None:
    try:
        shutil.rmtree(context, ignore_errors=True)
        (context / "build").mkdir(parents=True)
        shutil.copyfile(settings.root / settings.dockerfile, context / "Dockerfile")
        for name in names:
            packed, staged = settings.build_dir / name, context / "build" / name
            try:
                staged.hardlink_to(packed)
            except OSError:  # not every file system has them
                shutil.copyfile(packed, staged)
    except OSError as error:
        raise Problem(
            f"cannot stage {error.filename}: {error.strerror}: mend it, then repeat"
        ) from None


def rootfs(debs: Iterable[Path], python: str) -> tree.Tree:
    """The root file system: Debian packages merged, and what their scripts would add.

    Empty where there are no packages, as on a base image of the user's own.
    """
    from debian.debfile import DebFile  # which takes a while

    root = tree.Tree()
    packages = [DebFile(str(path)) for path in debs]
    if not packages:
        return root
    # base-files brings the links of the merged /usr, which other packages may cross.
    packages.sort(key=lambda deb: deb.debcontrol()["Package"] != "base-files")
    for deb in packages:
        _unpack(deb, root)
    found = scripts.Scripts(LEFT_OUT)
    for deb in sorted(packages, key=lambda deb: deb.debcontrol()["Package"]):
        found.read(root, deb.debcontrol()["Package"], _scripts(deb))
    found.link(root)
    _finish(root, python)
    return root


def _scripts(deb: DebFile) -> dict[str, str]:
    """What dpkg would run on installation, and when, by file name."""
    return {
        file: (deb.control.get_content(file) or b"").decode("utf-8", "replace")
        for file in ("preinst", "postinst", "triggers")
        if deb.control.has_file(file)
    }


def _unpack(deb: DebFile, root: tree.Tree) -> None:
    name = deb.debcontrol()["Package"]
    with deb.data.tgz() as archive:
        for member in archive:
            path = _behind_alias(root, member.name)
            if path in ("", ".") or _left_out(path):
                continue
            if member.type not in (
                tarfile.REGTYPE,
                tarfile.DIRTYPE,
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
            ):
                raise Problem(
                    f"{name}: /{path} is a device or a pipe: leave {name} out"
                )
            content = archive.extractfile(member) if member.isreg() else None
            link = member.linkname
            entry = tree.Entry(
                kind=member.type,
                mode=0o777 if member.issym() else member.mode & 0o7777,
                uid=member.uid,
                gid=member.gid,
                target=_behind_alias(root, link) if member.islnk() else link,
                content=content.read() if content else b"",
            )
            try:
                root.add(path, entry)
            except Problem as problem:
                raise Problem(f"package {name}: {problem}") from None
    # Scanners look here for the packages of images that have no package manager.
    for file, source in ((name, "control"), (f"{name}.md5sums", "md5sums")):
        if deb.control.has_file(source):
            root.add(
                f"var/lib/dpkg/status.d/{file}",
                tree.file(deb.control.get_content(source) or b""),
            )


def _behind_alias(root: tree.Tree, name: str) -> str:
    """A package's path, through the links of the merged /usr."""
    path = name.removeprefix("./").rstrip("/")
    head, _, rest = path.partition("/")
    alias = root.entries.get(head)
    if rest and alias and alias.kind == tarfile.SYMTYPE:
        return f"{alias.target}/{rest}"
    return path


def _left_out(path: str) -> bool:
    return path.startswith(tuple(f"{top}/" for top in LEFT_OUT)) and not (
        path.startswith("usr/share/doc/") and path.endswith("/copyright")
    )


def _finish(root: tree.Tree, python: str) -> None:
    """Add what the maintainer scripts of Debian's packages make on installation."""
    certificates = [
        root.entries[path].content.rstrip(b"\n") + b"\n"
        for path in root.children("usr/share/ca-certificates")
        if path.endswith(".crt")
    ]
    bundle = "etc/ssl/certs/ca-certificates.crt"
    if certificates:
        root.replace(bundle, tree.file(b"".join(certificates)))
        root.replace("usr/lib/ssl/cert.pem", tree.symlink(f"/{bundle}"))
    nobody = f"nonroot:x:{USER}:"
    root.replace(
        "etc/passwd",
        tree.file(
            f"root:x:0:0:root:/root:/sbin/nologin\n"
            f"{nobody}{USER}:nonroot:/nonexistent:/sbin/nologin\n".encode()
        ),
    )
    root.replace("etc/group", tree.file(f"root:x:0:\n{nobody}\n".encode()))
    root.replace("etc/nsswitch.conf", tree.file(b"hosts: files dns\n"))
    root.replace("tmp", dataclasses.replace(tree.DIRECTORY, mode=0o1777))
    for name in ("python", "python3"):
        root.replace(f"usr/bin/{name}", tree.symlink(f"python{python}"))
    libraries = sonames.libraries(root)
    root.replace("etc/ld.so.cache", tree.file(sonames.cache(libraries)))
    if "usr/sbin/ldconfig" not in root.entries:  # libc-bin brings the real one
        text = sonames.script(libraries, python)
        root.replace("usr/sbin/ldconfig", tree.file(text, 0o755))
    # Debian's Python looks in dist-packages, everyone else's in site-packages.
    local = f"usr/local/lib/python{python}"
    root.replace(f"{local}/site-packages", tree.DIRECTORY)
    root.replace(f"{local}/dist-packages", tree.symlink("site-packages"))


def dependencies(settings: Settings, given: Iterable[tuple[str, Path]]) -> tree.Tree:
    """The wheels, given as (file name, path), unpacked as an installer would.

    pypa's installer does the work: `pip install --target` writes the path of the
    host's own interpreter into console scripts.
    """
    site = f"usr/local/lib/python{settings.python}/site-packages"
    result = tree.Tree()
    owners: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, path) in enumerate(given):
            stage = Path(scratch, str(number))
            wheel = stage / name  # the installer wants the name that the cache drops
            stage.mkdir()
            wheel.symlink_to(path)
            try:
                wheels.install(wheel, stage / "root", site, settings.interpreter_path)
            except WHEEL_ERRORS as error:
                text = str(error).replace(f"{stage}/root", "")
                raise Problem(f"{name} cannot be unpacked: {text}") from error
            found = sorted((stage / "root").rglob("*"))
            for inner, entry in _from_directory(stage / "root", found).entries.items():
                known = result.entries.get(inner, entry)
                if known == dataclasses.replace(entry, mode=known.mode):
                    # Equal files are one, executable if one of them is.
                    mode = max(entry.mode, known.mode)
                    result.replace(inner, dataclasses.replace(entry, mode=mode))
                    owners.setdefault(inner, name)
                    continue
                try:
                    result.add(inner, entry)
                except Problem:
                    above = (inner, *map(str, PurePosixPath(inner).parents))
                    owner = next(owners[p] for p in above if p in owners)
                    raise Problem(
                        f"{owner} and {name} both have /{inner}, with different "
                        "contents: leave one of them out"
                    ) from None
                owners.setdefault(inner, name)
    return result


def service() -> tree.Tree:
    """The package `served` of this installation, in a directory of its own."""
    files = service_files()
    made = tree.Tree()
    for file in files:
        path = f"{SERVICE}/{file.parent.name}/{file.name}"
        made.add(path, tree.file(file.read_bytes()))
    return made


def service_files() -> list[Path]:
    """The modules of the package that serves the app. Raises Problem without it."""
    found = importlib.util.find_spec("served")
    places = found and found.submodule_search_locations
    if not places:
        raise Problem(
            "the package that serves the app is missing: install this tool anew"
        )
    return sorted(Path(places[0]).glob("*.py"))


def application(
    settings: Settings,
    files: Iterable[sources.File],
    installed: Mapping[str, tree.Entry] = types.MappingProxyType({}),
) -> tree.Tree:
    """The app's files with modes that git knows, and a directory for each volume.

    Raises Problem where there is what cannot be packed.
    """
    packed = tree.Tree()
    packed.add(APP, tree.DIRECTORY)
    for file in files:
        if file.target is None:
            entry = tree.file(file.content, 0o755 if file.executable else 0o644)
        else:
            entry = tree.symlink(file.target)
        packed.add(f"{APP}/{file.path}", entry)
    for path, entry in installed.items():
        packed.replace(path, entry)
    for volume in settings.volumes:
        _add_volume(packed, check_volume(volume)[1])
    return packed


def split(app: tree.Tree) -> tuple[tree.Tree, tree.Tree]:
    """The app's large files, in their directories, and all else of it.

    By size and name alone: what is in a layer must not depend on what was edited.
    """
    large, small = tree.Tree(), tree.Tree()
    for path in sorted(app.entries, key=os.fsencode):
        entry = app.entries[path]
        if len(entry.content) < LARGE or path.endswith(".py"):
            small.add(path, entry)
            continue
        for above in [*PurePosixPath(path).parents][-2::-1]:
            large.add(str(above), app.entries[str(above)])
        large.add(path, entry)
    return large, small


def _add_volume(packed: tree.Tree, path: str) -> None:
    """A directory of the image's user, whose owner a new volume copies."""
    name = posixpath.normpath(path).strip("/")
    top = name.split("/")[0]
    if top in SYSTEM or name in (APP, "var") or name.startswith(("var/tmp", "var/run")):
        raise Problem(
            f"volume {path} is the system's or the app's own: use one like /data"
        )
    known = packed.entries.get(name)
    if known and known.kind != tarfile.DIRTYPE:
        raise Problem(f"volume {path}: the app has that as a file, no directory")
    inner = packed.children(name)
    if any(each.endswith(".py") for each in inner):
        raise Problem(
            f"volume {path} would hide the code of the app: use a directory for data"
        )
    packed.add(name, tree.DIRECTORY)
    for each in (name, *inner):
        owned = dataclasses.replace(packed.entries[each], uid=USER, gid=USER)
        packed.replace(each, owned)


def check_app(
    settings: Settings, files: Sequence[sources.File], found: Iterable[Path]
) -> None:
    """A Problem if the module that FLASK_APP names is neither a file nor in a wheel."""
    name = re.split(r":(?![\\/])", settings.app.strip(), maxsplit=1)[0]
    paths = {file.path for file in files}
    paths |= {str(above) for path in paths for above in PurePosixPath(path).parents}
    if "/" in name or name.endswith(".py"):
        below = [posixpath.normpath(name.removeprefix(f"/{APP}/"))]
    else:
        module = name.replace(".", "/")
        below = [
            module,
            *(f"{top}/{module}" for top in ("src",) if settings.installs_project),
        ]
    if {path + end for path in below for end in ("", ".py")} & paths:
        return
    top = name.split(".")[0]
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            for inner in archive.namelist():
                if inner.split("/")[0].split(".")[0] == top:
                    return
    raise Problem(
        f"app = {settings.app!r}: there is no module {name} among the files that are "
        "packed: see the settings app, include and exclude"
    )


def _from_directory(top: Path, paths: Iterable[Path]) -> tree.Tree:
    """A tree of files below `top`, owned by root, with the modes that git knows."""
    result = tree.Tree()
    for path in paths:
        name = path.relative_to(top).as_posix()
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            result.add(name, tree.symlink(os.readlink(path)))
        elif stat.S_ISDIR(status.st_mode):
            result.add(name, tree.DIRECTORY)
        elif stat.S_ISREG(status.st_mode):
            mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            result.add(name, tree.file(path.read_bytes(), mode))
        else:
            raise Problem(f"{path} is no file, directory or link: move it elsewhere")
    return result


def _packed(
    settings: Settings,
    name: str,
    time: int,
    make: Callable[[], tree.Tree],
    made_from: Sequence[object] | None = None,
) -> Layer:
    """The layer in its file; made anew unless it was made from the same things."""
    path = settings.build_dir / f"{name}.tar"
    stamp = settings.build_dir / f"{name}.json"
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    try:
        known = json.loads(stamp.read_bytes())
        if made_from and known[:2] == [key, digest := disk.sha256(path)]:
            size = path.stat().st_size
            return Layer(name, path, digest, size, warnings=tuple(known[2]))
    except (OSError, ValueError, LookupError, TypeError):
        pass  # no stamp, no layer or no sense in it: made anew
    packed = make()
    if not packed.entries:
        # A tar without entries is a file to builders, which they copy; and where a step
        # changes nothing, Docker's first builder fails at the next. All images have it.
        packed.add(APP, tree.DIRECTORY)
    sink = _Sink()
    packed.write(sink, time)  # type: ignore[arg-type]
    digest = sink.hash.hexdigest()
    # A builder knows a file that is left alone without reading it.
    if not _holds(path, digest):
        with disk.atomic(path) as file:
            packed.write(file, time)
    if made_from:
        with disk.atomic(stamp) as file:
            file.write(json.dumps([key, digest, packed.warnings]).encode())
    return Layer(name, path, digest, sink.size, warnings=tuple(packed.warnings))


class _Sink:
    """A file that keeps nothing of what is written but its SHA-256 and its size."""

    def __init__(self) -> None:
        self.hash, self.size = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self.hash.update(data)
        self.size += len(data)

    def tell(self) -> int:
        return self.size


def _holds(path: Path, digest: str) -> bool:
    """Whether a file is there and has that SHA-256."""
    try:
        return disk.sha256(path) == digest
    except OSError:
        return False
