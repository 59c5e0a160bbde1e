"""Layers of the last build are taken from it, and what lies of them is not believed."""

import hashlib
import json
import os
import tarfile

import pytest

from containerize.image import archive, canonical, known
from tests.unit.test_canonical import LABELS, TIME, base, entry, hard, soft

# What a layer may do to the ones below it; all of it needs to know them.
UPPERS = {
    "adds": [entry("srv/"), entry("srv/app.py", b"x = 1\n")],
    "repeats": [entry("bin/tool", b"tool", mode=0o755), entry("srv/")],
    "same size": [entry("bin/tool", b"loot", mode=0o755)],
    "mode": [entry("bin/tool", b"tool", mode=0o700)],
    "link to a file below": [hard("bin/other", "bin/tool")],
    "whiteout": [entry("usr/share/.wh.doc"), entry("etc/.wh.none")],
    "opaque": [entry("usr/"), entry("usr/.wh..wh..opq"), entry("usr/new", b"n")],
    "directory to link": [entry("usr/.wh.share"), soft("usr/share", "/etc")],
    "stubs": [entry("dev/"), entry("etc/hosts"), entry("data/"), entry("srv/a", b"a")],
    "nothing": [entry("bin/"), entry("etc/")],
}


@pytest.fixture
def run(tmp_path, save):
    """Make an image of these layers canonical, reusing or from nothing.

    Returns the archive's bytes and its digests.
    """

    def made(*layers, reuse=True, time=TIME, volumes=(), spoil=b""):
        config = {"Volumes": {path: {} for path in volumes}} if volumes else None
        source = save(tmp_path / "saved.tar", *layers, config=config)
        if spoil:  # of the same length, so that the archive is as it was but for it
            data = source.read_bytes()
            assert data.count(spoil) == 1
            source.write_bytes(data.replace(spoil, b"?" * len(spoil)))
        target = tmp_path / ("kept.tar" if reuse else "fresh.tar")
        digests = canonical.canonicalize(
            source, target, time=time, labels=LABELS, references=["x:y"], reuse=reuse
        )
        return target.read_bytes(), digests

    return made


@pytest.fixture
def lower():
    return [*base(), entry("marked", b"a mark that is in one place")]


@pytest.mark.parametrize("upper", UPPERS.values(), ids=UPPERS)
def test_an_upper_layer_is_as_if_all_were_new(run, lower, upper):
    run(lower, UPPERS["adds"])
    assert run(lower, upper) == run(lower, upper, reuse=False)
    assert run(lower, upper, UPPERS["mode"]) == run(
        lower, upper, UPPERS["mode"], reuse=False
    )


def assert_known(run, lower):
    """The lower layer's bytes in the engine's archive are others, and nobody looks."""
    spoilt = run(lower, UPPERS["whiteout"], spoil=b"a mark that is in one place")
    assert spoilt == run(lower, UPPERS["whiteout"], reuse=False)


def test_a_known_layer_is_not_read(run, lower):
    run(lower, UPPERS["adds"])
    assert_known(run, lower)


def test_a_known_layer_is_checked_if_a_byte_of_it_is_wanted(run, lower):
    run(lower, UPPERS["adds"])
    with pytest.raises(canonical.Problem, match="layer 1 does not have the digest"):
        run(lower, UPPERS["same size"], spoil=b"a mark that is in one place")


def test_without_reuse_nothing_is_asked_and_nothing_left(run, lower, tmp_path):
    run(lower, reuse=False)
    assert not known.directory(tmp_path / "fresh.tar").exists()
    with pytest.raises(canonical.Problem, match="layer 1 does not have the digest"):
        run(lower, reuse=False, spoil=b"a mark that is in one place")


def test_only_the_last_build_is_kept(run, lower, tmp_path):
    for name in ("adds", "mode", "whiteout"):
        run(lower, UPPERS[name])
    assert len(os.listdir(known.directory(tmp_path / "kept.tar"))) == 2


def test_a_layer_of_very_many_entries_is_not_kept(run, lower, tmp_path, monkeypatch):
    monkeypatch.setattr(known, "MOST", len(lower) - 1)
    run(lower, UPPERS["adds"])
    assert len(os.listdir(known.directory(tmp_path / "kept.tar"))) == 1


def test_the_same_layer_on_another_one(run, lower):
    """It changes one file of the first one, and two of the second."""
    upper = [entry("bin/tool", b"tool", mode=0o755), entry("srv/a", b"a")]
    run(lower, upper)
    other = [*lower[:1], entry("bin/tool", b"tool", mode=0o700), *lower[2:]]
    assert run(other, upper) == run(other, upper, reuse=False)


def test_two_known_layers_that_do_the_same(run, lower):
    layers = [lower, [entry("x", b"x")], [entry(".wh.x")], [entry("x", b"x")]]
    run(*layers)
    again = run(*layers, UPPERS["mode"])
    assert again == run(*layers, UPPERS["mode"], reuse=False)


@pytest.mark.parametrize(
    "change", [{"time": TIME + 1}, {"volumes": ["/data"]}], ids=str
)
def test_what_else_decides_a_layer(run, change):
    """The time is in each header, and at a volume an engine's mount point is none."""
    layers = [base(), [entry("data"), entry("new", b"n")]]
    run(*layers)
    run(*layers, **change)
    assert run(*layers, **change) == run(*layers, **change, reuse=False)


# --- Lies ------------------------------------------------------------------------


def of_lower(tmp_path):
    """The file of the lower layer, after a run."""
    found = known.directory(tmp_path / "kept.tar").iterdir()
    (path,) = (path for path in found if b'"bin/tool","0",493' in path.read_bytes())
    return path


def sealed(text):
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def edited(path):
    """The mode of a file is another one, as an editor leaves it."""
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"bin/tool","0",493', b'"bin/tool","0",448'))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def another_layer(path):
    """A file of ours, whole, under the name of another layer."""
    found = json.loads(path.read_bytes().partition(b"\n")[2])
    found["key"] = "0" * 64
    found["entries"] = found["entries"][:1]
    found["machines"] = found["machines"][:1]
    path.write_bytes(sealed(json.dumps(found).encode()))


def misshapen(path):
    """A form of another day under a right seal and key."""
    found = json.loads(path.read_bytes().partition(b"\n")[2])
    found["entries"] = [row[:-1] for row in found["entries"]]
    path.write_bytes(sealed(json.dumps(found).encode()))


def lying(path):
    """A right seal on what is wrong: what only another's rights keep out."""
    text = path.read_bytes().partition(b"\n")[2]
    path.write_bytes(sealed(text.replace(b'"bin/tool","0",493', b'"bin/tool","0",448')))


def linked(path):
    lying(path)
    moved = path.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved)


def writable(path):
    lying(path)
    path.chmod(0o666)


def foreign(path):
    lying(path)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:  # a user can give nothing away
        path.chmod(0o664)


def piped(path):
    path.unlink()
    os.mkfifo(path)


def removed(path):
    path.unlink()


LIES = [edited, truncated, emptied, another_layer, misshapen, linked, writable, foreign,
        piped, removed]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_lie_costs_time_and_changes_nothing(run, lower, tmp_path, lie):
    upper = UPPERS["repeats"]
    expected = run(lower, upper, reuse=False)
    run(lower, UPPERS["adds"])
    lie(of_lower(tmp_path))
    assert run(lower, upper) == expected
    # And it is mended: what is known is used again.
    assert_known(run, lower)


def test_a_lie_would_change_something(run, lower, tmp_path):
    """Or the test above could not fail: with a right seal this one is believed."""
    upper = UPPERS["repeats"]
    expected = run(lower, upper, reuse=False)
    run(lower, UPPERS["adds"])
    lying(of_lower(tmp_path))
    assert run(lower, upper) != expected


def test_other_code_is_not_believed(run, lower, tmp_path, monkeypatch):
    upper = UPPERS["repeats"]
    run(lower, UPPERS["adds"])
    lying(of_lower(tmp_path))
    monkeypatch.setattr(known, "version", lambda name: f"{name} of another release")
    assert run(lower, upper) == run(lower, upper, reuse=False)


@pytest.mark.parametrize("damage", ["edited", "truncated", "replaced", "removed"])
def test_a_damaged_archive_costs_time_and_changes_nothing(run, lower, tmp_path, damage):
    upper = UPPERS["adds"]
    expected, _ = run(lower, UPPERS["mode"])
    path = tmp_path / "kept.tar"
    with archive.open_image(path) as image:
        at = image.layers[0].region.start + 20
    if damage == "edited":
        path.write_bytes(expected[:at] + b"????" + expected[at + 4 :])
    elif damage == "truncated":
        path.write_bytes(expected[:at])
    elif damage == "replaced":
        with tarfile.open(path, "w"):
            pass
    else:
        path.unlink()
    assert run(lower, upper) == run(lower, upper, reuse=False)
    assert_known(run, lower)


def test_nothing_is_written_through_a_link(run, lower, tmp_path):
    directory = known.directory(tmp_path / "kept.tar")
    run(lower)
    (path,) = directory.iterdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    path.unlink()
    path.symlink_to(victim)
    run(lower)
    assert victim.read_bytes() == b"mine"
    assert not path.is_symlink()


def test_where_nothing_can_be_kept_the_archive_is_made(run, lower, tmp_path):
    known.directory(tmp_path / "kept.tar").write_bytes(b"a file in its place")
    assert run(lower) == run(lower, reuse=False)
