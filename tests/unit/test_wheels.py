"""Wheels are unpacked as pip unpacks them."""

import contextlib
import io
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from containerize import settings
from containerize.errors import Problem
from containerize.pack import layers, wheels

WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
SITE = "usr/local/lib/python3.13/site-packages"


def wheel(directory, name, files, entries="", about=WHEEL, info=""):
    """Write a wheel of (path, text, mode of the zip) in this order."""
    info = info or f"{name}-1.dist-info"
    every = [
        *files,
        (f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n", 0),
        (f"{info}/WHEEL", about, 0),
    ]
    if entries:
        every.append((f"{info}/entry_points.txt", entries, 0))
    paths = [path.replace("\\", "/") for path, *_ in every if path[-1] != "/"]
    unique = dict.fromkeys([*paths, f"{info}/RECORD"])
    record = "".join(f"{path},,\n" for path in unique)
    path = directory / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text, mode in [*every, (f"{info}/RECORD", record, 0)]:
            entry = zipfile.ZipInfo(inner)
            entry.external_attr = mode << 16
            archive.writestr(entry, text)
    return path.name, path


def ours(top, given_wheels):
    (top / "pyproject.toml").write_text('[tool.containerize]\nimage = "demo"\n')
    made = layers.dependencies(settings.load(top, {}), given_wheels)
    found = {}
    for path, entry in made.entries.items():
        if entry.kind == b"0":
            found[placed(path, SITE, "usr/local/")] = (
                entry.content,
                entry.mode,
            )
    return found


def placed(path, site, prefix):
    """The path with the same name for site-packages and the prefix in both."""
    if path.startswith(f"{site}/"):
        return path.replace(site, "SITE", 1)
    return path.removeprefix(prefix)


def pips(top, given_wheels):
    root = top / "pip"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--isolated", "install", "--quiet"),
            *("--no-deps", "--no-index", "--no-compile", "--no-warn-script-location"),
            *("--disable-pip-version-check", "--root-user-action=ignore"),
            *("--ignore-installed", f"--prefix={root}"),
            *(str(path) for _, path in given_wheels),
        ],
        check=True,
        capture_output=True,
        umask=0o022,
    )
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            inner = placed(
                path.relative_to(root).as_posix(), f"lib/{version}/site-packages", ""
            )
            # pip puts headers into a directory named for its own interpreter.
            inner = inner.replace(f"include/site/{version}/", "include/")
            found[inner] = (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    return found


def comparable(files):
    """Without what names the installer; of a launcher, that it is there."""
    named = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
    found = {}
    for path, (content, mode) in files.items():
        name = path.rsplit("/", 1)[-1]
        if path.startswith("bin/"):
            shebang, _, rest = content.partition(b"\n")
            text = rest if b"import sys" not in rest else b"launcher"
            found[path] = (shebang[:2], text, mode)
        elif ".dist-info/" not in path or name not in named:
            found[path] = (content, mode)
    return found


NAMES = st.sampled_from(["a.py", "ns/__init__.py", "ns/b", "tests/é.txt", "x y/c.py"])
PLACES = st.sampled_from(
    [
        *("", "demo-1.data/purelib/", "demo-1.data/platlib/", "demo-1.data/data/"),
        *("demo-1.data/headers/", "demo-1.data/scripts/"),
    ]
)
TEXTS = st.sampled_from(["", "x = 1\n", "#!python\nx\n", "#!pythonw -u\nx\n"])
MODES = st.sampled_from([0, 0o100644, 0o100755, 0o100600, 0o755, 0o100001, 0o120777])
FILES = st.dictionaries(
    st.builds("{}{}".format, PLACES, NAMES), st.tuples(TEXTS, MODES), max_size=6
)
ENTRIES = st.sampled_from(
    [
        "",
        "[console_scripts]\na.py = a:x\n",
        "[console_scripts]\ndemo = a:x.y [extra]\n[gui_scripts]\nshown = a:x\n",
    ]
)


@hypothesis_settings(max_examples=12)
@given(FILES, ENTRIES, st.booleans())
def test_a_wheel_is_unpacked_as_by_pip(files, entries, backwards):
    order = [(path, *rest) for path, rest in files.items()]
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        made = [wheel(top, "demo", order[:: -1 if backwards else 1], entries)]
        assert comparable(ours(top, made)) == comparable(pips(top, made))


def test_two_wheels_may_share_equal_files(tmp_path):
    both = [("ns/__init__.py", "", 0), ("tests/__init__.py", "", 0)]
    made = [
        wheel(tmp_path, "one", [*both, ("ns/a.py", "1", 0)]),
        wheel(tmp_path, "two", [*both, ("ns/b.py", "2", 0), ("ns/", "", 0)]),
    ]
    assert comparable(ours(tmp_path, made)) == comparable(pips(tmp_path, made))


@pytest.mark.parametrize("order", [1, -1])
def test_an_equal_file_is_executable_if_one_of_them_is(tmp_path, order):
    made = [
        wheel(tmp_path, "one", [("run", "", 0o100644)]),
        wheel(tmp_path, "two", [("run", "", 0o100755)]),
    ]
    assert ours(tmp_path, made[::order])["SITE/run"] == (b"", 0o755)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "files",
    [
        [("a.py", "x", 0), ("demo-1.dist-info/RECORD.jws", "{}", 0)],
        [("a.py", "x", 0), ("demo-1.dist-info/RECORD.p7s", "x", 0)],
        [("a.py", "first", 0), ("b.py", "", 0), ("a.py", "second", 0o100755)],
        [("a.py", "first", 0), ("demo-1.data/purelib/a.py", "second", 0)],
        [("ns/one/a.py", "", 0), ("ns/two/b.py", "", 0), ("ns/", "", 0)],
        [("sub\\a.py", "x", 0), ("./sub/b.py", "y", 0), ("sub//c.py", "z", 0)],
        [("a.py", "", 0), ("demo-1.dist-info/licenses/LICENSE", "y", 0)],
        [("demo-1.data/scripts/", "", 0), ("demo-1.data/scripts/x", "#!python\n", 0)],
        [("demo-1.data/purelib/", "", 0), ("demo-1.data/", "", 0)],
    ],
)
def test_odd_wheels_are_unpacked_as_by_pip(tmp_path, files):
    made = [wheel(tmp_path, "demo", files)]
    assert comparable(ours(tmp_path, made)) == comparable(pips(tmp_path, made))


@pytest.mark.parametrize("info", ["Demo-1.dist-info", "demo-1.0.dist-info"])
def test_a_dist_info_of_another_spelling_is_taken(tmp_path, info):
    made = [wheel(tmp_path, "demo", [("a.py", "x", 0)], info=info)]
    assert comparable(ours(tmp_path, made)) == comparable(pips(tmp_path, made))


def test_two_wheels_with_one_script_name_both(tmp_path):
    inside = "{}-1.data/scripts/run"
    made = [
        wheel(tmp_path, name, [(inside.format(name), f"#!python\n{name}\n", 0)])
        for name in ("one", "two")
    ]
    text = r"^one-1\S+ and two-1\S+ both have /usr/local/bin/run, with different"
    with pytest.raises(Problem, match=text):
        ours(tmp_path, made)


def test_entry_points_that_differ_name_both_wheels(tmp_path):
    made = [
        wheel(tmp_path, "one", [], "[console_scripts]\ndemo = one:x\n"),
        wheel(tmp_path, "two", [], "[console_scripts]\ndemo = two:x\n"),
    ]
    text = r"^one-1\S+ and two-1\S+ both have /usr/local/bin/demo, with different"
    with pytest.raises(Problem, match=text):
        ours(tmp_path, made)


def test_an_installer_that_the_wheel_names_is_replaced_and_recorded_once(tmp_path):
    inside = "demo-1.dist-info/INSTALLER"
    found = ours(tmp_path, [wheel(tmp_path, "demo", [(inside, "flit\n", 0)])])
    assert found[f"SITE/{inside}"][0] == b"containerize\n"
    assert found["SITE/demo-1.dist-info/RECORD"][0].count(b"INSTALLER") == 1


@pytest.mark.parametrize(
    ("about", "tags"),
    [
        ("", "py3-none-any"),
        ("tag: cp313-abi3-linux_x86_64\n", "cp313-abi3-linux_x86_64"),
        ("Tag: py2-none-any\nTag: py3-none-any\n", "py2.py3-none-any"),
        ("Build: 2\nTag: py3-none-any\n", "2-py3-none-any"),
        ("Tag: nonsense\n", "py3-none-any"),
    ],
)
def test_a_wheels_name_is_had_without_well_formed_tags(tmp_path, about, tags):
    text = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n{about}"
    _, path = wheel(tmp_path, "demo", [], about=text)
    assert wheels.file_name("demo", "1", path) == f"demo-1-{tags}.whl"


def test_a_wheel_of_a_later_minor_version_is_taken(tmp_path):
    made = [
        wheel(tmp_path, "demo", [("a.py", "", 0)], about=WHEEL.replace("1.0", "1.9"))
    ]
    assert comparable(ours(tmp_path, made)) == comparable(pips(tmp_path, made))


def test_a_wheel_of_another_major_version_is_one_line(tmp_path):
    made = [wheel(tmp_path, "demo", [], about=WHEEL.replace("1.0", "2.0"))]
    with pytest.raises(Problem, match=r"^demo-1-\S+ cannot be unpacked: .*2\.0"):
        ours(tmp_path, made)
    with (
        contextlib.redirect_stderr(io.StringIO()),
        pytest.raises(subprocess.CalledProcessError),
    ):
        pips(tmp_path, made)
