"""Files on this disk: whole or not at all, and what is not finished gone at the end."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from containerize.errors import Problem

SCRATCH = ".containerize-"
"""How the names of directories begin that hold what is not finished."""
TURN = "containerize.lock"
"""The file by which `turn` has a directory."""
_TRIES = 100


@contextlib.contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """A new directory in `directory` for what is not finished; it goes on leaving.

    Those that killed processes have left there go too. Raises Problem where there can
    be none.
    """
    there = directory.exists()
    for left in directory.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError), _lock(left):
            shutil.rmtree(left)
    for tries in reversed(range(_TRIES)):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=directory, prefix=SCRATCH))
            lock = _lock(made)
            break
        except OSError as error:
            # Another process may just have taken it for one that was left.
            taken = isinstance(error, (BlockingIOError, FileNotFoundError))
            if not taken or not tries:
                raise _unwritable(directory, error) from None
    with lock:
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
            if not there:
                with contextlib.suppress(OSError):  # it holds what was made
                    directory.rmdir()


def _unwritable(directory: Path, error: OSError) -> Problem:
    return Problem(
        f"cannot write to {directory}: {error.strerror}: mend it, then repeat"
    )


def _lock(directory: Path) -> IO[bytes]:
    """A lock that lasts as long as the process; BlockingIOError where one is held."""
    file = (directory / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (directory / "lock").stat()
    except OSError:
        file.close()
        raise
    return file


@contextlib.contextmanager
def turn(directory: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Have `directory` alone; calls `on_wait` once if another process has it now.

    The kernel ends that however a process ends. Raises Problem where no file can be
    made there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / TURN).open("ab")
    except OSError as error:
        raise _unwritable(directory, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under `path` whole or not at all, synced to the disk."""
    try:
        with scratch(path.parent) as directory:
            part = directory / path.name
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        raise Problem(
            f"cannot write {path}: {error.strerror}: make room or mend it, then repeat"
        ) from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
