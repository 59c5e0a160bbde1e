"""The index of several processors' images, and the archive that holds it."""

import json
import tarfile

import pytest

from containerize.errors import Problem
from containerize.image import archive, canonical, index

TIME = 1_763_856_000


@pytest.fixture
def made(tmp_path, save):
    """Make a canonical archive for a processor, with a layer that all have."""

    def made(architecture, name=""):
        layers = [
            [(tarfile.TarInfo("same"), b"same")],
            [(tarfile.TarInfo("own"), architecture.encode())],
        ]
        saved = save(tmp_path / "saved.tar", *layers, architecture=architecture)
        target = tmp_path / f"{name or architecture}.tar"
        canonical.canonicalize(
            saved, target, time=TIME, labels={}, references=["shop:1"]
        )
        return target

    return made


def read(path):
    """The files of an archive by path, in its order."""
    with tarfile.open(path) as found:
        return {m.name: found.extractfile(m).read() for m in found if m.isfile()}


def write(archives, target):
    return index.write(archives, target, time=TIME, references=["shop:1", "shop:2"])


def test_an_archive_of_an_index_leads_to_each_image(made, tmp_path):
    archives = [made("arm64"), made("amd64")]
    digest = write(archives, tmp_path / "all.tar")
    files = read(tmp_path / "all.tar")
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    [root] = json.loads(files["index.json"])["manifests"]
    assert (root["mediaType"], root["digest"]) == (archive.INDEX, digest)
    assert root["annotations"] == canonical.names_of(["shop:1"])
    whole = files[f"blobs/{digest.replace(':', '/')}"]
    assert root["size"] == len(whole)
    listed = json.loads(whole)["manifests"]
    assert [one["platform"] for one in listed] == [
        {"architecture": name, "os": "linux"} for name in ("amd64", "arm64")
    ]
    for one, path in zip(listed, reversed(archives), strict=True):
        assert one["digest"] == canonical.read_digests(path).manifest
        manifest = files[f"blobs/{one['digest'].replace(':', '/')}"]
        assert one["size"] == len(manifest)
        for blob in (m := json.loads(manifest))["layers"] + [m["config"]]:
            assert f"blobs/{blob['digest'].replace(':', '/')}" in files
    with tarfile.open(tmp_path / "all.tar") as found:
        names = found.getnames()
    assert len(set(names)) == len(names)  # the layer that both have as well
    assert index.read_digest(tmp_path / "all.tar") == digest


def test_the_order_of_the_images_changes_no_byte(made, tmp_path):
    archives = [made("amd64"), made("arm64")]
    write(archives, tmp_path / "one.tar")
    write(archives[::-1], tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_a_variant_is_named(made, save, tmp_path):
    saved = save(tmp_path / "s.tar", architecture="arm", variant="v7")
    arm = tmp_path / "arm.tar"
    canonical.canonicalize(saved, arm, time=TIME, labels={}, references=[])
    found = index.describe(arm).descriptor()["platform"]
    assert found == {"architecture": "arm", "os": "linux", "variant": "v7"}


def test_two_images_for_one_processor_are_refused(made, tmp_path):
    with pytest.raises(Problem, match="for one processor"):
        write([made("amd64"), made("amd64", "again")], tmp_path / "all.tar")
    assert not (tmp_path / "all.tar").exists()


def test_what_is_no_archive_of_an_index_is_one_line(made, tmp_path):
    other, damaged = made("amd64"), tmp_path / "all.tar"
    with pytest.raises(Problem, match="has no index as"):
        index.read_digest(other)
    digest = write([other, made("arm64")], damaged)
    content = damaged.read_bytes()
    at = content.index(b'"manifests":[{"digest"')
    damaged.write_bytes(content[:at] + b'"manifestz"' + content[at + 11 :])
    with pytest.raises(Problem, match="has no index as"):
        index.read_digest(damaged)
    with pytest.raises(Problem, match="cannot read"):
        index.read_digest(tmp_path / "nowhere.tar")
    with archive.open_image(other) as image:
        assert image.manifest_digest != digest
