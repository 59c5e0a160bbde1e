"""The app as a distribution: what its own backend makes of it, installed (PEP 517).

The source stays in the app's directory, as with an editable install. In site-packages
are the metadata, and a .pth file where the modules are not at the top; console scripts
have the image's interpreter. A module that the backend makes stands beside the others
of its package, for Python looks for a package in one place.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from installer.exceptions import InstallerError

from containerize import FORMAT, disk
from containerize.errors import Problem
from containerize.fetch.inputs import Wheel
from containerize.lock import pins
from containerize.pack import selection, sources, tree, wheels
from containerize.settings import Settings

# Backends' helpers that read the version from commits, which no copy of files has.
_FROM_COMMITS = re.compile(
    r"\b(setuptools[-_]scm|hatch-vcs|versioningit|pbr|dunamai|poetry-dynamic-versioning"
    r"|versioneer|pdm-version-scm)\b"
)
# What PEP 517 has a frontend do, in the backend's own environment.
_HOOK = """
import importlib, json, sys
plan = json.load(sys.stdin)
sys.path[:0] = plan["path"]
module, _, name = plan["backend"].partition(":")
backend = importlib.import_module(module)
for part in filter(None, name.split(".")):
    backend = getattr(backend, part)
backend.build_wheel(plan["out"])
"""
# setuptools' own words ("Automatic discovery" of its user guide).
_UNDISCOVERED = "discovered in a flat-layout"
_NOT_INSTALLED = (
    "importlib.metadata will not know the app: pyproject.toml makes no package of it"
)
_ERROR = re.compile(r"(error: |[\w.]+(Error|Exception)\b)")
_WHEEL = b"""\
Wheel-Version: 1.0
Generator: containerize
Root-Is-Purelib: true
Tag: py3-none-any
"""


@dataclasses.dataclass(frozen=True)
class Made:
    """What the backend adds to an image: entries by path, from the image's top."""

    entries: Mapping[str, tree.Entry]
    generated: bool
    """Whether modules are among them, which the backend has made or changed."""
    note: str = ""
    """Why the app is not installed, if it is not."""
    copied: tuple[str, ...] = ()
    """The packed files that the backend only copied, by their paths."""


def reads(settings: Settings) -> tuple[sources.File, ...]:
    """The files at the repository's top and below what pyproject.toml names as readme.

    A backend reads them, whether or not they are packed.
    """
    wanted = os.fsencode(_readme(settings))
    held_back = selection.held_back(settings)

    def takes(path: bytes) -> bool:
        at_top = b"/" not in path or path == wanted
        return at_top and not selection.is_secret(path) and not held_back(path)

    return sources.read(settings.root, takes).files


def _readme(settings: Settings) -> str:
    """The path of what pyproject.toml names as readme; empty if it names none."""
    table = pins.read_toml(settings.root / "pyproject.toml").get("project") or {}
    readme = table.get("readme")
    name = readme.get("file") if isinstance(readme, dict) else readme
    return os.path.normpath(str(name)) if name else ""


def build(
    settings: Settings,
    files: Sequence[sources.File],
    backend: Sequence[Wheel],
    time: int,
) -> Made:
    """Build the app's wheel from the packed `files`, and lay it out as installed.

    Runs no backend if nothing that decides the result has changed since the last time.
    Raises Problem if the backend fails, or makes another wheel than py3-none-any.
    """
    everything = {file.path: file for file in (*reads(settings), *files)}
    fixed = (
        *(FORMAT, sorted(everything), [wheel.sha256 for wheel in backend], time),
        *(settings.python, settings.interpreter_path),
        _digest(sources.File(path=f.name, content=f.read_bytes()) for f in _CODE),
    )

    def key(decisive: Sequence[str]) -> str:
        read = _digest(everything[path] for path in decisive)
        return _sha256(json.dumps([*fixed, decisive, read]))

    kept = settings.build_dir / "backend.json"
    try:
        digest, text = kept.read_text("utf-8").split("\n", 1)
        known = json.loads(text)
        if digest == _sha256(text) and known["key"] == key(known["decisive"]):
            entries = {
                path: tree.file(base64.b64decode(content), mode)
                for path, (mode, content) in known["entries"].items()
            }
            return Made(
                entries, known["generated"], known["note"], tuple(known["copied"])
            )
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing known, or no sense in it: made anew
    made = _made(settings, everything, files, backend, time)
    decisive = _decisive(settings, everything, made)
    text = json.dumps(
        {
            "key": key(decisive),
            "decisive": decisive,
            "generated": made.generated,
            "note": made.note,
            "copied": made.copied,
            "entries": {
                path: (entry.mode, base64.b64encode(entry.content).decode())
                for path, entry in made.entries.items()
            },
        }
    )
    with disk.atomic(kept) as file:
        file.write(f"{_sha256(text)}\n{text}".encode())
    return made


_CODE = (Path(__file__), Path(wheels.__file__))


def _decisive(
    settings: Settings, everything: Mapping[str, sources.File], made: Made
) -> list[str]:
    """The files whose content, and not only their names, decides what was made.

    If pyproject.toml says all: those at the top that were not just copied, for hooks
    are there, the readme, and those that were installed, such as licences and scripts.
    """
    if made.generated or not _is_static(settings):
        return sorted(everything)
    installed = {_body(entry.content) for entry in made.entries.values()} - {b""}
    readme, copied = _readme(settings), set(made.copied)
    return [
        path
        for path, file in sorted(everything.items())
        if path == readme
        or ("/" not in path and path not in copied)
        or _body(file.content) in installed
    ]


def _body(content: bytes) -> bytes:
    """A file without the line that names an interpreter, which installation changes."""
    return content.partition(b"\n")[2] if content.startswith(b"#!") else content


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_static(settings: Settings) -> bool:
    """Whether pyproject.toml says all, so that no module's content is read."""
    table = pins.read_toml(settings.root / "pyproject.toml")
    hooks = json.dumps(table.get("tool", {}).get("hatch", {}).get("build", {}))
    project = table.get("project") or {}
    return (
        bool(project)
        and not project.get("dynamic")
        and "hooks" not in hooks
        and not (settings.root / "setup.py").exists()
        and not table.get("build-system", {}).get("backend-path")
    )


def _digest(files: Iterable[sources.File]) -> str:
    parts = [
        (f.path, f.target, f.executable, hashlib.sha256(f.content).hexdigest())
        for f in files
    ]
    return _sha256(json.dumps(parts))


def _made(
    settings: Settings,
    everything: Mapping[str, sources.File],
    files: Sequence[sources.File],
    backend: Sequence[Wheel],
    time: int,
) -> Made:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        copy = home / "copy"
        copy.mkdir()
        for file in everything.values():
            file.write(copy)
        for path in (copy, *copy.rglob("*")):
            os.utime(path, (time, time), follow_symlinks=False)
        wheel = _run_backend(settings, home, copy, backend, time)
        if not wheel:
            return Made({}, False, _NOT_INSTALLED)
        site = f"usr/local/lib/python{settings.python}/site-packages"
        stage = home / "stage"
        try:
            wheels.install(wheel, stage, site, settings.interpreter_path)
        except (OSError, ValueError, zipfile.BadZipFile, InstallerError) as error:
            raise Problem(f"the app's own wheel cannot be unpacked: {error}") from None
        return _laid_out(stage, site, files)


def _run_backend(
    settings: Settings, home: Path, copy: Path, backend: Sequence[Wheel], time: int
) -> Path | None:
    """The wheel that the backend makes of `copy`, in an environment of its own.

    None if [project] is only where the requirements are asked for: pyproject.toml says
    so (uv's `package`, Poetry's `package-mode`), or it names no backend and setuptools,
    which stands in, finds no one package.
    """
    table = pins.read_toml(copy / "pyproject.toml")
    tool = table.get("tool", {})
    if (
        tool.get("uv", {}).get("package") is False
        or tool.get("poetry", {}).get("package-mode") is False
    ):
        return None
    system = table.get("build-system") or {}
    asked = " ".join(map(str, system.get("requires", [])))
    if found := _FROM_COMMITS.search(asked):
        raise Problem(
            f"the app's version comes from commits ({found[1]}), which are no input of "
            'an image: write version = "X.Y" into [project] of pyproject.toml'
        )
    env, out = home / "env", home / "out"
    out.mkdir()
    venv.create(env, symlinks=True)
    site = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    for wheel in backend:
        named = home / wheel.name  # the installer wants the name that the cache drops
        named.symlink_to(wheel.path)
        try:
            wheels.install(named, env, site, str(env / "bin/python"))
        except (OSError, ValueError, zipfile.BadZipFile, InstallerError) as error:
            raise Problem(f"{wheel.name} cannot be unpacked: {error}") from None
    plan = {
        "backend": system.get("build-backend", "setuptools.build_meta:__legacy__"),
        "path": [str(copy / part) for part in system.get("backend-path", [])],
        "out": str(out),
    }
    done = subprocess.run(
        [env / "bin/python", "-s", "-P", "-c", _HOOK],
        cwd=copy,
        env={
            "PATH": os.pathsep.join(
                # The backend's own scripts first, as PEP 517 wants.
                [str(env / "usr/local/bin"), os.environ.get("PATH", os.defpath)]
            ),
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONHASHSEED": "0",
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_NO_INDEX": "1",
            "SOURCE_DATE_EPOCH": str(time),
        },
        input=json.dumps(plan).encode(),
        capture_output=True,
        umask=0o022,
        check=False,
    )
    [*made] = out.glob("*.whl")
    if done.returncode or len(made) != 1:
        said = done.stderr.decode(errors="replace").strip()
        if not system and _UNDISCOVERED in said:
            return None
        lines = said.splitlines() or ["it made no wheel"]
        # An error of several lines starts with one that names its class.
        first = next((x for x in reversed(lines) if _ERROR.match(x)), lines[-1])
        raise Problem(f"the app's backend, {plan['backend']}, failed: {first}")
    if not made[0].name.endswith("-none-any.whl"):
        raise Problem(
            f"the app's backend made {made[0].name}, whose compiled parts fit one "
            "machine: put them into a distribution of their own, its wheel into wheels/"
        )
    return made[0]


def _laid_out(stage: Path, site: str, files: Sequence[sources.File]) -> Made:
    packed = {file.path: file for file in files}
    found = {
        path.relative_to(stage).as_posix(): path
        for path in sorted(stage.rglob("*"))
        if path.is_file()
    }
    modules = {
        name.removeprefix(f"{site}/"): path
        for name, path in found.items()
        if name.startswith(f"{site}/") and ".dist-info/" not in name
    }
    prefixes = _prefixes(modules, packed)
    entries: dict[str, tree.Entry] = {}
    copied = []
    generated = False
    dist_info = ""
    for name, path in found.items():
        content = path.read_bytes()
        mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
        inner = name.removeprefix(f"{site}/")
        target = name
        if inner in modules:
            top = PurePosixPath(inner).parts[0]
            if top in prefixes:
                own = f"{prefixes[top]}{inner}"
                if own in packed and packed[own].content == content:
                    copied.append(own)
                    continue
                target = f"srv/{own}"
            generated = True
        elif ".dist-info/" in name:
            dist_info = name.partition(".dist-info/")[0] + ".dist-info"
            if name.endswith("/RECORD"):
                continue
            if name == f"{dist_info}/WHEEL":
                content = _WHEEL  # the backend's own version is no property of the app
        entries[target] = tree.file(content, mode)
    places = sorted({prefix for prefix in prefixes.values() if prefix})
    if places:
        lines = "".join(f"/srv/{place.rstrip('/')}\n" for place in places)
        stem = PurePosixPath(dist_info).name.partition("-")[0]
        entries[f"{site}/{stem}.pth"] = tree.file(lines.encode())
    entries[f"{dist_info}/RECORD"] = tree.file(_record(entries, site, dist_info))
    return Made(entries, generated, copied=tuple(copied))


def _prefixes(
    modules: Iterable[str], packed: Mapping[str, sources.File]
) -> dict[str, str]:
    """By top package or module: where in the repository most of its files are."""
    counts: dict[str, dict[str, int]] = {}
    for inner in modules:
        for path in packed:
            if path == inner or path.endswith(f"/{inner}"):
                top = PurePosixPath(inner).parts[0]
                found = counts.setdefault(top, {})
                prefix = path.removesuffix(inner)
                found[prefix] = found.get(prefix, 0) + 1
    return {
        top: min(found, key=lambda prefix: (-found[prefix], len(prefix), prefix))
        for top, found in counts.items()
    }


def _record(entries: Mapping[str, tree.Entry], site: str, dist_info: str) -> bytes:
    """The RECORD of what is installed (PyPA specification, "Recording installed")."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for path in sorted(entries):
        content = entries[path].content
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
        shown = os.path.relpath(f"/{path}", f"/{site}")
        writer.writerow([shown, f"sha256={digest.decode().rstrip('=')}", len(content)])
    writer.writerow([f"{PurePosixPath(dist_info).name}/RECORD", "", ""])
    return out.getvalue().encode()
