"""What `containerize init` writes into a repository, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import importlib.resources
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import containerize
from containerize.disk import atomic
from containerize.errors import Problem
from containerize.init.discover import NO_APP, Found, discover, read_table
from containerize.init.marks import marked, other_format, state

SMOKE = "tests/smoke/test_smoke.py"
# A generated file, its template, and where it goes if the user has one of that name.
_FILES = (
    ("Dockerfile", "Dockerfile", "containerize.Dockerfile"),
    (".dockerignore", "dockerignore", ""),
    ("base.in", "base.in", ""),
    ("tasks.py", "tasks.py.in", "containerize_tasks.py"),
    ("noxfile.py", "noxfile.py.in", "containerize_noxfile.py"),
    (SMOKE, "test_smoke.py.in", "tests/smoke/test_containerize.py"),
    ("tools.in", "tools.in", "containerize-tools.in"),
)
# How a file is used that stands elsewhere.
_USES = {
    "containerize_tasks.py": "invoke --collection containerize_tasks --list",
    "containerize_noxfile.py": "nox --noxfile containerize_noxfile.py",
}


@dataclasses.dataclass(frozen=True)
class Change:
    """One file: what it holds afterwards, or nothing if it stays as it is."""

    path: str
    reason: str
    content: bytes | None = None
    before: bytes | None = None
    """What it held when the plan was made; nothing if it was not there."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be written; `write` does it, `describe` says it."""

    root: Path
    found: Found
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def plan(root: Path) -> Plan:
    """Look at a repository and decide what it lacks; nothing is written.

    Raises Problem if there is nothing to pack, if something stands where a file must
    go, and if a file that has to be read cannot be.
    """
    root = root.resolve()
    if not root.is_dir():
        raise Problem(f"{root} is no directory: go to the repository's top")
    found = discover(root)
    table = read_table(root / "pyproject.toml").get("tool", {}).get("containerize")
    if table is None and not found.requirements and NO_APP in found.undecided:
        raise Problem(
            f"neither a Flask app nor its requirements were found in {root}: go to the "
            "repository's top, or name the app (FLASK_APP=NAME containerize init)"
        )
    notes = list(found.undecided)
    changes = []
    elsewhere = {}
    for name, template, other in _FILES:
        change = _generated(root, name, template, found)
        if other and change.content is None and _foreign(change):
            changes.append(Change(name, "yours, left as it is"))
            change = _generated(root, other, template, found, instead=name)
            elsewhere[name] = other
        changes.append(change)
        text = (change.before or b"").decode("utf-8", "replace")
        notes += filter(None, [other_format(change.path, text, containerize.FORMAT)])
    dockerfile = elsewhere.get("Dockerfile", "Dockerfile")
    if table is None:
        changes.append(_table(root, found, elsewhere))
    else:
        changes.append(Change("pyproject.toml", "has [tool.containerize] already"))
        if isinstance(table, dict):
            notes += _lacking(table, found, dockerfile)
    changes.append(_gitignore(root))
    if not any((above / ".git").exists() for above in (root, *root.parents)):
        notes.append("no Git repository is here: 'git init' makes one")
    return Plan(root, found, tuple(changes), tuple(notes))


def write(plan: Plan) -> None:
    """Write what the plan says: each file whole, all of them or none.

    Raises Problem if a file cannot be written, or is no longer what it was; what was
    written until then is taken back.
    """
    changes = [change for change in plan.changes if change.content is not None]
    for change in changes:
        if _held(plan.root, change.path) != change.before:
            raise Problem(f"{change.path} changed meanwhile: repeat")
    done: list[Change] = []
    made: list[Path] = []
    try:
        for change in changes:
            file = (plan.root / change.path).resolve()
            _directories(file.parent, made)
            _put(file, change.content or b"")
            done.append(change)
    except BaseException as error:
        for change in done:
            file = (plan.root / change.path).resolve()
            if change.before is None:
                file.unlink(missing_ok=True)
            else:
                _put(file, change.before)
        for directory in reversed(made):
            directory.rmdir()
        if isinstance(error, OSError):
            raise Problem(
                f"cannot write in {plan.root}: {error.strerror}: mend it, repeat"
            ) from error
        raise


def describe(plan: Plan, *, dry: bool = False) -> list[str]:
    """Lines that say what was found, what is written and what is left to decide."""
    found = plan.found
    lines = []
    if found.app:
        lines.append(f"found the app {found.app} ({found.said_by})")
    if found.requirements:
        lines.append(f"found its requirements in {found.requirements}")
    verb = "would write" if dry else "wrote"
    changed = [change for change in plan.changes if change.content is not None]
    lines += [f"{verb} {change.path}: {change.reason}" for change in changed]
    lines += [
        f"kept {change.path}: {change.reason}"
        for change in plan.changes
        if change.content is None and changed
    ]
    if not changed:
        lines.append("nothing to write: all that init writes is there")
    return lines + [f"undecided: {note}" for note in plan.notes]


def bodies(app: str, image: str) -> dict[str, str]:
    """What this format writes, without the marks; for `marks.refresh`."""
    return {
        name: _body(template, app, image)
        for path, template, other in _FILES
        for name in (path, other)
        if name
    }


def _body(template: str, app: str, image: str) -> str:
    text = (
        importlib.resources.files("containerize")
        .joinpath("templates", template)
        .read_text("utf-8")
    )
    if template == "Dockerfile":  # so that `docker build .` by hand needs no argument
        quoted = app if re.fullmatch(r"[\w.:/-]+", app) else _quoted(app)
        text = text.replace("ARG PROJECT=app\n", f"ARG PROJECT={image}\n")
        text = text.replace("ARG APP=app\n", f"ARG APP={quoted or 'app'}\n")
    return text


def _quoted(text: str) -> str:
    """A value in a Dockerfile's double quotes; empty if there is none."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", text) + '"' if text else ""


def _generated(
    root: Path, name: str, template: str, found: Found, instead: str = ""
) -> Change:
    before = _held(root, name)
    if before is not None:
        return Change(name, "is there already", before=before)
    text = marked(_body(template, found.app, found.image), containerize.FORMAT)
    reason = f"in place of your {instead}" if instead else "was missing"
    if name in _USES:
        reason += f"; {_USES[name]}"
    return Change(name, reason, text.encode())


def _foreign(change: Change) -> bool:
    return state((change.before or b"").decode("utf-8", "replace")).kind == "foreign"


def _lacking(table: dict[str, Any], found: Found, dockerfile: str) -> Iterator[str]:
    """A line for each setting that a table of the user's must have, and has not."""
    for key, value, default in (
        ("image", found.image, ""),
        ("app", found.app, "app"),
        ("requirements", found.requirements, "requirements.in"),
        ("requirements-lock", found.requirements_lock, _lock_name(table, found)),
    ):
        if key not in table and value and value != default:
            yield f"in [tool.containerize] set {key} = {_toml(value)}"
    if table.get("dockerfile", "Dockerfile") != dockerfile:
        yield f'in [tool.containerize] set dockerfile = "{dockerfile}"'


def _lock_name(table: dict[str, Any], found: Found) -> str:
    """Where the lock goes if the settings do not say."""
    asked = table.get("requirements", found.requirements)
    return "requirements.lock" if asked == "requirements.txt" else "requirements.txt"


def _table(root: Path, found: Found, elsewhere: dict[str, str]) -> Change:
    """The table, at the end of pyproject.toml, whose other bytes stay."""
    lines = ["[tool.containerize]", f'image = "{found.image}"']
    if found.app:
        lines.append(f"app = {_toml(found.app)}")
    for key, value, default in (
        ("requirements", found.requirements, "requirements.in"),
        ("requirements-lock", found.requirements_lock, "requirements.txt"),
        ("dockerfile", elsewhere.get("Dockerfile", ""), "Dockerfile"),
    ):
        if value and value != default:
            lines.append(f"{key} = {_toml(value)}")
    lines += [f"# {use}" for name, use in _USES.items() if name in elsewhere.values()]
    before = _held(root, "pyproject.toml")
    text = "\n".join(lines) + "\n"
    if before is None:
        return Change("pyproject.toml", "the table of settings", text.encode())
    if before.strip():
        text = ("\n" if before.endswith(b"\n") else "\n\n") + text
    end = "\r\n" if b"\r\n" in before else "\n"
    content = before + text.replace("\n", end).encode()
    try:
        tomllib.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise Problem(
            f"pyproject.toml takes no table [tool.containerize] ({error}): write "
            "'tool' as tables with headers, then repeat"
        ) from None
    return Change("pyproject.toml", "the table of settings", content, before)


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _gitignore(root: Path) -> Change:
    before = _held(root, ".gitignore")
    text = (before or b"").decode("utf-8", "surrogateescape")
    there = {line.strip().strip("/") for line in text.splitlines()}
    wanted = _body("gitignore", "", "").splitlines()
    # Widely used .gitignores name what the app's own wheels must not be.
    for theirs, ours in (("wheels", "!/wheels/"), ("*.whl", "!/wheels/*.whl")):
        wanted += [ours] if theirs in there else []
    missing = [line for line in wanted if line.strip("/") not in there]
    if not missing:
        return Change(".gitignore", "names what it must")
    end = "\r\n" if "\r\n" in text else "\n"
    start = text if not text or text.endswith("\n") else text + end
    content = start + "".join(line + end for line in missing)
    reason = f"{len(missing)} lines that it lacks" if before else "was missing"
    return Change(
        ".gitignore", reason, content.encode("utf-8", "surrogateescape"), before
    )


def _held(root: Path, name: str) -> bytes | None:
    """What a file holds, nothing if it is not there; Problem if it is no file."""
    file = root / name
    for above in reversed(Path(name).parents[:-1]):
        if os.path.lexists(root / above) and not (root / above).is_dir():
            raise Problem(f"{above} is no directory, {name} must go there: rename it")
    try:
        if not file.resolve().is_relative_to(root):
            raise Problem(f"{name} is a link out of the repository: put a file there")
        if not stat.S_ISREG(file.stat().st_mode):
            raise Problem(f"{name} is no file, and one must be there: rename it")
        return file.read_bytes()
    except FileNotFoundError:
        if file.is_symlink():
            raise Problem(f"{name} is a link to nothing: delete it") from None
        return None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "a loop of links"
        raise Problem(f"cannot read {name}: {reason}: mend it") from None


def _directories(directory: Path, made: list[Path]) -> None:
    """Make a directory with those above it; `made` gets what was missing."""
    for path in [d for d in (directory, *directory.parents) if not d.exists()][::-1]:
        path.mkdir()
        made.append(path)


def _put(file: Path, content: bytes) -> None:
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o644
    with atomic(file) as output:
        output.write(content)
    file.chmod(mode)
