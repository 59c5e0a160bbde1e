"""What is read from a registry is checked; what refers to an image is listed."""

import json

import pytest

from containerize.errors import Problem
from containerize.image.archive import INDEX, MANIFEST
from containerize.publish.reference import parse
from containerize.publish.registry import Repository, sha256
from tests import registries
from tests.registries import once

EMPTY = "application/vnd.oci.empty.v1+json"
CONTENT = bytes(range(256)) * 20_000


@pytest.fixture
def repository(faults):
    """A repository that is reached through the proxy of faults."""
    return Repository.at(parse(f"{faults.host}/sample"))


@pytest.fixture
def blob(repository):
    return repository.put_bytes(CONTENT)


def read(repository, digest):
    return b"".join(repository.read_blob(digest, len(CONTENT)))


def altered(status, headers, content):
    return status, headers, content[:-1] + b"?"


def test_a_blob_is_read_as_it_was_written(repository, blob):
    assert read(repository, blob) == CONTENT


@pytest.mark.parametrize("times", [1, 4])
def test_a_blob_that_is_cut_off_goes_on_where_it_was(repository, blob, faults, times):
    faults.requests.clear()
    faults.fault = once(lambda r: r.is_("GET", "blobs"), {"ends": 1_100_000}, times)
    assert read(repository, blob) == CONTENT
    ranges = [r.headers["range"] for r in faults.requests if "range" in r.headers]
    assert ranges[0] == "bytes=1100000-"
    assert len(ranges) == times


def test_a_server_that_knows_no_ranges(repository, blob, faults):
    def whole(status, headers, content):
        return 200, headers, CONTENT

    def fault(request):
        if request.is_("GET", "blobs"):
            first = "range" not in request.headers
            return {"ends": 1_100_000} if first else {"answer": whole}
        return None

    faults.fault = fault
    assert read(repository, blob) == CONTENT


@pytest.mark.parametrize(
    "answer",
    [
        altered,
        lambda status, headers, content: (status, headers, content[:-1]),
        lambda status, headers, content: (status, headers, content + b"more"),
        lambda status, headers, content: (status, headers, b""),
    ],
    ids=["altered", "shorter", "longer", "empty"],
)
def test_a_blob_of_other_bytes_never_comes_whole(repository, blob, faults, answer):
    def fault(request):
        if request.is_("GET", "blobs"):
            return {"answer": lambda s, h, c: answer(s, drop(h), c)}
        return None

    def drop(headers):
        return {k: v for k, v in headers.items() if k != "Content-Length"}

    faults.fault = fault
    got = []
    with pytest.raises(Problem, match="has other bytes than sha256:"):
        got.extend(repository.read_blob(blob, len(CONTENT)))
    assert sum(map(len, got)) < len(CONTENT)


def test_a_blob_that_is_not_there(repository, blob):
    with pytest.raises(Problem, match="see that it is pushed"):
        read(repository, f"sha256:{'0' * 64}")


def test_a_manifest_of_other_bytes(repository, push, faults):
    digest = push(f"{faults.host}/sample").reference.digest
    faults.fault = lambda r: {"answer": altered} if r.is_("GET", "manifests") else None
    with pytest.raises(Problem, match="has other bytes than sha256:"):
        repository.read_manifest(digest)
    with pytest.raises(Problem, match="has other bytes than sha256:"):
        repository.read_manifest("latest")


def test_what_is_not_there_is_none(repository):
    assert repository.find_manifest("latest") is None
    assert repository.tags() == []
    assert repository.referrers(f"sha256:{'0' * 64}") == []
    with pytest.raises(Problem, match="has no latest"):
        repository.read_manifest("latest")


def test_a_registry_that_names_no_digest(repository, push, faults):
    digest = push(f"{faults.host}/sample").reference.digest

    def bare(status, headers, content):
        kept = {k: v for k, v in headers.items() if k != "Docker-Content-Digest"}
        return status, kept, content

    faults.fault = lambda r: {"answer": bare}
    assert repository.find_manifest("latest") == digest
    assert repository.read_manifest("latest").digest == digest


def test_tags_that_come_in_pages(repository, faults):
    def page(request):
        if not request.is_("GET", "tags/list"):
            return None
        last = "last=b" in request.path
        tags, more = (["c"], {}) if last else (["a", "b"], "sample/tags/list?last=b")
        link = {} if last else {"Link": f'</v2/{more}>; rel="next"'}
        content = json.dumps({"name": "sample", "tags": tags}).encode()
        return {"status": 200, "headers": link, "content": content}

    faults.fault = page
    assert repository.tags() == ["a", "b", "c"]


def artifact(repository, subject, kind, text):
    """The manifest of a small artifact that refers to `subject`."""
    blob = repository.put_bytes(text.encode())
    empty = repository.put_bytes(b"{}")
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": {"mediaType": EMPTY, "digest": empty, "size": 2},
            "layers": [{"mediaType": kind, "digest": blob, "size": len(text)}],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1},
            "annotations": {"org.example.text": text},
        }
    ).encode()


@pytest.fixture
def subject(push, faults):
    return push(f"{faults.host}/sample").reference.digest


def stand_in(subject):
    return subject.replace(":", "-")


def test_a_referrer_is_listed_by_the_tag_of_its_subject(repository, subject):
    manifest = artifact(repository, subject, "application/x", "one")
    entry = repository.attach(manifest)
    (found,) = repository.referrers(subject)
    assert found == entry.json()
    assert found["digest"] == sha256(manifest)
    assert found["artifactType"] == "application/x"
    assert found["annotations"] == {"org.example.text": "one"}
    assert repository.read_manifest(found["digest"]).content == manifest
    index = repository.read_manifest(stand_in(subject))
    assert index.descriptor.media_type == INDEX
    assert index.json()["schemaVersion"] == 2


def test_again_nothing_is_written(repository, subject, faults):
    manifest = artifact(repository, subject, "application/x", "one")
    repository.attach(manifest)
    faults.requests.clear()
    repository.attach(manifest)
    assert len(repository.referrers(subject)) == 1
    assert faults.count("PUT", "manifests/sha256-") == 0


def test_a_config_says_the_type_where_the_manifest_does_not(repository, subject):
    manifest = json.loads(artifact(repository, subject, "application/x", "one"))
    del manifest["artifactType"]
    manifest["config"]["mediaType"] = "application/of.a.config"
    entry = repository.attach(json.dumps(manifest).encode())
    assert entry.artifact_type == "application/of.a.config"


def test_what_others_have_attached_stays_as_it_is(repository, subject):
    """As cosign writes it, with fields of its own."""
    theirs = {
        "mediaType": MANIFEST,
        "digest": repository.attach(
            artifact(repository, subject, "application/sig", "theirs")
        ).digest,
        "size": 7,
        "artifactType": "application/sig",
        "annotations": {"dev.sigstore.bundle": "x"},
        "unknown": {"kept": True},
    }
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [theirs], "own": 1}
    repository.put_manifest(json.dumps(index).encode(), INDEX, stand_in(subject))
    repository.attach(artifact(repository, subject, "application/x", "ours"))
    first, second = repository.referrers(subject)
    assert first == theirs
    assert second["artifactType"] == "application/x"
    assert repository.read_manifest(stand_in(subject)).json()["own"] == 1


def test_who_writes_between_is_not_lost(repository, subject, faults):
    """Another tool writes its entry after we have read, and then once more after us."""
    theirs = [artifact(repository, subject, "application/y", text) for text in "ab"]
    direct = Repository.at(parse(f"127.0.0.1:{faults.behind}/sample"))
    written = []

    def over(status, headers, content):
        # What was read before our writing, and one more: ours is gone.
        if len(written) == 1:
            written.append(sha256(theirs[1]))
            direct.put_manifest(theirs[1], MANIFEST)
            entries = [
                {
                    "mediaType": MANIFEST,
                    "digest": digest,
                    "size": 1,
                    "artifactType": "y",
                }
                for digest in written
            ]
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
            direct.put_manifest(json.dumps(index).encode(), INDEX, stand_in(subject))
        return status, headers, content

    def fault(request):
        if not request.is_("PUT", "manifests/sha256-"):
            return None
        if not written:
            written.append(direct.attach(theirs[0]).digest)
        return {"answer": over}

    faults.fault = fault
    ours = artifact(direct, subject, "application/x", "ours")
    repository.attach(ours)
    found = {entry["digest"] for entry in repository.referrers(subject)}
    assert {sha256(ours), sha256(theirs[1])} <= found


def test_a_condition_is_heeded_where_a_registry_knows_it(repository, subject, faults):
    repository.attach(artifact(repository, subject, "application/x", "one"))
    refused = {"status": 412}
    faults.fault = once(lambda r: "if-match" in r.headers, refused)
    repository.attach(artifact(repository, subject, "application/x", "two"))
    assert len(repository.referrers(subject)) == 2


def test_an_image_under_the_tag_of_the_referrers_is_not_overwritten(
    repository, subject
):
    image = repository.read_manifest(subject)
    repository.put_manifest(image.content, MANIFEST, stand_in(subject))
    with pytest.raises(Problem, match=f":{stand_in(subject)} is no index of what "):
        repository.attach(artifact(repository, subject, "application/x", "one"))
    assert repository.find_manifest(stand_in(subject)) == subject


def test_a_registry_that_has_the_referrers_api_gets_no_tag(registry, push):
    with registries.serving(registries.Referring(registry.port)) as proxy:
        subject = push(f"{proxy.host}/sample").reference.digest
        repository = Repository.at(parse(f"{proxy.host}/sample"))
        entry = repository.attach(artifact(repository, subject, "application/x", "one"))
        (found,) = repository.referrers(subject)
        assert found["digest"] == entry.digest
        assert repository.find_manifest(stand_in(subject)) is None
