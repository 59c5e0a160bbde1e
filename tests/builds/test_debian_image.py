"""Debian's image lends its apt: a stand-in for it, made of this host's apt."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import io
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.fetch import debianimage, mirrors
from containerize.lock import base
from containerize.lock.base import Wanted
from containerize.settings import Settings

ARCHIVE = Path(__file__).parents[1] / "unit/debian"
HELLO = Wanted(("hello",), ("script-runner",))
COMMANDS = (
    *("apt-get", "apt-cache", "apt-config", "dpkg", "gpgv", "gpgv-sq", "sqv", "tar"),
    *("sh", "sleep", "cat", "cut", "grep", "sed", "find", "mktemp", "rm", "touch"),
    *("apt-key", "gpgconf", "gpg", "awk", "dirname", "rmdir", "ls", "uname", "true"),
    *("cmp", "chmod", "id", "sort", "tr", "mv", "cp", "readlink", "basename"),
)
RELEASE = "ID=debian\nVERSION_CODENAME=trixie\n"


@pytest.fixture
def archive() -> Iterator[str]:
    """The URL of the test archive."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(ARCHIVE)
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def foreign(using: Engine, project: Settings, archive: str) -> Iterator[Settings]:
    """The project on a host whose keyring and mirrors are not Debian's."""
    name = f"{project.image}-debian:trixie"
    texts = {
        "etc/os-release": RELEASE,
        "etc/passwd": "root:x:0:0::/:/bin/sh\n_apt:x:42:65534::/:/bin/sh\n",
        "etc/apt/sources.list": "".join(
            f"deb {archive} trixie{suite} main\n"
            for suite in ("", "-updates", "-security")
        ),
    }
    label = f"LABEL {project.label}"
    using.run("import", "--change", label, "-", name, input=_system(texts), echo=False)
    yield dataclasses.replace(project, debian_image=name, engine=using.command[0])
    using.run("rmi", "--force", name, echo=False)


def _system(texts: dict[str, str]) -> bytes:
    """A tar with this host's apt, what it needs, and the texts."""
    files = {Path(path) for name in COMMANDS if (path := shutil.which(name))}
    for top in ("/usr/lib/apt", "/usr/share/dpkg"):
        files |= {path for path in Path(top).rglob("*") if path.is_file()}
    linked = subprocess.run(
        ["ldd", *files], capture_output=True, text=True, check=False
    ).stdout
    files |= {Path(path) for path in re.findall(r"(/\S+) \(0x", linked)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        for name in ("tmp", "var/lib/dpkg", "var/lib/apt/lists/partial", "var/cache"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(info)
        for name in ("bin", "lib", "lib64", "sbin"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(info)
        for file in sorted(files):
            tar.add(file, str(file.parent.resolve() / file.name))
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_it_resolves_the_same_packages(
    foreign: Settings, archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"mirrors": (archive,), "security_mirrors": (archive,)}
    keyed = dataclasses.replace(foreign, keyring=str(ARCHIVE / "keyring.gpg"), **named)
    expected = base.resolve(keyed, HELLO)
    which = shutil.which

    def without_apt(name: str, **options: Any) -> str | None:
        return None if name.startswith("apt-") else which(name, **options)

    monkeypatch.setattr(shutil, "which", without_apt)
    assert base.resolve(keyed, HELLO) == expected
    assert not _left(foreign)


def test_it_names_its_mirrors_and_is_not_believed_about_keys(
    foreign: Settings, archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = mirrors.Mirrors((), ())
    monkeypatch.setattr(mirrors, "_host_mirrors", lambda: nothing)
    assert mirrors.find(foreign) == mirrors.Mirrors((archive,), (archive,))
    monkeypatch.setattr(base, "KEYRING", "/nonexistent.gpg")
    with pytest.raises(Problem, match="no archive key of Debian's that is known here"):
        base.resolve(foreign, HELLO)
    assert not _left(foreign)


def test_an_image_that_cannot_be_had_is_one_line(
    using: Engine, project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = dataclasses.replace(
        project, engine=using.command[0], debian_image="127.0.0.1:1/absent:none"
    )
    with pytest.raises(Problem, match="on Debian add what apt lacks") as info:
        debianimage.start(absent).__enter__()
    assert "\n" not in str(info.value)


def _left(settings: Settings) -> str:
    """The containers that are still there."""
    using = debianimage.engine.find(settings)
    return using.run(
        "ps", "--all", "--quiet", f"--filter=ancestor={settings.debian_image}"
    ).stdout
