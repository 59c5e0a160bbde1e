"""What a relock would take, and what the index says against what is locked."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from containerize import settings
from containerize.errors import Problem
from containerize.lock import locks, outdated, pins
from containerize.lock.locks import BaseLock, Package
from containerize.lock.outdated import Outdated
from containerize.lock.pins import Pin
from containerize.settings import Settings

if TYPE_CHECKING:
    from .conftest import Index, Record, Web

ROOT = settings.find_root(Path(__file__).parent)
CLOSED = "http://127.0.0.1:1"
JSON = "application/vnd.pypi.simple.v1+json"


@pytest.fixture
def sample(
    sample: Settings, index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Settings:
    """A project that nothing serves, its locks in step and some months old."""
    monkeypatch.setattr(locks, "_HOST_PYTHONS", ("3.14",))
    monkeypatch.setattr(locks, "_SERVICE", tmp_path / "requires.txt")
    (tmp_path / "requires.txt").write_text("")
    (sample.root / "requirements.in").write_text("app\n")
    base(sample, hello="1.9-1", hello_data="2.0-1", libhello="1.0-1")
    wheels = {
        "app": index.add("app", "1.0", requires=["needed"]),
        "needed": index.add("needed", "1.0"),
    }
    pin(sample, *(Pin(name, "1.0", "", frozenset([h])) for name, h in wheels.items()))
    assert locks.check(sample) == []
    return sample


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve for one platform, where they are not the point."""
    monkeypatch.setattr(locks, "ARCHITECTURES", {"x86_64": "amd64"})


def base(sample: Settings, **versions: str) -> None:
    """A base.lock that names these packages for both architectures."""
    names = {name.replace("_", "-"): version for name, version in versions.items()}
    (sample.root / "base.in").write_text("\n".join([*names, "-script-runner", ""]))
    pinned = [(n, v, a) for a in ("amd64", "arm64") for n, v in sorted(names.items())]
    write_base(sample, pinned)


def write_base(sample: Settings, packages: Sequence[tuple[str, str, str]]) -> None:
    # A path and a hash that no mirror has.
    found = [Package(*one, "pool/gone.deb", "0" * 64) for one in packages]
    lock = BaseLock("trixie", 1_700_000_000, tuple(found))
    text = locks._lines("base.in", locks._base_inputs(sample), str(lock))
    (sample.root / "base.lock").write_text(text)


def pin(sample: Settings, *found: Pin, source: str = "requirements.in") -> None:
    """The lock of a source, with these pins."""
    plan = locks._image(sample) if source[0] == "r" else locks._tools(sample)
    assert plan
    text = locks._lines(source, plan.inputs, "".join(map(str, found)))
    (sample.root / plan.name).write_text(text)


def found(sample: Settings, progress: Record) -> Outdated:
    """What is found; nothing of the project changes, not even a time."""
    before = state(sample)
    result = outdated.find(sample, progress=progress)
    assert state(sample) == before
    return result


def state(sample: Settings) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(sample.root.rglob("*"))
        if path.is_file()
    }


def lines(items: Sequence[object]) -> list[str]:
    return [str(one) for one in items]


# What a relock would take


def test_it_is_what_lock_upgrade_takes_then(
    sample: Settings, index: Index, progress: Record
) -> None:
    (sample.root / "tools.in").write_text("tool\n")
    digest = index.add("tool", "1.0")
    pin(sample, Pin("tool", "1.0", "", frozenset([digest])), source="tools.in")
    index.add("app", "2.0", requires=["other"])
    index.add("other", "0.1")
    index.add("tool", "1.1")
    result = found(sample, progress)
    assert lines(result.updates) == [
        "base.lock: hello 1.9-1 → 1:2.0-1",
        "base.lock: hello-data 2.0-1: other files of the same version",
        "base.lock: libhello 1.0-1 → 1.0-1+deb13u1 (from the security suite)",
        "requirements.txt: app 1.0 → 2.0",
        "requirements.txt: needed 1.0 removed",
        "requirements.txt: other 0.1 added",
        "tools.txt: tool 1.0 → 1.1",
    ]
    assert (result.failed, result.names()[0]) == ("", "app")
    assert result.summary() == "A relock would change 7 packages, 1 for security."
    taken = locks.lock(sample, upgrade=True, progress=progress)
    said = [line for line in lines(result.updates) if "same version" not in line]
    assert taken == [line.partition(" (")[0] for line in said]
    after = found(sample, progress)
    assert (after.updates, after.rewritten) == ((), ())
    assert after.summary() == (
        "A relock would change nothing in base.lock, requirements.txt, tools.txt."
    )
    # The time alone is no update.
    lock = dataclasses.replace(locks.read_base(sample), time=1_700_000_000)
    made = locks._lines("base.in", locks._base_inputs(sample), str(lock))
    (sample.root / "base.lock").write_text(made)
    assert found(sample, progress).rewritten == ()


@pytest.mark.parametrize(
    ("package", "old", "said"),
    [
        # The fix is in the suite alone, in both, in a release that came after it.
        ("libhello", "1.0-1", "1.0-1+deb13u1 (from the security suite)"),
        ("taken-over", "1.1-1", "1.1-1+deb13u1 (from the security suite)"),
        ("overtaken", "1.1-1", "1.2-1 (the security suite has 1.1-1+deb13u1)"),
        # It was taken before, or none was needed.
        ("overtaken", "1.1-1+deb13u1", "1.2-1"),
        ("overtaken", "1.1-1+deb13u2", "1.2-1"),
        ("hello-data", "1.0", "2.0-1"),
    ],
)
def test_a_fix_counts_also_where_a_later_version_has_it(
    sample: Settings, progress: Record, package: str, old: str, said: str
) -> None:
    base(sample, **{package.replace("-", "_"): old})
    [update] = outdated._updates(locks._make_base(sample, True, progress))
    assert str(update) == f"base.lock: {package} {old} → {said}"
    assert bool(update.security) == ("suite" in said)


def test_where_architectures_differ_each_is_named(
    sample: Settings, index: Index, progress: Record
) -> None:
    (sample.root / "base.in").write_text("libhello\n-script-runner\n")
    both = [("libhello", "0.9", "amd64"), ("libhello", "1.0-1", "arm64")]
    write_base(sample, both)
    (sample.root / "requirements.in").write_text("native\n")
    pins = []
    for version, machine in (("1.0", "x86_64"), ("0.9", "aarch64")):
        digest = index.add("native", version, tag=f"cp313-cp313-linux_{machine}")
        marker = f'platform_machine == "{machine}"'
        pins.append(Pin("native", version, marker, frozenset([digest])))
    pin(sample, *pins)
    index.add("native", "1.0", tag="cp313-cp313-linux_aarch64")
    assert lines(found(sample, progress).updates) == [
        "base.lock: libhello 0.9 (amd64), 1.0-1 (arm64) → 1.0-1+deb13u1 "
        "(from the security suite)",
        "requirements.txt: native 1.0 (amd64), 0.9 (arm64) → 1.0",
    ]


# What the index says against what is locked


def yank(web: Web, file: str, reason: str) -> None:
    """Mark a file (PEP 592)."""
    page = web.root / "simple" / file.partition("-")[0] / "index.html"
    text = page.read_text()
    assert f">{file}<" in text
    page.write_text(text.replace(f">{file}<", f' data-yanked="{reason}">{file}<'))


def advise(index: Index, project: str, version: str, *told: dict[str, object]) -> None:
    """What the JSON API has of a release."""
    file = index.web.root / "pypi" / project / version / "json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"info": {}, "vulnerabilities": told}))


def test_a_yanked_release_is_named_with_its_reason(
    sample: Settings, index: Index
) -> None:
    yank(index.web, "needed-1.0-py3-none-any.whl", "breaks &lt;all&gt; \x1b[31m")
    yank(index.web, "app-1.0-py3-none-any.whl", "")
    index.add("app", "0.9")
    yank(index.web, "app-0.9-py3-none-any.whl", "not the locked one")
    assert lines(outdated.ask(sample).known) == [
        "requirements.txt: app 1.0 was yanked",
        "requirements.txt: needed 1.0 was yanked: breaks <all> [31m",
    ]


@pytest.mark.usefixtures("quick")
def test_a_yanked_release_that_nothing_replaces_is_named_all_the_same(
    sample: Settings, index: Index, progress: Record
) -> None:
    yank(index.web, "needed-1.0-py3-none-any.whl", "for a reason")
    result = found(sample, progress)
    assert lines(result.told.known) == [
        "requirements.txt: needed 1.0 was yanked: for a reason"
    ]
    assert result.failed.startswith(
        "a relock cannot be made now: requirements.in: needed, which app needs, has "
        "no wheel for Python 3.13 on Linux x86_64 that was not yanked: ask for"
    )


def test_the_locked_files_of_a_release_count(sample: Settings, index: Index) -> None:
    (sample.root / "tools.in").write_text("tool\n")
    systems = ("manylinux_2_17_x86_64", "macosx_11_0_arm64", "win_amd64", "any")
    files = {s: index.add("tool", "2.0", tag=f"py3-none-{s}") for s in systems}
    locked = frozenset(files.values()) - {files["any"]}
    pin(sample, Pin("tool", "2.0", "", locked), source="tools.in")
    yank(index.web, "tool-2.0-py3-none-win_amd64.whl", "on Windows")
    yank(index.web, "tool-2.0-py3-none-any.whl", "which is not locked")
    index.add("needed", "1.0", content="other bytes")
    yank(index.web, "needed-1.0-py3-none-any.whl", "which is not locked")
    assert lines(outdated.ask(sample).known) == [
        "requirements.txt: needed 1.0 is on no index any more, as it was locked",
        "tools.txt: tool 2.0 was yanked, 1 of its 3 files: on Windows",
    ]


def test_an_index_that_speaks_json_and_one_without_hashes(
    sample: Settings, index: Index
) -> None:
    _, needed = locks.read_requirements(sample)
    [digest] = needed.hashes
    name = "needed-1.0-py3-none-any.whl"
    file = {"filename": name, "url": name, "yanked": "bad metadata"}
    page = index.web.root / "simple" / "needed" / "index.html"
    index.web.types["/simple/needed/"] = JSON
    for hashes, expected in (
        ({"blake2b": "1", "sha256": digest}, "was yanked: bad metadata"),
        ({}, "was yanked: bad metadata"),
        ({"sha256": "0" * 64}, "is on no index any more, as it was locked"),
    ):
        page.write_text(json.dumps({"files": [file | {"hashes": hashes}]}))
        assert lines(outdated.ask(sample).known) == [
            f"requirements.txt: needed 1.0 {expected}"
        ]


def test_advisories_are_named_and_withdrawn_ones_are_not(
    sample: Settings, index: Index
) -> None:
    advise(
        index,
        "needed",
        "1.0",
        {"id": "T-1", "aliases": ["CVE-1", "T-1"], "fixed_in": ["1.0.1", "2.0"]},
        {"id": "T-2", "aliases": None, "fixed_in": []},
        {"id": "T-3", "withdrawn": "2024-01-01T00:00:00Z"},
    )
    told = outdated.ask(sample)
    assert lines(told.known) == [
        "requirements.txt: needed 1.0 has an advisory, T-1 (CVE-1): "
        "fixed in 1.0.1, 2.0",
        "requirements.txt: needed 1.0 has an advisory, T-2: no release fixes it",
    ]
    assert all(one.security for one in told.known)
    assert told.advised == 1
    assert told.untold == ("The index has no word on advisories for app 1.0.",)


@pytest.mark.parametrize("answer", [404, 403, "<html>", "[]", '{"info": {}}'])
def test_an_index_without_advisories_is_not_one_that_knows_of_none(
    sample: Settings, index: Index, answer: int | str
) -> None:
    for name in ("app", "needed"):
        advise(index, name, "1.0")
        path = f"/pypi/{name}/1.0/json"
        if isinstance(answer, int):
            index.web.status[path] = answer
        else:
            (index.web.root / path[1:]).write_text(answer)
    told = outdated.ask(sample)
    assert (told.known, told.advised) == ((), 0)
    assert told.untold == (
        "The index has no advisories: it says nothing for or against a release.",
    )
    clearance = outdated.Outdated((), (), (), told, "").clearance()
    assert clearance == (
        "No security update is known: nobody could be asked about any."
    )


def test_without_an_index_it_says_so(
    sample: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    told = outdated.ask(sample)
    assert told.untold[0].startswith("No package index is set: what was yanked is")
    assert told.known == ()


def test_the_projects_own_wheels_are_not_looked_for(
    sample: Settings, index: Index
) -> None:
    held = locks.read_requirements(sample)
    own = sample.root / "wheels"
    own.mkdir()
    shutil.move(index.web.root / "simple/needed/needed-1.0-py3-none-any.whl", own)
    pin(sample, *held)  # which its own wheels are part of
    index.add("needed", "1.0", content="somebody else's")
    yank(index.web, "needed-1.0-py3-none-any.whl", "somebody else's")
    told = outdated.ask(sample)
    assert told.known == ()
    assert "No index was asked about the wheels in wheels/." in told.untold
    assert not [p for p in index.web.paths() if "needed" in p]


# What cannot be asked


def refused(sample: Settings) -> str:
    with pytest.raises(Problem) as info:
        outdated.ask(sample)
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize("status", [401, 403, 500])
def test_an_index_that_refuses_is_named_and_what_is_known_is_told(
    sample: Settings, index: Index, progress: Record, status: int
) -> None:
    index.web.status["/simple/needed/"] = status
    result = found(sample, progress)
    reason = {401: "Unauthorized", 403: "Forbidden", 500: "error responses"}[status]
    first, second = result.failed.split("; the package index ")
    assert first.startswith("a relock cannot be made now: requirements.in: the package")
    for said in (first, second):
        assert str(status) in said
        assert reason in said
    assert second.startswith(f"{index.web.url}/simple: ")
    assert second.endswith("what was yanked is not known without it")


@pytest.mark.parametrize("status", [401, 429, 503])
def test_advisories_that_are_not_to_be_had_are_no_clearance(
    sample: Settings, index: Index, status: int
) -> None:
    advise(index, "needed", "1.0")
    index.web.status["/pypi/needed/1.0/json"] = status
    assert str(status) in refused(sample)


@pytest.mark.usefixtures("quick")
def test_an_index_beside_another_is_asked_too(
    sample: Settings,
    index: Index,
    progress: Record,
    serve: Callable[[str], Web],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Resolving goes well without it, and says nothing of it."""
    other = serve("other")
    (other.root / "simple/needed").mkdir(parents=True)
    (other.root / "simple/needed/index.html").write_text("")
    host = other.url.partition("//")[2]
    named = f"http://somebody:geheim@{host}/simple"
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", named)
    other.status["/simple/needed/"] = 401
    result = found(sample, progress)
    assert [one.lock for one in result.updates] == ["base.lock"] * 3
    assert result.failed == (
        f"the package index http://somebody:****@{host}/simple: it answers 401 "
        "Unauthorized: mend that or try again later; what was yanked is not known "
        "without it"
    )
    # As a store of files says of what it has not.
    other.status["/simple/needed/"] = 403
    assert outdated.ask(sample).known == ()
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{CLOSED}/simple")
    assert f"the package index {CLOSED}/simple: " in refused(sample)
    # pip passes over it, since anybody could answer in its place.
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://index.invalid/simple")
    assert "it is neither HTTPS nor a trusted host" in refused(sample)


def test_an_index_that_moved_is_followed_and_a_page_for_people_is_none(
    sample: Settings, index: Index, serve: Callable[[str], Web]
) -> None:
    moved = serve("moved")
    shutil.copytree(index.web.root, moved.root, dirs_exist_ok=True)
    yank(moved, "needed-1.0-py3-none-any.whl", "moved")
    index.web.moved["/simple/needed/"] = f"{moved.url}/simple/needed/"
    assert lines(outdated.ask(sample).known) == [
        "requirements.txt: needed 1.0 was yanked: moved"
    ]
    (moved.root / "login").write_text("who are you?")
    moved.types["/login"] = "text/plain"
    index.web.moved["/simple/needed/"] = f"{moved.url}/login"
    assert "what it answers is no page of an index" in refused(sample)


@pytest.mark.parametrize("which", ["mirrors", "security_mirrors"])
def test_a_dead_mirror_is_named(sample: Settings, progress: Record, which: str) -> None:
    named = (CLOSED.replace("//", "//somebody:geheim@"),)
    result = found(dataclasses.replace(sample, **{which: named}), progress)
    assert "geheim" not in result.failed
    assert re.match(
        r"a relock cannot be made now: Debian's suite trixie cannot be read: "
        r".*http://(\*{4}@)?127\.0\.0\.1:1\b.* refused",
        result.failed,
    )
    assert result.updates == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("base.lock", "base.lock is missing: run `invoke lock`"),
        ("tools.in", "tools.txt is missing: run `invoke lock`"),
        ("base.in", "base.lock is out of step with base.in or the settings: run"),
    ],
)
def test_locks_that_are_not_in_step_come_first(
    sample: Settings, index: Index, progress: Record, name: str, said: str
) -> None:
    if name.endswith(".lock"):
        (sample.root / name).unlink()
    else:
        (sample.root / name).write_text("tool\n")
    with pytest.raises(Problem, match=said):
        found(sample, progress)
    assert index.web.requests == []


# The verb


@pytest.fixture
def project(sample: Settings, index: Index) -> Settings:
    """The sample with a Flask that serves it, and the tool beside it."""
    shutil.copy(ROOT / "tasks.py", sample.root)
    table = f'[{settings.TABLE}]\nimage = "sample"\n'
    (sample.root / "pyproject.toml").write_text(table)
    (sample.root / "requirements.txt").unlink()
    for line in (ROOT / "served/requires.txt").read_text().splitlines():
        if pinned := pins.pinned_versions(line):
            [(name, versions)] = pinned.items()
            index.add(name, *versions)
    index.add("flask", "3.9")
    (sample.root / "requirements.in").write_text("flask\n")
    return sample


def run(sample: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    named = {
        "CONTAINERIZE_MIRRORS": ",".join(sample.mirrors),
        "CONTAINERIZE_SECURITY_MIRRORS": ",".join(sample.security_mirrors),
        "CONTAINERIZE_KEYRING": sample.keyring,
        "CONTAINERIZE_CACHE": sample.cache,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "invoke", *arguments],
        cwd=sample.root,
        env=os.environ | named,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_verb_tells_and_only_with_security_does_it_fail(
    project: Settings, index: Index
) -> None:
    before = sorted(project.root.iterdir())
    result = run(project, "outdated")
    assert result.returncode == 1
    assert "requirements.txt is missing: run `invoke lock`" in result.stderr
    assert sorted(project.root.iterdir()) == before
    (project.root / "base.in").write_text("libhello\n-script-runner\n")
    write_base(project, [("libhello", "1.0-1", a) for a in ("amd64", "arm64")])
    old = (project.root / "base.lock").read_bytes()
    assert run(project, "lock").returncode == 0
    (project.root / "base.lock").write_bytes(old)
    index.add("flask", "3.10")
    result = run(project, "outdated")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "  base.lock: libhello 1.0-1 → 1.0-1+deb13u1 (from the security suite)",
        "  requirements.txt: flask 3.9 → 3.10",
        "The index has no advisories: it says nothing for or against a release.",
        "A relock would change 2 packages, 1 for security.",
    ]
    assert "resolving base.lock" in result.stderr
    result = run(project, "outdated", "--security")
    assert result.returncode == 1
    assert result.stdout.splitlines()[0].endswith("(from the security suite)")
    assert "flask" not in result.stdout + result.stderr
    assert result.stderr.splitlines()[-1] == (
        "outdated: security concerns libhello: run `invoke lock --upgrade`, then "
        "`invoke outdated --security` again"
    )
    assert run(project, "lock", "--upgrade").returncode == 0
    advise(index, "flask", "3.10")
    result = run(project, "outdated", "--security")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == (
        "No security update is known: the security suite has nothing newer than "
        "base.lock, and no advisory is on the 1 releases asked of."
    )
    advise(index, "flask", "3.10", {"id": "T-1", "fixed_in": ["3.11"]})
    result = run(project, "outdated", "--security")
    assert result.returncode == 1
    assert "  requirements.txt: flask 3.10 has an advisory, T-1: fixed in" in (
        result.stdout
    )
