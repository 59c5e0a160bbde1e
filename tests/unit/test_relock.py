"""The workflow that relocks: its commands are there, and its steps do what they say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from containerize import settings
from containerize.tasks import namespace

ROOT = settings.find_root(Path(__file__).parent)
WORKFLOW = YAML(typ="safe").load(ROOT / ".github/workflows/relock.yml")
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
# The one step that no test runs: it opens the request.
UNTESTED = "open"


def script(name: str) -> str:
    [found] = [step["run"] for step in STEPS if step.get("id") == name]
    return str(found)


def run(name: str, where: Path, temp: Path) -> subprocess.CompletedProcess[str]:
    """A step as the runner runs it."""
    nobody = {"HOME": str(temp), "GIT_CONFIG_NOSYSTEM": "1"}
    named = {"RUNNER_TEMP": str(temp), "GITHUB_OUTPUT": str(temp / "output")}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script(name)],
        cwd=where,
        env=os.environ | nobody | named,
        capture_output=True,
        text=True,
        check=False,
    )


def git(where: Path, *words: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *author, *words], cwd=where, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Path, Path]:
    """A repository with locks, and the shallow clones that the two jobs have."""
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "--quiet", "--initial-branch=main")
    for name in ("base.lock", "requirements.txt", "tools.txt", "digests.json", "x.py"):
        (origin / name).write_text("old\n")
        git(origin, "add", name)
        git(origin, "commit", "--quiet", "--message", name)
    for name in ("relock", "request"):
        git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{origin}", name)
    (tmp_path / "temp" / "relock").mkdir(parents=True)
    (tmp_path / "temp" / "output").touch()
    (tmp_path / "temp/relock/outdated.txt").write_text("  base.lock: x 1 → 2\n```\n")
    return tmp_path / "relock", tmp_path / "request"


def test_each_command_of_the_workflow_is_a_verb_with_these_flags() -> None:
    found: set[str] = set()
    for step in STEPS:
        for line in re.findall(r"^\./dev (.+)$", step.get("run", ""), re.MULTILINE):
            program, verb, *words = shlex.split(line.partition(" > ")[0])
            flags = {f"--{argument.name}" for argument in arguments(verb)}
            assert program == "invoke"
            assert {word for word in words if word[0] == "-"} <= flags
            found.add(verb)
    assert found >= {"outdated", "lock", "digest", "verify", "bundle"}


def arguments(verb: str) -> list[Any]:
    return list(namespace.tasks[verb].get_arguments())


def test_what_runs_new_packages_may_write_nothing() -> None:
    relock, request = WORKFLOW["jobs"].values()
    assert WORKFLOW["permissions"] == {}
    assert relock["permissions"] == {"contents": "read"}
    assert not [s for s in request["steps"] if "./dev" in s.get("run", "")]
    tokens = [step.get("id") for step in STEPS if "secrets" in str(step.get("env"))]
    tokens += [step.get("id") for step in STEPS if "token" in str(step.get("env"))]
    assert tokens == [UNTESTED]


def test_the_commit_of_one_job_is_the_branch_of_the_other(
    clones: tuple[Path, Path], tmp_path: Path
) -> None:
    relock, request = clones
    for name in ("base.lock", "digests.json"):
        (relock / name).write_text("new\n")
    done = run("commit", relock, tmp_path / "temp")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "temp/output").read_text() == "changed=true\n"
    body = (tmp_path / "temp/relock/body.md").read_text().splitlines()
    assert "      base.lock: x 1 → 2" in body
    assert "    +new" in body
    # What was said is shown as it is, whatever is in it.
    assert [line for line in body if line.startswith("```")] == []
    done = run("take", request, tmp_path / "temp")
    assert done.returncode == 0, done.stderr
    assert git(request, "rev-parse", "relock") == git(relock, "rev-parse", "HEAD")
    assert git(request, "rev-parse", "relock^") == git(request, "rev-parse", "main")


def test_where_nothing_changes_there_is_no_commit(
    clones: tuple[Path, Path], tmp_path: Path
) -> None:
    relock, _ = clones
    before = git(relock, "rev-parse", "HEAD")
    assert run("commit", relock, tmp_path / "temp").returncode == 0
    assert (tmp_path / "temp/output").read_text() == ""
    assert git(relock, "rev-parse", "HEAD") == before


@pytest.mark.parametrize("changed", ["another file", "another commit", "two commits"])
def test_another_commit_than_of_locks_is_refused(
    clones: tuple[Path, Path], tmp_path: Path, changed: str
) -> None:
    relock, request = clones
    (relock / "base.lock").write_text("new\n")
    if changed == "another file":
        (relock / "x.py").write_text("new\n")
    elif changed == "two commits":
        git(relock, "commit", "--quiet", "--all", "--message", "before")
        (relock / "base.lock").write_text("newer\n")
    else:
        git(request, "commit", "--quiet", "--allow-empty", "--message", "other")
    assert run("commit", relock, tmp_path / "temp").returncode == 0
    assert run("take", request, tmp_path / "temp").returncode != 0
    assert git(request, "branch", "--list", "relock") == ""
