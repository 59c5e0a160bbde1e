"""A small project with its locks, and an image of it that no engine has made."""

import dataclasses
import tarfile
from pathlib import Path

from containerize.image import canonical, record
from containerize.lock import locks
from containerize.lock.base import Package
from containerize.lock.locks import BaseLock
from containerize.lock.pins import Pin
from containerize.publish.subjects import Subject
from containerize.settings import Settings

TIME = 1_763_856_000
SITE = "usr/local/lib/python3.13/site-packages"
FORMAT = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"

# By name: version, what the lock's path ends with, further control fields, copyright.
DEBS = {
    "base-files": ("13.8", "all", "", "Free for all.\n"),
    "libssl3t64": (
        "3.5.9-1~deb13u1",
        "amd64",
        "Source: openssl\nProvides: libssl3 (= 3.5.9)\nDepends: absent | zlib1g (>= 1)",
        f"{FORMAT}\nFiles: *\nLicense: Apache-2.0\n\nFiles: x\nLicense: GPL-1+ or "
        "Artistic\n",
    ),
    "openssl-provider-legacy": (
        "3.5.9-1~deb13u1",
        "amd64",
        "Source: openssl (3.5)\nDepends: libssl3, python3.13:any | other",
        None,
    ),
    "python3.13": ("3.13.5-2", "amd64", "Pre-Depends: zlib1g", "PSF, mostly.\n"),
    "zlib1g": (
        "1:1.3+really1.3.1-1",
        "amd64",
        "Source: zlib",
        f"{FORMAT}\nFiles: *\nLicense: Zlib\n",
    ),
}

# By name: version, and what the metadata says besides.
WHEELS = {
    "flask": (
        "3.1.3",
        "License-Expression: BSD-3-Clause\nRequires-Dist: Markup_Safe>=2\n"
        "Requires-Dist: importlib-metadata; python_version < '3.10'\n"
        'Requires-Dist: dotted; extra == "dotenv"\n',
    ),
    "markup-safe": ("3.0.4", "License: BSD License\n"),
    "dotted": ("1.0", "Classifier: License :: OSI Approved :: MIT License\n"),
    "waitress": ("3.0.2", "License: ZPL 2.1\n"),
}


def digest(name):
    """Some SHA-256, in hex."""
    return name.encode().hex().ljust(64, "0")[:64]


def project(root: Path, **changes: object) -> Settings:
    """The project, whose locks are in step."""
    (root / "app").mkdir(parents=True)
    files = {
        "pyproject.toml": '[tool.containerize]\nimage = "shop"\n'
        f"architectures = {list(changes.get('architectures', ['amd64']))}\n",
        "Dockerfile": "FROM scratch\n",
        "base.in": "python3.13\n",
        "requirements.in": "flask[dotenv]\n",
        "app/__init__.py": "app = 1\n",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    (root / "app" / "run").symlink_to("__init__.py")
    (root / "app" / "go").write_text("#!/bin/sh\n")
    (root / "app" / "go").chmod(0o755)
    given = {"image": "shop", "architecture": "amd64"} | changes
    found = Settings(root=root, **given)
    write_locks(found)
    return found


def write_locks(settings: Settings) -> None:
    """Bring the locks in step with DEBS and WHEELS."""
    packages = tuple(
        Package(name, about[0], architecture, f"pool/{name}_{about[1]}.deb", sha)
        for name, about in DEBS.items()
        for architecture in ("amd64", "arm64")
        for sha in [digest(f"{architecture} {name}")]
    )
    body = str(BaseLock(settings.suite, TIME, packages))
    head = locks._base_inputs(settings)
    lock = locks._lines("base.in", head, body)
    (settings.root / "base.lock").write_text(lock)
    plan = locks._image(settings)
    pins = [
        Pin(name, about[0], "", frozenset([digest(name)]))
        for name, about in sorted(WHEELS.items())
    ]
    body = "".join(map(str, pins))
    lock = locks._lines(plan.source.file, plan.inputs, body)
    (settings.root / plan.name).write_text(lock)


def rootfs() -> dict[str, bytes]:
    files = {"usr/lib/os-release": b'ID=debian\nNAME="Debian"\nVERSION_ID="13"\n'}
    for name, (version, fits, more, text) in DEBS.items():
        control = f"Package: {name}\nVersion: {version}\nArchitecture: {fits}\n{more}\n"
        files[f"var/lib/dpkg/status.d/{name}"] = control.encode()
        files[f"var/lib/dpkg/status.d/{name}.md5sums"] = b"0  usr/bin/x\n"
        if text is not None:
            files[f"usr/share/doc/{name}/copyright"] = text.encode()
    return files


def deps() -> dict[str, bytes]:
    return {
        f"{SITE}/{name.replace('-', '_')}-{version}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {name.title()}\nVersion: {version}\n{more}\n"
        ).encode()
        for name, (version, more) in WHEELS.items()
    }


def app() -> dict[str, bytes]:
    return {"srv/app/__init__.py": b"app = 1\n"}


def entries(files: dict[str, bytes | str]):
    """What goes into a tar; a text is the target of a symbolic link."""
    for name, content in files.items():
        info = tarfile.TarInfo(name)
        if isinstance(content, str):
            info.type, info.linkname = tarfile.SYMTYPE, content
        yield info, content if isinstance(content, bytes) else b""


def subject(settings: Settings, save, *layers) -> Subject:
    """An image of these layers, by default those of the project, as after a build."""
    given = layers or (rootfs(), deps(), app())
    settings.dist_dir.mkdir(exist_ok=True)
    saved = save(settings.dist_dir / "saved.tar", *(list(entries(x)) for x in given))
    architecture = settings.image_architecture
    archive = settings.dist_dir / f"shop-{architecture}.tar"
    made = canonical.canonicalize(
        saved,
        archive,
        time=TIME,
        labels={},
        references=["shop:latest"],
        architecture=architecture,
    )
    saved.unlink()
    inputs = record.inputs(settings)
    record.write(settings, made, sources=inputs, names=["shop:latest"], loaded={})
    return Subject(settings, archive, made.manifest, inputs)


def other(found: Subject, architecture: str) -> Subject:
    """The same archive as if it were another architecture's image."""
    settings = found.settings.for_architecture(architecture)
    manifest = f"sha256:{digest(architecture)}"
    inputs = record.inputs(settings)
    return dataclasses.replace(
        found, settings=settings, manifest=manifest, inputs=inputs
    )


def write_backend(settings: Settings) -> None:
    """Bring the lock of what builds the [project] in step: setuptools and wheel."""
    plan = locks._backend(settings)
    pins = [
        Pin(name, "1", "", frozenset([digest(name)]))
        for name in ("setuptools", "wheel")
    ]
    body = "".join(map(str, pins))
    lock = locks._lines(plan.source.file, plan.inputs, body)
    (settings.root / plan.name).write_text(lock)
