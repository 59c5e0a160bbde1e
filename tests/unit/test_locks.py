"""The locks, made with the real pip-compile and apt from servers on the loopback."""

from __future__ import annotations

import dataclasses
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from containerize import settings
from containerize.errors import Problem
from containerize.lock import locks
from containerize.settings import Settings
from tests.conftest import Quiet

if TYPE_CHECKING:
    from .conftest import Index, Record, Web


LOCKS = ("base.lock", "requirements.txt", "tools.txt")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that makes a lock leaves it to the others."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def sample(
    sample: Settings, progress: Record, made: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """The sample project with sources and a base.lock; nothing serves it."""
    monkeypatch.setattr(locks, "_SERVICE", made / "requires.txt")
    (made / "requires.txt").write_text("")
    write(sample, "base.in", "hello\n-script-runner\n")
    write(sample, "requirements.in", "")
    write(sample, "tools.in", "")
    if not (made / "base.lock").exists():
        locks.lock_base(sample, upgrade=False, progress=progress)
        shutil.copy(sample.root / "base.lock", made)
    shutil.copy(made / "base.lock", sample.root)
    return sample


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve for fewer platforms, where they are not the point."""
    monkeypatch.setattr(locks, "ARCHITECTURES", {"x86_64": "amd64"})
    monkeypatch.setattr(locks, "_HOST_PYTHONS", ("3.14",))


def write(sample: Settings, file: str, text: str) -> None:
    (sample.root / file).write_text(text)


def read(sample: Settings) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(sample.root.iterdir())}


def lock(sample: Settings, progress: Record, *, upgrade: bool = False) -> list[str]:
    changes = locks.lock(sample, upgrade=upgrade, progress=progress)
    assert locks.check(sample) == []
    return changes


def pinned(sample: Settings) -> list[tuple[str, str, str]]:
    return [(p.name, p.version, p.marker) for p in locks.read_requirements(sample)]


# The locks of this repository


def test_the_committed_locks_are_in_step() -> None:
    root = settings.find_root(Path(__file__).parent)
    assert locks.check(settings.load(root, {})) == []


def test_the_committed_locks_name_no_host_and_no_path() -> None:
    root = settings.find_root(Path(__file__).parent)
    for name in LOCKS:
        text = (root / name).read_text()
        assert "://" not in text
        assert str(Path.home()) not in text
        assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE)


# requirements.txt


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("python", "between", "expected"),
    [
        ("3.20", "3.20", ["app", "new", "newer-yet"]),
        ("3.10", "3.11", ["app", "old", "older-yet"]),
    ],
    ids=["newer than the host's", "older than the host's"],
)
def test_markers_are_those_of_the_images_python(
    sample: Settings,
    index: Index,
    progress: Record,
    python: str,
    between: str,
    expected: list[str],
) -> None:
    # No host runs these Pythons, so the host's markers would give the opposite.
    sample = dataclasses.replace(sample, python=python)
    for name in ("new", "old", "newer_yet", "older_yet"):
        index.add(name, "1.0")
    index.add(
        "app",
        "1.0",
        requires=[
            f'newer-yet; python_version >= "{between}" and sys_platform == "linux"',
            f'older-yet; python_version < "{between}"',
        ],
    )
    lines = [
        f'new; python_version >= "{between}"',
        f'old; python_version < "{between}"',
    ]
    write(sample, "requirements.in", "\n".join(["app", *lines, ""]))
    lock(sample, progress)
    assert [name for name, _, _ in pinned(sample)] == expected


def test_wheels_and_releases_are_those_of_the_images_python(
    sample: Settings, index: Index, progress: Record
) -> None:
    sample = dataclasses.replace(sample, python="3.20")
    index.add("modern", "1.0")
    index.add("modern", "2.0", python=">=3.20")
    index.add("modern", "3.0", python=">=3.21")
    fitting = index.add("native", "1.0", tag="cp320-cp320-manylinux_2_17_x86_64")
    for version in (311, 312, 313, 314):
        tag = f"cp{version}-cp{version}-manylinux_2_17_x86_64"
        index.add("native", "1.0", tag=tag)
    index.add("native", "1.0", tag="py3-none-any")
    write(sample, "requirements.in", "modern\nnative\n")
    lock(sample, progress)
    assert ("modern", "2.0", "") in pinned(sample)
    [native] = [
        pin
        for pin in locks.read_requirements(sample)
        if pin.name == "native" and "x86_64" in pin.marker
    ]
    assert native.hashes == {fitting}


def test_the_last_number_of_the_images_python_comes_from_the_base(
    sample: Settings, index: Index, progress: Record
) -> None:
    (sample.root / "base.lock").unlink()
    assert locks.image_target(sample, "amd64").python == "3.13.0"
    write(sample, "base.lock", "python3.13 3.13.5-2 amd64 pool/x 00\n")
    assert locks.image_target(sample, "amd64").python == "3.13.5"


def test_each_architecture_gets_exactly_its_wheel(
    sample: Settings, index: Index, progress: Record
) -> None:
    pure = index.add("pure", "1.0")
    amd = index.add("native", "1.0", tag="cp313-cp313-manylinux_2_17_x86_64")
    arm = index.add("native", "1.0", tag="cp39-abi3-manylinux2014_aarch64")
    index.add("native", "1.0", tag="cp313-cp313-manylinux_2_99_x86_64")
    index.add("native", "1.0", tag="cp313-cp313-musllinux_1_2_x86_64")
    index.add("native", "1.0", tag="cp313-cp313-win_amd64")
    index.add("native", "1.0")
    index.add("on_arm", "1.0")
    index.add("app", "1.0", requires=["on-arm; platform_machine == 'aarch64'"])
    write(sample, "requirements.in", "pure\nnative\napp\n")
    lock(sample, progress)
    found = {
        (pin.name, pin.marker): pin.hashes for pin in locks.read_requirements(sample)
    }
    on_amd, on_arm = (f'platform_machine == "{m}"' for m in ("x86_64", "aarch64"))
    assert found["pure", ""] == {pure}
    assert found["native", on_amd] == {amd}
    assert found["native", on_arm] == {arm}
    assert sorted(found) == [
        ("app", ""),
        ("native", on_arm),
        ("native", on_amd),
        ("on-arm", on_arm),
        ("pure", ""),
    ]


@pytest.mark.usefixtures("quick")
def test_it_holds_no_index_host_or_path(
    sample: Settings, index: Index, progress: Record, tmp_path: Path
) -> None:
    index.add("app", "1.0", requires=["needed"])
    index.add("needed", "1.0")
    write(sample, "requirements.in", "app\n")
    lock(sample, progress)
    text = read(sample)["requirements.txt"]
    assert "127.0.0.1" not in text
    assert "/" not in text
    assert "made by `invoke lock`" in text.lower()


def test_a_rerun_gives_the_same_bytes(
    sample: Settings, index: Index, progress: Record
) -> None:
    index.add("app", "1.0", requires=["needed"])
    index.add("needed", "1.0", tag="cp313-cp313-manylinux_2_17_x86_64")
    index.add("needed", "1.0", tag="cp313-cp313-manylinux_2_17_aarch64")
    write(sample, "requirements.in", "app\n")
    assert lock(sample, progress)
    first = read(sample)
    assert lock(sample, progress) == []
    assert lock(sample, progress, upgrade=True) == []
    for name in LOCKS:
        (sample.root / name).unlink()
    assert lock(sample, progress)
    assert read(sample) == first


@pytest.mark.usefixtures("quick")
def test_pins_stay_without_upgrade(
    sample: Settings, index: Index, progress: Record
) -> None:
    index.add("app", "1.0", requires=["needed"])
    index.add("needed", "1.0")
    write(sample, "requirements.in", "app\n")
    lock(sample, progress)
    index.add("needed", "1.1")
    index.add("other", "1.0")
    write(sample, "requirements.in", "app\nother\n")
    assert lock(sample, progress) == ["requirements.txt: other 1.0 added"]
    assert lock(sample, progress, upgrade=True) == [
        "requirements.txt: needed 1.0 → 1.1"
    ]
    write(sample, "requirements.in", "other\n")
    assert lock(sample, progress) == [
        "requirements.txt: app 1.0 removed",
        "requirements.txt: needed 1.1 removed",
    ]


@pytest.mark.usefixtures("quick")
def test_a_wheel_published_later_takes_no_place(
    sample: Settings, index: Index, progress: Record
) -> None:
    index.add("app", "1.0")
    write(sample, "requirements.in", "app\n")
    lock(sample, progress)
    before = locks.read_requirements(sample)
    index.add("app", "1.0", tag="cp313-cp313-manylinux_2_17_x86_64")
    index.add("other", "1.0")
    write(sample, "requirements.in", "app\nother\n")
    lock(sample, progress)
    assert set(before) <= set(locks.read_requirements(sample))


@pytest.mark.usefixtures("quick")
def test_a_project_without_a_wheel_is_named(
    sample: Settings, index: Index, progress: Record
) -> None:
    index.publish("source", "source-1.0.tar.gz", b"")
    index.add("app", "1.0", requires=["source>=1"])
    write(sample, "requirements.in", "app\n")
    with pytest.raises(
        Problem,
        match=r"^requirements.in: source>=1, which app needs, has no wheel for "
        r"Python 3.13 on Linux x86_64: ask for .* wheels/, .* base-image",
    ):
        lock(sample, progress)


def test_an_architecture_without_a_wheel_is_named(
    sample: Settings, index: Index, progress: Record
) -> None:
    index.add("native", "1.0", tag="cp313-cp313-manylinux_2_17_x86_64")
    write(sample, "requirements.in", "native\n")
    with pytest.raises(Problem, match=r"native has no wheel for .* Linux aarch64: ask"):
        lock(sample, progress)
    assert not (sample.root / "requirements.txt").exists()


@pytest.mark.usefixtures("quick")
def test_an_unknown_project_is_named(
    sample: Settings, index: Index, progress: Record
) -> None:
    index.add("app", "1.0")
    write(sample, "requirements.in", "app>=2\n")
    with pytest.raises(Problem, match=r"app>=2 is not on the package index$"):
        lock(sample, progress)


@pytest.mark.usefixtures("quick")
def test_a_conflict_is_named(sample: Settings, index: Index, progress: Record) -> None:
    index.add("app", "1.0", requires=["needed<1"])
    index.add("needed", "0.9")
    index.add("needed", "1.0")
    write(sample, "requirements.in", "app\nneeded>=1\n")
    with pytest.raises(
        Problem, match=r"app 1\.0 needs needed<1, needed>=1 is asked for$"
    ):
        lock(sample, progress)


@pytest.mark.usefixtures("quick")
def test_an_unreachable_index_is_named(
    sample: Settings,
    index: Index,
    progress: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    write(sample, "requirements.in", "app\n")
    with pytest.raises(Problem, match=r"index cannot be reached: .*refused"):
        lock(sample, progress)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flask>=", "no requirement"),
        ("not a requirement", "no requirement"),
        ("--index-url http://127.0.0.1/", "--index-url does not belong here"),
        ("-e .", "'-e .' is asked for by its path"),
        ("--editable=./app", "is asked for by its path"),
        ("app==1 --hash=sha256:00", "--hash belongs into the lock"),
        ("-r http://127.0.0.1/more.in", "http://127.0.0.1/more.in is no file"),
        ("-r more.in", "more.in is missing"),
        ("--constraint=more.in", "more.in is missing"),
        ("app @ http://127.0.0.1/app.whl", "app is asked for by its address"),
        ("git+http://127.0.0.1/app", "is asked for by its address"),
        ("./app.whl", "is asked for by its path"),
        ("app; python_version > 'x", "no requirement"),
    ],
)
def test_a_bad_line_is_named(
    sample: Settings, progress: Record, line: str, expected: str
) -> None:
    write(sample, "requirements.in", f"# comment\n\n{line}  # why\n")
    with pytest.raises(Problem, match=re.escape("requirements.in:3: ")) as info:
        locks.lock(sample, upgrade=False, progress=progress)
    assert expected in str(info.value)
    assert "\n" not in str(info.value)


# tools.txt


def test_tools_allow_every_wheel_and_have_markers_where_pythons_differ(
    sample: Settings, index: Index, progress: Record
) -> None:
    native = {
        index.add("native", "1.0", tag=f"{python}-{platform}")
        for python in ("cp311-cp311", "cp312-cp312", "cp313-cp313", "cp314-cp314")
        for platform in (
            "manylinux_2_17_x86_64",
            "manylinux_2_17_aarch64",
            "macosx_11_0_arm64",
            "win_amd64",
        )
    }
    index.add("backport", "1.0")
    index.add("on_mac", "1.0")
    requires = [
        'backport; python_version < "3.13"',
        'on-mac; sys_platform == "darwin"',
        'on-windows; sys_platform == "win32"',
    ]
    index.add("tool", "1.0", requires=requires)
    write(sample, "tools.in", "tool\nnative\n")
    lock(sample, progress)
    pins = {pin.name: pin for pin in locks.read_tools(sample)}
    assert {pin.name: pin.marker for pin in pins.values()} == {
        "backport": 'python_version == "3.11" or python_version == "3.12"',
        "native": "",
        "on-mac": 'sys_platform == "darwin"',
        "tool": "",
    }
    assert pins["native"].hashes == native


@pytest.mark.usefixtures("quick")
def test_tools_follow_the_requirements(
    sample: Settings, index: Index, progress: Record
) -> None:
    index.add("app", "1.0")
    index.add("app", "2.0")
    write(sample, "requirements.in", "app<2\n")
    write(sample, "tools.in", "-c requirements.txt\napp\n")
    lock(sample, progress)
    assert [pin.version for pin in locks.read_tools(sample)] == ["1.0"]
    write(sample, "requirements.in", "app\n")
    lock(sample, progress, upgrade=True)
    assert [pin.version for pin in locks.read_tools(sample)] == ["2.0"]


# base.lock


def test_the_base_is_what_apt_resolved(
    sample: Settings, index: Index, progress: Record
) -> None:
    found = locks.read_base(sample)
    assert (found.suite, found.time) == ("trixie", 1717237230)
    assert len(found.packages) == 6
    assert [p.name for p in found.for_architecture("arm64")] == [
        "hello",
        "hello-data",
        "libhello",
    ]


def test_a_newer_date_alone_changes_nothing(
    sample: Settings, index: Index, progress: Record
) -> None:
    lock(sample, progress)
    text = read(sample)["base.lock"].replace("2024-06-01", "2024-05-01")
    body = text.partition("# content ")[2].partition("\n")[2]
    content = f"# content sha256:{locks._digest(body)}"
    write(sample, "base.lock", re.sub("# content .*", content, text))
    before = read(sample)["base.lock"]
    assert lock(sample, progress, upgrade=True) == []
    assert read(sample)["base.lock"] == before
    write(sample, "base.in", "hello\nhello-data\n-script-runner\n")
    assert lock(sample, progress) == ["base.lock: rewritten, with the same versions"]
    assert "2024-05-01" in read(sample)["base.lock"]


def test_a_package_that_the_mirrors_dropped_is_resolved_anew(
    sample: Settings, index: Index, progress: Record, debian: Web
) -> None:
    lock(sample, progress)
    debian.requests.clear()
    assert lock(sample, progress) == []
    assert len(debian.paths("HEAD")) == 5  # hello-data serves both architectures
    assert not debian.paths("GET")
    next(debian.root.glob("pool/updates/main/h/hello/libhello*amd64.deb")).unlink()
    assert lock(sample, progress) == []
    assert debian.paths("GET")


def test_a_lock_in_step_needs_no_mirror(
    sample: Settings, index: Index, progress: Record
) -> None:
    lock(sample, progress)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        dead = (f"http://{host}",)
        away = dataclasses.replace(sample, mirrors=dead, security_mirrors=dead)
        assert progress.notes == []
        assert lock(away, progress) == []
        [note] = progress.notes
        assert note.startswith("base.lock stays, but whether its packages can still be")
        assert f": http://{host}/pool/" in note
        assert note.endswith("Connection refused")
        # One that answers is enough.
        progress.notes.clear()
        both = (*dead, *sample.mirrors)
        away = dataclasses.replace(sample, mirrors=both, security_mirrors=both)
        assert lock(away, progress) == []
        assert progress.notes == []


def test_with_a_base_image_there_is_no_base_lock(
    sample: Settings, index: Index, progress: Record
) -> None:
    (sample.root / "base.lock").unlink()
    name = "python@sha256:" + "0" * 64
    lock(dataclasses.replace(sample, base_image=name), progress)
    assert not (sample.root / "base.lock").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello\nHello World\n", r"^base\.in:2: 'Hello World' is no package name"),
        ("hello\n- x\n", r"^base\.in:2: '- x' is no package name"),
        ("# nothing\n", r"^base\.in .*names no package"),
        ("python3.11\n", r"^base\.in names python3\.11, but .* python is 3\.13"),
    ],
)
def test_a_bad_base_in_is_named(
    sample: Settings, progress: Record, text: str, expected: str
) -> None:
    write(sample, "base.in", text)
    with pytest.raises(Problem, match=expected):
        locks.lock(sample, upgrade=False, progress=progress)


# In step or not


@pytest.fixture
def locked(sample: Settings, index: Index, progress: Record, made: Path) -> Settings:
    index.add("app", "1.0")
    write(sample, "requirements.in", "app\n")
    write(sample, "tools.in", "app\n")
    shutil.copytree(made, sample.root, dirs_exist_ok=True)
    lock(sample, progress)
    shutil.copytree(sample.root, made, dirs_exist_ok=True)
    return sample


@pytest.mark.parametrize("name", LOCKS)
def test_a_missing_lock_is_named(locked: Settings, name: str) -> None:
    (locked.root / name).unlink()
    before = read(locked)
    assert locks.check(locked) == [f"{name} is missing: run `invoke lock`"]
    assert read(locked) == before


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("change", ["1.0", "sha256", "# content", "\n"])
def test_a_lock_edited_by_hand_is_named(
    locked: Settings, name: str, change: str
) -> None:
    text = read(locked)[name]
    place = text.rindex(change)
    write(locked, name, f"{text[:place]}x{text[place:]}")
    [problem] = locks.check(locked)
    assert re.fullmatch(
        rf"{name} was edited by hand: say in \w+\.in what .*, then run `invoke lock`",
        problem,
    )


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("base.lock", "hello 1:2.0", "hello x:2.0"),
        ("requirements.txt", "app==1.0", "app==1.0.x"),
        ("requirements.txt", "app==1.0", "app==9.9"),
        ("requirements.txt", "app==1.0", "app==1.0 ; python_version > 'x"),
        ("base.lock", "date ", "day "),
    ],
)
def test_a_lock_edited_by_hand_is_made_anew(
    locked: Settings, progress: Record, name: str, old: str, new: str
) -> None:
    text = read(locked)[name]
    write(locked, name, text.replace(old, new))
    assert lock(locked, progress)
    assert read(locked)[name] == text


@pytest.mark.parametrize(
    ("name", "line"),
    [("base.lock", "tz"), ("requirements.txt", "more"), ("tools.txt", "more")],
)
def test_a_lock_out_of_step_is_named(locked: Settings, name: str, line: str) -> None:
    source = re.sub(r"\..*", ".in", name)
    text = read(locked)[source]
    write(locked, source, f"# a comment changes nothing\n\n{text}   \n")
    assert locks.check(locked) == []
    write(locked, source, f"{text}{line}\n")
    before = read(locked)
    [problem] = locks.check(locked)
    assert problem.startswith(f"{name} is out of step with {source}")
    assert read(locked) == before


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"suite": "forky"}, ["base.lock"]),
        ({"python": "3.14"}, ["requirements.txt"]),
        ({"glibc": "2.36"}, ["requirements.txt"]),
        ({"image": "other", "architecture": "arm64"}, []),
    ],
)
def test_a_lock_out_of_step_with_the_settings_is_named(
    locked: Settings, changed: dict[str, str], names: list[str]
) -> None:
    found = locks.check(dataclasses.replace(locked, **changed))
    assert [problem.split(maxsplit=1)[0] for problem in found] == names


@pytest.mark.parametrize("name", [*LOCKS, "base.in", "requirements.in", "tools.in"])
def test_a_file_that_is_no_text_is_named(locked: Settings, name: str) -> None:
    (locked.root / name).write_bytes(b"\xff\xfe")
    [problem] = locks.check(locked)
    assert problem.startswith(f"{name} cannot be read: ")
    (locked.root / name).unlink()
    (locked.root / name).mkdir()
    [problem] = locks.check(locked)
    assert problem.startswith(f"{name} cannot be read: ")


@pytest.mark.parametrize(
    "read",
    [
        locks.read_requirements,
        lambda sample: locks.lock(sample, upgrade=False, progress=Quiet()),
    ],
    ids=["read", "lock"],
)
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"requirements.in": "-r more.in", "more.in": "-r requirements.in"}, "more.in"),
        ({"requirements.in": "-c more.in", "more.in": "-c requirements.in"}, "more.in"),
        ({"requirements.in": "-ra.in", "a.in": "-cb.in", "b.in": "-r a.in"}, "a.in"),
        ({"requirements.in": "--requirement=./requirements.in"}, "itself"),
    ],
    ids=["requirements", "constraints", "three", "itself"],
)
def test_files_that_include_each_other_are_named(
    sample: Settings,
    read: Callable[[Settings], object],
    files: dict[str, str],
    expected: str,
) -> None:
    for name, text in files.items():
        write(sample, name, f"{text}\n")
    with pytest.raises(Problem, match=r"^\w+\.in:1: .* include") as info:
        read(sample)
    assert expected in str(info.value)
    assert "\n" not in str(info.value)
    assert not (sample.root / "requirements.txt").exists()


def test_a_file_may_be_included_twice_and_written_anyhow(sample: Settings) -> None:
    write(sample, "requirements.in", "-r a.in\n-r b.in\n")
    write(sample, "a.in", "-c c.in\napp\n")
    (sample.root / "b.in").write_bytes(b"\xef\xbb\xbf-c c.in\r\nother\r\n")
    write(sample, "c.in", "app<2\n")
    source = locks.pins.read_source(sample.root / "requirements.in")
    assert source.requirements == ("app", "other")
    assert source.constraints == ("app<2",)


def test_line_ends_and_a_byte_order_mark_change_no_lock(locked: Settings) -> None:
    for name in ("base.in", "requirements.in", "tools.in"):
        file = locked.root / name
        text = file.read_bytes().replace(b"\n", b"\r\n")
        file.write_bytes(b"\xef\xbb\xbf" + text)
    assert locks.check(locked) == []


@pytest.mark.parametrize("fault", ["resolve", "write", "replace"])
def test_all_locks_are_written_or_none(
    locked: Settings,
    index: Index,
    progress: Record,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    index.add("more", "1.0")
    write(locked, "base.in", "hello\n-script-runner\ntz\n")
    write(locked, "requirements.in", "app\nmore\n")
    bad = "nowhere" if fault == "resolve" else "more"
    write(locked, "tools.in", f"app\n{bad}\n")
    before = read(locked)
    with monkeypatch.context() as patch:
        if fault != "resolve":
            real = getattr(Path, {"write": "write_text"}.get(fault, fault))

            def fails(path: Path, *args: object) -> object:
                if path.name.startswith(".tools.txt"):
                    raise OSError(28, "No space left on device")
                return real(path, *args)

            patch.setattr(Path, real.__name__, fails)
        with pytest.raises(Problem, match=r"nowhere|tools.txt cannot be written: No s"):
            locks.lock(locked, upgrade=False, progress=progress)
    assert read(locked) == before
    write(locked, "tools.in", "app\nmore\n")
    changed = {line.partition(":")[0] for line in lock(locked, progress)}
    assert changed == set(LOCKS)
