"""Months after base.lock was committed, Debian's mirrors have dropped what it names."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from containerize import settings
from containerize.lock import locks
from containerize.lock.locks import BaseLock, Package
from containerize.settings import Settings

if TYPE_CHECKING:
    from .conftest import Web

ROOT = settings.find_root(Path(__file__).parent)
GONE = (("hello", "1.9-1", "main"), ("libhello", "1.0-1", "updates/main"))
KEPT = ("hello-data", "2.0-1", "main")
NEXT = "the Debian mirrors no longer have hello 1.9-1 (amd64), libhello 1.0-1 (amd64)"

# `up` is an engine, then this, then a build of real packages.
TASK = """
from containerize import tasks

@tasks.verb(lambda s: "")
def up(s):
    tasks.fetch_or_relock(s.settings)

fetch = tasks.fetch
"""


@pytest.fixture
def old(sample: Settings) -> BaseLock:
    """What base.lock says in a project of a year ago."""
    shutil.copytree(ROOT / "containerize", sample.root / "containerize")
    shutil.copytree(ROOT / "served", sample.root / "served")
    shutil.copy(ROOT / "tasks.py", sample.root)
    (sample.root / "part.py").write_text(TASK)
    (sample.root / "pyproject.toml").write_text(
        f'[{settings.TABLE}]\nimage = "sample"\n'
    )
    (sample.root / "base.in").write_text("hello\n-script-runner\n")
    (sample.root / "requirements.in").write_text("")
    packages = [
        _package(*about, architecture)
        for architecture in ("amd64", "arm64")
        for about in sorted([*GONE, KEPT])
    ]
    lock = BaseLock("trixie", 1_700_000_000, tuple(packages))
    for name, source, made_from, body in (
        (locks.BASE, "base.in", locks._base_inputs(sample), str(lock)),
        ("requirements.txt", "requirements.in", locks._image(sample).inputs, ""),
    ):
        (sample.root / name).write_text(locks._lines(source, made_from, body))
    assert locks.read_base(sample) == lock
    return lock


def _package(name: str, version: str, area: str, architecture: str) -> Package:
    suffix = "all" if name == "hello-data" else architecture
    path = f"pool/{area}/h/hello/{name}_{version}_{suffix}.deb"
    digest = hashlib.sha256(Path(path).name.encode()).hexdigest()
    return Package(name, version, architecture, path, digest)


def arguments(sample: Settings, task: str) -> tuple[list[str], dict[str, str]]:
    """The command of a task, and its environment."""
    named = {
        "CONTAINERIZE_ARCHITECTURE": sample.architecture,
        "CONTAINERIZE_CACHE": sample.cache,
        "CONTAINERIZE_KEYRING": sample.keyring,
        "CONTAINERIZE_MIRRORS": ",".join(sample.mirrors),
        "CONTAINERIZE_SECURITY_MIRRORS": ",".join(sample.security_mirrors),
    }
    command = [sys.executable, "-m", "invoke", "--collection=part", task]
    return command, os.environ | named


def run(sample: Settings, task: str) -> subprocess.CompletedProcess[str]:
    """A task as a script calls it."""
    command, environment = arguments(sample, task)
    return subprocess.run(
        command,
        cwd=sample.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def on_a_terminal(sample: Settings, task: str, answer: str) -> tuple[int, str]:
    """Exit code and output of a task on a terminal, its question answered."""
    command, environment = arguments(sample, task)
    before = (sample.root / locks.BASE).read_bytes()
    ours, its = pty.openpty()
    with subprocess.Popen(
        command, cwd=sample.root, env=environment, stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        said = b""
        while not said.endswith(b"[Y/n] "):
            said += os.read(ours, 1024)
        assert (sample.root / locks.BASE).read_bytes() == before
        os.write(ours, answer.encode())
        with contextlib.suppress(OSError):  # EIO says that the other side is closed
            while data := os.read(ours, 1024):
                said += data
        os.close(ours)
    return process.returncode, said.decode()


def assert_relocked(sample: Settings, old: BaseLock, output: str) -> None:
    assert f"{NEXT}: run `invoke lock`" in output
    for line in (
        "base.lock: hello 1.9-1 → 1:2.0-1",
        "base.lock: libhello 1.0-1 → 1.0-1+deb13u1",
        "The image's digest changes with these locks.",
    ):
        assert line in output
    assert "hello-data 2.0-1 →" not in output
    new = locks.read_base(sample)
    assert new.time > old.time
    assert {package.version for package in new.packages} == {
        "1:2.0-1",
        "1.0-1+deb13u1",
        "2.0-1",
    }
    cached = {path.name for path in sample.cache_dir.iterdir()}
    assert cached >= {package.sha256 for package in new.for_architecture("amd64")}


def test_up_locks_what_came_after(sample: Settings, old: BaseLock) -> None:
    result = run(sample, "up")
    assert result.returncode == 0, result.stderr
    assert_relocked(sample, old, result.stdout)
    again = run(sample, "up")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.parametrize("answer", ["y\n", "\n"])
def test_up_asks_on_a_terminal(sample: Settings, old: BaseLock, answer: str) -> None:
    status, output = on_a_terminal(sample, "up", answer)
    assert status == 0, output
    assert_relocked(sample, old, output)


@pytest.mark.parametrize("answer", ["n\n", "\x04"], ids=["no", "end of input"])
def test_up_takes_no_for_an_answer(
    sample: Settings, old: BaseLock, answer: str
) -> None:
    status, output = on_a_terminal(sample, "up", answer)
    assert status == 1
    assert output.endswith("up: packages of base.lock are gone, and it must stay\r\n")
    assert output.count(NEXT) == 1
    assert locks.read_base(sample) == old


def test_fetch_changes_no_lock(sample: Settings, old: BaseLock) -> None:
    result = run(sample, "fetch")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"fetch: {NEXT}: run `invoke lock` to take ")
    assert "CONTAINERIZE_MIRRORS and CONTAINERIZE_SECURITY_MIRRORS" in result.stderr
    assert locks.read_base(sample) == old


def test_a_mirror_that_has_the_old_files_is_the_other_way_out(
    sample: Settings, old: BaseLock, serve: Callable[[str], Web]
) -> None:
    snapshot = serve("snapshot")
    for package in old.packages:
        file = snapshot.root / package.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    there = dataclasses.replace(
        sample, mirrors=(snapshot.url,), security_mirrors=(snapshot.url,)
    )
    for task in ("fetch", "up"):
        result = run(there, task)
        assert result.returncode == 0, result.stderr
    assert locks.read_base(sample) == old
    cached = {path.name for path in sample.cache_dir.iterdir()}
    assert cached == {".lock", *(p.sha256 for p in old.for_architecture("amd64"))}
    # And once they are here, no mirror need have them.
    assert run(sample, "up").returncode == 0


def test_where_what_came_after_cannot_be_had_the_lock_stays(
    sample: Settings, old: BaseLock, debian: Web
) -> None:
    shutil.rmtree(debian.root / "dists")
    result = run(sample, "up")
    assert result.returncode == 1
    assert result.stderr.startswith("up: Debian's suite trixie cannot be read: ")
    assert result.stderr.count("\n") == 1
    assert locks.read_base(sample) == old
