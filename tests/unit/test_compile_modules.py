"""The program that compiles modules in an image: layers are data to it."""

import importlib.util
import marshal
import os
import re
import shutil
import subprocess
import sys

import pytest

from containerize.pack import compile_modules, layers
from tests.conftest import ROOT

TIME = 1_763_856_000
TAG = f"{sys.implementation.cache_tag}.pyc"


def put(tree, files):
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
        os.utime(tree / name, (TIME, TIME))
    for path in tree.iterdir():
        os.utime(path, (TIME, TIME))


def compiled(*trees, program=layers.COMPILE):
    """Run the program as the Dockerfile does; what it made of each, by path."""
    outs = [tree.with_name(f"{tree.name}-compiled") for tree in trees]
    pairs = [str(path) for pair in zip(trees, outs, strict=True) for path in pair]
    text = (ROOT / "Dockerfile").read_text("utf-8")
    flags = re.search(r'RUN \["python3", (.*?), "/tmp/compile', text)[1]
    command = [sys.executable, *re.findall(r'"(.*?)"', flags), str(program)]
    environ = {"PYTHONPYCACHEPREFIX": "/pycache", "PYTHONPATH": "", "PATH": ""}
    done = subprocess.run(
        [*command, *pairs], env=environ, capture_output=True, text=True, check=False
    )
    found = [
        {f"/{p.relative_to(out)}": p for p in out.rglob("*") if p.is_file()}
        for out in outs
    ]
    return done, found


def test_the_cache_is_where_python_looks_and_names_the_image(tmp_path):
    tree = tmp_path / "tree"
    put(tree, {"srv/shop/__init__.py": "x = 1\n", "srv/shop/page.html": "no"})
    done, [found] = compiled(tree)
    assert (done.returncode, done.stderr) == (0, "")
    [(path, file)] = found.items()
    assert path == f"/pycache/srv/shop/__init__.{TAG}"
    data = file.read_bytes()
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert data[4:8] == b"\3\0\0\0"  # PEP 552: by its source's hash, which is checked
    assert data[8:16] == importlib.util.source_hash(b"x = 1\n")
    assert marshal.loads(data[16:]).co_filename == "/srv/shop/__init__.py"
    assert {p.stat().st_mtime for p in (file, *file.parents[:3])} == {TIME}
    assert file.stat().st_mode & 0o777 == 0o644


def test_what_is_no_module_of_this_python_is_passed_over(tmp_path):
    tree = tmp_path / "tree"
    (tree / "srv/linked").mkdir(parents=True)
    put(
        tree,
        {
            "srv/template.py": "import {{ name }}\n",
            "srv/null.py": "\0",
            "srv/latin.py": "x = 1\n",
            "srv/__pycache__/old.py": "x = 1\n",
            "elsewhere/x.py": "x = 1\n",
            "srv/right.py": "x = 1\n",
        },
    )
    (tree / "srv/latin.py").write_bytes(b"x = '\xe9'\n")
    (tree / "srv/link.py").symlink_to("right.py")
    (tree / "srv/nowhere.py").symlink_to("gone.py")
    (tree / "srv/linked/again").symlink_to("..")
    done, [found] = compiled(tree)
    assert done.returncode == 0
    names = [f"/pycache/srv/{name}.{TAG}" for name in ("link", "right")]
    assert sorted(found) == names


def test_each_tree_has_a_directory_of_its_own(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    put(first, {"srv/one.py": ""})
    put(second, {"usr/local/lib/served/served/two.py": ""})
    done, (one, two) = compiled(first, second)
    assert done.returncode == 0
    assert [*one] == [f"/pycache/srv/one.{TAG}"]
    assert [*two] == [f"/pycache/usr/local/lib/served/served/two.{TAG}"]


def test_what_cannot_be_written_fails(tmp_path):
    tree = tmp_path / "tree"
    put(tree, {"srv/one.py": "", "srv/two.py": ""})
    # A file stands where a directory must go.
    (tmp_path / "tree-compiled/pycache").mkdir(parents=True)
    (tmp_path / "tree-compiled/pycache/srv").write_text("")
    done, _ = compiled(tree)
    assert done.returncode == 1
    assert "/srv/one.py: " in done.stderr


@pytest.fixture
def foreign(tmp_path):
    """The program, and beside it an image for another processor, with this Python."""
    program = tmp_path / "tmp" / layers.COMPILE.name
    program.parent.mkdir()
    shutil.copy(layers.COMPILE, program)
    image = program.with_name("image")
    inner = image / sys.executable.lstrip("/")
    inner.parent.mkdir(parents=True)
    inner.write_bytes(f"x\0{sys.version.split()[0]}\0".encode())
    return program, image


def test_of_a_foreign_image_its_own_modules_count(foreign, tmp_path):
    program, image = foreign
    [library] = {os.path.dirname(os.__file__)}
    top = library.lstrip("/")
    put(image, {f"{top}/own.py": "x = 1\n", "etc/site.py": "x = 2\n"})
    (image / top / "sitecustomize.py").symlink_to("/etc/site.py")
    # As an absolute link of the host's it would lead somewhere.
    (image / top / "host.py").symlink_to(os.__file__)
    (image / top / "circle.py").symlink_to(f"{library}/circle.py")
    layer = tmp_path / "layer"
    put(layer, {"srv/shop.py": "x = 3\n"})
    out = tmp_path / "out"
    done, [_, found] = compiled_pairs(
        program, ("/", out / "base"), (layer, out / "app")
    )
    assert (done.returncode, done.stderr) == (0, "")
    base = {str(p.relative_to(out / "base")) for p in (out / "base").rglob("*.pyc")}
    assert base == {f"pycache/{top}/{name}.{TAG}" for name in ("own", "sitecustomize")}
    assert [*found] == [f"/pycache/srv/shop.{TAG}"]
    for file in (out / "base").rglob("*.pyc"):
        assert str(image).encode() not in file.read_bytes()


def compiled_pairs(program, *pairs):
    """As `compiled`, with trees and what is to come of them given."""
    arguments = [str(path) for pair in pairs for path in pair]
    environ = {"PYTHONPYCACHEPREFIX": "/pycache", "PYTHONPATH": "", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-s", "-S", "-P", str(program), *arguments],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done, [
        {f"/{p.relative_to(out)}": p for p in out.rglob("*") if p.is_file()}
        for _, out in pairs
    ]


@pytest.mark.parametrize("held", [b"", b"\x003.0.99\0", b"\x0013.1.2\0", None])
def test_another_version_of_python_compiles_nothing(foreign, tmp_path, held):
    program, image = foreign
    inner = image / sys.executable.lstrip("/")
    inner.unlink() if held is None else inner.write_bytes(held)
    (image / "etc").mkdir()
    done, [found] = compiled_pairs(program, ("/", tmp_path / "out"))
    assert done.returncode == compile_modules.OTHER_PYTHON
    assert sys.version.split()[0] in done.stderr
    assert (b"3.0.99" in (held or b"")) == ("3.0.99" in done.stderr)
    assert not found


def test_the_paths_are_the_images():
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert f"PYTHONPATH={':'.join(compile_modules.PATHS)} " in text
    assert (f"/{layers.SERVICE}", f"/{layers.APP}") == compile_modules.PATHS
