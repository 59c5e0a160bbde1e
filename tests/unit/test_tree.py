"""Canonical tars: one tree, one sequence of bytes."""

import io
import itertools
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerize import disk
from containerize.errors import Problem
from containerize.pack import tree

TIME = 1_763_856_000


def bytes_of(made, time=TIME):
    out = io.BytesIO()
    made.write(out, time)
    return out.getvalue()


def members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            m.name: (m, f.read() if (f := tar.extractfile(m)) else b"") for m in tar
        }


def hard(target):
    return tree.Entry(kind=tarfile.LNKTYPE, mode=0o644, target=target)


def example():
    return {
        "srv/app/main.py": tree.file(b"print()\n"),
        "usr/bin/tool": tree.file(b"\x7fELF", 0o4755),
        "tmp": tree.Entry(kind=tarfile.DIRTYPE, mode=0o1777),
        "bin": tree.symlink("usr/bin"),
        f"{'long/' * 30}name": tree.file(b"x" * 600),
        "srv/naïve-日本.txt": tree.file(b"text"),
        os.fsdecode(b"srv/\xff\xfe"): tree.file(b"no utf-8"),
        "owned": tree.Entry(kind=tarfile.REGTYPE, mode=0o640, uid=65532, gid=5),
    }


def test_order_of_adding_changes_no_byte():
    first, second = tree.Tree(), tree.Tree()
    for path, entry in example().items():
        first.add(path, entry)
    for path, entry in reversed(example().items()):
        second.add(path, entry)
    assert bytes_of(first) == bytes_of(second)


def test_what_goes_in_comes_out():
    made = tree.Tree()
    for path, entry in example().items():
        made.add(path, entry)
    found = members(bytes_of(made))
    for path, entry in example().items():
        member, content = found[path]
        assert (member.type, member.mode) == (entry.kind, entry.mode)
        assert (member.uid, member.gid) == (entry.uid, entry.gid)
        assert (member.uname, member.gname, member.mtime) == ("", "", TIME)
        assert (member.linkname, content) == (entry.target, entry.content)
    names = list(found)
    assert names == sorted(names, key=os.fsencode)


def test_parents_come_before_children():
    made = tree.Tree()
    made.add("a/b/c", tree.file(b""))
    made.add("a-b", tree.file(b""))
    names = list(members(bytes_of(made)))
    assert names.index("a") < names.index("a/b") < names.index("a/b/c")


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["b/one", "a/two", "c/three"]))
)
def test_hard_links_lead_with_the_first_path(order):
    """Whichever path a package lists first, the same one carries the content."""
    origin, *links = order
    made = tree.Tree()
    made.add(origin, tree.file(b"shared", 0o755))
    for link in links:
        made.add(link, hard(origin))
    found = members(bytes_of(made))
    assert found["a/two"][1] == b"shared"
    assert found["b/one"][0].linkname == found["c/three"][0].linkname == "a/two"
    expected = tree.Tree()
    expected.add("a/two", tree.file(b"shared", 0o755))
    expected.add("b/one", hard("a/two"))
    expected.add("c/three", hard("a/two"))
    assert bytes_of(made) == bytes_of(expected)


def test_a_hard_link_to_nothing_is_refused():
    made = tree.Tree()
    made.add("a", hard("nowhere"))
    with pytest.raises(Problem, match="nowhere"):
        bytes_of(made)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ""])
def test_paths_that_leave_the_tree_are_refused(path):
    with pytest.raises(Problem, match="refused"):
        tree.Tree().add(path, tree.file(b""))


def test_conflicts_are_refused():
    made = tree.Tree()
    made.add("a", tree.file(b"1"))
    made.add("a", tree.file(b"1"))
    with pytest.raises(Problem, match="twice"):
        made.add("a", tree.file(b"2"))
    with pytest.raises(Problem, match="no directory"):
        made.add("a/b", tree.file(b""))


names = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
        lambda part: part not in (".", "..")
    ),
    min_size=1,
    max_size=4,
).map("/".join)


@given(st.dictionaries(names, st.binary(max_size=700), max_size=8), st.randoms())
def test_any_order_of_any_files_gives_the_same_bytes(files, random):
    def make(items):
        made = tree.Tree()
        for path, content in items:
            made.add(f"top/{path}", tree.file(content))
        return bytes_of(made)

    shuffled = list(files.items())
    random.shuffle(shuffled)
    try:
        expected = make(files.items())
    except Problem:  # one name is a file in one path and a directory in another
        with pytest.raises(Problem):
            make(shuffled)
        return
    assert make(shuffled) == expected
    assert {
        n.removeprefix("top/"): c
        for n, (m, c) in members(expected).items()
        if m.isreg()
    } == {str(Path(p)): c for p, c in files.items()}


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "layer.tar"
    target.write_bytes(b"old")
    script = (
        "import os, signal, sys, pathlib\n"
        "from containerize import disk\n"
        "with disk.atomic(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'new' * 100000)\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, target], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    target = tmp_path / "layer.tar"
    target.write_bytes(b"old")

    def fill():
        with disk.atomic(target) as file, open("/dev/full", "wb", buffering=0) as full:
            file.write(b"new")
            full.write(b"new")

    with pytest.raises(Problem, match="No space left") as caught:
        fill()
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["layer.tar"]
    assert target.read_bytes() == b"old"
