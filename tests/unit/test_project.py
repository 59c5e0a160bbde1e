"""[project] apps: what their backend makes, installed as an editable install would."""

import hashlib
import importlib.metadata
import json
import os
import tempfile
import zipfile
from pathlib import Path

import pytest

from containerize import settings
from containerize.errors import Problem
from containerize.fetch.inputs import Wheel
from containerize.pack import project, selection

TIME = 1_763_856_000
SITE = "usr/local/lib/python3.13/site-packages"
# A backend of the repository's own, which needs no wheel and shows what it is given.
BACKEND = """
import json, os, pathlib, subprocess, zipfile

def build_wheel(directory, config=None, metadata=None):
    tag = os.environ.get("X", "py3-none-any")
    name = f"shelf-4.5.6-{tag}.whl"
    info = "shelf-4.5.6.dist-info"
    files = {str(p.relative_to("src")): p.read_bytes()
             for p in sorted(pathlib.Path("src").rglob("*")) if p.is_file()}
    more = json.loads(pathlib.Path("more.json").read_text())
    with open(more.pop("CALLS", os.devnull), "a") as calls:
        calls.write("called ")
    tag = more.pop("TAG", tag)
    name = f"shelf-4.5.6-{tag}.whl"
    if more.pop("SCRIPT", None):
        more["shelf/said.py"] = subprocess.check_output(["ours-tool"], text=True)
    if "FAIL" in more:
        raise ValueError(more["FAIL"])
    files |= {k: v.encode() for k, v in more.items()}
    environ = {k: v for k, v in os.environ.items() if k not in ("PATH", "HOME")}
    files |= {
        f"{info}/METADATA": b"Metadata-Version: 2.1\\nName: shelf\\nVersion: 4.5.6\\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\\nGenerator: x (%d)\\n"
                         b"Root-Is-Purelib: true\\n" % os.getpid(),
        f"{info}/entry_points.txt": b"[console_scripts]\\nshelf = shelf.cli:main\\n",
        f"{info}/environ.json": json.dumps(environ, sort_keys=True).encode(),
        f"{info}/files.txt": "\\n".join(sorted(
            str(p) for p in pathlib.Path(".").rglob("*") if p.is_file())).encode(),
    }
    record = "".join(f"{n},,\\n" for n in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        for inner, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(inner, data)
    return name
"""
FILES = {
    "pyproject.toml": """
[build-system]
requires = []
build-backend = "ours"
[project]
name = "shelf"
version = "4.5.6"
[tool.containerize]
image = "shelf"
app = "shelf"
requirements = "pyproject.toml"
""",
    "README.md": "",
    ".env": "SECRET=1",
    "tests/test_x.py": "",
    "more.json": "{}",
    "src/shelf/__init__.py": "one",
    "src/shelf/cli.py": "def main(): ...\n",
}


def put(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def shelf(tmp_path):
    put(tmp_path, FILES)
    return settings.load(tmp_path, {})


def made(loaded):
    """What a backend gives that is a wheel of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "backend")
        info = "ours-1.dist-info"
        files = {
            "ours.py": BACKEND,
            f"{info}/METADATA": "Metadata-Version: 2.1\nName: ours\nVersion: 1\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
        }
        script = zipfile.ZipInfo("ours-1.data/scripts/ours-tool")
        script.external_attr = 0o100755 << 16
        record = "".join(
            f"{name},,\n" for name in (*files, script.filename, f"{info}/RECORD")
        )
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in {**files, f"{info}/RECORD": record}.items():
                archive.writestr(name, text)
            archive.writestr(script, "#!/bin/sh\necho x = 5\n")
        wheel = Wheel("ours-1-py3-none-any.whl", path, "0")
        return project.build(loaded, selection.app(loaded).files, [wheel], TIME)


def test_a_backend_finds_the_scripts_of_its_wheels(shelf):
    put(shelf.root, {"more.json": '{"SCRIPT": "yes"}'})
    # Beside the sources of its package, where Python looks for it.
    assert made(shelf).entries["srv/src/shelf/said.py"].content == b"x = 5\n"


def test_the_source_stays_and_the_metadata_is_installed(shelf):
    found = made(shelf).entries
    info = f"{SITE}/shelf-4.5.6.dist-info"
    names = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "INSTALLER"]
    assert sorted(found) == sorted(
        [
            *(f"{info}/{name}" for name in (*names, "environ.json", "files.txt")),
            f"{SITE}/shelf.pth",
            "usr/local/bin/shelf",
        ]
    )
    assert found[f"{SITE}/shelf.pth"].content == b"/srv/src\n"
    assert found["usr/local/bin/shelf"].content.startswith(b"#!/usr/bin/python3.13\n")
    assert found["usr/local/bin/shelf"].mode == 0o755
    record = found[f"{info}/RECORD"].content.decode()
    assert "\nshelf.pth,sha256=" in record
    assert "../../../bin/shelf,sha256=" in record
    assert "cli.py" not in record
    assert found[f"{info}/files.txt"].content.decode().split() == [
        *("README.md", "more.json", "pyproject.toml"),
        *("src/shelf/__init__.py", "src/shelf/cli.py"),
    ]


def test_the_surroundings_change_nothing(shelf, monkeypatch):
    first = made(shelf).entries
    (shelf.build_dir / "backend.json").unlink()
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    old = os.umask(0o077)
    try:
        assert made(shelf).entries == first
    finally:
        os.umask(old)


@pytest.fixture
def calls(shelf, tmp_path_factory):
    """How often the backend was called since the last time."""
    file = tmp_path_factory.mktemp("calls") / "calls"
    put(shelf.root, {"more.json": json.dumps({"CALLS": str(file)})})

    def calls():
        made(shelf)
        found = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        return found.count("called")

    assert [calls(), calls()] == [1, 0]
    return calls


LICENSED = FILES["pyproject.toml"].replace(
    "version", 'readme = "docs/about.md"\nversion'
)


def test_an_edit_that_metadata_does_not_show_calls_no_backend(shelf, calls):
    before = made(shelf)
    put(shelf.root, {"src/shelf/cli.py": "edited", "src/shelf/__init__.py": "too"})
    assert calls() == 0
    assert made(shelf) == before


@pytest.mark.parametrize(
    "change",
    [
        {"pyproject.toml": FILES["pyproject.toml"].replace("4.5.6", "4.5.7")},
        {"src/shelf/new.py": ""},
        {"README.md": "x"},
        {"pdm_build.py": "x"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_edit_of_what_metadata_comes_from_calls_the_backend(shelf, calls, change):
    put(shelf.root, change)
    assert calls() == 1
    assert calls() == 0


def test_what_is_installed_from_below_the_top_decides(shelf, calls):
    script = "#!python\nprint(1)\n"
    put(
        shelf.root,
        {
            "pyproject.toml": LICENSED,
            "docs/about.md": "1",
            "legal/MIT": "you may",
            "bin/run": script,
            "data/else": "what no wheel takes",
        },
    )
    more = json.loads((shelf.root / "more.json").read_text())
    more["shelf-4.5.6.dist-info/licenses/legal/MIT"] = "you may"
    more["shelf-4.5.6.data/scripts/run"] = script
    put(shelf.root, {"more.json": json.dumps(more)})
    assert [calls(), calls()] == [1, 0]
    for name, times in (
        *(("docs/about.md", 1), ("legal/MIT", 1), ("bin/run", 1)),
        ("data/else", 0),
    ):
        put(shelf.root, {name: "another"})
        assert calls() == times, name
        put(shelf.root, {"legal/MIT": "you may", "bin/run": script})
        calls()


def test_a_module_at_the_top_that_was_copied_decides_nothing(tmp_path):
    table = FILES["pyproject.toml"].replace('"ours"', '"setuptools.build_meta"')
    table = table.replace('app = "shelf"', 'app = "shop"')
    modules = '[tool.setuptools]\npy-modules = ["shop"]\n'
    put(tmp_path, {"pyproject.toml": table + modules, "shop.py": "x = 1\n"})
    loaded = settings.load(tmp_path, {})
    wheel = setuptools_wheel(tmp_path)

    def kept():
        project.build(loaded, selection.app(loaded).files, [wheel], TIME)
        return (loaded.build_dir / "backend.json").stat().st_mtime_ns

    before = kept()
    put(tmp_path, {"shop.py": "x = 2\n"})
    assert kept() == before
    put(tmp_path, {"pyproject.toml": table + modules + "# more\n"})
    assert kept() != before


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data.replace(b'"note": ""', b'"note": "x"'),
        lambda data: data[:-100],
        lambda data: b"",
        lambda data: b"\xff" + data,
        lambda data: data.split(b"\n", 1)[1],
        lambda data: hashlib.sha256(b"[]").hexdigest().encode() + b"\n[]",
    ],
    ids=["edited", "truncated", "empty", "no text", "older", "other"],
)
def test_a_damaged_result_is_not_believed(shelf, calls, harm):
    before = made(shelf)
    kept = shelf.build_dir / "backend.json"
    data = kept.read_bytes()
    kept.write_bytes(harm(data))
    assert kept.read_bytes() != data
    assert calls() == 1
    assert made(shelf) == before


def test_the_result_of_another_format_is_not_believed(shelf, calls, monkeypatch):
    monkeypatch.setattr(project, "FORMAT", project.FORMAT + 1)
    assert calls() == 1


def test_generated_modules_stand_where_their_package_is(shelf):
    more = '{"shelf/_version.py": "v = 1", "shelf_more.py": "x"}'
    put(shelf.root, {"more.json": more})
    found = made(shelf)
    assert found.entries["srv/src/shelf/_version.py"].content == b"v = 1"
    assert found.entries[f"{SITE}/shelf_more.py"].content == b"x"
    # They may hold what the backend read anywhere: an edit calls it again.
    before = (shelf.build_dir / "backend.json").read_bytes()
    put(shelf.root, {"src/shelf/cli.py": "edited"})
    assert "srv/src/shelf/cli.py" not in made(shelf).entries
    assert (shelf.build_dir / "backend.json").read_bytes() != before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"more.json": '{"FAIL": "no such licence"}'}, "failed: ValueError: no such"),
        ({"more.json": '{"TAG": "cp313-cp313-linux_x86_64"}'}, "into wheels/"),
        (
            {"pyproject.toml": FILES["pyproject.toml"].replace("[]", '["hatch-vcs"]')},
            r"comes from commits \(hatch-vcs\).*write version",
        ),
    ],
)
def test_what_no_image_can_have_is_one_line(shelf, change, match):
    put(shelf.root, change)
    with pytest.raises(Problem, match=match) as caught:
        made(shelf)
    assert "\n" not in str(caught.value)


def setuptools_wheel(directory):
    """The wheel that the setuptools of this environment was installed from."""
    installed = importlib.metadata.distribution("setuptools")
    path = directory / "backend"
    with zipfile.ZipFile(path, "w") as archive:
        for file in installed.files:
            if file.locate().is_file() and file.parts[0] != "..":
                archive.write(file.locate(), str(file))
    return Wheel(f"setuptools-{installed.version}-py3-none-any.whl", path, "0")


def test_a_project_without_a_backend_may_be_no_package(tmp_path):
    """As with uv: [project] is then only where the requirements are asked for."""
    table = FILES["pyproject.toml"].partition("[project]")[2]
    packages = {"shelf/__init__.py": "", "config/__init__.py": ""}
    put(tmp_path, {"pyproject.toml": f"[project]{table}", **packages})
    loaded = settings.load(tmp_path, {})
    backend = setuptools_wheel(tmp_path)

    def build():
        return project.build(loaded, selection.app(loaded).files, [backend], TIME)

    found = build()
    assert found.entries == {}
    assert "makes no package" in found.note
    assert build() == found  # from what is known, too
    # One package is found, and what names a backend must get along with it.
    (tmp_path / "config/__init__.py").unlink()
    (tmp_path / "config").rmdir()
    assert f"{SITE}/shelf-4.5.6.dist-info/METADATA" in build().entries
    system = '[build-system]\nrequires = ["setuptools"]\n'
    put(tmp_path, {"pyproject.toml": f"{system}[project]{table}", **packages})
    with pytest.raises(Problem, match=r"failed: .*Multiple top-level packages"):
        build()
    # It can say so itself.
    tool = "[tool.poetry]\npackage-mode = false\n"
    put(tmp_path, {"pyproject.toml": f"{system}{tool}[project]{table}"})
    assert build() == found
