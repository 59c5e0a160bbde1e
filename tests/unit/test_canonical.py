"""The canonical form: what engines write differently becomes the same bytes."""

import gzip
import hashlib
import io
import json
import os
import random
import signal
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containerize import disk
from containerize.errors import Problem
from containerize.image import archive, canonical
from tests import privileges

TIME = 1_763_856_000
CORPUS = Path(__file__).parent / "corpus"
LABELS = {"containerize.lock.base.lock": "sha256:1"}


def entry(name, content=b"", kind=None, mode=None, xattrs=None, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind or (tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE)
    info.mode = (0o755 if info.isdir() else 0o644) if mode is None else mode
    info.mtime = random.randrange(1 << 31)
    info.pax_headers = {f"SCHILY.xattr.{k}": v for k, v in (xattrs or {}).items()}
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def soft(name, target, **fields):
    return entry(name, kind=tarfile.SYMTYPE, linkname=target, **fields)


def hard(name, target, **fields):
    return entry(name, kind=tarfile.LNKTYPE, linkname=target, **fields)


def pack(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def header(block, start=0, value=b""):
    """A header with a changed field and a right checksum."""
    block = block[:start] + value + block[start + len(value) : 512]
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def with_types(data, kinds):
    """A tar with the type of each file in its mode, which tarfile does not write."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            at = member.offset_data - 512
            mode = b"%07o" % (member.mode | kinds.get(member.name, stat.S_IFREG))
            data = data[:at] + header(data[at : at + 512], 100, mode) + data[at + 512 :]
    return data


class Result:
    """A canonical archive: its digests, and its layers as {path: TarInfo}."""

    def __init__(self, target, digests):
        self.target, self.digests = target, digests
        self.tars, self.layers = [], []
        with archive.open_image(target) as image:
            self.config = image.config
            for blob in image.layers:
                with blob.unpacked(target.parent, image.limit) as region:
                    self.tars.append(b"".join(region.chunks()))
        for data in self.tars:
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                self.layers.append({member.name: member for member in tar})

    @property
    def paths(self):
        return [list(layer) for layer in self.layers]


@pytest.fixture
def make(tmp_path, save):
    """Save an image of these layers and make it canonical."""

    def made(*layers, name="canonical.tar", labels=LABELS, config=None, **changes):
        source = save(tmp_path / "saved.tar", *layers, config=config, **changes)
        digests = canonical.canonicalize(
            source, tmp_path / name, time=TIME, labels=labels, references=["x:y"]
        )
        return Result(tmp_path / name, digests)

    return made


def base():
    return [
        entry("bin/"),
        entry("bin/tool", b"tool", mode=0o755),
        entry("etc/"),
        entry("etc/passwd", b"root"),
        entry("usr/"),
        entry("usr/share/"),
        entry("usr/share/doc", b"text"),
    ]


# --- Layers ----------------------------------------------------------------------


def test_order_times_owners_and_formats_change_no_byte(make):
    first = make(base())
    other = [
        (info, content) for info, content in base() if info.name not in ("usr/", "etc/")
    ]
    random.shuffle(other)
    for info, _ in other:
        info.name = f"./{info.name}"
        info.uname, info.gname = "root", "wheel"
        info.pax_headers = {"atime": "1.5", "comment": "noise"}
    directories = dict.fromkeys(("./bin", "./usr/share"), stat.S_IFDIR)
    assert make(with_types(pack(*other), directories)).digests == first.digests


def test_each_entry_as_the_canonical_form_has_it(make):
    (layer,) = make(base()).layers
    assert list(layer) == sorted(layer)
    assert {member.mtime for member in layer.values()} == {TIME}
    assert {(m.uname, m.gname) for m in layer.values()} == {("", "")}
    assert layer["bin/tool"].mode == 0o755
    assert layer["bin"].mode == 0o755


def test_what_ustar_cannot_say_is_in_pax_records(make):
    long = "deep/" * 30 + "naïve"
    capability = "\1\0\0\2\0\4" + "\0" * 14
    (layer,) = make(
        [
            entry(long, b"1", uid=3_000_000),
            soft("link", "x" * 200),
            entry("ping", b"1", xattrs={"security.capability": capability}),
        ]
    ).layers
    assert layer[long].uid == 3_000_000
    assert layer["link"].linkname == "x" * 200
    assert layer["ping"].pax_headers == {"SCHILY.xattr.security.capability": capability}
    assert layer["deep"].pax_headers == {}


def test_the_mode_of_a_symbolic_link_means_nothing(make):
    links = [make([soft("link", "x", mode=mode)]) for mode in (0o777, 0o755)]
    assert links[0].digests == links[1].digests


def test_whiteouts_stay_and_say_no_more_than_they_must(make):
    _, layer = make(
        base(),
        [
            entry("etc/.wh.passwd"),
            entry("usr/.wh.share", mode=0),
            entry(".wh.never-there"),
            entry("bin/.wh..wh..opq"),
            entry("bin/new", b"1"),
        ],
    ).paths
    assert layer == ["bin", "bin/.wh.tool", "bin/new", "etc", "etc/.wh.passwd",
                     "usr", "usr/.wh.share"]  # fmt: skip


def test_an_opaque_directory_is_what_it_removes(make):
    above = [entry("etc/"), entry("etc/new")]
    opaque = make(base(), [*above, entry("etc/.wh..wh..opq")])
    whiteout = make(base(), [*above, entry("etc/.wh.passwd")])
    replaced = make(base(), [entry(".wh.etc"), *above])
    assert opaque.digests == whiteout.digests == replaced.digests


def test_a_directory_becomes_a_file_and_back(make):
    first, second, third = make(
        base(), [entry("usr", b"file")], [entry("usr/"), entry("usr/x", b"1")]
    ).layers
    assert first["usr"].isdir()
    assert list(second) == ["usr"]
    assert second["usr"].isreg()
    assert sorted(third) == ["usr", "usr/x"]


def test_what_changes_nothing_is_left_out(make):
    """Engines write directories that they went through, and files that were touched."""
    again = [entry("etc/"), entry("etc/passwd", b"root"), entry("bin/")]
    assert make(base(), again, []).digests == make(base()).digests
    changed = make(base(), [*again, entry("etc/new", b"1")])
    assert changed.paths[1] == ["etc", "etc/new"]


def test_a_changed_mode_owner_or_capability_is_a_change(make):
    for change in (
        {"mode": 0o600},
        {"uid": 7},
        {"xattrs": {"security.capability": "x"}},
        {"content": b"toor"},
    ):
        layers = make(base(), [entry("etc/passwd", **{"content": b"root", **change})])
        assert layers.paths[1] == ["etc", "etc/passwd"]


def test_hard_links_in_any_order(make):
    names = ["a", "d/b", "z"]
    results = []
    for first in names:
        rest = [hard(name, first) for name in names if name != first]
        results.append(make([entry(first, b"text"), *rest]))
    assert len({result.digests for result in results}) == 1
    (layer,) = results[0].layers
    assert layer["a"].isreg()
    assert layer["d/b"].linkname == layer["z"].linkname == "a"


def test_a_hard_link_before_its_file_and_to_a_link(make):
    layer = [hard("c", "b"), hard("b", "a"), entry("a", b"1")]
    assert make(layer).digests == make(layer[::-1]).digests


def test_a_hard_link_to_a_file_below_is_copied_up(make):
    """overlayfs has copied the file up; the naive diff names the one below."""
    naive = make(base(), [hard("bin/other", "bin/tool")])
    overlay = make(
        base(), [entry("bin/tool", b"tool", mode=0o755), hard("bin/other", "bin/tool")]
    )
    assert naive.digests == overlay.digests
    assert sorted(naive.layers[1]) == ["bin", "bin/other", "bin/tool"]


def test_hard_links_to_links_and_pipes(make):
    (layer,) = make(
        [soft("s", "x"), hard("t", "s"), entry("p", kind=tarfile.FIFOTYPE)]
    ).layers
    assert layer["s"].issym()
    assert (layer["t"].islnk(), layer["t"].linkname) == (True, "s")
    assert layer["p"].isfifo()


def test_what_engines_mount_into_a_step_is_left_out(make):
    plain = make(base(), [entry("new", b"1")])
    podman = [entry("run/"), entry("run/.containerenv"), entry("etc/hostname")]
    docker = [entry("dev/"), entry("proc/"), entry("sys/"), entry("etc/resolv.conf")]
    for left in (podman, docker, [soft("etc/mtab", "/proc/mounts")]):
        assert make(base(), [*left, entry("new", b"1")]).digests == plain.digests


@pytest.mark.parametrize(
    "kept",
    [
        entry("etc/hosts", b"127.0.0.1 localhost"),
        entry("run/mine/", uid=5),
        entry("proc/", mode=0o700),
        entry("etc/resolv.conf", uid=5),
        soft("etc/resolv.conf", "/run/resolv.conf"),
    ],
)
def test_what_a_user_put_there_stays(make, kept):
    assert kept[0].name.rstrip("/") in make(base(), [kept]).paths[1]


def test_mount_points_behind_a_symbolic_link(make):
    layer = [*base()[:2], soft("etc", "usr/etc")]
    stub = [entry("etc/hosts"), entry("new", b"1")]
    assert make(layer, stub).digests == make(layer, stub[1:]).digests
    with pytest.raises(Problem, match="/etc/sub is below /etc"):
        make(layer, [entry("etc/sub/")])


def test_the_first_layer_keeps_mount_points(make):
    assert "proc" in make([*base(), entry("proc/")]).paths[0]


def test_directories_of_volumes_are_no_difference(make):
    """BuildKit does not make them, the others do in the next step."""
    config = {"Volumes": {"/data": {}, "/srv/more": {}}}
    made = [entry("data/"), entry("srv/"), entry("srv/more/"), entry("srv/x", b"1")]
    assert (
        make(base(), made, config=config).digests
        == make(base(), made[-1:], config=config).digests
    )
    filled = make(base(), [*made, entry("data/x", b"1")], config=config)
    assert "data/x" in filled.paths[1]
    owned = make(base(), [entry("data/", uid=5), made[-1]], config=config)
    assert "data" in owned.paths[1]


def test_when_a_directory_is_made_does_not_count(make):
    """Docker makes a layer of WORKDIR; Podman leaves it to the next RUN, if any."""
    config = {"WorkingDir": "/work/dir"}
    workdir = [entry("work/"), entry("work/dir/")]
    copied, step = [entry("copied", b"1")], [entry("work/dir/x", b"1")]
    docker = make(base(), workdir, copied, [*workdir, *step], config=config)
    podman = make(base(), copied, [*workdir, *step], config=config)
    idle = make(base(), copied, [*workdir, entry("y", b"1")], step, config=config)
    assert docker.digests == podman.digests
    assert docker.paths[1:] == [["copied"], ["work", "work/dir", "work/dir/x"]]
    assert idle.paths[1:] == [["copied"], ["y"], ["work", "work/dir", "work/dir/x"]]


def test_a_directory_of_workdir_is_made_where_none_is(make):
    config = {"WorkingDir": "/work/dir"}
    docker = make(
        base(), [entry("work/")], [entry("work/"), entry("work/dir/")], config=config
    )
    podman = make(base(), config=config)
    assert docker.digests == podman.digests
    assert docker.paths[1] == ["work", "work/dir"]


def test_a_workdir_behind_a_symbolic_link_is_the_engines_own(make):
    config = {"WorkingDir": "/var/run/x"}
    layers = [*base(), entry("run/"), entry("var/"), soft("var/run", "/run")]
    assert len(make(layers, config=config).layers) == 1


def test_directories_that_go_again_are_not_made(make):
    made, removed = [entry("new/"), entry("new/sub/")], [entry(".wh.new")]
    assert make(base(), made, removed).digests == make(base()).digests
    kept = make(base(), made, [entry("new/.wh.sub"), entry("new/x", b"1")])
    assert kept.paths[1:] == [["new", "new/x"]]
    file = make(base(), made, [entry("new", b"now a file")])
    assert file.paths[1:] == [["new"]]
    opaque = make(base(), made, [entry("new/.wh..wh..opq"), entry("new/x", b"1")])
    assert opaque.paths[1:] == [["new", "new/x"]]


def test_directories_with_an_owner_are_a_layer_of_their_own(make):
    assert len(make(base(), [entry("own/", uid=5)], [entry("x", b"1")]).layers) == 3


def test_layers_that_do_the_same_are_stored_once(make):
    result = make(base(), [entry("x", b"1")], [entry(".wh.x")], [entry("x", b"1")])
    assert len(result.layers) == 4
    assert result.digests.layers[1] == result.digests.layers[3]
    assert canonical.read_digests(result.target) == result.digests


def test_a_file_below_no_directory_is_refused(make):
    with pytest.raises(Problem, match="/a/b is below /a, which is no directory"):
        make([entry("a", b"1"), entry("a/b", b"1")])
    with pytest.raises(Problem, match="/bin/tool/x is below /bin/tool"):
        make(base(), [entry("bin/tool/x", b"1")])


@pytest.mark.parametrize("name", [".wh.", ".wh...", "d/.wh..wh.plnk"])
def test_whiteouts_of_nothing_are_refused(make, name):
    with pytest.raises(Problem, match="is no whiteout"):
        make([entry(name)])


@pytest.mark.parametrize(
    "layer", [[hard("a", "none")], [hard("a", "a")], [hard("a", "b"), hard("b", "a")]]
)
def test_hard_links_to_nothing_are_refused(make, layer):
    with pytest.raises(Problem, match="is a hard link to"):
        make(layer)
    with pytest.raises(Problem, match="is a hard link to"):
        make(base(), [hard("x", "etc")])


# --- Warnings --------------------------------------------------------------------


def test_what_is_doubtful_is_reported_by_name(make):
    found = make(
        [
            entry("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
            entry("sda", kind=tarfile.BLKTYPE, devmajor=8),
            entry("su", b"1", mode=0o4755),
            entry("wall", b"1", mode=0o2755),
            entry("odd", xattrs={"user.mark": "1", "security.capability": "x"}),
            entry("tmp/", mode=0o1777),
            entry("fine", b"1", xattrs={"user.overlay.origin": "x"}),
        ]
    ).digests.warnings
    assert [line.removeprefix("saved.tar: layer 1: ") for line in found] == [
        "/dev/null is a device node",
        "/sda is a device node",
        "/su runs as its owner or group (setuid or setgid)",
        "/wall runs as its owner or group (setuid or setgid)",
        "/odd has capabilities of its own",
        "/odd has the extended attribute user.mark, which is not kept",
    ]


def test_a_program_that_gains_rights_is_seen_in_an_archive(make):
    given = [
        entry("su", b"1", mode=0o4755),
        entry("wall", b"1", mode=0o2755),
        entry("ping", b"1", xattrs={"security.capability": "x"}),
        entry("shared/", mode=0o2755),
        entry("fine", b"1", mode=0o755),
    ]
    found = privileges.gaining(make(base(), given).target)
    assert found == ["ping", "su", "wall"]


def test_a_socket_is_reported(make):
    layer = with_types(pack(entry("socket")), {"socket": stat.S_IFSOCK})
    (found,) = make(layer).digests.warnings
    assert "/socket was a socket, which no archive can hold" in found


def test_the_mode_of_the_root_is_reported(make):
    assert make([entry("./"), *base()]).digests.warnings == ()
    (found,) = make([entry("./", mode=0o700), *base()]).digests.warnings
    assert "/ has an unusual mode or owner, which is not kept" in found


# --- Config and archive ----------------------------------------------------------


def test_the_config_says_how_a_container_runs_and_no_more(make):
    config = {
        "Env": ["B=2", "A=1", "PATH=/bin"],
        "Cmd": ["x"],
        "Entrypoint": None,
        "Healthcheck": {"Test": ["NONE"], "Interval": 0},
        "Labels": {"mine": "1", "io.buildah.version": "1"},
        "WorkingDir": "/",
        "Hostname": "abc",
        "Image": "sha256:x",
        "OnBuild": [],
    }
    found = make(
        base(), config=config, created="2001-01-01T00:00:00Z", docker_version="20",
        history=[{"created_by": "x"}], container="abc", author="me",
    ).config  # fmt: skip
    assert set(found) == {
        "architecture", "config", "created", "history", "os", "rootfs"
    }  # fmt: skip
    assert found["created"] == "2025-11-23T00:00:00Z"
    assert found["config"] == {
        "Cmd": ["x"],
        "Env": ["A=1", "B=2", "PATH=/bin"],
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {"mine": "1", **LABELS},
    }


def test_an_engine_that_writes_no_path_means_the_default(make):
    named = make(base(), config={"Env": [f"PATH={canonical.DEFAULT_PATH}"]})
    assert make(base()).digests == named.digests


def test_variants_of_processors(make):
    arm = {"architecture": "arm64"}
    assert make(base(), **arm, variant="v8").digests == make(base(), **arm).digests
    assert make(base(), architecture="arm", variant="v7").config["variant"] == "v7"


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"Env": "A=1"}},
        {"config": {"Env": [1]}},
        {"config": {"Labels": [1]}},
        {"config": {"WorkingDir": 5}},
        {"config": [1]},
        {"architecture": ""},
        {"os": 7},
        {"architecture": "arm", "variant": {}},
    ],
)
def test_configs_that_no_engine_writes_are_refused(make, changes):
    with pytest.raises(Problem, match=r"saved\.tar: .*its config"):
        make(base(), **changes)


@pytest.mark.parametrize(
    "path", ["relative/x", "/a/../b", "//", "/a//b", "/\ud800", "/x" * 3000]
)
def test_odd_directories_of_a_config_do_no_harm(make, path):
    make(base(), [entry("x", b"1")], config={"WorkingDir": path, "Volumes": {path: {}}})


def test_names_and_sources_do_not_count(make, tmp_path, save):
    first = make(base())
    source = save(tmp_path / "saved.tar", base())
    other = canonical.canonicalize(
        source, tmp_path / "x.tar", time=TIME, labels=LABELS, references=["other:name"]
    )
    assert other == first.digests


def test_labels_and_time_do_count(make, tmp_path, save):
    digests = {make(base()).digests.manifest, make(base(), labels={}).digests.manifest}
    source = save(tmp_path / "saved.tar", base())
    digests.add(
        canonical.canonicalize(
            source, tmp_path / "x.tar", time=TIME + 1, labels=LABELS, references=[]
        ).manifest
    )
    assert len(digests) == 3


def test_a_canonical_archive_is_its_own_canonical_form(make, tmp_path):
    result = make(base(), [entry("x", b"1"), entry("etc/.wh.passwd")])
    again = canonical.canonicalize(
        result.target, tmp_path / "again.tar", time=TIME, labels={}, references=["x:y"]
    )
    assert again == result.digests
    assert (tmp_path / "again.tar").read_bytes() == result.target.read_bytes()


def test_the_archive_is_an_oci_layout_and_one_of_docker(make):
    result = make(base(), [entry("x", b"1")])
    with tarfile.open(result.target) as tar:
        assert {m.mtime for m in tar} == {TIME}
        # Syft wants an entry for each directory.
        assert tar.getnames()[:2] == ["blobs", "blobs/sha256"]
        assert all(m.mode == 0o755 for m in tar if m.isdir())
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    (image,) = json.loads(files["manifest.json"])
    assert image["RepoTags"] == ["x:y"]
    (root,) = json.loads(files["index.json"])["manifests"]
    assert root["digest"] == result.digests.manifest
    assert root["annotations"] == {
        "io.containerd.image.name": "localhost/x:y",
        "org.opencontainers.image.ref.name": "y",
    }
    manifest = json.loads(files[f"blobs/{root['digest'].replace(':', '/')}"])
    assert manifest["config"]["digest"] == result.digests.config
    layers = [layer["digest"] for layer in manifest["layers"]]
    assert [f"blobs/{d.replace(':', '/')}" for d in layers] == image["Layers"]
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    for layer, data in zip(result.digests.layers, result.tars, strict=True):
        assert layer.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert layer.size == len(data)
        assert gzip.decompress(files[f"blobs/{layer.digest.replace(':', '/')}"]) == data


def test_no_line_of_the_history_is_an_instruction(make):
    """Scanners rebuild a Dockerfile of what `created_by` says."""
    result = make(base(), [entry("x", b"1")])
    with tarfile.open(result.target) as tar:
        name = f"blobs/{result.digests.config.replace(':', '/')}"
        history = json.loads(tar.extractfile(name).read())["history"]
    assert [sorted(line) for line in history] == [["comment", "created"]] * 2


def test_the_compressed_bytes_are_those_of_the_locked_compressor(make):
    """A new compressor changes compressed digests for all: never by accident."""
    content = bytes(range(256)) * (canonical.CHUNK // 128)  # more than one member
    (layer,) = make([entry("x", content, mtime=0)]).digests.layers
    assert layer.digest == COMPRESSED


COMPRESSED = "sha256:ecf69da239308429b68baf0c093dd1581319975555a7c22ac0af2f1843dd55d9"


def test_threads_change_no_byte(make, monkeypatch):
    content = random.Random(1).randbytes(5 * canonical.CHUNK)
    first = make([entry("x", content)])
    monkeypatch.setattr(canonical, "WORKERS", 7)
    assert make([entry("x", content)]).digests == first.digests


def test_a_bomb_in_many_layers(make, tmp_path, monkeypatch):
    """Each is small enough, and all of them are too large."""
    made = make(*([entry(name, bytes(3 << 20))] for name in "abc"))
    monkeypatch.setattr(archive, "GENEROUS", 7 << 20)
    with pytest.raises(Problem, match=r"layer 3 .*decompression bomb"):
        canonical.canonicalize(
            made.target, tmp_path / "x.tar", time=0, labels={}, references=[]
        )
    with pytest.raises(Problem, match=r"layer 3 .*decompression bomb"):
        canonical.read_digests(made.target)


def test_read_digests_takes_oci_archives_only(make, tmp_path, save):
    result = make(base())
    assert canonical.read_digests(result.target) == result.digests
    with pytest.raises(Problem, match="has no OCI manifest"):
        canonical.read_digests(save(tmp_path / "docker.tar", base()))


def test_a_failure_leaves_what_was_there(make, tmp_path):
    target = tmp_path / "canonical.tar"
    target.write_bytes(b"before")
    with pytest.raises(Problem):
        make(base(), [entry("../outside")])
    assert target.read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["canonical.tar", "saved.tar"]


KILLED = """
import pathlib, sys
from containerize.image import canonical
source, target = map(pathlib.Path, sys.argv[1:])
canonical.canonicalize(source, target, time=0, labels={}, references=[])
"""


def test_a_killed_run_leaves_no_archive_and_the_next_one_cleans_up(tmp_path, save):
    content = random.Random(1).randbytes(32 << 20)
    source = save(tmp_path / "saved.tar", [entry("x", content)])
    target = tmp_path / "dist" / "canonical.tar"
    process = subprocess.Popen([sys.executable, "-c", KILLED, source, target])
    while not any(part.stat().st_size for part in tmp_path.glob("dist/.*/*.tar")):
        assert process.poll() is None, "it ended before it could be killed"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (left,) = target.parent.iterdir()
    assert left.name.startswith(disk.SCRATCH)
    # Another process that is at work keeps its own.
    with disk.scratch(target.parent) as living:
        canonical.canonicalize(source, target, time=0, labels={}, references=[])
        assert sorted(target.parent.iterdir()) == sorted([living, target])
    assert list(target.parent.iterdir()) == [target]


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path, save):
    source = save(tmp_path / "saved.tar", base())
    with pytest.raises(Problem, match=r"cannot write to .*saved\.tar: .*mend it"):
        canonical.canonicalize(
            source, source / "x.tar", time=0, labels={}, references=[]
        )


# --- Fuzzing ---------------------------------------------------------------------

FIELDS = (0, 100, 108, 116, 124, 136, 148, 156, 157, 257, 265, 297, 329, 337, 345)
"""Where the fields of a tar's header start."""

VALUES = (
    b"/", b"../", b"a\0", b"\0", b"\xff" * 12, b"\x80" + b"\0" * 10 + b"\x01",
    b"\x80" + b"\xff" * 11, b"77777777777\0", b"0000000\0", b"-1", b" ", b"0001000",
    b"g", b"x", b"L", b"K", b"S", b"1", b"2", b"3", b"5", b"6", b"7", b".wh.", b"\n",
)  # fmt: skip

LAYERS = (
    pack(*base()),
    pack(entry("a" * 150, b"x" * 600), hard("b", "a" * 150), soft("c", "y" * 150)),
    pack(entry("d/.wh..wh..opq"), entry(".wh.etc"), entry("dev/null", kind=b"3")),
    pack(entry("f", b"1", uid=1 << 30, xattrs={"user.a": "1"}), entry("run/")),
)


@st.composite
def mutated(draw, seeds):
    """Bytes of a seed, changed in some places, mostly with right checksums."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 6))):
        block = 512 * draw(st.integers(0, max(0, len(data) // 512 - 1)))
        at = block + draw(st.sampled_from(FIELDS) | st.integers(0, 511))
        value = draw(st.sampled_from(VALUES) | st.binary(max_size=16))
        match draw(st.sampled_from("wwwwidct")):
            case "w":
                data = data[:at] + value + data[at + len(value) :]
            case "i":
                data = data[:at] + value + data[at:]
            case "d":
                data = data[:at] + data[at + len(value) :]
            case "c":  # a block once more
                data = data[: block + 512] + data[block:]
            case "t":
                data = data[:at]
    if draw(st.integers(0, 9)):
        for at in range(0, len(data) - 511, 512):
            if data[at + 257 :].startswith(b"ustar"):
                data = data[:at] + header(data[at : at + 512]) + data[at + 512 :]
    return data


def survives(directory, data):
    """Any bytes give an image, or a Problem in one line and no file."""
    source, target = directory / "saved.tar", directory / "canonical.tar"
    target.unlink(missing_ok=True)
    source.write_bytes(data)
    message = ""
    try:
        digests = canonical.canonicalize(
            source, target, time=TIME, labels=LABELS, references=["x:y"]
        )
    except Problem as problem:
        message = str(problem)
    if message:
        assert message.isprintable()
        assert os.listdir(directory) == ["saved.tar"]
        return message
    assert canonical.read_digests(target).layers == digests.layers
    assert sum(layer.size for layer in digests.layers) < 5e6
    assert all(line.isprintable() for line in digests.warnings)
    return ""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


EXAMPLES = settings(max_examples=120)


@EXAMPLES
@given(st.lists(mutated(LAYERS), min_size=1, max_size=2))
def test_fuzzed_layers(scratch, save, layers):
    survives(scratch, save(scratch / "saved.tar", LAYERS[0], *layers).read_bytes())


@EXAMPLES
@given(data=st.data())
def test_fuzzed_archives(scratch, save, data):
    docker = save(scratch / "saved.tar", LAYERS[0]).read_bytes()
    canonical.canonicalize(
        scratch / "saved.tar", scratch / "seed.tar", time=0, labels={}, references=[]
    )
    seed = (scratch / "seed.tar").read_bytes()
    (scratch / "seed.tar").unlink()
    survives(scratch, data.draw(mutated((docker, seed))))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(st.text(max_size=9), part, max_size=3)
    ),
    max_leaves=6,
)


@EXAMPLES
@given(
    st.dictionaries(st.sampled_from([*canonical.KEPT, "x"]), JSON, max_size=4) | JSON,
    st.dictionaries(
        st.sampled_from(["architecture", "os", "variant", "rootfs", "config"]),
        JSON,
        max_size=2,
    ),
)
def test_fuzzed_configs(scratch, save, config, changes):
    source = save(scratch / "saved.tar", LAYERS[0], **{"config": config, **changes})
    survives(scratch, source.read_bytes())


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.tar")), ids=lambda p: p.stem)
def test_the_corpus_is_refused(path, scratch):
    """Hostile archives, kept as files for other readers too."""
    assert survives(scratch, path.read_bytes())


def test_there_is_a_corpus():
    assert len(list(CORPUS.glob("*.tar"))) > 20


@pytest.mark.parametrize(
    ("machine", "architecture", "refused"),
    [(62, "amd64", False), (183, "amd64", True), (183, "arm64", False)],
)
def test_the_config_names_the_machine_of_the_programs(
    save, tmp_path, machine, architecture, refused
):
    program = b"\x7fELF\x02\x01" + bytes(12) + bytes([machine, 0])
    layer = [(tarfile.TarInfo("bin"), program)]
    labels = {"com.docker.image.source.entrypoint": "Dockerfile", "kept": "1"}
    source = save(tmp_path / "saved.tar", layer, config={"Labels": labels})
    target = tmp_path / "image.tar"

    def make():
        return canonical.canonicalize(
            source,
            target,
            time=0,
            labels={},
            references=[],
            architecture=architecture,
        )

    if refused:
        with pytest.raises(Problem, match="to be for amd64, and its programs are for"):
            make()
        assert not target.exists()
        return
    digests = make()
    with tarfile.open(target) as tar:
        name = f"blobs/{digests.config.replace(':', '/')}"
        config = json.load(tar.extractfile(name))
    assert config["architecture"] == architecture
    assert config["config"]["Labels"] == {"kept": "1"}
