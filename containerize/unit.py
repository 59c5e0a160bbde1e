"""`python -m containerize.unit …`: pytest over an app's own tests, with its packages.

Where Flask stands beside the tool, the tests run there. Else they get an environment
of their own, .nox/app-tests, with the app's requirements at the versions of its lock.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from containerize import environ, settings
from containerize.errors import Problem
from containerize.lock import pins
from containerize.settings import Settings

_GROUPS = ("test", "tests", "dev")
_FILES = ("requirements-test.txt", "requirements-tests.txt", "requirements-dev.txt")


def main(arguments: Sequence[str]) -> int:
    """pytest's exit code, 5 if there is no test, 1 if no environment can be made."""
    try:
        root = settings.find_root(Path.cwd())
        if not any(_tests(root)):
            print("There are no tests but those of tests/smoke.")
            return 5
        command = [*_python(settings.load(root)), "-m", "pytest", *arguments]
        places = [str(p) for p in (root, root / "src") if p.is_dir()]
        given = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join([*places, *filter(None, [given])])
        return subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, check=False
        ).returncode
    except Problem as problem:
        print(f"unit: {problem}", file=sys.stderr)
        return 1


def _tests(root: Path) -> list[Path]:
    found = [*root.glob("tests/**/test_*.py"), *root.glob("tests/**/*_test.py")]
    return [file for file in found if not file.is_relative_to(root / "tests/smoke")]


def _python(project: Settings) -> list[str]:
    """An interpreter that has the app's packages and pytest."""
    if importlib.util.find_spec("flask"):
        return [sys.executable]
    top = project.root / ".nox" / "app-tests"
    python = top / "bin" / "python"
    wanted = _wanted(project)
    stamp = top / "made-of"
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return [str(python)]
    print("Making .nox/app-tests, with the app's packages and pytest")
    shutil.rmtree(top, ignore_errors=True)
    _run([sys.executable, "-m", "virtualenv", "--quiet", "--no-download", str(top)])
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch, "constraints.txt")
        constraints.write_text("\n".join(_pinned(project)) + "\n", "utf-8")
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
        pip += ["--quiet", "--disable-pip-version-check", "--prefer-binary"]
        if (own := project.root / pins.WHEELS).is_dir():
            pip += [f"--find-links={own}"]
        _run([*pip, f"--constraint={constraints}", *wanted])
        if project.installs_project:  # for its metadata; its modules are the source's
            copy = Path(scratch, "copy")
            ignore = shutil.ignore_patterns(".git", ".nox", ".venv", "build", "dist")
            shutil.copytree(project.root, copy, symlinks=True, ignore=ignore)
            _run([*pip, "--no-deps", str(copy)])
    stamp.write_text(digest)
    return [str(python)]


def _wanted(project: Settings) -> list[str]:
    """What the app asks for, and its tests as far as common places say so."""
    wanted = ["pytest"]
    wanted += pins.read_source(project.root / project.requirements).requirements
    for name in _FILES:
        if (project.root / name).is_file():
            wanted += pins.read_source(project.root / name).requirements
    file = project.root / "pyproject.toml"
    table: dict[str, Any] = pins.read_toml(file)
    asked = (
        table.get("project", {}).get("optional-dependencies", {}),
        table.get("dependency-groups", {}),
    )
    for groups in asked:
        for name in _GROUPS:
            wanted += [one for one in groups.get(name, []) if isinstance(one, str)]
    return list(dict.fromkeys(wanted))


def _pinned(project: Settings) -> list[str]:
    """The lock's versions without their hashes, which the image's wheels have."""
    lock = project.root / project.requirements_lock_name
    pinned = pins.pinned_versions(pins.read_text(lock, missing=""))
    return [f"{n}=={next(iter(v))}" for n, v in pinned.items() if len(v) == 1]


def _run(command: Sequence[str]) -> None:
    try:
        clean = environ.pip(os.environ)
    except ValueError as error:
        raise Problem(str(error)) from None
    if subprocess.run(command, env=clean, check=False).returncode:
        raise Problem(
            "the app's packages cannot be installed for its tests, as is said above: "
            "install them beside nox yourself, then the tests run there"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
