"""What an app's requirements may be, and what joins them or stays apart."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import containerize
from containerize import tasks
from containerize.errors import Problem
from containerize.fetch import inputs
from containerize.init import marks
from containerize.lock import locks
from containerize.settings import Settings

if TYPE_CHECKING:
    from .conftest import Index, Record

DIGEST = "sample@sha256:" + "0" * 64
CLOSED = "http://127.0.0.1:1/simple"


@pytest.fixture
def sample(sample: Settings, index: Index, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project on a base image, with an index that has what serves it."""
    monkeypatch.setattr(locks, "ARCHITECTURES", {"x86_64": "amd64"})
    monkeypatch.setattr(locks, "_HOST_PYTHONS", ("3.14",))
    index.add("flask", "3.0")
    index.add("waitress", "3.0.2")
    index.add("waitress", "9.0")
    return dataclasses.replace(sample, base_image=DIGEST)


def write(sample: Settings, file: str, text: str) -> None:
    (sample.root / file).write_text(text)


def lock(sample: Settings, progress: Record, *, upgrade: bool = False) -> list[str]:
    changes = locks.lock(sample, upgrade=upgrade, progress=progress)
    assert locks.check(sample) == []
    return changes


def versions(sample: Settings) -> dict[str, str]:
    return {pin.name: pin.version for pin in locks.read_requirements(sample)}


def refused(sample: Settings, progress: Record) -> str:
    before = sorted(sample.root.iterdir())
    with pytest.raises(Problem) as info:
        locks.lock(sample, upgrade=False, progress=progress)
    assert sorted(sample.root.iterdir()) == before
    assert "\n" not in str(info.value)
    return str(info.value)


def test_the_apps_pins_and_the_tools_never_meet(
    sample: Settings, index: Index, progress: Record
) -> None:
    for version in ("8.1", "8.5"):
        index.add("click", version)
    index.add("tool", "1.0", requires=["click>=8.5"])
    index.add("linux_only", "1.0", tag="cp313-cp313-manylinux_2_17_x86_64")
    write(sample, "requirements.in", "flask\nclick==8.1\nlinux-only\n")
    write(sample, "tools.in", "tool\n")
    lock(sample, progress)
    assert versions(sample)["click"] == "8.1"
    assert {pin.name: pin.version for pin in locks.read_tools(sample)} == {
        "click": "8.5",
        "tool": "1.0",
    }


def test_what_serves_the_app_joins_it(sample: Settings, progress: Record) -> None:
    write(sample, "requirements.in", "flask\n")
    lock(sample, progress)
    assert versions(sample) == {"flask": "3.0", "waitress": "3.0.2"}
    assert "# via what serves the app\n" in (
        sample.root / "requirements.txt"
    ).read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flask\nwaitress==9.0\n", ("waitress==9.0", "waitress==3.0.2")),
        ("old\n", ("needs flask<2", "what serves the app needs flask>=")),
        ("other\n", ("requirements.in brings no Flask: add a line, flask",)),
    ],
)
def test_what_cannot_be_served_is_one_line(
    sample: Settings, index: Index, progress: Record, text: str, said: tuple[str, ...]
) -> None:
    index.add("flask", "1.1")
    index.add("old", "1.0", requires=["flask<2"])
    index.add("other", "1.0")
    write(sample, "requirements.in", text)
    found = refused(sample, progress)
    assert [part for part in said if part not in found] == []


def test_all_that_has_no_wheel_is_named_at_once(
    sample: Settings, index: Index, progress: Record
) -> None:
    index.publish("source", "source-1.0.tar.gz", b"")
    index.publish("deep", "deep-2.0.tar.gz", b"")
    index.add("deep", "1.0")
    index.add("parent", "1.0", requires=["deep==2.0"])
    write(sample, "requirements.in", "flask\nsource<9,>=1\nparent\nnowhere\n")
    found = refused(sample, progress)
    assert "source<9,>=1 has no wheel for Python 3.13 on Linux x86_64" in found
    assert "deep==2.0, which parent needs, has no wheel for" in found
    assert "(1.0 has one)" in found
    assert "nowhere is not on the package index" in found
    build = "`pip wheel --no-deps --wheel-dir wheels deep==2.0 'source<9,>=1'`"
    assert f"build a wheel ({build}) and commit wheels/" in found


# Where the requirements are


def test_requirements_of_the_project_table(
    sample: Settings, index: Index, progress: Record
) -> None:
    index.add("setuptools", "80.0")
    index.add("wheel", "1.0")
    index.add("more", "1.0")
    sample = dataclasses.replace(sample, requirements="pyproject.toml")
    project = '[project]\nname = "shop"\ndependencies = ["Flask>=2", "more"]\n'
    write(sample, "pyproject.toml", project)
    lock(sample, progress)
    assert set(versions(sample)) == {"flask", "more", "waitress"}
    head = (sample.root / "requirements.txt").read_text("utf-8").splitlines()[0]
    assert "from pyproject.toml" in head
    backend = locks.read_backend(sample)
    assert [pin.name for pin in backend] == ["setuptools", "wheel"]
    with pytest.raises(Problem, match=r"lacks setuptools 80.0, wheel 1.0: run"):
        inputs.collect_backend(sample)
    inputs.fetch(sample, progress=progress)
    found = inputs.collect_backend(sample)
    assert [wheel.name for wheel in found] == [
        "setuptools-80.0-py3-none-any.whl",
        "wheel-1.0-py3-none-any.whl",
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('[tool.x]\ny = "z"\n', "has no [project] table"),
        ('[project]\nname = "x"\ndynamic = ["dependencies"]\n', "(dynamic)"),
        (
            '[project]\nname = "x"\ndependencies = ["a @ git+https://x.test/a"]\n',
            "a is asked for by its address, which no lock holds: name a release, or",
        ),
        (
            '[project]\nname = "x"\ndependencies = ["a"]\n'
            '[tool.uv.sources]\na = { git = "https://x.test/a" }\n',
            "[tool.uv.sources] takes a from elsewhere",
        ),
    ],
)
def test_a_project_table_that_cannot_be_locked(
    sample: Settings, progress: Record, table: str, said: str
) -> None:
    sample = dataclasses.replace(sample, requirements="pyproject.toml")
    write(sample, "pyproject.toml", table)
    assert said in refused(sample, progress)


def test_dependencies_in_the_file_that_setuptools_reads(sample: Settings) -> None:
    write(
        sample,
        "pyproject.toml",
        '[project]\nname = "x"\ndynamic = ["dependencies"]\n'
        "[tool.setuptools.dynamic]\n"
        'dependencies = { file = ["requirements.txt"] }\n',
    )
    write(sample, "requirements.txt", "flask\n")
    found = locks.pins.read_source(sample.root / "pyproject.toml")
    assert found.requirements == ("flask",)


def test_a_requirements_file_of_the_user_stays(
    sample: Settings, progress: Record
) -> None:
    sample = dataclasses.replace(sample, requirements="requirements.txt")
    write(sample, "requirements.txt", "flask==3.0\n")
    lock(sample, progress)
    assert (sample.root / "requirements.txt").read_text("utf-8") == "flask==3.0\n"
    assert (sample.root / "requirements.lock").exists()
    sample = dataclasses.replace(sample, requirements="requirements.in")
    write(sample, "requirements.in", "flask\n")
    assert "requirements.txt is written by hand" in refused(sample, progress)


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "requirements.txt"])
def test_versions_that_another_lock_holds_are_kept_or_named(
    sample: Settings, index: Index, progress: Record, name: str
) -> None:
    for version in ("2.9", "3.1"):
        index.add("flask", version)
    index.add("native", "2.0")
    index.publish("native", "native-1.0.tar.gz", b"")
    sample = dataclasses.replace(sample, requirements_lock="requirements.lock")
    write(sample, "requirements.in", "flask\nnative\n")
    held = {"flask": "2.9", "native": "1.0"}
    line = "{}=={}\n" if name.endswith(".txt") else ""
    form = line or '[[package]]\nname = "{}"\nversion = "{}"\n'
    write(sample, name, "".join(form.format(*item) for item in held.items()))
    changes = lock(sample, progress)
    assert versions(sample)["flask"] == "2.9"
    assert changes[-1] == (
        f"requirements.lock: native 2.0 is taken, not the 1.0 of {name}: it has no "
        "wheel for Python 3.13 on Linux x86_64"
    )


def test_a_lock_of_another_tool_that_moves_is_followed(
    sample: Settings, index: Index, progress: Record
) -> None:
    index.add("flask", "3.1")
    write(sample, "requirements.in", "flask\n")
    held = '[[package]]\nname = "flask"\nversion = "{}"\n'
    for version in ("3.1", "3.0"):
        write(sample, "uv.lock", held.format(version))
        if version == "3.0":
            [problem] = locks.check(sample)
            assert "out of step" in problem
        lock(sample, progress)
        assert versions(sample)["flask"] == version


def test_generated_files_of_an_older_format_are_rewritten_or_named(
    sample: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = marks.marked("# old\n", 1)
    monkeypatch.setattr(containerize, "FORMAT", containerize.FORMAT + 1)
    write(sample, "noxfile.py", old)
    write(sample, "tasks.py", f"{old}# mine\n")
    tasks.refresh(sample)
    now = marks.state((sample.root / "noxfile.py").read_text())
    assert now == marks.State("untouched", containerize.FORMAT)
    assert (sample.root / "tasks.py").read_text() == f"{old}# mine\n"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "  noxfile.py: rewritten as this version makes it"
    assert said[1].startswith("  tasks.py: an older version made it and you edited it")


# The project's own wheels


def test_own_wheels_are_locked_and_taken_from_there(
    sample: Settings,
    index: Index,
    progress: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = sample.root / "wheels"
    own.mkdir()
    name = "private-1.0-py3-none-any.whl"
    digest = index.add("private", "1.0", content="mine")
    page = index.web.root / "simple" / "private"
    shutil.move(page / name, own / name)
    shutil.rmtree(page)
    index.add("private", "2.0")  # somebody else's
    write(sample, "requirements.in", "flask\nprivate\n")
    lock(sample, progress)
    assert versions(sample)["private"] == "1.0"
    inputs.fetch(sample, progress=progress)
    assert not (sample.cache_dir / digest).exists()
    [wheel] = [w for w in inputs.collect(sample).wheels if w.sha256 == digest]
    assert (wheel.name, wheel.path) == (name, own / name)
    monkeypatch.setenv("PIP_INDEX_URL", CLOSED)
    inputs.fetch(sample, progress=progress)
    with (own / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(Problem, match=r"out of step"):
        inputs.fetch(sample, progress=progress)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"requirements": "/x"}, "not below"),
        ({"requirements_lock": "../x"}, "not below"),
        ({"requirements_lock": "requirements.in"}, "both name"),
    ],
)
def test_settings_that_name_no_file_here(
    tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    from containerize import settings

    table = "".join(f'{k.replace("_", "-")} = "{v}"\n' for k, v in changed.items())
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.containerize]\nimage = "sample"\n{table}'
    )
    with pytest.raises(Problem, match=said):
        settings.load(tmp_path, {})


def test_what_stands_beside_the_tool_decides_for_the_tools_alone(
    sample: Settings,
    index: Index,
    progress: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, "_running", lambda: {"setuptools": "65.5"})
    for version in ("65.5", "80.0"):
        index.add("setuptools", version)
    index.add("wheel", "0.48")
    write(sample, "tools.in", "setuptools\n")
    write(
        sample,
        "pyproject.toml",
        '[project]\nname = "shop"\ndependencies = ["flask"]\n'
        '[build-system]\nrequires = ["setuptools"]\n',
    )
    sample = dataclasses.replace(sample, requirements="pyproject.toml")
    lock(sample, progress)
    [tool] = [pin for pin in locks.read_tools(sample) if pin.name == "setuptools"]
    [build] = [pin for pin in locks.read_backend(sample) if pin.name == "setuptools"]
    assert (tool.version, build.version) == ("65.5", "80.0")
