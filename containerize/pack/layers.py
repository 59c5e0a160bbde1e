"""The three layers of an image, packed from checked inputs as canonical tars."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import debian.debfile
from installer.exceptions import InstallerError

from containerize.errors import Problem
from containerize.fetch import inputs
from containerize.lock import locks
from containerize.pack import scripts, sonames, sources, tree, wheels
from containerize.settings import Settings

USER = 65532
"""The user and group `nonroot`, as distroless images number it."""

APP = "srv"
"""The directory that holds the app's directory."""

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
    left_out: tuple[str, ...] = ()
    """What git would take of the app and is not packed (`sources.NEVER_PACKED`)."""
    warnings: tuple[str, ...] = ()
    """What the layer does not have that people may expect, a line each."""


def pack(settings: Settings) -> tuple[Layer, ...]:
    """Pack rootfs.tar, deps.tar and app.tar into the build directory.

    rootfs and deps are left as they are where they already come from these inputs.
    Raises Problem where a lock or an input is missing or wrong.
    """
    locked = locks.read_base(settings)
    collected = inputs.collect(settings)
    app = sources.app(settings)
    debs = [path for _, path in collected.packages]
    unpack = [(wheel.name, wheel.path) for wheel in collected.wheels]
    fixed = (
        settings.image_architecture,
        settings.python,
        settings.interpreter_path,
        locked.time,
        *map(tree.sha256, sorted(Path(__file__).parent.glob("*.py"))),
    )
    return (
        _packed(
            settings,
            "rootfs",
            locked.time,
            lambda: rootfs(debs, settings.python),
            (*fixed, *(package.sha256 for package, _ in collected.packages)),
        ),
        _packed(
            settings,
            "deps",
            locked.time,
            lambda: dependencies(settings, unpack),
            (*fixed, *(wheel.sha256 for wheel in collected.wheels)),
        ),
        dataclasses.replace(
            _packed(settings, "app", locked.time, lambda: _application(app.files)),
            left_out=app.left_out,
        ),
    )


def rootfs(debs: Iterable[Path], python: str) -> tree.Tree:
    """The root file system: Debian packages merged, and what their scripts would add.

    Empty where there are no packages, as on a base image of the user's own.
    """
    root = tree.Tree()
    packages = [debian.debfile.DebFile(str(path)) for path in debs]
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


def _scripts(deb: debian.debfile.DebFile) -> dict[str, str]:
    """What dpkg would run on installation, and when, by file name."""
    return {
        file: (deb.control.get_content(file) or b"").decode("utf-8", "replace")
        for file in ("preinst", "postinst", "triggers")
        if deb.control.has_file(file)
    }


def _unpack(deb: debian.debfile.DebFile, root: tree.Tree) -> None:
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
    root.replace("usr/bin/python3", tree.symlink(f"python{python}"))
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


def application(settings: Settings) -> tree.Tree:
    """The app's directory, its files with modes that git knows.

    Raises Problem where there is nothing to pack, or what cannot be (`sources.app`).
    """
    return _application(sources.app(settings).files)


def _application(files: Iterable[sources.File]) -> tree.Tree:
    packed = tree.Tree()
    packed.add(APP, tree.DIRECTORY)
    for file in files:
        if file.target is None:
            entry = tree.file(file.content, 0o755 if file.executable else 0o644)
        else:
            entry = tree.symlink(file.target)
        packed.add(f"{APP}/{file.path}", entry)
    return packed


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
        if made_from and known[:2] == [key, digest := tree.sha256(path)]:
            size = path.stat().st_size
            return Layer(name, path, digest, size, warnings=tuple(known[2]))
    except (OSError, ValueError, LookupError, TypeError):
        pass  # no stamp, no layer or no sense in it: made anew
    packed = make()
    with tree.atomic(path) as file:
        packed.write(file, time)
    digest = tree.sha256(path)
    with tree.atomic(stamp) as file:
        file.write(json.dumps([key, digest, packed.warnings]).encode())
    size = path.stat().st_size
    return Layer(name, path, digest, size, warnings=tuple(packed.warnings))
