"""Images in a real registry, as what a checkout must rebuild; and what is no image."""

import dataclasses
import json
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from containerize import FORMAT
from containerize.errors import Problem
from containerize.image import canonical, index, record
from containerize.image.archive import INDEX, MANIFEST
from containerize.publish import provenance, reference
from containerize.publish.evidence import Attachment
from containerize.publish.push import push, targets
from containerize.publish.registry import Repository
from containerize.settings import find_root, load
from containerize.verify import expected, explain, pushed
from containerize.verify.expected import Built
from tests.unit.conftest import Record, pack

ROOT = find_root(Path(__file__).parent)
LABELS = {"containerize.project": "sample"}
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def member(name, content):
    return tarfile.TarInfo(name), content


@pytest.fixture
def image(save, tmp_path):
    """Makes canonical archives of images that hold a file and something large."""

    def make(name, text, architecture="amd64", labels=LABELS, large=b"\0" * 5_000_000):
        saved, made = tmp_path / f"{name}-saved.tar", tmp_path / f"{name}.tar"
        layers = ([member("usr/large", large)], [member("srv/app.py", text)])
        save(saved, *layers, architecture=architecture)
        digests = canonical.canonicalize(
            saved, made, time=0, labels=labels, references=["sample:latest"]
        )
        return digests, made

    return make


@pytest.fixture
def put(registry, project):
    """Pushes an archive; returns the name that it has there."""

    def run(archive, tag="latest", beside=()):
        wanted = targets(project, f"{registry.host}/team/sample", [tag])
        push(project, archive, wanted, progress=Record(), beside=beside)
        return f"{registry.host}/team/sample:{tag}"

    return run


@pytest.fixture
def find(project):
    def run(name, settings=project):
        return pushed.find(settings, name, progress=Record()).target

    return run


@pytest.fixture
def repository(registry):
    return Repository.at(reference.parse(f"{registry.host}/team/sample"))


def described(content, kind, repository):
    """A blob put there, as a manifest names it."""
    digest = repository.put_bytes(content)
    return {"mediaType": kind, "digest": digest, "size": len(content)}


def manifest(
    repository, *, config_type=CONFIG, layer_type=LAYER, labels=LABELS, **more
):
    """The bytes of a manifest, what it names put there."""
    layer = pack(member("x", b"x"))
    about = {"os": "linux", "architecture": "amd64", "config": {"Labels": labels}}
    about["rootfs"] = {"type": "layers", "diff_ids": []}
    config = described(json.dumps(about).encode(), config_type, repository)
    layers = [described(layer, layer_type, repository)]
    content = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config}
    return json.dumps(content | {"layers": layers} | more).encode()


# --- What is there ---------------------------------------------------------------


@pytest.mark.parametrize("by", ["tag", "digest", "both"])
def test_an_image_is_named_by_tag_or_digest(image, put, find, by):
    digests, archive = image("one", b"1")
    name = put(archive)
    plain = name.rpartition(":")[0]
    name = {
        "tag": name,
        "digest": f"{plain}@{digests.manifest}",
        "both": f"{plain}:gone@{digests.manifest}",
    }[by]
    target = find(name)
    [found] = target.images
    assert (found.architecture, found.digest) == ("amd64", digests.manifest)
    assert (target.name, target.index, target.unlike) == (name, "", ())
    assert "no provenance of this tool was pushed with" in target.notes[0]


def test_an_index_names_an_image_for_each_processor(
    image, put, find, project, tmp_path
):
    made = {a: image(a, b"1", a) for a in ("amd64", "arm64")}
    both = tmp_path / "both.tar"
    whole = index.write(
        [path for _, path in made.values()], both, time=0, references=["sample:latest"]
    )
    name = put(both)
    target = find(name)
    assert target.index == whole
    digests = {one.architecture: one.digest for one in target.images}
    assert digests == {a: found.manifest for a, (found, _) in made.items()}
    assert target.unlike == ()
    # The archive that was pushed names the same.
    of_file = expected.archive(project, str(both))
    assert of_file.index == whole
    assert {one.architecture: one.digest for one in of_file.images} == digests
    # Each is told that only one side has.
    own = dataclasses.replace(project, architectures=("amd64",))
    less = find(name, own)
    assert [one.architecture for one in less.images] == ["amd64"]
    assert "it has an image for linux/arm64, and this checkout makes" in less.unlike[0]
    alone = find(put(made["amd64"][1], "alone"), own)
    assert alone.unlike == ()
    two = dataclasses.replace(project, architectures=("amd64", "arm64"))
    [one, _] = find(put(made["amd64"][1], "alone"), two).notes
    assert "is one image, for linux/amd64: nothing is compared for arm64" in one


def test_an_index_that_lacks_a_processor_is_told(image, put, find, project, repository):
    digests, archive = image("one", b"1")
    put(archive)
    size = repository.read_manifest(digests.manifest).descriptor.size
    entry = {"mediaType": MANIFEST, "digest": digests.manifest, "size": size}
    attests = {"vnd.docker.reference.type": "attestation-manifest"}
    unknown = {"os": "unknown", "architecture": "unknown"}
    amd64 = {"os": "linux", "architecture": "amd64"}
    content = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            entry | {"platform": amd64},
            entry | {"platform": unknown, "annotations": attests},
            entry | {"platform": {"os": "linux", "architecture": "riscv64"}},
        ],
    }
    repository.put_manifest(json.dumps(content).encode(), INDEX, "mixed")
    name = str(dataclasses.replace(reference.parse(put(archive)), tag="mixed"))
    target = find(name, dataclasses.replace(project, architectures=("amd64", "arm64")))
    assert [one.architecture for one in target.images] == ["amd64"]
    assert "has 1 attestations beside it" in target.notes[0]
    riscv, arm = target.unlike
    assert "an image for linux/riscv64, and this checkout makes none" in riscv
    assert "has no image for arm64" in arm


# --- What differs ----------------------------------------------------------------


def test_only_what_differs_is_pulled_and_explained(image, put, find, faults, tmp_path):
    name = put(image("theirs", b"theirs\n")[1]).partition("/")[2]
    digests, archive = image("ours", b"ours\n")
    [found] = find(f"{faults.host}/{name}").images
    built = Built(digests=digests, archive=archive, scratch=tmp_path)
    before = faults.count("GET", "/blobs/")
    looked = found.look(found, built)
    assert faults.count("GET", "/blobs/") - before == 2  # its config and a layer
    told = explain.compare(looked.archive, archive)
    assert [(one.path, one.field) for one in told] == [("/srv/app.py", "bytes")]
    assert "-theirs" in told[0].detail
    assert canonical.read_digests(looked.archive).manifest == found.digest


def test_an_image_of_an_index_archive_is_explained(image, project, tmp_path):
    made = [image(f"theirs-{a}", b"theirs\n", a)[1] for a in ("amd64", "arm64")]
    both = tmp_path / "both.tar"
    index.write(made, both, time=0, references=["sample:latest"])
    target = expected.archive(project, str(both))
    digests, archive = image("ours", b"ours\n")
    built = Built(digests=digests, archive=archive, scratch=tmp_path)
    [found] = [one for one in target.images if one.architecture == "amd64"]
    looked = found.look(found, built)
    [told] = explain.compare(looked.archive, archive)
    assert told.path == "/srv/app.py"


def test_a_blob_that_is_changed_on_the_way_is_refused(
    image, put, find, faults, tmp_path
):
    name = put(image("theirs", b"theirs\n")[1]).partition("/")[2]
    digests, archive = image("ours", b"ours\n")
    [found] = find(f"{faults.host}/{name}").images
    built = Built(digests=digests, archive=archive, scratch=tmp_path)

    def change(status, headers, content):
        return status, headers, content[:-1] + b"?"

    faults.fault = lambda r: {"answer": change} if r.is_("GET", "/blobs/") else None
    with pytest.raises(Problem, match="has other bytes than sha256:"):
        found.look(found, built)


def test_layers_too_large_to_be_looked_into_are_not_pulled(
    image, put, find, faults, tmp_path, monkeypatch
):
    large = random.Random(1).randbytes(30_000)
    name = put(image("theirs", b"theirs\n", large=large)[1]).partition("/")[2]
    digests, archive = image("ours", b"ours\n", large=b"")
    [found] = find(f"{faults.host}/{name}").images
    built = Built(digests=digests, archive=archive, scratch=tmp_path)
    monkeypatch.setattr("containerize.image.archive.GENEROUS", 100)
    before = faults.count("GET", "/blobs/")
    with pytest.raises(Problem, match="too many to look into"):
        found.look(found, built)
    assert faults.count("GET", "/blobs/") == before


# --- What it comes from ----------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    """A small copy of this repository with a commit."""
    top = tmp_path / "checkout"
    top.mkdir()
    names = ("Dockerfile", "base.lock", "requirements.txt", "pyproject.toml")
    for name in names:
        shutil.copy(ROOT / name, top)
    shutil.copytree(ROOT / "app", top / "app", ignore=shutil.ignore_patterns("__py*"))
    found = dataclasses.replace(load(top, {}), image="sample", architectures=("amd64",))
    commit(top, "one")
    return found


def commit(top, message):
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", message)):
        subprocess.run(["git", *words], cwd=top, check=True)


def statement(settings, manifest, form=FORMAT):
    """What `provenance` says of the checkout, as far as it is read here."""
    inputs = record.inputs(settings)
    source = provenance.source(settings, inputs)
    files = [
        provenance._file(name, state)
        for name, state in inputs.items()
        if not name.startswith(("setting ", "containerize format"))
    ]
    commits = [{"name": "source", "digest": {"gitCommit": source.commit}}]
    parameters = {
        name.removeprefix("setting "): value
        for name, value in inputs.items()
        if name.startswith("setting ") and "image-arch" not in name
    }
    content = {
        "_type": provenance.STATEMENT,
        "predicateType": provenance.PREDICATE,
        "subject": [{"name": "sample (amd64)", "digest": {"sha256": manifest[7:]}}],
        "predicate": {
            "buildDefinition": {
                "buildType": provenance.BUILD_TYPE,
                "externalParameters": {"architectures": ["amd64"], **parameters},
                "internalParameters": {"source": source.state},
                "resolvedDependencies": [*(commits if source.commit else []), *files],
            },
            "runDetails": {"builder": {"version": {"format": str(form)}}},
        },
    }
    return Attachment(
        subject=manifest,
        artifact_type=provenance.MEDIA_TYPE,
        media_type=provenance.MEDIA_TYPE,
        content=json.dumps(content).encode(),
        annotations={},
    )


def test_the_commit_that_an_image_is_of_is_told(image, put, find, checkout):
    digests, archive = image("one", b"1")
    name = put(archive, beside=[statement(checkout, digests.manifest)])
    same = find(name, checkout)
    assert same.notes[-1].endswith("not signed: this checkout is at it")
    assert same.images[0].changed == ()
    (checkout.root / "app" / "new.py").write_text("")
    dirty = find(name, checkout)
    assert "with changes that are not committed" in dirty.notes[-1]
    assert dirty.images[0].changed == ("app/new.py",)
    commit(checkout.root, "two")
    other = find(name, checkout)
    assert "was built from commit " in other.notes[-1]
    assert "this checkout is at commit " in other.notes[-1]
    assert "with changes" not in other.notes[-1]
    assert other.images[0].changed == ("app/new.py",)
    # The same image pushed from another commit: what is said of this one is taken.
    put(archive, beside=[statement(checkout, digests.manifest)])
    assert find(name, checkout).notes[-1].endswith("this checkout is at it")


def test_another_format_of_this_tool_is_told_before_anything_is_built(
    image, put, find, checkout
):
    digests, archive = image("one", b"1")
    name = put(archive, beside=[statement(checkout, digests.manifest, FORMAT - 1)])
    said = f"of format {FORMAT - 1} of this tool, and this is format {FORMAT}"
    with pytest.raises(Problem, match=said):
        find(name, checkout)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"_type": 1}'])
def test_a_statement_that_is_none_of_ours_counts_for_nothing(
    image, put, find, checkout, content
):
    digests, archive = image("one", b"1")
    kept = dataclasses.replace(statement(checkout, digests.manifest), content=content)
    target = find(put(archive, beside=[kept]), checkout)
    assert "no provenance of this tool was pushed with" in target.notes[-1]


def test_a_provenance_that_cannot_be_read_is_told(image, put, find, faults, checkout):
    digests, archive = image("one", b"1")
    name = put(archive, beside=[statement(checkout, digests.manifest)])
    tag = f"/manifests/sha256-{digests.manifest[7:]}"
    broken = {"status": 200, "content": b"[]"}
    faults.fault = lambda r: broken if r.is_("GET", tag) else None
    target = find(f"{faults.host}/{name.partition('/')[2]}", checkout)
    assert "cannot be read (" in target.notes[-1]


# --- What is no image of ours ----------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"config_type": "application/vnd.cncf.helm.config.v1+json"},
            "is no image, but a Helm chart of the type application/vnd.cncf.helm.conf",
        ),
        (
            {
                "config_type": "application/vnd.oci.empty.v1+json",
                "artifactType": "application/x.sbom",
            },
            "is no image, but an artifact of the type application/x.sbom",
        ),
        (
            {"layer_type": "application/vnd.oci.image.layer.v1.tar+encrypted"},
            "layer 1 is of the type application/vnd.oci.image.layer.v1.tar.encrypted",
        ),
        ({"labels": {"containerize.project": "x"}}, "is of the project x, and this"),
        ({"labels": None}, "is of an image that this tool has not made"),
    ],
)
def test_what_is_no_image_of_this_project_is_refused(
    repository, registry, find, changes, said
):
    content = manifest(repository, **changes)
    repository.put_manifest(content, MANIFEST, "odd")
    with pytest.raises(Problem, match=said):
        find(f"{registry.host}/team/sample:odd")


def test_layers_that_another_tool_compressed_are_told(repository, registry, find):
    content = manifest(repository, layer_type=f"{LAYER}+zstd")
    repository.put_manifest(content, MANIFEST, "zstd")
    notes = find(f"{registry.host}/team/sample:zstd").notes
    assert (
        "has layers of the type application/vnd.oci.image.layer.v1.tar+zstd" in notes[0]
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "Docker's first manifest schema"),
        ({"schemaVersion": 2}, "names a part by no digest or no size"),
        ({"schemaVersion": 2, "config": {"digest": "x"}}, "names a part by no digest"),
        ({"schemaVersion": 2, "manifests": 1}, "its index names no images"),
        ({"schemaVersion": 2, "manifests": []}, "is an index that names no image"),
        ({"schemaVersion": 2, "manifests": [{}]}, "what is for no processor"),
        ({"schemaVersion": 2, "manifests": [[]]}, "what is for no processor"),
        ([], "is no JSON object"),
        ("{", "is no JSON object"),
    ],
)
def test_a_broken_manifest_is_one_line(faults, find, content, said):
    data = content if isinstance(content, str) else json.dumps(content)
    broken = {"status": 200, "content": data.encode()}
    faults.fault = lambda r: broken if r.is_("GET", "/manifests/") else None
    with pytest.raises(Problem, match=said):
        find(f"{faults.host}/team/sample:latest")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{host}/team/sample:gone", "has no gone: see that it is pushed"),
        ("{host}/team/sample", "names no image: add :TAG or @sha256:"),
        ("team/sample:latest", "names no registry: put its host before"),
        ("dist/nothing.tar", "there is no file dist/nothing.tar"),
        ("/nowhere/image", "there is no file /nowhere/image: see its path"),
        ("../nowhere:latest", "there is no file ../nowhere:latest"),
        ("/etc", "/etc is a directory: name an archive in it"),
        ("127.0.0.1:1/team/sample:latest", "nothing answers at 127.0.0.1:1"),
    ],
)
def test_what_is_not_there_is_one_line(registry, find, name, said):
    with pytest.raises(Problem, match=said) as caught:
        find(name.format(host=registry.host))
    assert "\n" not in str(caught.value)
