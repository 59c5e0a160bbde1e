"""Archives pushed to a real registry: whole and resumed, or a line that says why."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import tarfile
import threading

import pytest

from containerize.errors import Problem
from containerize.image import archive
from containerize.publish import push as pushing
from containerize.publish import reference
from containerize.publish.registry import Repository
from tests import registries
from tests.conftest import ROOT
from tests.registries import once
from tests.unit.conftest import pack

SMALL = 50_000
PUSH = """
import re, sys
from pathlib import Path
from containerize.publish import push
from containerize.settings import Settings
from tests.conftest import Quiet

settings = Settings(root=Path(sys.argv[1]), image="sample")
wanted = push.targets(settings, sys.argv[3])
push.push(settings, Path(sys.argv[2]), wanted, progress=Quiet())
"""
PEAK = r"""
status = Path("/proc/self/status").read_text()
print(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
"""


def held(path):
    """What an archive holds, by digest."""
    with archive.open_files(path) as files:
        found = pushing._layout(files)
        blobs = {digest: region.read() for digest, region in found.blobs.items()}
        return found.digest, blobs, {m.digest: m.content for m in found.manifests}


def refusal(push, *arguments):
    with pytest.raises(Problem) as caught:
        push(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def fetched(host, name, digest):
    """All that a registry has below a digest, each byte checked."""
    repository = Repository.at(reference.parse(f"{host}/{name}"))
    manifest = repository.read_manifest(digest)
    found = {manifest.digest: manifest.content}
    content = manifest.json()
    for child in content.get("manifests", []):
        found |= fetched(host, name, child["digest"])
    for blob in [*content.get("layers", []), *filter(None, [content.get("config")])]:
        size = blob["size"]
        found[blob["digest"]] = b"".join(repository.read_blob(blob["digest"], size))
    return found


@pytest.mark.parametrize("architectures", [(), ("amd64", "arm64")])
def test_what_is_in_the_registry_is_what_is_in_the_archive(
    registry, pushes, architectures
):
    push = pushes(*architectures)
    digest, blobs, manifests = held(push.archive)
    done = push(f"{registry.host}/team/sample", "1", "latest")
    assert str(done.reference) == f"{registry.host}/team/sample@{digest}"
    assert fetched(registry.host, "team/sample", digest) == {**blobs, **manifests}
    repository = Repository.at(done.reference)
    assert sorted(repository.tags()) == ["1", "latest"]
    assert {repository.find_manifest(tag) for tag in ("1", "latest")} == {digest}
    assert done.sent == sum(map(len, blobs.values())) == push.progress.size


def test_what_is_there_is_not_sent_again(registry, faults, push):
    first = push(f"{faults.host}/sample")
    assert first.sent
    faults.requests.clear()
    assert push(f"{faults.host}/sample").sent == 0
    assert {request.method for request in faults.requests} <= {"GET", "HEAD"}


def test_another_repository_of_the_registry_gets_blobs_by_mounting(
    registry, faults, push
):
    push(f"{faults.host}/first")
    faults.requests.clear()
    done = push(f"{faults.host}/second")
    assert done.sent == 0
    assert faults.count("PATCH") == 0
    assert faults.count("POST", "mount=") == 3
    assert registry.linked("second") == registry.linked("first")
    assert all("mounted from first" in line for line in push.progress.notes[:-1])


def test_another_registry_does_not_hear_of_the_first(registry, push):
    push(f"{registry.host}/first")
    with (
        registries.registry() as other,
        registries.serving(registries.Faults(other.port)) as proxy,
    ):
        assert push(f"{proxy.host}/second").sent
        assert proxy.count("POST", "mount=") == 0


def test_the_record_names_the_last_push_by_digest(registry, push, project):
    done = push(f"{registry.host}/sample", "a", "b")
    push(f"{registry.host}/other", "c")
    found = json.loads(pushing.record_path(project).read_text())
    assert found["reference"] == f"{registry.host}/other@{done.reference.digest}"
    assert found["tags"] == ["c"]
    assert found["pushed"] == [f"{registry.host}/other", f"{registry.host}/sample"]


def test_an_archive_of_another_digest_is_not_pushed(registry, push, project):
    with pytest.raises(Problem, match=r"not sha256:0.*run `invoke build`"):
        pushing.push(
            project,
            push.archive,
            pushing.targets(project, f"{registry.host}/sample"),
            progress=push.progress,
            expected=f"sha256:{'0' * 64}",
        )
    assert not registry.blobs()


@pytest.mark.parametrize(
    ("target", "tags", "said"),
    [
        ("sample", (), "'sample' names no registry"),
        ("team/sample", (), "names no registry"),
        ("host.invalid/Sample", (), "'Sample' is a name that no registry takes"),
        ("host.invalid/a//b", (), "is a name that no registry takes"),
        ("host.invalid/" + "a" * 255, (), "is a name that no registry takes"),
        ("ho_st.invalid/a", (), "is no registry's name"),
        ("host.invalid:0/a", (), "is no registry's name"),
        ("http://host.invalid/a", (), "is no registry's name"),
        ("host.invalid/a@sha256:1", (), "has no digest after its '@'"),
        (f"host.invalid/a@sha256:{'0' * 64}", (), "names a digest"),
        ("host.invalid/a:b:c", (), "'b:c' is no tag"),
        ("host.invalid/a", ("x", "x"), "the tag x is given twice"),
        ("host.invalid/a:x", ("x",), "the tag x is given twice"),
        ("host.invalid/a", ("-x",), "'-x' is no tag"),
    ],
)
def test_names_that_no_registry_takes(push, target, tags, said):
    assert said in refusal(push, target, *tags)


def test_a_host_that_is_not_there(push):
    assert "no host nowhere.invalid is known" in refusal(push, "nowhere.invalid/a")


def test_a_registry_that_does_not_run(push, free_port):
    said = refusal(push, f"127.0.0.1:{free_port}/a")
    assert f"nothing answers at 127.0.0.1:{free_port} (Connection refused)" in said


def test_what_is_no_registry(push, registry, faults):
    faults.fault = lambda request: {"status": 404}
    assert "is no registry: it answers GET /v2/ with 404" in refusal(
        push, f"{faults.host}/a"
    )


def test_a_damaged_archive_is_told_before_anything_is_sent(registry, faults, push):
    data = bytearray(push.archive.read_bytes())
    data[len(data) // 2] ^= 1
    push.archive.write_bytes(data)
    said = refusal(push, f"{faults.host}/sample")
    assert "does not have the digest of its name" in said
    assert not faults.requests


def test_a_missing_archive(push, registry):
    push.archive.unlink()
    assert "cannot read" in refusal(push, f"{registry.host}/sample")


def test_an_archive_of_two_images(push, registry, tmp_path):
    files = {}
    for seed in "ab":
        with tarfile.open(registries.layout(tmp_path / seed, seed=seed)) as tar:
            for member in tar:
                content = tar.extractfile(member).read()
                if member.name == "index.json" and member.name in files:
                    both = json.loads(files[member.name])
                    both["manifests"] += json.loads(content)["manifests"]
                    content = json.dumps(both).encode()
                files[member.name] = content
    members = [(tarfile.TarInfo(name), data) for name, data in files.items()]
    push.archive.write_bytes(pack(*members))
    assert "has 2 images" in refusal(push, f"{registry.host}/sample")


def test_an_archive_that_changes_during_the_push(registry, faults, push):
    """In place, so that the open file changes."""
    changed = threading.Event()

    def change(request):
        if request.is_("POST") and not changed.is_set():
            changed.set()
            with push.archive.open("r+b") as file:
                file.seek(push.archive.stat().st_size // 2)
                file.write(b"changed in the middle of it")

    faults.fault = change
    said = refusal(push, f"{faults.host}/sample")
    assert "image.tar changed during the push" in said
    assert not registry.tag("sample", "latest")


@pytest.mark.parametrize("times", [1, 3])
def test_a_connection_cut_in_a_blob_goes_on_where_it_was(registry, push, times):
    at = 900_000
    with registries.serving(registries.Resuming(registry.port)) as faults:
        big = once(lambda r: r.is_("PATCH") and r.size > SMALL, {"cut": at}, times)
        faults.fault = big
        done = push(f"{faults.host}/sample")
    starts = [r.headers["content-range"].split("-")[0] for r in faults.requests
              if "content-range" in r.headers]  # fmt: skip
    assert starts == [str(at * number) for number in range(1, times + 1)]
    assert push.progress.size == done.sent
    assert fetched(registry.host, "sample", done.reference.digest)


def test_a_connection_that_always_breaks_off_where_it_was(registry, push):
    with registries.serving(registries.Resuming(registry.port)) as faults:
        faults.fault = lambda r: {"cut": 0} if r.is_("PATCH") else None
        assert "broke off" in refusal(push, f"{faults.host}/sample")
    assert not registry.tag("sample", "latest")


def test_a_registry_that_forgets_an_upload_whose_connection_was_cut(
    registry, faults, push
):
    """As Debian's does: the blob begins anew."""
    faults.fault = once(lambda r: r.is_("PATCH") and r.size > SMALL, {"cut": 900_000})
    done = push(f"{faults.host}/sample")
    assert faults.count("POST") == 4
    assert push.progress.size == done.sent
    assert fetched(registry.host, "sample", done.reference.digest)


@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        ("GET", "/v2/$"),
        ("HEAD", "blobs"),
        ("POST", "uploads"),
        ("PATCH", "uploads"),
        ("PUT", "uploads"),
        ("HEAD", "manifests/sha256"),
        ("PUT", "manifests/sha256"),
        ("PUT", "manifests/latest"),
        ("HEAD", "manifests/latest"),
    ],
)
@pytest.mark.parametrize(
    "how",
    [
        {"status": 503, "headers": {"Retry-After": "0"}},
        {"status": 429},
        {"status": 500},
        {"lost": True},
    ],
    ids=["503", "429", "500", "lost"],
)
def test_what_a_registry_refuses_for_a_moment_is_tried_again(
    registry, faults, pushes, method, pattern, how
):
    push = pushes(size=SMALL)
    faults.fault = once(lambda r: r.is_(method, pattern), how)
    done = push(f"{faults.host}/sample")
    assert registry.tag("sample", "latest") == done.reference.digest
    assert fetched(registry.host, "sample", done.reference.digest)
    assert [line for line in push.progress.notes if "; waiting " in line]


def test_a_registry_that_asks_for_more_patience_than_we_have(registry, faults, push):
    asked = {"status": 429, "headers": {"Retry-After": "7200"}}
    faults.fault = lambda r: asked if r.is_("POST") else None
    assert "try again in 7200 s" in refusal(push, f"{faults.host}/sample")


@pytest.mark.parametrize(
    ("methods", "pattern"),
    [
        ("HEAD", "blobs"),  # as after a push that filled its disk
        ("POST", "uploads"),
        ("PATCH", "uploads"),
        ("PATCH|GET", "uploads"),  # nor does it say what it has got
        ("PUT", "uploads"),
        ("HEAD", "manifests"),
        ("PUT", "manifests"),
    ],
)
def test_a_registry_that_fails_on_and_on_is_given_up(
    registry, faults, push, methods, pattern
):
    failed = {"status": 503, "headers": {"Retry-After": "0"}}
    faults.fault = lambda r: (
        failed if re.fullmatch(methods, r.method) and pattern in r.path else None
    )
    said = refusal(push, f"{faults.host}/sample")
    assert "fails with 503" in said
    assert "see whether its disk is full" in said
    assert not registry.tag("sample", "latest")


def test_a_registry_that_is_only_read_need_have_no_room(faults):
    faults.fault = lambda r: {"status": 503, "headers": {"Retry-After": "0"}}
    repository = Repository.at(reference.parse(f"{faults.host}/sample"))
    with pytest.raises(Problem, match=r"fails with 503: try again$"):
        repository.tags()


@pytest.mark.parametrize("number", range(14))
def test_a_tag_never_points_to_what_is_not_wholly_there(
    registry, faults, pushes, number
):
    """All is over from the nth request on, whichever that is; then it goes on."""
    push = pushes("amd64", "arm64", size=SMALL)
    writing = ("POST", "PATCH", "PUT")
    count = [0]
    lock = threading.Lock()

    def over(request):
        with lock:
            count[0] += request.method in writing
            if count[0] > number * 2:
                return {"cut": 0} if request.size else {"lost": True}
        return None

    faults.fault = over
    digest, blobs, _ = held(push.archive)
    with contextlib.suppress(Problem):  # the last numbers are more than are written
        push(f"{faults.host}/sample")
    pointed = registry.tag("sample", "latest")
    assert pointed in ("", digest)
    if pointed:
        assert blobs.keys() <= fetched(registry.host, "sample", digest).keys()
    faults.fault = lambda request: None
    push(f"{faults.host}/sample")
    assert registry.tag("sample", "latest") == digest
    assert blobs.keys() <= fetched(registry.host, "sample", digest).keys()


def test_a_registry_killed_in_the_middle_of_a_push(registry, faults, pushes):
    push = pushes(size=8_000_000)
    at = 3_000_000
    killed = threading.Event()

    def kill(request):
        if request.is_("PATCH") and request.size > at and not killed.is_set():
            killed.set()
            return {"cut": at, "then": registry.kill}
        return None

    faults.fault = kill
    said = refusal(push, f"{faults.host}/sample")
    assert "broke off" in said
    assert not registry.tag("sample", "latest")
    registry.start()
    done = push(f"{faults.host}/sample")
    assert registry.tag("sample", "latest") == done.reference.digest
    assert fetched(registry.host, "sample", done.reference.digest)


def test_a_registry_started_again_during_a_push(registry, faults, pushes):
    """The same push goes on with what the registry knows then."""
    push = pushes(size=8_000_000)
    at = 3_000_000
    killed = threading.Event()

    def restart(request):
        if request.is_("PATCH") and request.size > at and not killed.is_set():
            killed.set()
            registry.kill()
            registry.start()
            return {"lost": True}
        return None

    faults.fault = restart
    done = push(f"{faults.host}/sample")
    assert registry.tag("sample", "latest") == done.reference.digest


def test_a_process_killed_in_the_middle_of_a_push(registry, faults, push, project):
    reached, over = threading.Event(), threading.Event()

    def slow(request):
        if request.is_("PATCH") and request.size > SMALL:
            reached.set()
            return {"cut": SMALL, "then": over.wait}
        return None

    faults.fault = slow
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", PUSH, project.root, push.archive),
            f"{faults.host}/sample",
        ],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    assert reached.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    over.set()
    assert not registry.tag("sample", "latest")
    faults.fault = lambda request: None
    done = push(f"{faults.host}/sample")
    assert registry.tag("sample", "latest") == done.reference.digest


def test_bytes_that_change_on_the_way_once(registry, faults, push):
    change = {"alter": lambda data: data.translate(bytes(range(255, -1, -1)))}
    faults.fault = once(lambda r: r.is_("PATCH"), change)
    done = push(f"{faults.host}/sample")
    assert fetched(registry.host, "sample", done.reference.digest)


def test_bytes_that_always_change_on_the_way(registry, faults, push):
    change = {"alter": lambda data: data.translate(bytes(range(255, -1, -1)))}
    faults.fault = lambda r: change if r.is_("PATCH") else None
    said = refusal(push, f"{faults.host}/sample")
    assert re.search(
        r"received other bytes than sha256:\w{64}: something changes", said
    )
    assert not registry.tag("sample", "latest")


def test_a_registry_that_names_another_digest(registry, faults, push):
    def other(status, headers, content):
        changed = {"Docker-Content-Digest": f"sha256:{'0' * 64}"}
        return status, {**headers, **changed}, content

    faults.fault = lambda r: {"answer": other} if r.is_("PUT", "manifests") else None
    assert "has other bytes than sha256:" in refusal(push, f"{faults.host}/sample")
    assert not registry.tag("sample", "latest")


def test_a_registry_that_loses_every_upload(registry, faults, push):
    lost = {"status": 404, "content": b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}'}
    faults.fault = lambda r: lost if r.is_("PATCH") else None
    said = refusal(push, f"{faults.host}/sample")
    assert "loses what is sent to it: see whether its disk is full" in said


@pytest.mark.parametrize("location", ["http://[", "https://x:y/z", "ftp://x/y"])
def test_a_registry_that_leads_to_no_url(registry, faults, push, location):
    answer = {"status": 202, "headers": {"Location": location}}
    faults.fault = lambda r: answer if r.is_("POST") else None
    said = refusal(push, f"{faults.host}/sample")
    assert "leads to what is no URL" in said or "without TLS" in said


def test_a_tag_that_someone_else_moves(registry, faults, push, pushes):
    other = pushes(seed="other")(f"{registry.host}/sample", "theirs")
    moved = json.dumps({}).encode()

    def theirs(status, headers, content):
        return (
            status,
            {**headers, "Docker-Content-Digest": other.reference.digest},
            moved,
        )

    count = [0]

    def fault(request):
        if request.is_("HEAD", "manifests/latest"):
            count[0] += 1
            return {"answer": theirs} if count[0] > 1 else None
        return None

    faults.fault = fault
    said = refusal(push, f"{faults.host}/sample")
    assert "someone else pushes to it" in said


def test_a_registry_that_is_read_only(push):
    storage = {"maintenance": {"readonly": {"enabled": True}}}
    with registries.registry(storage=storage) as registry:
        said = refusal(push, f"{registry.host}/sample")
    assert "takes no POST for sample" in said
    assert "read-only" in said


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "DENIED", "denies sample to who writes without credentials, DENIED: no"),
        (404, "NAME_UNKNOWN", "has no sample.*make the repository first"),
        (400, "NAME_INVALID", "answers POST for sample with 400, NAME_INVALID: no"),
        (413, "SIZE_INVALID", "has no room for this in sample"),
        (507, "UNKNOWN", "has no room for this in sample"),
    ],
)
def test_what_a_registry_does_not_take(registry, faults, push, status, code, said):
    content = json.dumps(
        {"errors": [{"code": code, "message": "no\n\x1b[31m"}]}
    ).encode()
    faults.fault = lambda r: (
        {"status": status, "content": content} if r.is_("POST") else None
    )
    assert re.search(said, refusal(push, f"{faults.host}/sample"))


@pytest.mark.parametrize("size", ["16k", "1m"])
def test_a_registry_without_room(push, tmp_path, size):
    """A file system of that size, which only this registry sees.

    Several blobs are under way: which request is the first without room is open, and
    with it how the registry fails.
    """
    made = registries.Registry(tmp_path / "registry")
    (made.root / "data").mkdir()
    mount = f'mount -t tmpfs -o size={size} tmpfs {made.root}/data && exec "$@"'
    made.start(["unshare", "-rm", "sh", "-c", mount, "sh"])
    try:
        said = refusal(push, f"{made.host}/sample")
    finally:
        made.kill()
    assert "see whether its disk is full" in said


def test_ctrl_c_ends_it_though_the_registry_does_not_answer(registry, faults, push):
    reached, over = threading.Event(), threading.Event()

    def stall(request):
        if request.is_("PATCH"):
            reached.set()
            over.wait()
            return {"status": 503}
        return None

    faults.fault = stall
    main = threading.main_thread().ident

    def interrupt():
        reached.wait(60)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        push(f"{faults.host}/sample")
    assert not over.is_set()
    over.set()
    assert not registry.tag("sample", "latest")


def test_progress_is_a_line_for_each_blob_that_is_sent(registry, push):
    push(f"{registry.host}/sample")
    digest, blobs, _ = held(push.archive)
    told = [line.split()[0] for line in push.progress.notes[:-1]]
    assert sorted(told) == sorted(digest[:19] for digest in blobs)
    assert push.progress.totals == [sum(map(len, blobs.values()))]
    assert push.progress.notes[-1] == f"{registry.host}/sample:latest is {digest}"


def test_memory_does_not_grow_with_a_layer(registry, project, tmp_path):
    """A child process, so that only its own peak counts."""
    script = f"{PUSH}{PEAK}"
    peaks = []
    for number, size in enumerate((1_000_000, 200_000_000)):
        made = registries.layout(tmp_path / f"{size}.tar", size=size)
        target = f"{registry.host}/sample{number}"
        done = subprocess.run(
            [sys.executable, "-c", script, project.root, made, target],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        peaks.append(int(done.stdout))
        made.unlink()
    assert peaks[1] - peaks[0] < 40_000  # kB
