"""Several processors: settings, base images and what is refused before a build."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from containerize import build, settings
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.fetch import bases, inputs
from containerize.image import record
from containerize.lock import locks
from containerize.lock.base import Package
from containerize.settings import Settings
from tests.conftest import Quiet

ROOT = settings.find_root(Path(__file__).parent)

DIGESTS = {name: f"x.test/base@sha256:{n * 64}" for name, n in (("amd64", "1"),)}
ARM = f"x.test/base@sha256:{'2' * 64}"


def loaded(tmp_path, lines):
    table = f'[tool.containerize]\nimage = "demo"\n{lines}\n'
    (tmp_path / "pyproject.toml").write_text(table)
    return settings.load(tmp_path, {})


@pytest.fixture
def machine(monkeypatch):
    """This machine has an amd64 processor."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def test_what_is_packed_for_another_processor_has_its_own_place(machine, tmp_path):
    own = Settings(root=tmp_path, image="x", architectures=("arm64", "amd64"))
    assert own.build_dir == own.build_top == tmp_path / "build"
    foreign = own.for_architecture("arm64")
    assert foreign.build_dir == tmp_path / "build" / "arm64"
    assert build.archive_path(foreign).name == "x-arm64.tar"
    assert build.index_path(foreign).name == "x.tar"
    assert record.path(own) != record.path(foreign)
    alone = Settings(root=tmp_path, image="x", architectures=("arm64",))
    assert alone.build_dir == foreign.build_dir


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (f'base-image = {{amd64 = "{ARM}", sparc = "{ARM}"}}', "'sparc' is unknown"),
        ('base-image = {amd64 = "x.test/base:1"}', "has no digest: pin it"),
        ("base-image = {amd64 = 1}", "must be a string, or a table"),
        (
            f'architectures = ["amd64", "arm64"]\nbase-image = {{amd64 = "{ARM}"}}',
            "names none for arm64: add arm64 = ",
        ),
    ],
)
def test_a_wrong_base_image_is_one_line(tmp_path, lines, said):
    with pytest.raises(Problem, match=re.escape(said)):
        loaded(tmp_path, lines)


def test_a_table_names_a_base_for_each_processor(machine, tmp_path):
    both = f'{{amd64 = "{DIGESTS["amd64"]}", arm64 = "{ARM}"}}'
    found = loaded(tmp_path, f'architectures = ["amd64", "arm64"]\nbase-image = {both}')
    for name, expected in (("amd64", DIGESTS["amd64"]), ("arm64", ARM)):
        one = found.for_architecture(name)
        assert bases.reference(one) == expected
        assert build.build_arguments(one)["BASE"] == expected
        assert record.beneath(one)["setting base-image"] == expected
    assert bases.collect(found) == []


@pytest.fixture
def indexed(machine, tmp_path):
    """A project for two processors on a base image, whose index says what is given."""

    def indexed(content):
        digest = hashlib.sha256(content).hexdigest()
        cache = tmp_path / "cache"
        cache.mkdir(exist_ok=True)
        (cache / digest).write_bytes(content)
        return Settings(
            root=tmp_path,
            image="x",
            architectures=("amd64", "arm64"),
            base_image=f"x.test/base:1@sha256:{digest}",
            cache=str(cache),
        )

    return indexed


def entry(architecture, digest, os="linux"):
    platform = {"architecture": architecture, "os": os}
    return {"digest": f"sha256:{digest * 64}", "platform": platform}


def test_an_index_is_resolved_to_each_processors_manifest(indexed):
    others = [entry("arm64", "9", "windows"), entry("unknown", "8", "unknown"), {}]
    whole = {"manifests": [*others, entry("amd64", "1"), entry("arm64", "2")]}
    found = indexed(json.dumps(whole).encode())
    for name, expected in (("amd64", "1"), ("arm64", "2")):
        one = found.for_architecture(name)
        assert bases.reference(one) == f"x.test/base:1@sha256:{expected * 64}"
    # Which index it is decides the image, and which manifest follows from that.
    assert record.beneath(found)["setting base-image"] == found.base_image
    assert bases.collect(found)[0].name in str(found.base_image)


def test_an_index_without_a_processor_is_refused(indexed):
    found = indexed(json.dumps({"manifests": [entry("amd64", "1")]}).encode())
    with pytest.raises(Problem, match=r"has nothing for arm64: take one that has"):
        bases.reference(found.for_architecture("arm64"))


@pytest.mark.parametrize("offline", [True, False])
def test_an_index_without_a_processor_is_told_before_anything_is_built(
    indexed, offline
):
    content = json.dumps({"manifests": [entry("amd64", "1")]}).encode()
    found = indexed(content).for_architecture("arm64")
    for name in ("base.in", "base.lock", "requirements.in", "requirements.txt"):
        shutil.copyfile(ROOT / name, found.root / name)
    with pytest.raises(Problem, match="has nothing for arm64"):
        inputs.fetch(found, progress=Quiet(), offline=offline)
    with pytest.raises(Problem, match="has nothing for arm64"):
        inputs.collect(found)
    [file] = bases.collect(found)
    file.unlink()
    with pytest.raises(Problem, match="lacks the index") as problem:
        inputs.fetch(found, progress=Quiet(), offline=True)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no image"),
        ('{"manifests": 3}', "has nothing for"),
        ('{"manifests": [3]}', "has nothing for"),
        ('{"manifests": [{"platform": 3}]}', "has nothing for"),
    ],
)
def test_a_broken_index_is_one_line(indexed, text, said):
    with pytest.raises(Problem, match=f"^[^\n]*{said}[^\n]*$"):
        bases.reference(indexed(text.encode()))


@pytest.mark.parametrize("text", ["[]", '{"layers": []}'])
def test_what_is_no_index_is_left_to_the_engine(indexed, text):
    found = indexed(text.encode())
    assert bases.reference(found) == found.base_image


def test_an_index_that_is_missing_or_damaged_is_one_line(indexed):
    found = indexed(b"{}")
    [file] = bases.collect(found)
    file.write_bytes(b"{ }")
    with pytest.raises(Problem, match="is corrupt: delete"):
        bases.reference(found)
    file.unlink()
    with pytest.raises(Problem, match=r"lacks the index of .*: run `invoke fetch`"):
        bases.reference(found)
    # For one processor, this one's, an engine chooses by itself.
    alone = dataclasses.replace(found, architectures=("amd64",))
    assert bases.reference(alone) == found.base_image


def package(name, version, architecture):
    return Package(name, version, architecture, "pool/x.deb", "0" * 64)


def test_different_pythons_of_a_lock_are_refused(tmp_path):
    project = Settings(root=tmp_path, image="x")

    def check(*packages):
        lock = locks.BaseLock("trixie", 0, packages)
        build.check_same_python(project, lock, ("amd64", "arm64"))

    ours = package("python3.13", "3.13.5-2", "amd64")
    check(ours, package("python3.13-minimal", "3.13.5-2", "arm64"))
    with pytest.raises(Problem, match=r"no python3\.13 for arm64: name arm64 in"):
        check(ours)
    with pytest.raises(Problem, match=r"3\.13\.5-2 for amd64, 3\.13\.5-2\+b1 for arm"):
        check(ours, package("python3.13-minimal", "3.13.5-2+b1", "arm64"))


def test_a_foreign_image_gets_what_compiles_and_where_its_modules_are(
    machine, tmp_path
):
    project = Settings(root=tmp_path, image="x", architectures=("amd64", "arm64"))
    foreign = project.for_architecture("arm64")
    first = build.compiler_command(foreign, "docker", "x:1-compiler", "amd64")
    assert first[-3:] == ["--target", "base", "build/arm64/compiler"]
    second = build.build_command(foreign, "docker", ["x:1"], compiler="x:1-compiler")
    assert {"COMPILER=x:1-compiler", "TREE=/"} <= {*second}
    assert not {"COMPILER", "TREE"} & {*build.build_arguments(project)}


def test_an_engine_that_does_not_say_its_processor_has_the_images(tmp_path):
    silent = tmp_path / "docker"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    project = Settings(root=tmp_path, image="x", architecture="arm64")
    assert build.host_of(project, Engine("docker", (str(silent),))) == "arm64"
    known = Engine("docker", (str(silent),), processor="amd64")
    assert build.host_of(project, known) == "amd64"
