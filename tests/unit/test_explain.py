"""Each known cause of a difference, made on purpose and named."""

import gzip
import io
import marshal
import os
import py_compile
import stat
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containerize.errors import Problem
from containerize.image import canonical
from containerize.verify import explain

TIME = 1_763_856_000


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), TIME, 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def write_tar(path, *members, form=tarfile.USTAR_FORMAT):
    with tarfile.open(path, "w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def compare_tars(tmp_path, first, second, **options):
    """The differences of two tars of (TarInfo, content)."""
    a = write_tar(tmp_path / "a.tar", *first)
    b = write_tar(tmp_path / "b.tar", *second)
    return explain.compare(a, b, **options)


def compare_contents(tmp_path, first, second, name="srv/file", **options):
    """The one difference of two tars that hold one file."""
    (found,) = compare_tars(
        tmp_path, [member(name, first)], [member(name, second)], **options
    )
    assert (found.path, found.field) == (f"/{name}", "bytes")
    return found


def test_equal_tars_have_no_difference(tmp_path):
    assert compare_tars(tmp_path, [member("a", b"1")], [member("a", b"1")]) == []


def test_a_fresh_mtime(tmp_path):
    (found,) = compare_tars(
        tmp_path, [member("a"), member("b")], [member("a"), member("b", mtime=TIME + 9)]
    )
    assert (found.layer, found.path, found.field) == ("a.tar", "/b", "mtime")
    assert "fresh mtime" in found.cause
    assert "touch" in found.remedy
    assert "00:00:09" in found.detail


def test_another_time_for_all_is_the_date_of_the_lock(tmp_path):
    (found,) = compare_tars(
        tmp_path,
        [member("a"), member("b")],
        [member("a", mtime=1), member("b", mtime=1)],
    )
    assert found.field == "mtime"
    assert "base.lock" in found.cause


def test_an_unsorted_archive(tmp_path):
    (found,) = compare_tars(
        tmp_path, [member("a"), member("b")], [member("b"), member("a")]
    )
    assert (found.path, found.field) == ("/a", "order")
    assert "unsorted archive (the second)" in found.cause
    assert "--sort=name" in found.remedy


@pytest.mark.parametrize(("mask", "named"), [(0o027, "027"), (0o077, "077")])
def test_an_umask_leak(tmp_path, mask, named):
    """Made with real files, under a real umask."""
    made = []
    for name, umask in (("plain", 0o000), ("masked", mask)):
        path = tmp_path / name
        before = os.umask(umask)
        try:
            path.touch(mode=0o777)
        finally:
            os.umask(before)
        mode = stat.S_IMODE(path.stat().st_mode)
        made.append([member("file", mode=mode)])
    (found,) = compare_tars(tmp_path, *made)
    assert found.field == "mode"
    assert "umask leak" in found.cause
    assert named in found.cause


def test_another_mode_is_no_umask_leak(tmp_path):
    (found,) = compare_tars(
        tmp_path, [member("a", mode=0o4755)], [member("a", mode=0o755)]
    )
    assert found.field == "mode"
    assert "umask" not in found.cause
    assert "4755 against 755" in found.detail


def test_owners_and_names_of_owners(tmp_path):
    first = [member("a"), member("b", uname="root")]
    second = [member("a", uid=1000), member("b", uname="me")]
    a, b = compare_tars(tmp_path, first, second)
    assert (a.path, a.field, b.path, b.field) == ("/a", "owner", "/b", "owner")
    assert "another user" in a.cause
    assert "only names" in b.cause


def test_xattrs(tmp_path):
    plain, marked = member("a"), member("a")
    marked[0].pax_headers = {"SCHILY.xattr.user.mark": "1"}
    a = write_tar(tmp_path / "a.tar", plain, form=tarfile.PAX_FORMAT)
    b = write_tar(tmp_path / "b.tar", marked, form=tarfile.PAX_FORMAT)
    (found,) = explain.compare(a, b)
    assert (found.field, found.detail) == ("xattr", "user.mark")


def test_types_links_and_missing_files(tmp_path):
    first = [member("a"), member("l", type=tarfile.SYMTYPE, linkname="x"), member("m")]
    second = [
        member("a", type=tarfile.DIRTYPE),
        member("l", type=tarfile.SYMTYPE, linkname="y"),
    ]
    a, link, missing = compare_tars(tmp_path, first, second)
    assert (a.path, a.field) == ("/a", "type")
    assert (link.path, link.detail) == ("/l", "x against y")
    assert (missing.path, missing.field) == ("/m", "missing")
    assert "only the first" in missing.cause


def test_bytecode_with_a_time_stamp(tmp_path):
    made = []
    source = tmp_path / "module.py"
    source.write_text("x = 1\n")
    for time in (TIME, TIME + 60):
        os.utime(source, (time, time))
        target = py_compile.compile(
            str(source),
            str(tmp_path / "module.pyc"),
            invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP,
        )
        made.append(Path(target).read_bytes())
    found = compare_contents(tmp_path, *made, name="pycache/module.pyc")
    assert "a .pyc with a time stamp" in found.cause
    assert "unchecked-hash" in found.remedy
    assert "flags 0" in found.detail


def test_bytecode_of_another_code_and_another_python(tmp_path):
    head = bytes.fromhex("cb0d0d0a 01000000 0123456789abcdef")
    bodies = [marshal.dumps(compile("x", path, "eval")) for path in ("/a/m", "/b/m")]
    found = compare_contents(tmp_path, *(head + b for b in bodies), name="m.pyc")
    assert "to other bytes" in found.cause
    assert "unchecked hash 0123456789abcdef" in found.detail
    found = compare_contents(tmp_path, head, b"\xa7" + head[1:], name="m.pyc")
    assert "another Python" in found.cause


def test_gzip_files_with_a_time_stamp(tmp_path):
    made = [gzip.compress(b"x", mtime=time) for time in (1, 2)]
    assert "gzip file with a time stamp" in compare_contents(tmp_path, *made).cause


def date(*arguments):
    return subprocess.run(
        ["date", *arguments], check=True, capture_output=True, env={"LC_ALL": "C.UTF-8"}
    ).stdout


@pytest.mark.parametrize("form", ["", "+%s", "+%F %T", "+%c", "-R", "-Iseconds", "+%F"])
def test_the_date_of_the_build(tmp_path, form):
    made = [
        b"built on " + date(f"--date=@{time}", *([form] if form else []))
        for time in (TIME, TIME + 40_000_000)
    ]
    found = compare_contents(tmp_path, *made)
    assert "date of the build" in found.cause
    assert "SOURCE_DATE_EPOCH" in found.remedy
    assert found.detail.splitlines()[1:] == [
        f"-{made[0].decode().strip()}",
        f"+{made[1].decode().strip()}",
    ]


@pytest.mark.parametrize(
    ("first", "second", "cause"),
    [
        (b"built by 0123456789ab", b"built by buildkitsandbox", "host name"),
        (b"HOSTNAME=alpha\n", b"HOSTNAME=beta-2\n", "host name"),
        (*(str(uuid.UUID(int=n, version=4)).encode() for n in (7, 2**99)), "random ID"),
        (b"<object at 0x7f0011223344>", b"<object at 0x7f5566778899>", "random ID"),
        (b"from /home/a/src/x.c", b"from /srv/other/x.c", "path of the build"),
        (b"a\nb\n", b"b\na\n", "another order"),
        (b"version 1\n", b"version 2\n", "its text differs"),
    ],
)
def test_what_texts_tell(tmp_path, first, second, cause):
    assert cause in compare_contents(tmp_path, first, second).cause


def test_two_causes_in_one_file(tmp_path):
    found = compare_contents(
        tmp_path,
        b"on 0123456789ab at 2026-01-01 10:00:00\nsame\n",
        b"on ba9876543210 at 2026-02-01 11:00:00\nsame\n",
    )
    assert "date of the build" in found.cause
    assert "host name" in found.cause


def test_the_host_name_of_a_file(tmp_path):
    found = compare_contents(tmp_path, b"alpha\n", b"beta\n", name="etc/hostname")
    assert "host name" in found.cause


def test_the_rest_goes_to_diffoscope(tmp_path, monkeypatch):
    """Any program of that name: it gets the two files under the name in the image."""
    tool = tmp_path / "bin" / "diffoscope"
    tool.parent.mkdir()
    tool.write_text(f'#!{sys.executable}\nimport sys; print("saw", sys.argv[3:])\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    found = compare_contents(tmp_path, b"\0\1", b"\0\2", name="srv/a.bin")
    assert found.detail.splitlines() == [
        "2 and 2 bytes, which differ from byte 1",
        "saw ['a/a.bin', 'b/a.bin']",
    ]
    monkeypatch.setenv("PATH", "")
    found = compare_contents(tmp_path, b"\0\1", b"\0\2")
    assert "diffoscope" in found.remedy


def test_short_first_and_complete_when_verbose(tmp_path):
    text = "".join(f"line {n}\n" for n in range(50))
    first = [member(f"f{n}", text.encode()) for n in range(5)]
    second = [member(f"f{n}", text.upper().encode()) for n in range(5)]
    (found,) = compare_tars(tmp_path, first, second)
    assert found.path == "/f0 and 4 more"
    assert len(found.detail.splitlines()) == explain.LINES + 1
    full = compare_tars(tmp_path, first, second, verbose=True)
    assert [each.path for each in full] == [f"/f{n}" for n in range(5)]
    assert len(full[0].detail.splitlines()) == 101


def test_another_compressor(tmp_path):
    plain = write_tar(tmp_path / "a", member("a", b"text" * 999)).read_bytes()
    for name, level in (("a", 1), ("b", 9)):
        (tmp_path / name).write_bytes(gzip.compress(plain, level, mtime=0))
    (found,) = explain.compare(tmp_path / "a", tmp_path / "b")
    assert found.field == "compression"
    assert "another compressor" in found.cause
    assert "tools.txt" in found.remedy


def test_another_writer_of_the_same_entries(tmp_path):
    a = write_tar(tmp_path / "a.tar", member("a"), form=tarfile.USTAR_FORMAT)
    b = write_tar(tmp_path / "b.tar", member("a"), form=tarfile.GNU_FORMAT)
    (found,) = explain.compare(a, b)
    assert "another tar writer" in found.cause


def test_directories_of_packed_layers(tmp_path):
    for side, mtime in (("a", TIME), ("b", TIME + 5)):
        (tmp_path / side).mkdir()
        write_tar(tmp_path / side / "app.tar", member("x", mtime=mtime))
        write_tar(tmp_path / side / "deps.tar", member("x"))
    write_tar(tmp_path / "b" / "new.tar", member("x"))
    changed, new = explain.compare(tmp_path / "a", tmp_path / "b")
    assert (changed.layer, changed.field) == ("app.tar", "mtime")
    assert (new.layer, new.field) == ("new.tar", "missing")


SEEDS = (
    gzip.compress(b"x", mtime=1),
    b"\x7fELF" + bytes(80),
    bytes.fromhex("cb0d0d0a 00000000 00000000 01000000") + marshal.dumps(1),
    b"built 2026-01-01 by 0123456789ab in /some/path with 0x0123456789abcdef\n",
)


@settings(max_examples=120)
@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 4), st.binary(max_size=6)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["f", "m.pyc", "etc/hostname"]),
)
def test_any_contents_can_be_compared(tmp_path_factory, seed, changes, name):
    other = seed
    for at, length, value in changes:
        other = other[:at] + value + other[at + length :]
    for verbose in (False, True):
        found = compare_tars(
            tmp_path_factory.mktemp("c"),
            [member(name, seed)],
            [member(name, other)],
            verbose=verbose,
        )
        assert len(found) == (seed != other)
        text = "".join(f"{d.cause}{d.remedy}{d.detail}" for d in found)
        assert text.replace("\n", "").isprintable()


# --- Images ----------------------------------------------------------------------


@pytest.fixture
def image(tmp_path, save):
    """Make a canonical archive of layers, each a list of (TarInfo, content)."""

    def make(name, *layers, labels=(), level=canonical.LEVEL, time=TIME, **config):
        saved = save(tmp_path / "saved.tar", *layers, config=config)
        target = tmp_path / name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(canonical, "LEVEL", level)
            digests = canonical.canonicalize(
                saved, target, time=time, labels=dict(labels), references=["x:y"]
            )
        return target, digests

    return make


def test_equal_images_have_no_difference(image):
    a, _ = image("a", [member("x", b"1")])
    b, _ = image("b", [member("x", b"1", mtime=5)])
    assert explain.compare(a, b) == []


def test_an_image_that_differs_in_one_file(image):
    a, _ = image("a", [member("x", b"1")], [member("y", b"2026-01-01")])
    b, _ = image("b", [member("x", b"1")], [member("y", b"2026-01-02")])
    (found,) = explain.compare(a, b)
    assert (found.layer, found.path) == ("layer 2", "/y")
    assert "date of the build" in found.cause


def test_another_time_of_an_image_is_the_date_of_the_lock(image):
    layer = [member("x"), member("y")]
    a, _ = image("a", layer)
    b, _ = image("b", layer, time=TIME + 1)
    found = {(d.layer, d.field): d for d in explain.compare(a, b)}
    assert set(found) == {("image", "config"), ("layer 1", "mtime")}
    assert "base.lock" in found["layer 1", "mtime"].cause
    assert found["layer 1", "mtime"].path == "every entry"


def test_fresh_mtimes_of_all_files_of_an_engines_layer(save, tmp_path):
    archives = [
        save(
            tmp_path / f"{time}.tar", [member("x", mtime=time), member("y", mtime=time)]
        )
        for time in (TIME, TIME + 1)
    ]
    found = [d for d in explain.compare(*archives) if d.field == "mtime"]
    assert ["fresh mtime" in each.cause for each in found] == [True]


def test_a_layer_more(image):
    a, _ = image("a", [member("x")], [member("z")])
    b, _ = image("b", [member("x")], [member("y")], [member("z")])
    found = explain.compare(a, b)
    assert [(d.layer, d.field) for d in found if d.field == "missing"] == [
        ("layer 2", "missing")
    ]


def test_a_changed_lock_input(image):
    locks = ("containerize.lock.base.lock", "containerize.requirements.txt")
    before = dict.fromkeys(locks, "sha256:1")
    for lock in locks:
        a, _ = image("a", [member("x")], labels=before)
        b, _ = image("b", [member("x")], labels={**before, lock: "sha256:2"})
        (found,) = explain.compare(a, b)
        name = lock.removeprefix("containerize.")
        assert (found.layer, found.field) == ("image", "label")
        assert f"changed lock input: the two were built from different {name}" in (
            found.cause
        )


def test_another_compressor_of_an_image(image):
    layer = [member("x", b"some text " * 9999)]
    a, first = image("a", layer)
    b, second = image("b", layer, level=1)
    assert first.diff_ids == second.diff_ids
    assert first.config == second.config
    assert first.manifest != second.manifest
    (found,) = explain.compare(a, b)
    assert (found.layer, found.field) == ("layer 1", "compression")


def test_what_a_config_says(image):
    a, _ = image("a", [member("x")], User="1", Labels={"own": "1"})
    b, _ = image("b", [member("x")], User="2", Labels={"own": "2"}, Cmd=["x"])
    found = {d.path: d for d in explain.compare(a, b, verbose=True)}
    assert set(found) == {"config config.User", "config config.Cmd", "label own"}
    assert found["config config.User"].detail == '"1" against "2"'


def test_a_canonical_archive_against_what_it_was_made_from(image, tmp_path):
    a, _ = image("a", [member("x", mtime=5)])
    found = explain.compare(tmp_path / "saved.tar", a)
    assert {d.field for d in found} >= {"mtime", "config"}


def test_what_a_digest_names(image):
    _, digests = image("a", [member("x")])
    assert explain.named(digests, digests.manifest) == "its manifest"
    assert explain.named(digests, digests.config) == "its config"
    assert explain.named(digests, digests.diff_ids[0]) == "layer 1, unpacked"
    assert explain.named(digests, digests.layers[0].digest) == "layer 1, compressed"
    assert explain.named(digests, f"sha256:{'0' * 64}") == ""


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\0", b"x" * 1024])
def test_no_archive_is_a_problem(tmp_path, content):
    good = write_tar(tmp_path / "a.tar", member("a"))
    (tmp_path / "b.tar").write_bytes(content)
    with pytest.raises(Problem, match=r"b\.tar"):
        explain.compare(good, tmp_path / "b.tar")


def test_nothing_there_is_a_problem(tmp_path):
    with pytest.raises(Problem, match="cannot read"):
        explain.compare(tmp_path / "none", tmp_path / "none")
    with pytest.raises(Problem, match="has no tars"):
        explain.compare(tmp_path, tmp_path)
