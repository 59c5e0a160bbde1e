"""Inputs come from real servers on the loopback, and nothing spoils the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import re
import resource
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from containerize import settings
from containerize.errors import Problem
from containerize.fetch import inputs, mirrors
from containerize.image import record
from containerize.lock import locks
from containerize.lock.locks import BaseLock, Package, Pin
from containerize.settings import Settings
from tests.conftest import PATIENCE, until

if TYPE_CHECKING:
    from .conftest import Index, Record, Web

ROOT = settings.find_root(Path(__file__).parent)
SIZE = 300_000
CLOSED = "http://127.0.0.1:1"


@pytest.fixture
def sample(sample: Settings, index: Index) -> Settings:
    """The sample project with empty locks."""
    for name in ("requirements.in", "tools.in"):
        (sample.root / name).write_text("")
    (sample.root / "base.in").write_text("hello\n")
    write_locks(sample)
    return sample


def write_locks(
    sample: Settings, packages: tuple[Package, ...] = (), pins: tuple[Pin, ...] = ()
) -> None:
    base = str(BaseLock(sample.suite, 0, packages))
    requirements = "".join(map(str, pins))
    for name, source, made_from, body in (
        (locks.BASE, "base.in", locks._base_inputs(sample), base),
        (
            "requirements.txt",
            "requirements.in",
            locks._image(sample).inputs,
            requirements,
        ),
    ):
        (sample.root / name).write_text(locks._lines(source, made_from, body))


def publish(web: Web, name: str = "big", area: str = "main") -> Package:
    """A package on the mirror, and its line for base.lock."""
    data = hashlib.sha512(name.encode()).digest() * (SIZE // 64)
    path = f"pool/{area}/{name}_1.0_amd64.deb"
    file = web.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return Package(name, "1.0", "amd64", path, hashlib.sha256(data).hexdigest())


@pytest.fixture
def big(sample: Settings, debian: Web) -> Package:
    """A package that base.lock names, alone."""
    package = publish(debian)
    write_locks(sample, (package,))
    return package


def good(cache: Path) -> list[str]:
    """The names of the cache's files, each of which must have the hash it says."""
    names = [path.name for path in cache.glob("*") if len(path.name) == 64]
    for name in names:
        assert hashlib.sha256((cache / name).read_bytes()).hexdigest() == name
    return sorted(names)


def refused(sample: Settings, progress: Record) -> str:
    with pytest.raises(Problem) as info:
        inputs.fetch(sample, progress=progress)
    assert "\n" not in str(info.value)
    good(sample.cache_dir)
    return str(info.value)


# Packages


def test_each_file_gets_its_hash_as_its_name(
    sample: Settings, debian: Web, progress: Record
) -> None:
    packages = (publish(debian, "one"), publish(debian, "two", "updates/main"))
    other = dataclasses.replace(packages[0], architecture="arm64", sha256="0" * 64)
    write_locks(sample, (*packages, other))
    found = inputs.fetch(sample, progress=progress)
    assert [package for package, _ in found.packages] == list(packages)
    for package, path in found.packages:
        assert path == sample.cache_dir / package.sha256
    assert good(sample.cache_dir) == sorted(package.sha256 for package in packages)
    assert not list(sample.cache_dir.glob("*.part"))


def test_progress_is_told_names_and_sizes(
    sample: Settings, debian: Web, progress: Record
) -> None:
    write_locks(sample, (publish(debian, "one"), publish(debian, "two")))
    inputs.fetch(sample, progress=progress)
    assert progress.started == ["one 1.0 (amd64)", "two 1.0 (amd64)"]
    size = (debian.root / "pool/main/one_1.0_amd64.deb").stat().st_size
    assert progress.totals == [size, size]
    assert progress.size == 2 * size
    assert progress.ended == 2
    assert not progress.notes


def test_a_second_fetch_asks_nobody(
    sample: Settings, big: Package, debian: Web, progress: Record
) -> None:
    first = inputs.fetch(sample, progress=progress)
    debian.requests.clear()
    away = dataclasses.replace(sample, mirrors=(CLOSED,), security_mirrors=(CLOSED,))
    assert inputs.fetch(away, progress=progress) == first
    assert inputs.fetch(away, progress=progress, offline=True) == first
    assert inputs.collect(away) == first
    assert debian.requests == []
    assert len(progress.started) == 1


def test_offline_nothing_is_asked_for_and_what_is_missing_is_named(
    sample: Settings, big: Package, debian: Web, progress: Record
) -> None:
    with pytest.raises(
        Problem, match=r"^the input cache lacks big 1\.0 \(amd64\): run `invoke fetch`$"
    ):
        inputs.fetch(sample, progress=progress, offline=True)
    assert debian.requests == []
    assert not sample.cache_dir.exists()


def test_a_wrong_byte_is_named_and_kept_out(
    sample: Settings, big: Package, debian: Web, progress: Record
) -> None:
    file = debian.root / big.path
    data = bytearray(file.read_bytes())
    data[SIZE // 2] ^= 1
    file.write_bytes(data)
    found = hashlib.sha256(data).hexdigest()
    assert refused(sample, progress) == (
        f"big 1.0 (amd64) cannot be fetched: {debian.url}/{big.path}: "
        f"expected SHA-256 {big.sha256}, found {found}"
    )
    assert good(sample.cache_dir) == []


def test_a_download_that_breaks_off_is_begun_again(
    sample: Settings, big: Package, debian: Web, progress: Record
) -> None:
    debian.breaks[f"/{big.path}"] = [100_000, 50_000]
    inputs.fetch(sample, progress=progress)
    assert len(debian.requests) == 3
    assert good(sample.cache_dir) == [big.sha256]


def test_a_download_that_keeps_breaking_off_is_a_problem_until_it_does_not(
    sample: Settings, big: Package, debian: Web, progress: Record
) -> None:
    debian.breaks[f"/{big.path}"] = [1000, 1000, 1000]
    assert re.search(
        r"big .* cannot be fetched: .*it ended after 1000 of \d+ bytes",
        refused(sample, progress),
    )
    assert good(sample.cache_dir) == []
    inputs.fetch(sample, progress=progress)
    assert good(sample.cache_dir) == [big.sha256]


@pytest.mark.parametrize("length", [10, SIZE, 2 * SIZE])
def test_what_an_earlier_download_left_is_thrown_away(
    sample: Settings, big: Package, progress: Record, length: int
) -> None:
    sample.cache_dir.mkdir()
    (sample.cache_dir / f"{big.sha256}.part").write_bytes(b"x" * length)
    inputs.fetch(sample, progress=progress)
    assert good(sample.cache_dir) == [big.sha256]


# Mirrors


@pytest.mark.parametrize("fault", ["closed", "missing", "error", "wrong"])
def test_the_next_mirror_serves_what_the_first_does_not(
    sample: Settings,
    big: Package,
    debian: Web,
    serve: Callable[[str], Web],
    progress: Record,
    fault: str,
) -> None:
    first = serve("first")
    url = first.url
    if fault == "closed":
        url = CLOSED
    elif fault != "missing":
        assert publish(first) == big
        if fault == "error":
            first.status[f"/{big.path}"] = 503
        else:
            (first.root / big.path).write_text("<html>Please log in</html>")
    both = dataclasses.replace(sample, mirrors=(f"{url}/", debian.url))
    inputs.fetch(both, progress=progress)
    assert good(sample.cache_dir) == [big.sha256]
    assert debian.paths() == [f"/{big.path}"]


class _Garbage(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(b"220 this is no HTTP\r\n")


@pytest.fixture
def garbage() -> Iterator[str]:
    """The URL of a server that speaks no HTTP."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Garbage) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_server_that_speaks_no_http_is_named(
    sample: Settings, big: Package, progress: Record, garbage: str
) -> None:
    other = dataclasses.replace(sample, mirrors=(garbage,))
    assert "BadStatusLine: 220 this is no HTTP" in refused(other, progress)
    asked = mirrors.presence(other, [big.path])
    assert (asked.gone, "220 this is no HTTP" in asked.unknown) == ((), True)


def test_no_password_of_a_mirror_is_shown(
    sample: Settings, big: Package, progress: Record
) -> None:
    named = ("http://somebody:geheim@127.0.0.1:1",)
    other = dataclasses.replace(sample, mirrors=named)
    assert "http://****@127.0.0.1:1/pool/" in refused(other, progress)
    assert "geheim" not in mirrors.presence(other, [big.path]).unknown


def test_a_mirror_that_falls_silent_is_left_for_the_next(
    sample: Settings,
    big: Package,
    debian: Web,
    serve: Callable[[str], Web],
    progress: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirrors, "TIMEOUT", 0.2)
    silent = serve("silent")
    publish(silent)
    silent.stalls.set()
    both = dataclasses.replace(sample, mirrors=(silent.url, debian.url))
    inputs.fetch(both, progress=progress)
    assert good(sample.cache_dir) == [big.sha256]
    assert debian.paths() == [f"/{big.path}"]


def test_a_mirror_may_be_a_directory(
    sample: Settings, big: Package, debian: Web, progress: Record
) -> None:
    local = dataclasses.replace(sample, mirrors=(debian.root.as_uri(),))
    inputs.fetch(local, progress=progress)
    assert good(sample.cache_dir) == [big.sha256]
    assert debian.requests == []


def test_an_unreachable_mirror_is_named(
    sample: Settings, big: Package, progress: Record
) -> None:
    away = dataclasses.replace(sample, mirrors=(CLOSED,))
    assert re.search(
        rf"^big 1\.0 \(amd64\) cannot be fetched: {CLOSED}/pool/.*refused",
        refused(away, progress),
    )


@pytest.mark.parametrize(
    "url", ["a.test/x", "ftp://a.test/", "/srv/x", "http://[::1", "http://a.test:port"]
)
def test_a_mirror_that_is_no_url_is_named(
    sample: Settings, big: Package, progress: Record, url: str
) -> None:
    wrong = dataclasses.replace(sample, mirrors=(url,))
    assert refused(wrong, progress) == (
        f"mirrors: {url!r} is no mirror's URL: use one like http://HOST/debian"
    )


def test_a_mirror_with_a_space_in_its_url_is_named(
    sample: Settings, big: Package, progress: Record
) -> None:
    spaced = dataclasses.replace(sample, mirrors=("http://127.0.0.1:1/a b",))
    assert "http://127.0.0.1:1/a b/pool" in refused(spaced, progress)


def test_dropped_packages_are_named_with_both_ways_out(
    sample: Settings, debian: Web, serve: Callable[[str], Web], progress: Record
) -> None:
    kept, old, security = (
        publish(debian, "kept"),
        publish(debian, "old"),
        publish(debian, "fix", "updates/main"),
    )
    write_locks(sample, (kept, old, security))
    for package in (old, security):
        (debian.root / package.path).unlink()
    several = dataclasses.replace(sample, mirrors=(serve("empty").url, debian.url))
    with pytest.raises(inputs.Superseded) as info:
        inputs.fetch(several, progress=progress)
    assert info.value.packages == (old, security)
    assert str(info.value) == (
        "the Debian mirrors no longer have old 1.0 (amd64), fix 1.0 (amd64): run "
        "`invoke lock` to take what came after, or set CONTAINERIZE_MIRRORS and "
        "CONTAINERIZE_SECURITY_MIRRORS to Debian's snapshot archive of the day on "
        "which base.lock was committed"
    )
    assert good(sample.cache_dir) == [kept.sha256]


def test_a_mirror_that_cannot_be_asked_drops_nothing(
    sample: Settings, big: Package, serve: Callable[[str], Web], progress: Record
) -> None:
    unsure = dataclasses.replace(sample, mirrors=(serve("empty").url, CLOSED))
    assert "refused" in refused(unsure, progress)


# The cache


def test_a_corrupt_file_is_named_by_collect_and_replaced_by_fetch(
    sample: Settings, big: Package, progress: Record
) -> None:
    before = inputs.fetch(sample, progress=progress)
    path = sample.cache_dir / big.sha256
    path.write_bytes(path.read_bytes()[:-1])
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    said = (
        "big 1.0 (amd64) in the input cache is corrupt: "
        f"expected SHA-256 {big.sha256}, found {found}; "
    )
    with pytest.raises(Problem) as info:
        inputs.collect(sample)
    assert str(info.value) == f"{said}run `invoke fetch`, which replaces it"
    assert path.exists()
    assert inputs.fetch(sample, progress=progress) == before
    assert progress.notes == [f"{said}fetching it again"]
    assert inputs.collect(sample) == before


@pytest.mark.parametrize("what", ["the cache", "a file in it", "a file, closed"])
def test_a_cache_that_cannot_be_read_is_named(
    sample: Settings, big: Package, progress: Record, what: str
) -> None:
    path = sample.cache_dir / big.sha256
    if what == "the cache":
        path = sample.cache_dir
        path.write_text("a file")
    elif what == "a file in it":
        path.mkdir(parents=True)
    else:
        sample.cache_dir.mkdir()
        path.touch(0)
    for call in ("fetch", "collect"):
        status, said = end(begin(sample, call))
        assert status == 1
        assert said.startswith("the input cache cannot be read: ")
        assert str(path) in said
        assert "\n" not in said


def test_a_cache_that_cannot_be_written_is_named(
    sample: Settings, big: Package
) -> None:
    sample.cache_dir.mkdir(mode=0o555)
    status, said = end(begin(sample, "fetch"))
    assert (status, said) == (
        1,
        f"the input cache {sample.cache_dir} cannot be written (Permission denied): "
        "mend that, or set CONTAINERIZE_CACHE to another directory",
    )


PROGRAM = """
import os, pickle, sys
from containerize.fetch import inputs
from containerize.errors import Problem
from tests.conftest import Quiet

Quiet.note = lambda self, text: print(text, flush=True)

sample, call = pickle.loads(bytes.fromhex(os.environ["SAMPLE"]))
try:
    if call == "fetch":
        inputs.fetch(sample, progress=Quiet())
    else:
        inputs.collect(sample)
except Problem as problem:
    sys.exit(str(problem))
"""


def begin(
    sample: Settings, call: str, *, file_size: int = resource.RLIM_INFINITY
) -> subprocess.Popen[str]:
    """`inputs.fetch` or `collect` in a process of its own, to which modes apply."""
    # What makes root root where files are concerned.
    bounded = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
    environment = {"SAMPLE": pickle.dumps((sample, call)).hex()}
    process = subprocess.Popen(
        [*(bounded if os.geteuid() == 0 else ()), sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_size, file_size))
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it wrote to stderr."""
    _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said.strip()


def test_what_could_not_be_written_is_had_by_the_next_call(
    sample: Settings, big: Package, debian: Web, progress: Record
) -> None:
    status, said = end(begin(sample, "fetch", file_size=SIZE // 2))
    assert (status, said) == (
        1,
        f"the input cache {sample.cache_dir} cannot be written (File too large): "
        "mend that, or set CONTAINERIZE_CACHE to another directory",
    )
    assert good(sample.cache_dir) == []
    inputs.fetch(sample, progress=progress)
    assert good(sample.cache_dir) == [big.sha256]


def test_a_full_disk_is_named(sample: Settings, big: Package, progress: Record) -> None:
    part = sample.cache_dir / f"{big.sha256}.part"
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    assert refused(sample, progress) == (
        f"the input cache {sample.cache_dir} cannot be written (No space left on "
        "device): free some space, or set CONTAINERIZE_CACHE to another directory"
    )
    assert good(sample.cache_dir) == []
    part.unlink()
    inputs.fetch(sample, progress=progress)
    assert good(sample.cache_dir) == [big.sha256]


def test_a_kill_leaves_nothing_wrong_and_the_next_call_goes_on(
    sample: Settings, debian: Web, progress: Record
) -> None:
    one, two = publish(debian, "one"), publish(debian, "two")
    write_locks(sample, (one, two))
    debian.stalls.set()
    process = begin(sample, "fetch")
    part = sample.cache_dir / f"{one.sha256}.part"
    until(lambda: part.exists() and part.stat().st_size > 0)
    process.kill()
    assert end(process)[0] == -signal.SIGKILL
    assert good(sample.cache_dir) == []
    debian.stalls.clear()
    debian.requests.clear()
    inputs.fetch(sample, progress=progress)
    assert debian.paths() == [f"/{one.path}", f"/{two.path}"]
    assert good(sample.cache_dir) == sorted((one.sha256, two.sha256))


def test_two_fetches_into_one_cache_take_turns(
    sample: Settings, big: Package, debian: Web, progress: Record
) -> None:
    debian.stalls.set()
    first = begin(sample, "fetch")
    until(lambda: bool(debian.requests))
    second = begin(sample, "fetch")
    assert second.stdout
    assert second.stdout.readline() == (
        "waiting for another fetch into the same cache\n"
    )
    debian.stalls.clear()
    assert [end(first), end(second)] == [(0, ""), (0, "")]
    # The first's, which stalled, and its next: the second found it done.
    assert debian.paths() == [f"/{big.path}"] * 2
    assert good(sample.cache_dir) == [big.sha256]


# Wheels


def pin(index: Index, name: str, **options: str) -> Pin:
    """A project on the index, and its pin."""
    digest = index.add(name, "1.0", **options)
    return Pin(name, "1.0", "", frozenset({digest}))


def test_wheels_are_those_of_the_image(
    sample: Settings, index: Index, progress: Record
) -> None:
    sample = dataclasses.replace(sample, python="3.20")  # no host's
    pins = [pin(index, "pure")]
    for python, machine in (("320", "x86_64"), ("320", "aarch64"), ("313", "x86_64")):
        tag = f"cp{python}-cp{python}-manylinux_2_17_{machine}"
        marker = f'python_version == "3.20" and platform_machine == "{machine}"'
        native = dataclasses.replace(pin(index, "native", tag=tag), marker=marker)
        pins += [native] if python == "320" else []
    index.add("native", "1.0")
    write_locks(sample, pins=tuple(pins))
    found = inputs.fetch(sample, progress=progress)
    wheels = {wheel.name: wheel.sha256 for wheel in found.wheels}
    assert wheels == {
        "pure-1.0-py3-none-any.whl": min(pins[0].hashes),
        "native-1.0-cp320-cp320-manylinux_2_17_x86_64.whl": min(pins[1].hashes),
    }
    assert good(sample.cache_dir) == sorted(wheels.values())
    assert progress.started == ["pure 1.0, native 1.0"]
    assert progress.size == sum(w.path.stat().st_size for w in found.wheels)
    index.web.requests.clear()
    assert inputs.fetch(sample, progress=progress) == found
    assert index.web.requests == []
    assert sorted(path.name for path in sample.cache_dir.iterdir()) == sorted(
        [".lock", *wheels.values()]
    )


def test_a_wheel_of_the_index_that_is_not_the_locked_one_is_named(
    sample: Settings, index: Index, progress: Record
) -> None:
    right, locked = pin(index, "right"), pin(index, "changed")
    found = index.add("changed", "1.0", content="other")
    write_locks(sample, pins=(right, locked))
    assert refused(sample, progress) == (
        "changed 1.0 on the package index is not what was locked: "
        f"expected SHA-256 {min(locked.hashes)}, found {found}"
    )
    assert found not in good(sample.cache_dir)


def test_a_wheel_with_a_wrong_byte_is_named(
    sample: Settings, index: Index, progress: Record
) -> None:
    locked = pin(index, "app")
    file = index.web.root / "simple/app/app-1.0-py3-none-any.whl"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    write_locks(sample, pins=(locked,))
    said = refused(sample, progress)
    assert min(locked.hashes) in said
    assert found in said
    assert "app" in said
    assert good(sample.cache_dir) == []


def test_a_wheel_that_breaks_off_is_named(
    sample: Settings, index: Index, progress: Record
) -> None:
    write_locks(sample, pins=(pin(index, "app"),))
    index.web.breaks["/simple/app/app-1.0-py3-none-any.whl"] = [10] * 20
    assert re.search(
        r"not enough bytes were received .*/app-1\.0-py3-none-any\.whl",
        refused(sample, progress),
    )
    assert good(sample.cache_dir) == []
    index.web.breaks.clear()
    assert inputs.fetch(sample, progress=progress)


def test_a_wheel_that_the_index_lacks_is_named(
    sample: Settings, index: Index, progress: Record
) -> None:
    locked = pin(index, "app")
    write_locks(sample, pins=(locked,))
    shutil.rmtree(index.web.root / "simple/app")
    assert "app==1.0" in refused(sample, progress)


def test_an_unreachable_index_is_named(
    sample: Settings,
    index: Index,
    progress: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_locks(sample, pins=(pin(index, "app"),))
    monkeypatch.setenv("PIP_INDEX_URL", f"{CLOSED}/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    assert re.search("index cannot be reached: .*refused", refused(sample, progress))


def test_no_room_for_a_wheel_is_named(
    sample: Settings, index: Index, progress: Record
) -> None:
    write_locks(sample, pins=(pin(index, "app"),))
    status, said = end(begin(sample, "fetch", file_size=500))
    assert status == 1
    assert "File too large" in said
    assert "\n" not in said
    assert good(sample.cache_dir) == []


def test_what_is_no_wheel_is_named(sample: Settings, progress: Record) -> None:
    data = b"no zip archive"
    digest = hashlib.sha256(data).hexdigest()
    sample.cache_dir.mkdir()
    (sample.cache_dir / digest).write_bytes(data)
    write_locks(sample, pins=(Pin("app", "1.0", "", frozenset({digest})),))
    assert re.search(r"^app 1\.0 is no wheel: ", refused(sample, progress))


def test_a_kill_in_the_middle_of_wheels_leaves_nothing_wrong(
    sample: Settings, index: Index, progress: Record
) -> None:
    locked = pin(index, "app")
    write_locks(sample, pins=(locked,))
    index.web.stalls.set()
    process = begin(sample, "fetch")
    until(lambda: bool(index.web.requests))
    process.kill()
    end_of = process.wait(PATIENCE)
    assert end_of == -signal.SIGKILL
    assert good(sample.cache_dir) == []
    index.web.stalls.clear()
    inputs.fetch(sample, progress=progress)
    assert good(sample.cache_dir) == sorted(locked.hashes)


# Locks


@pytest.mark.parametrize("name", ["base.lock", "requirements.txt"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("missing", r"{name} is missing: run `invoke lock`"),
        ("edited", r"{name} was edited by hand: say in \w+\.in .* `invoke lock`"),
        ("stale", r"{name} is out of step with \w+\.in .*: run `invoke lock`"),
    ],
)
def test_without_a_lock_in_step_nothing_is_fetched(
    sample: Settings,
    big: Package,
    debian: Web,
    progress: Record,
    name: str,
    fault: str,
    expected: str,
) -> None:
    file = sample.root / name
    if fault == "missing":
        file.unlink()
    elif fault == "edited":
        file.write_text(file.read_text() + "# more\n")
    else:
        with file.with_name(re.sub(r"\..*", ".in", name)).open("a") as source:
            source.write("more\n")
    said = refused(sample, progress)
    assert re.fullmatch(expected.format(name=name), said)
    with pytest.raises(Problem, match=re.escape(said)):
        inputs.collect(sample)
    assert debian.requests == []


def test_with_a_base_image_no_packages_are_fetched(
    sample: Settings, big: Package, debian: Web, progress: Record
) -> None:
    other = dataclasses.replace(sample, base_image="x@sha256:" + "0" * 64)
    found = inputs.fetch(other, progress=progress)
    assert found == inputs.Inputs((), (), locks.read_base(other))
    assert debian.requests == []


def test_a_base_image_needs_no_base_lock(sample: Settings) -> None:
    other = dataclasses.replace(sample, base_image="x@sha256:" + "0" * 64)
    (sample.root / locks.BASE).unlink(missing_ok=True)
    assert locks.read_base(other).packages == ()
    assert locks.BASE not in record.locks(other)
    assert not [line for line in locks.check(other) if locks.BASE in line]
    with pytest.raises(Problem, match=r"base\.lock is missing"):
        locks.read_base(sample)
