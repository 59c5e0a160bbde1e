"""Archives that nobody vouches for: read, or refused by the entry's name."""

import gzip
import hashlib
import io
import json
import os
import tarfile

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from containerize.errors import Problem
from containerize.image import archive

TIME = 1_763_856_000
FORMATS = {
    "ustar": tarfile.USTAR_FORMAT,
    "GNU": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}


def info(name, **fields):
    made = tarfile.TarInfo(name)
    made.mtime = TIME
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def link(name, target, kind=tarfile.LNKTYPE):
    return info(name, type=kind, linkname=target)


def tar(*members, form=tarfile.PAX_FORMAT, end=1024):
    """The bytes of a tar; a member is a TarInfo, one with content, or raw bytes."""
    out = b""
    for member in members:
        if isinstance(member, bytes):
            out += member
            continue
        made, content = member if isinstance(member, tuple) else (member, b"")
        made.size = made.size or len(content)
        out += made.tobuf(form, errors="surrogateescape")
        out += content + bytes(-len(content) % 512)
    return out + bytes(end)


def patched(block, start, value):
    """A header block with a changed field and a right checksum."""
    block = block[:start] + value + block[start + len(value) :]
    total = sum(block[:148]) + 8 * 32 + sum(block[156:512])
    return block[:148] + b"%06o\0 " % total + block[156:]


def entries(data, tmp_path):
    path = tmp_path / "some.tar"
    path.write_bytes(data)
    with path.open("rb") as file:
        region = archive.Region(file, 0, len(data))
        return list(archive.read_tar(region, "some.tar"))


# --- What is read ----------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_each_kind_of_entry(form, tmp_path):
    data = tar(
        info("./d/", type=tarfile.DIRTYPE, mode=0o1777),
        (info("d/f", mode=0o4755, uid=5, gid=7, uname="me", gname="us"), b"text"),
        link("d/h", "./d//f"),
        link("d/s", "../../x", tarfile.SYMTYPE),
        info("d/c", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        info("d/p", type=tarfile.FIFOTYPE),
        form=form,
    )
    directory, file, hard, soft, device, fifo = entries(data, tmp_path)
    assert (directory.path, directory.kind) == (b"d", tarfile.DIRTYPE)
    assert directory.mode == 0o1777
    assert (file.path, file.size, file.mode) == (b"d/f", 4, 0o4755)
    assert (file.uid, file.gid, file.owner) == (5, 7, (b"me", b"us"))
    assert file.mtime == TIME * 10**9
    assert data[file.offset :][:4] == b"text"
    assert (hard.kind, hard.link) == (tarfile.LNKTYPE, b"d/f")
    assert (soft.kind, soft.link) == (tarfile.SYMTYPE, b"../../x")
    assert (device.kind, device.device) == (tarfile.CHRTYPE, (1, 3))
    assert fifo.kind == tarfile.FIFOTYPE


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_a_header_has_no_room_for(form, tmp_path):
    long, target = "deep/" * 40 + "name", "x" * 300
    data = tar(
        (info(long, uid=3_000_000, gid=1 << 40), b"1"),
        link("s", target, tarfile.SYMTYPE),
        info("naïve-日本"),
        info(os.fsdecode(b"no-utf8-\xff")),
        form=form,
    )
    first, soft, word, odd = entries(data, tmp_path)
    assert (first.path, first.uid, first.gid) == (long.encode(), 3_000_000, 1 << 40)
    assert soft.link == target.encode()
    assert (word.path, odd.path) == ("naïve-日本".encode(), b"no-utf8-\xff")


def test_the_prefix_of_ustar_and_the_old_format(tmp_path):
    long = "p" * 60 + "/" + "n" * 90
    (entry,) = entries(tar(info(long), form=tarfile.USTAR_FORMAT), tmp_path)
    assert entry.path == long.encode()
    old = patched(info("old/").tobuf(), 257, bytes(255))
    (entry,) = entries(tar(old), tmp_path)
    assert (entry.path, entry.kind) == (b"old", tarfile.REGTYPE)
    (entry,) = entries(tar(patched(old, 156, b"\0")), tmp_path)
    assert (entry.path, entry.kind) == (b"old", tarfile.DIRTYPE)


def test_pax_records_of_one_entry(tmp_path):
    records = {"mtime": "12.5", "SCHILY.xattr.user.a": "1", "comment": "x"}
    data = tar(info("a", pax_headers=records), info("b"))
    a, b = entries(data, tmp_path)
    assert (a.mtime, a.xattrs) == (12_500_000_000, ((b"user.a", b"1"),))
    assert (b.mtime, b.xattrs) == (TIME * 10**9, ())


names = st.lists(
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=30).filter(
        lambda part: part not in (".", "..") and _encodable(part)
    ),
    min_size=1,
    max_size=8,
).map("/".join)


def _encodable(text):
    try:
        return len(text.encode()) > 0
    except UnicodeEncodeError:
        return False


@given(
    st.dictionaries(names, st.binary(max_size=600), max_size=6),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_python_writes_is_read_as_it_is(tmp_path_factory, files, form):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for name, content in files.items():
            made.addfile(info(name, size=len(content)), io.BytesIO(content))
    data = out.getvalue()
    found = entries(data, tmp_path_factory.mktemp("tar"))
    assert [
        (entry.path.decode(), data[entry.offset : entry.offset + entry.size])
        for entry in found
    ] == list(files.items())


@pytest.mark.parametrize("root", ["/", "./", "//", "/."])
def test_slashes_at_the_start_are_the_images_root(root, tmp_path):
    """As in the engines, whose images have such names (issue 8, B25)."""
    data = tar(info(root, type=tarfile.DIRTYPE), info("/etc/x"), link("/y", "/etc/x"))
    found = [(e.path, e.link) for e in entries(data, tmp_path)]
    assert found == [(b"", b""), (b"etc/x", b""), (b"y", b"etc/x")]


# --- What is refused -------------------------------------------------------------

SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}

HOSTILE = {
    "absolute-dotdot": (tar(info("/../etc")), r"/../etc leaves the tree"),
    "dotdot": (tar(info("a/../../b")), r"/a/../../b leaves the tree"),
    "dotdot-pax": (tar(info("é/../../b")), r"/é/../../b leaves the tree"),
    "hardlink-out": (tar(link("a", "../x")), r"/a links to ../x, which leaves"),
    "absolute-twice": (tar(info("a"), info("//a")), "//a comes twice"),
    "twice": (tar(info("a/b"), info("./a//b")), "/a//b comes twice"),
    "sparse": (tar(info("s", type=b"S")), "/s is a sparse file"),
    "sparse-pax": (tar(info("s", pax_headers=SPARSE)), "/s is a sparse file"),
    "unknown-type": (tar(info("v", type=b"V")), "/v is of type b'V'"),
    "directory-with-content": (
        tar((info("d", type=tarfile.DIRTYPE), b"x")),
        "/d/ is no file but has content",
    ),
    "gigantic": (
        tar(info("g", size=1 << 60), form=tarfile.GNU_FORMAT),
        f"/g says that it has {1 << 60} bytes: the tar ends before",
    ),
    "gigantic-pax": (
        tar(info("g", pax_headers={"size": "9" * 18})),
        "/g says that it has 9+ bytes: the tar ends before",
    ),
    "gigantic-extension": (
        tar(patched(patched(info("x").tobuf(), 124, b"77777777777"), 156, b"x")),
        "its extended header has 8589934591 bytes",
    ),
    "negative-size": (
        tar(patched(info("n").tobuf(), 124, b"\xff" * 12)),
        "/n: a number in its header is damaged",
    ),
    "size-no-number": (
        tar(patched(info("n").tobuf(), 124, b"-0000000001\0")),
        "/n: a number in its header is damaged",
    ),
    "device": (
        tar(
            patched(info("c", type=tarfile.CHRTYPE).tobuf(), 329, b"\x80" + b"\1" * 7)
        ),
        "/c: its device number is too large",
    ),
    "checksum": (
        tar(info("a").tobuf()[:100] + b"9" + info("a").tobuf()[101:]),
        "/a: its header is damaged",
    ),
    "pax-damaged": (tar(info("é").tobuf(tarfile.PAX_FORMAT)[:512] + b"9 x" + bytes(509),
                        info("a")), "pax header is damaged"),
    "pax-number": (
        tar(info("a", pax_headers={"uid": "-1"})),
        "/a: a number in its pax header is damaged",
    ),
    "pax-time": (
        tar(info("a", pax_headers={"mtime": "noon"})),
        "/a: the time in its pax header is damaged",
    ),
    "no-name": (tar(info("")), "/ is no path"),
    "deep": (tar(info("d/" * 300)), "is no path that a file system takes"),
    "long": (tar(info("n" * 5000)), "is no path that a file system takes"),
    "symlink-to-nothing": (
        tar(link("s", "", tarfile.SYMTYPE)),
        "/s is a symbolic link to no path",
    ),
    "no-end": (tar(info("a"), end=0), "is truncated: its end marker is missing"),
    "truncated-header": (tar(info("a"))[:700], "is truncated"),
    "truncated-content": (
        tar((info("a"), b"x" * 2000))[:1536],
        "/a says that it has 2000 bytes",
    ),
    "not-a-tar": (b"no tar" * 200, "is damaged"),
    "empty": (b"", "is truncated"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_tars_are_refused_by_name(data, message, tmp_path):
    with pytest.raises(Problem, match=message) as caught:
        entries(data, tmp_path)
    assert str(caught.value).startswith("some.tar")
    assert "\n" not in str(caught.value)


def test_too_many_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    assert len(entries(tar(*map(info, "abc")), tmp_path)) == 3
    with pytest.raises(Problem, match="more than 3 entries"):
        entries(tar(*map(info, "abcd")), tmp_path)


def test_names_cannot_forge_lines_of_a_message(tmp_path):
    with pytest.raises(Problem) as caught:
        entries(tar(info("../a\nall is well\x1b[2J\r")), tmp_path)
    assert str(caught.value).isprintable()


# --- Archives of images ----------------------------------------------------------


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read(path):
    """All that a reader can ask of the image in an archive."""
    with archive.open_image(path) as image:
        tars = []
        for blob in image.layers:
            with blob.unpacked(path.parent, image.limit) as region:
                tars.append(b"".join(region.chunks()))
        return image, tars


def oci(layers, *, config=None, zipped=True, nested=False, **changes):
    """The files of an OCI layout with one image; `changes` to files by path."""
    blobs = {}

    def add(data, kind=""):
        blobs[f"blobs/sha256/{sha256(data)}"] = data
        return {
            "digest": f"sha256:{sha256(data)}",
            "size": len(data),
            "mediaType": kind,
        }

    about = config or {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"diff_ids": [f"sha256:{sha256(layer)}" for layer in layers]},
    }
    manifest = {
        "config": add(json.dumps(about).encode()),
        "layers": [add(gzip.compress(x, mtime=0) if zipped else x) for x in layers],
    }
    root = add(json.dumps(manifest).encode())
    if nested:
        note = add(b"{}") | {"annotations": {"vnd.docker.reference.type": "x"}}
        root = add(json.dumps({"manifests": [root, note]}).encode())
    return blobs | {"index.json": json.dumps({"manifests": [root]}).encode()} | changes


def write(path, files):
    data = tar(*((info(name), content) for name, content in files.items()))
    path.write_bytes(data)
    return path


LAYER = tar((info("a"), b"text"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_oci_archives(tmp_path, zipped, nested):
    files = oci([LAYER, tar()], zipped=zipped, nested=nested)
    image, tars = read(write(tmp_path / "i.tar", files))
    assert tars == [LAYER, tar()]
    assert f"blobs/{image.manifest_digest.replace(':', '/')}" in files
    assert f"blobs/{image.config_digest.replace(':', '/')}" in files


def test_archives_of_docker_save(tmp_path, save):
    image, tars = read(save(tmp_path / "i.tar", LAYER, LAYER))
    assert tars == [LAYER, LAYER]
    assert image.manifest_digest == ""


def test_layers_that_are_links_to_one_another(tmp_path):
    """Docker writes equal layers once."""
    config = json.dumps({"rootfs": {"diff_ids": [f"sha256:{sha256(LAYER)}"] * 2}})
    images = [{"Config": "c.json", "Layers": ["1/layer.tar", "2/layer.tar"]}]
    data = tar(
        (info("c.json"), config.encode()),
        (info("1/layer.tar"), LAYER),
        link("2/layer.tar", "../1/layer.tar", tarfile.SYMTYPE),
        (info("manifest.json"), json.dumps(images).encode()),
    )
    (tmp_path / "i.tar").write_bytes(data)
    assert read(tmp_path / "i.tar")[1] == [LAYER, LAYER]


def test_gzip_of_several_members(tmp_path):
    data = gzip.compress(LAYER[:600]) + gzip.compress(LAYER[600:])
    assert _packed(tmp_path, data)[1] == [LAYER]


SKIPPED = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"


@pytest.mark.parametrize("before", [b"", SKIPPED])
def test_zstd_of_several_frames(before, tmp_path):
    data = zstandard.compress(LAYER[:600]) + SKIPPED + zstandard.compress(LAYER[600:])
    assert _packed(tmp_path, before + data)[1] == [LAYER]


def _packed(tmp_path, data, **changes):
    """Read an archive whose one layer, LAYER, was compressed to `data`."""
    files = oci([LAYER], zipped=False)
    manifest = json.loads(files["index.json"])["manifests"][0]["digest"]
    path = f"blobs/{manifest.replace(':', '/')}"
    found = json.loads(files.pop(path))
    files[f"blobs/sha256/{sha256(data)}"] = data
    found["layers"][0] |= {"digest": f"sha256:{sha256(data)}", "size": len(data)}
    found["layers"][0] |= changes
    text = json.dumps(found).encode()
    digest = sha256(text)
    files[f"blobs/sha256/{digest}"] = text
    entry = {"digest": f"sha256:{digest}", "size": len(text)}
    files["index.json"] = json.dumps({"manifests": [entry]}).encode()
    return read(write(tmp_path / "i.tar", files))


PACKED = gzip.compress(LAYER, mtime=0)
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(LAYER)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PACKED[:-9], "layer 1 is truncated"),
        (PACKED + b"more", "layer 1 is damaged"),
        (PACKED[:20] + b"\xff\xff" + PACKED[22:], "layer 1 is damaged"),
        (gzip.compress(LAYER + b"x", mtime=0), "layer 1 does not have the digest"),
        (ZSTD[:-9], "layer 1 is truncated"),
        (ZSTD + ZSTD[:9], "layer 1 is truncated"),
        (ZSTD + b"more", "layer 1 is damaged"),
        (ZSTD[:20] + b"\xff\xff" + ZSTD[22:], "layer 1 is damaged"),
        (zstandard.compress(LAYER + b"x"), "layer 1 does not have the digest"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 90, "layer 1 is damaged"),
        (b"", "layer 1 does not have the digest"),
    ],
)
def test_layers_that_are_damaged(data, message, tmp_path):
    with pytest.raises(Problem, match=message):
        _packed(tmp_path, data)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_decompression_bombs(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "GENEROUS", 1 << 20)
    bomb = pack(bytes(64 << 20), 9)
    with pytest.raises(Problem, match="decompression bomb"):
        _packed(tmp_path, bomb)
    assert os.listdir(tmp_path) == ["i.tar"]


def test_bombs_in_many_layers(tmp_path, monkeypatch):
    """Each layer may be small enough, and all of them too large."""
    monkeypatch.setattr(archive, "GENEROUS", 4 << 20)
    layers = [tar((info(f"f{n}"), bytes(3 << 20))) for n in range(3)]
    path = write(tmp_path / "i.tar", oci(layers))
    with archive.open_image(path) as image:
        assert image.limit < sum(map(len, layers))


def without(files, end):
    return {name: data for name, data in files.items() if not name.endswith(end)}


GOOD = oci([LAYER])
DOCKER = {
    "c.json": json.dumps(
        {"rootfs": {"diff_ids": [f"sha256:{sha256(LAYER)}"]}}
    ).encode(),
    "l.tar": LAYER,
    "manifest.json": b'[{"Config": "c.json", "Layers": ["l.tar"]}]',
}
BLOB = next(name for name, data in GOOD.items() if data.startswith(b"\x1f\x8b"))
ENTRY = {"digest": f"sha256:{'0' * 64}", "size": 2}
ZEROS = f"blobs/sha256/{'0' * 64}"

BAD = {
    "no-image": ({"x": b""}, "no index.json and no manifest.json"),
    "blob-missing": (without(GOOD, BLOB), "is missing"),
    "blob-damaged": (
        {**GOOD, BLOB: b"\x1f\x8b" + GOOD[BLOB][3:] + b"x"},
        f"{BLOB} does not have the digest of its name",
    ),
    "blob-longer": ({**GOOD, BLOB: GOOD[BLOB] + b"x"}, "bytes, not"),
    "digest-of-another-name": (
        {"index.json": json.dumps({"manifests": [ENTRY]}).encode(), ZEROS: b"{}"},
        "does not have the digest of its name",
    ),
    "digest-no-sha256": (
        {"index.json": b'{"manifests": [{"digest": "../x", "size": 1}]}'},
        "a digest that is no sha256",
    ),
    "two-images": (
        {**GOOD, **(two := oci([LAYER, LAYER])), "index.json": json.dumps({
            "manifests": [json.loads(files["index.json"])["manifests"][0]
                          for files in (GOOD, two)]}).encode()},
        "has 2 images",
    ),
    "many-manifests": (
        {"index.json": json.dumps({"manifests": [ENTRY] * 101}).encode()},
        "more than 100 manifests",
    ),
    "index-no-json": ({"index.json": b"{"}, "index.json is no JSON"),
    "index-nested": ({"index.json": b"[" * 100_000}, "index.json is no JSON"),
    "index-no-utf8": ({"index.json": b'"\xff"'}, "index.json is no JSON"),
    "index-list": ({"index.json": b"[]"}, "index.json has no manifests"),
    "index-numbers": ({"index.json": b'{"manifests": [1]}'}, "has no digest"),
    "index-large": ({"index.json": b" " * (5 << 20)}, "is larger than"),
    "layers-of-the-config": (
        oci([LAYER], config={"rootfs": {"diff_ids": []}}), "names 0 layers",
    ),
    "config-list": (oci([LAYER], config=[1]), "has no rootfs"),
    "diff-id": (
        oci([LAYER], config={"rootfs": {"diff_ids": ["sha256:x"]}}),
        "a diff ID that is no sha256",
    ),
    "diff-id-wrong": (
        oci([LAYER], config={"rootfs": {"diff_ids": [f"sha256:{'0' * 64}"]}}),
        "layer 1 does not have the digest that the image says",
    ),
    "docker-missing": (without(DOCKER, "l.tar"), "l.tar is missing"),
    "docker-two": ({**DOCKER, "manifest.json": b"[{}, {}]"}, "not one image"),
    "docker-null": ({**DOCKER, "manifest.json": b"[null]"}, "has no Layers"),
    "docker-numbers": (
        {**DOCKER, "manifest.json": b'[{"Config": "c.json", "Layers": [1]}]'},
        "a layer that is no path",
    ),
    "docker-config-name": (
        {**DOCKER, "manifest.json": b'[{"Config": "no\\nwhere", "Layers": []}]'},
        r"no\\nwhere is missing",
    ),
    "docker-wrong-layer": ({**DOCKER, "l.tar": tar()}, "does not have the digest"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "message"), BAD.values(), ids=BAD)
def test_bad_archives_are_refused(files, message, tmp_path):
    with pytest.raises(Problem, match=message) as caught:
        read(write(tmp_path / "i.tar", files))
    assert str(caught.value).isprintable()
    assert os.listdir(tmp_path) == ["i.tar"]


def test_too_many_layers(tmp_path, save, monkeypatch):
    monkeypatch.setattr(archive, "MAX_LAYERS", 1)
    with pytest.raises(Problem, match="more than 1 layers"):
        read(save(tmp_path / "i.tar", LAYER, LAYER))


def test_no_file(tmp_path):
    with pytest.raises(Problem, match="cannot read"):
        read(tmp_path / "none")
    with pytest.raises(Problem, match="cannot read"):
        read(tmp_path)
