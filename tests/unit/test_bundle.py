"""A bundle has all of a commit's inputs, and what is damaged in one gets nowhere."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from containerize.errors import Problem
from containerize.fetch import inputs
from containerize.lock import locks
from containerize.lock.locks import BaseLock, Package, Pin
from containerize.publish import bundle
from containerize.settings import Settings

if TYPE_CHECKING:
    from .conftest import Index, Record, Web

CLOSED = "http://127.0.0.1:1"
SIZE = 3_000_000
"""Bytes of each package: more than are read at a time."""


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x"]
    return subprocess.run(
        ["git", *identity, "-c", "core.autocrlf=false", *arguments],
        cwd=root,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=x")


def package(web: Web, name: str, architecture: str) -> Package:
    data = hashlib.sha512(f"{name}{architecture}".encode()).digest() * (SIZE // 64)
    path = f"pool/main/{name}_1.0_{architecture}.deb"
    (web.root / path).parent.mkdir(parents=True, exist_ok=True)
    (web.root / path).write_bytes(data)
    return Package(name, "1.0", architecture, path, hashlib.sha256(data).hexdigest())


def write_lock(sample: Settings, name: str, source: str, asked: str, body: str) -> None:
    (sample.root / name).write_text(locks._lines(source, asked, body))


@pytest.fixture
def sample(
    sample: Settings, index: Index, debian: Web, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A repository with a commit, whose locks name something of every kind."""
    monkeypatch.setattr(locks, "_HOST_PYTHONS", ("3.13", "3.14"))
    sample = dataclasses.replace(sample, architectures=("amd64", "arm64"))
    (sample.root / "base.in").write_text("hello\n")
    for name in ("requirements.in", "tools.in", "Dockerfile"):
        (sample.root / name).write_text("")
    packages = [package(debian, "one", a) for a in sample.architectures]
    base = BaseLock(sample.suite, 0, tuple(packages))
    write_lock(sample, "base.lock", "base.in", locks._base_inputs(sample), str(base))
    native = [
        (
            machine,
            index.add("native", "1.0", tag=f"cp313-cp313-manylinux_2_17_{machine}"),
        )
        for machine in ("x86_64", "aarch64")
    ]
    pins = [
        Pin("native", "1.0", f'platform_machine == "{machine}"', frozenset({digest}))
        for machine, digest in native
    ]
    pins.append(Pin("pure", "1.0", "", frozenset({index.add("pure", "1.0")})))
    requirements = "".join(map(str, pins))
    asked = locks._image(sample).inputs
    write_lock(sample, "requirements.txt", "requirements.in", asked, requirements)
    tags = [
        f"cp{python}-cp{python}-manylinux_2_28_{machine}"
        for python in (312, 313, 314)
        for machine in ("x86_64", "aarch64", "s390x")
    ]
    every = frozenset(index.add("tool", "1.0", tag=tag) for tag in tags)
    write_tools(sample, Pin("tool", "1.0", "", every))
    (sample.root / "app.py").write_text("app = 1\n")
    (sample.root / ".gitignore").write_text("/dist/\n")
    git(sample.root, "init", "--quiet")
    commit(sample.root)
    return sample


def write_tools(sample: Settings, *pins: Pin) -> None:
    plan = locks._tools(sample)
    assert plan
    write_lock(sample, "tools.txt", "tools.in", plan.inputs, "".join(map(str, pins)))


@pytest.fixture
def filled(sample: Settings, index: Index, debian: Web) -> Settings:
    """The sample with all that is fetched in its cache, as if by an earlier fetch."""
    sample.cache_dir.mkdir()
    found = {}
    for web in (index.web, debian):
        for file in (*web.root.rglob("*.whl"), *web.root.rglob("one_*.deb")):
            found[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.copy(file, sample.cache_dir / found[file.name])
    for choice in inputs.choices(sample):
        python = "".join(choice.target.python.split(".")[:2])
        machine = choice.target.machine
        name = f"tool-1.0-cp{python}-cp{python}-manylinux_2_28_{machine}.whl"
        inputs.write_choice(sample.cache_dir, choice, {name: found[name]})
    return sample


@pytest.fixture
def made(filled: Settings, progress: Record) -> Path:
    """A bundle of the sample."""
    return bundle.write(filled, progress=progress).path


@pytest.fixture
def away(sample: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A clone that has an empty cache, and reaches neither mirror nor index."""
    root = tmp_path / "away" / "clone"
    git(tmp_path, "clone", "--quiet", str(sample.root), str(root))
    monkeypatch.setenv("PIP_INDEX_URL", f"{CLOSED}/simple")
    return dataclasses.replace(
        sample,
        root=root,
        cache=str(tmp_path / "away" / "cache"),
        mirrors=(CLOSED,),
        security_mirrors=(CLOSED,),
    )


def names(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def held(cache: Path) -> set[str]:
    """The cache's files, each of which must have the hash that it is named by."""
    found = {path.name for path in cache.glob("*") if len(path.name) == 64}
    for name in found:
        assert hashlib.sha256((cache / name).read_bytes()).hexdigest() == name
    assert not list(cache.glob("*.part"))
    return found


# Writing


def test_a_bundle_has_every_input_and_the_commit(
    sample: Settings, progress: Record
) -> None:
    done = bundle.write(sample, progress=progress)  # from mirror and index
    wheels = [
        *("native-1.0-cp313-cp313-manylinux_2_17_aarch64.whl",),
        *(
            "native-1.0-cp313-cp313-manylinux_2_17_x86_64.whl",
            "pure-1.0-py3-none-any.whl",
        ),
        *("tool-1.0-cp313-cp313-manylinux_2_28_aarch64.whl",),
        *("tool-1.0-cp313-cp313-manylinux_2_28_x86_64.whl",),
        *("tool-1.0-cp314-cp314-manylinux_2_28_aarch64.whl",),
        *("tool-1.0-cp314-cp314-manylinux_2_28_x86_64.whl",),
    ]
    assert names(done.path) == [
        "bundle.json",
        "packages/one_1.0_amd64.deb",
        "packages/one_1.0_arm64.deb",
        "source.tar",
        *(f"wheels/{name}" for name in wheels),
    ]
    data = done.path.read_bytes()
    assert done.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert done.commit == git(sample.root, "rev-parse", "HEAD")
    assert done.path == sample.root / "dist/sample-bundle.tar"
    assert len(done.items) == len(names(done.path)) - 1


def test_the_same_commit_gives_the_same_bytes(
    sample: Settings, made: Path, tmp_path: Path, progress: Record
) -> None:
    root = tmp_path / "another place" / "clone"
    cache = tmp_path / "another cache"
    old = os.umask(0o077)
    try:
        git(tmp_path, "clone", "--quiet", str(sample.root), str(root))
        for file in root.glob("*.*"):
            os.utime(file, (1, 1))
        other = dataclasses.replace(
            sample, root=root, architecture="arm64", cache=str(cache)
        )
        second = bundle.write(other, tmp_path / "b.tar", progress=progress).path
    finally:
        os.umask(old)
    assert second.read_bytes() == made.read_bytes()
    assert second.stat().st_mode & 0o777 == 0o644


def test_another_commit_gives_another_bundle(
    sample: Settings, made: Path, progress: Record
) -> None:
    before = made.read_bytes()
    (sample.root / "app.py").write_text("app = 2\n")
    commit(sample.root)
    assert bundle.write(sample, progress=progress).path.read_bytes() != before


def test_the_commits_files_are_those_that_git_has(
    filled: Settings, progress: Record, tmp_path: Path
) -> None:
    top = filled.root
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "link").symlink_to("app.py")
    for name in ("ä\n", "x" * 200, "b'\\xff'"):
        (top / name).write_text(name)
    (top / os.fsdecode(b"\xff")).write_bytes(b"\0\xff" * 99)
    (top / "sub").mkdir()
    (top / "sub" / "crlf").write_bytes(b"a\r\n")
    (top / ".gitattributes").write_text("* text=auto\n")
    (top / ".gitignore").write_text("*.kept\n/dist/\n")
    (top / "x.kept").write_text("ignored and committed\n")
    git(top, "add", "--force", "x.kept")
    commit(top)
    # The image has none of these names: the commit has them all the same.
    some = dataclasses.replace(filled, exclude=("*", "!app.py"))
    done = bundle.write(some, progress=progress)
    out = tmp_path / "out"
    with tarfile.open(done.path) as tar:
        tar.extract("source.tar", tmp_path, filter="data")
    out.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "source.tar", "-C", out], check=True)
    git(out, "init", "--quiet")
    git(out, "add", "--all", "--force")
    assert git(out, "write-tree") == git(top, "rev-parse", "HEAD^{tree}")


def test_secrets_are_in_no_bundle_and_ask_for_no_commit(
    filled: Settings, progress: Record, tmp_path: Path
) -> None:
    own = dataclasses.replace(filled, env_file="variables", secrets={"db": "db"})
    for name in ("variables", "db"):
        (own.root / name).write_text("TOKEN=hunter2\n")
    assert bundle.write(own, progress=progress).held_back == ()
    commit(own.root)
    (own.root / "db").write_text("TOKEN=hunter22\n")  # no image changes by that
    done = bundle.write(own, progress=progress)
    assert done.held_back == ("db", "variables")
    with tarfile.open(done.path) as tar:
        tar.extract("source.tar", tmp_path, filter="data")
    assert "app.py" in names(tmp_path / "source.tar")
    assert not {"db", "variables"}.intersection(names(tmp_path / "source.tar"))
    assert b"hunter2" not in done.path.read_bytes()


def test_a_file_that_only_git_takes_for_the_commits_is_told(
    filled: Settings, progress: Record
) -> None:
    """Where there is no git, .gitignore keeps it out of the image."""
    assert bundle.write(filled, progress=progress).ignored == ()
    (filled.root / ".gitignore").write_text("/dist/\n*.css\n")
    (filled.root / "made.css").write_text("")
    git(filled.root, "add", "--force", "made.css")
    commit(filled.root)
    assert bundle.write(filled, progress=progress).ignored == ("made.css",)


def change(sample: Settings) -> None:
    (sample.root / "app.py").write_text("app = 3\n")


def add_file(sample: Settings) -> None:
    (sample.root / "more\n.py").write_text("")


def stage(sample: Settings) -> None:
    add_file(sample)
    git(sample.root, "add", "--all")


def add_submodule(sample: Settings) -> None:
    inner = sample.root / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    (inner / "file").write_text("")
    commit(inner)
    commit(sample.root)


def ignore(sample: Settings) -> None:
    """Have the image pack a file that no commit has."""
    (sample.root / ".gitignore").write_text("*.mo\n/dist/\n")
    commit(sample.root)
    (sample.root / "de.mo").write_text("")


def smudge(sample: Settings) -> None:
    """Have git keep another content of a file, as Git LFS does."""
    git(sample.root, "config", "filter.x.clean", "echo pointer")
    git(sample.root, "config", "filter.x.smudge", "echo content")
    (sample.root / ".gitattributes").write_text("*.py filter=x\n")
    commit(sample.root)
    (sample.root / "app.py").touch()
    git(sample.root, "add", "--all")
    if git(sample.root, "status", "--porcelain"):
        commit(sample.root)


def forget(sample: Settings) -> None:
    shutil.rmtree(sample.root / ".git")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change, "and these are in none: app.py: commit or remove"),
        (add_file, "and these are in none: more\\n.py: commit or remove"),
        (stage, "and these are in none: more\\n.py: commit or remove"),
        (add_submodule, "inner is a submodule, of which a commit holds no files"),
        (ignore, "the image packs what the commit does not have so: de.mo"),
        (smudge, "the image packs what the commit does not have so: app.py"),
        (forget, "has no commit that git reads"),
    ],
)
def test_what_is_not_a_commits_is_refused(
    sample: Settings, progress: Record, spoil: Callable[[Settings], None], said: str
) -> None:
    spoil(sample)
    sample = dataclasses.replace(sample, include=("*.mo",))
    with pytest.raises(Problem) as info:
        bundle.write(sample, progress=progress)
    assert said in str(info.value)
    assert "\n" not in str(info.value)
    assert not (sample.root / "dist").exists()


def test_a_base_image_is_refused(sample: Settings, progress: Record) -> None:
    other = dataclasses.replace(sample, base_image="x@sha256:" + "0" * 64)
    with pytest.raises(Problem, match="no bundle holds a base-image"):
        bundle.write(other, progress=progress)


def test_a_wheel_that_one_processor_lacks_is_named_with_it(
    sample: Settings, index: Index, progress: Record
) -> None:
    page = index.web.root / "simple/native/index.html"
    lines = [line for line in page.read_text().splitlines() if "aarch64" not in line]
    page.write_text("\n".join(lines))
    with pytest.raises(
        Problem, match=r"native==1\.0 \(Python 3\.13 on Linux aarch64\)"
    ):
        bundle.write(sample, progress=progress)


def test_a_tool_that_one_host_lacks_is_named_with_it(
    sample: Settings, index: Index, progress: Record
) -> None:
    page = index.web.root / "simple/tool/index.html"
    lines = [line for line in page.read_text().splitlines() if "cp314" not in line]
    page.write_text("\n".join(lines))
    with pytest.raises(Problem, match=r"tool==1\.0 \(Python 3\.14 on Linux x86_64\)"):
        bundle.write(sample, progress=progress)
    assert not (sample.root / "dist").exists()


def test_a_package_that_one_processor_lacks_is_named(
    sample: Settings, debian: Web, progress: Record
) -> None:
    (debian.root / "pool/main/one_1.0_arm64.deb").unlink()
    with pytest.raises(inputs.Superseded, match=r"one 1\.0 \(arm64\)"):
        bundle.write(sample, progress=progress)


def test_a_lock_without_packages_for_one_processor_is_named(
    sample: Settings, progress: Record
) -> None:
    lock = locks.read_base(sample)
    base = dataclasses.replace(lock, packages=lock.packages[:1])
    write_lock(sample, "base.lock", "base.in", locks._base_inputs(sample), str(base))
    commit(sample.root)
    with pytest.raises(Problem, match=r"base\.lock names no package for arm64"):
        bundle.write(sample, progress=progress)


def test_an_input_that_changes_meanwhile_is_named_and_no_bundle_is_left(
    filled: Settings, progress: Record
) -> None:
    sample = filled
    [package, _] = locks.read_base(sample).packages
    start = progress.start

    def spoil(name: str, total: int | None) -> None:
        if name == "sample-bundle.tar":
            (sample.cache_dir / package.sha256).write_bytes(bytes(SIZE // 64 * 64))
        start(name, total)

    progress.start = spoil  # type: ignore[method-assign]
    with pytest.raises(Problem, match=r"amd64\.deb .*changed while it was read"):
        bundle.write(sample, progress=progress)
    assert not (sample.root / "dist").exists()


@pytest.mark.parametrize("name", ["file/b.tar", "directory"])
def test_a_place_that_cannot_be_written_is_named(
    filled: Settings, progress: Record, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory" / "full").mkdir(parents=True)
    with pytest.raises(Problem, match="cannot write"):
        bundle.write(filled, tmp_path / name, progress=progress)
    assert (tmp_path / "directory" / "full").is_dir()


# Reading


def test_all_is_restored_without_mirror_and_index(
    made: Path, away: Settings, progress: Record
) -> None:
    done = bundle.restore(away, made, progress=progress)
    assert (done.taken, done.held, done.foreign) == (len(names(made)) - 2, 0, 0)
    assert list(done.told()) == [
        f"taken     {len(names(made)) - 2} files; 0 were there"
    ]
    assert len(held(away.cache_dir)) == done.taken
    for architecture in away.architectures:
        found = inputs.collect(away.for_architecture(architecture))
        assert len(found.packages) == 1
        assert len(found.wheels) == 2
    again = bundle.write(away, progress=progress)
    assert again.path.read_bytes() == made.read_bytes()


def test_what_the_cache_has_is_left_alone_and_what_is_corrupt_is_replaced(
    made: Path, away: Settings, progress: Record
) -> None:
    bundle.restore(away, made, progress=progress)
    kept, spoilt, *_ = sorted(held(away.cache_dir))
    before = (away.cache_dir / kept).stat()
    (away.cache_dir / spoilt).write_bytes(b"x")
    done = bundle.restore(away, made, progress=progress)
    assert (done.taken, done.held) == (1, len(names(made)) - 3)
    assert spoilt in held(away.cache_dir)
    after = (away.cache_dir / kept).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_another_commit_is_told_and_what_its_locks_do_not_name_is_left(
    sample: Settings, made: Path, away: Settings, progress: Record
) -> None:
    write_tools(away)
    commit(away.root)
    done = bundle.restore(away, made, progress=progress)
    here = git(away.root, "rev-parse", "HEAD")
    assert list(done.told()) == [
        f"checkout  {here}, another commit: its locks say what is taken",
        "taken     5 files; 0 were there",
        "left      4 files that these locks do not name",
    ]
    assert len(held(away.cache_dir)) == 5


def test_what_other_locks_need_is_named(
    sample: Settings, made: Path, away: Settings, debian: Web, progress: Record
) -> None:
    lock = locks.read_base(away)
    more = (*lock.packages, package(debian, "two", "arm64"))
    body = str(dataclasses.replace(lock, packages=more))
    write_lock(away, "base.lock", "base.in", locks._base_inputs(away), body)
    here = git(sample.root, "rev-parse", "HEAD")[:12]
    assert refused(away, made, progress) == (
        f"sample-bundle.tar lacks two 1.0 (arm64) for arm64: it is of sample at commit "
        f"{here}; check that out, or make a bundle of these locks"
    )
    assert held(away.cache_dir) == set()


def refused(away: Settings, path: Path, progress: Record) -> str:
    with pytest.raises(Problem) as info:
        bundle.restore(away, path, progress=progress)
    assert "\n" not in str(info.value)
    held(away.cache_dir)
    return str(info.value)


Entries = list[tuple[tarfile.TarInfo, bytes]]


def rewrite(path: Path, change: Callable[[Entries], object]) -> None:
    """Change the entries of a bundle."""
    with tarfile.open(path) as tar:
        entries = [
            (info, (tar.extractfile(info) or io.BytesIO()).read()) for info in tar
        ]
    change(entries)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content))


def relist(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the list of a bundle."""

    def with_list(entries: Entries) -> None:
        info, text = entries[0]
        facts = json.loads(text)
        change(facts)
        entries[0] = (info, json.dumps(facts).encode())

    rewrite(path, with_list)


def entry(name: str, content: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


@pytest.mark.parametrize("number", range(1, 11))
def test_a_wrong_byte_is_told_by_the_name_of_the_file_it_is_in(
    made: Path, away: Settings, progress: Record, number: int
) -> None:
    name = names(made)[number]

    def spoil(entries: Entries) -> None:
        info, content = entries[number]
        data = bytearray(content)
        data[len(data) // 2] ^= 1
        entries[number] = info, bytes(data)

    rewrite(made, spoil)
    said = refused(away, made, progress)
    assert said.startswith(f"sample-bundle.tar: {name} ")
    assert "is damaged: expected SHA-256 " in said


@pytest.mark.parametrize("number", range(1, 11))
def test_a_missing_file_is_named(
    made: Path, away: Settings, progress: Record, number: int
) -> None:
    name = names(made)[number]
    rewrite(made, lambda entries: entries.pop(number))
    assert refused(away, made, progress).startswith(f"sample-bundle.tar lacks {name}")


@pytest.mark.parametrize("fraction", [0.1, 0.4, 0.9])
def test_a_truncated_bundle_names_the_file_in_which_it_ends(
    made: Path, away: Settings, progress: Record, fraction: float
) -> None:
    size = int(made.stat().st_size * fraction)
    with tarfile.open(made) as tar:
        [name] = [
            info.name
            for info in tar
            if info.offset <= size < info.offset_data + -(-info.size // 512) * 512
        ] or [""]
    os.truncate(made, size)
    said = refused(away, made, progress)
    assert name in said
    assert "the tar ends before" in said or "is truncated" in said


def link_the_list(entries: Entries) -> None:
    info, _ = entries[0]
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"


def longer(facts: dict[str, Any]) -> None:
    facts["items"][0]["size"] += 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda path: rewrite(path, lambda entries: entries.append(entries[1])),
            "/packages/one_1.0_amd64.deb comes twice",
        ),
        (
            lambda path: rewrite(path, lambda e: e.append(entry("more", b"x"))),
            "more is not in its list",
        ),
        (
            lambda path: rewrite(path, lambda e: e.append(entry("../../escaped"))),
            "/../../escaped leaves the tree by '..'",
        ),
        (lambda path: rewrite(path, lambda entries: entries.pop(0)), "is no bundle"),
        (lambda path: path.write_bytes(bytes(10240)), "is no bundle"),
        (lambda path: path.write_bytes(b"PK\3\4" * 1000), "is no bundle"),
        (lambda path: path.write_bytes(b""), "is no bundle"),
        (lambda path: path.write_bytes(b"bundle.json\0"), "is truncated"),
        (lambda path: rewrite(path, link_the_list), "bundle.json is damaged"),
        (lambda path: path.unlink(), "cannot read .*: No such file"),
        (
            lambda path: (path.unlink(), path.mkdir()),
            "is no file, as a bundle must be",
        ),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is no file, as a bundle"),
        (
            lambda path: relist(path, lambda facts: facts.update(format=2)),
            "of format 2, and this version of the tool reads up to 1",
        ),
        (
            lambda path: relist(path, lambda facts: facts.update(format="x")),
            "bundle.json is damaged",
        ),
        (
            lambda path: relist(path, lambda facts: facts.pop("items")),
            "bundle.json is damaged",
        ),
        (
            lambda path: relist(path, lambda facts: facts.update(choices=1)),
            "bundle.json is damaged",
        ),
        (
            lambda path: relist(path, lambda facts: facts["items"][0].pop("sha256")),
            "bundle.json is damaged",
        ),
        (
            lambda path: rewrite(path, lambda e: e.__setitem__(0, (e[0][0], b"[" * 9))),
            "bundle.json is damaged",
        ),
        (
            lambda path: rewrite(
                path, lambda e: e.__setitem__(0, (e[0][0], e[0][1] + b" " * (4 << 20)))
            ),
            "bundle.json is larger than 4194304 bytes",
        ),
        (lambda path: relist(path, longer), "one_1.0_amd64.deb .* has .* bytes, not"),
    ],
)
def test_what_is_no_whole_bundle_is_refused(
    made: Path,
    away: Settings,
    progress: Record,
    spoil: Callable[[Path], object],
    said: str,
) -> None:
    spoil(made)
    found = refused(away, made, progress)
    assert all(part in found for part in said.split(".*"))
    assert not list(made.parent.parent.parent.rglob("escaped"))


def test_a_link_in_place_of_a_file_is_refused(
    made: Path, away: Settings, progress: Record
) -> None:
    def spoil(entries: Entries) -> None:
        info = tarfile.TarInfo("packages/one_1.0_amd64.deb")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        entries[1] = info, b""

    rewrite(made, spoil)
    assert "one_1.0_amd64.deb is not in its list" in refused(away, made, progress)


def test_a_list_that_lies_gets_nothing_into_the_cache(
    made: Path, away: Settings, progress: Record
) -> None:
    """A file of another hash, under a name that leads out of the cache."""
    evil = "../../evil"

    def lie(facts: dict[str, Any]) -> None:
        facts["items"].append(
            {"name": "wheels/x", "sha256": evil, "size": 1, "label": "\x1b[2J"}
        )
        for wheels in facts["choices"].values():
            wheels["../../tool-1.0-py3-none-any.whl"] = evil

    relist(made, lie)
    rewrite(made, lambda entries: entries.append(entry("wheels/x", b"x")))
    said = refused(away, made, progress)
    assert r"wheels/x (\x1b[2J) is damaged: expected SHA-256 ../../evil" in said
    assert not list(away.root.parent.parent.rglob("evil*"))


def test_tools_that_no_lock_names_are_not_remembered(
    made: Path, away: Settings, progress: Record
) -> None:
    def lie(facts: dict[str, Any]) -> None:
        for wheels in facts["choices"].values():
            wheels.update(dict.fromkeys(wheels, "0" * 64))

    relist(made, lie)
    bundle.restore(away, made, progress=progress)
    assert not list(away.cache_dir.glob("choice-*"))


def test_a_place_that_takes_no_bundle_is_told_before_anything_is_fetched(
    sample: Settings, progress: Record
) -> None:
    with pytest.raises(Problem, match="cannot write to /proc: "):
        bundle.write(sample, Path("/proc/bundle.tar"), progress=progress)
    assert not sample.cache_dir.exists()


def test_a_full_disk_is_told_and_leaves_nothing_half_made(
    made: Path, away: Settings
) -> None:
    program = (
        "import pickle, sys\n"
        "from tests.conftest import Quiet\n"
        "from containerize.lock import locks\n"
        "from containerize.publish import bundle\n"
        "locks._HOST_PYTHONS = ('3.13', '3.14')\n"
        "settings, path = pickle.load(sys.stdin.buffer)\n"
        "try: bundle.restore(settings, path, progress=Quiet())\n"
        "except Exception as error: sys.exit(str(error))\n"
    )
    import pickle

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, SIZE // 2))

    done = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps((away, made)),
        preexec_fn=limit,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode().strip()
    assert done.returncode == 1, said
    assert "the input cache " in said
    assert "cannot be written (File too large)" in said
    assert "\n" not in said
    assert held(away.cache_dir) == set()
