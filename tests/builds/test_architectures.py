"""Images for several processors, on real engines, without emulation."""

import dataclasses
import json
import tarfile

import pytest

from containerize import build
from containerize.errors import Problem
from containerize.fetch import inputs
from containerize.image import index
from containerize.lock import locks
from containerize.settings import this_machine
from containerize.verify import against, every
from tests import privileges
from tests.builds.conftest import OTHER
from tests.conftest import Quiet


def config(path):
    with tarfile.open(path) as archive:

        def blob(digest):
            return json.load(archive.extractfile(f"blobs/{digest.replace(':', '/')}"))

        [image] = json.load(archive.extractfile("index.json"))["manifests"]
        return blob(blob(image["digest"])["config"]["digest"])


def test_a_foreign_image_says_its_processor_and_nothing_of_the_hosts(foreign, built):
    ours, theirs = config(built.archive), config(foreign.archive)
    assert theirs["architecture"] == OTHER
    kept = ("architecture", "rootfs")
    assert {k: v for k, v in theirs.items() if k not in kept} == {
        k: v for k, v in ours.items() if k not in kept
    }
    # The app's own layers, compiled modules included, are for any processor.
    assert foreign.digests.diff_ids[-3:] == built.digests.diff_ids[-3:]
    assert foreign.digests.diff_ids[0] != built.digests.diff_ids[0]


def test_no_program_of_an_image_gains_anything(built, foreign):
    """So that a stack file needs no field for no-new-privileges, which it lacks."""
    for image in (built, foreign):
        assert privileges.gaining(image.archive) == []


def test_a_foreign_image_leaves_no_name_in_the_engine(foreign, using, project):
    assert foreign.references == ()
    names = using.listing("images", "--format={{.Tag}}", project.image)
    assert not [name for name in names if "building" in name]


def test_every_engine_makes_the_same(foreign, common):
    """Docker's and Podman's, whichever comes first; a name of their own aside."""
    file = common / "foreign-layers"
    layers = "\n".join(layer.digest for layer in foreign.digests.layers)
    if not file.exists():
        file.write_text(layers)
    assert file.read_text() == layers


def test_a_host_of_the_other_processor_packs_the_same(built, using, clone):
    """All but what compiles, which is no part of the image."""
    inputs.fetch(clone, progress=Quiet(), host=OTHER)
    packed = build.pack(clone, host=OTHER)
    assert [layer.sha256 for layer in packed.layers] == [
        layer.sha256 for layer in built.packed.layers
    ]
    like = clone.for_architecture(OTHER)
    assert (like.build_dir / "rootfs.tar").is_file()


def test_all_are_built_and_one_index_of_them(foreign, built, using, clone):
    said = []
    made = build.build_all(
        clone, using, tags=["all"], on_image=lambda s, image: said.append(image)
    )
    assert [image.digests for image in said] == [*made.digests]
    found = {
        s.image_architecture: digests
        for s, digests in zip(
            map(clone.for_architecture, clone.image_architectures),
            made.digests,
            strict=True,
        )
    }
    assert found == {this_machine(): built.digests, OTHER: foreign.digests}
    assert made.index == index.read_digest(build.index_path(clone))
    expected = index.digest([index.describe(i.archive) for i in (foreign, built)])
    assert made.index == expected
    assert build.current_all(clone) == made
    # Only the image of this processor is loaded.
    [loaded] = [image for image in said if image.references]
    assert using.identifier(loaded.references[0]) in (
        built.digests.config,
        built.digests.manifest,
    )
    build.index_path(clone).write_bytes(b"damaged")
    assert build.current_all(clone) is None
    build.clean(clone)
    assert not clone.build_top.exists()
    assert not clone.dist_dir.exists()


def test_every_image_is_rebuilt_from_nothing_and_so_is_the_index(
    foreign, built, using, clone
):
    (clone.root / "digests.json").unlink()
    rebuilt = []
    target = against.find(clone, [using], "", every=True, progress=Quiet())
    whole = every.verify(clone, [using], target, varied=True, on_rebuild=rebuilt.append)
    assert whole.equal, whole.words
    assert len(rebuilt) == 4
    assert {v.digest for v in whole.verdicts} == {
        built.digests.manifest,
        foreign.digests.manifest,
    }
    expected = index.digest([index.describe(i.archive) for i in (foreign, built)])
    assert whole.index == expected


def test_locked_pythons_that_differ_are_refused_before_a_build(using, clone):
    file = clone.root / "base.lock"
    body = file.read_text().partition("# content ")[2].partition("\n")[2]
    lines = [
        line.replace("3.13.5-2", "3.13.6-1")
        if f" {OTHER} " in line and line.startswith("python3.13")
        else line
        for line in body.splitlines(keepends=True)
    ]
    head = file.read_text().partition("# content ")[0]
    text = "".join(lines)
    file.write_text(f"{head}# content sha256:{locks._digest(text)}\n{text}")
    shown = []
    told = dataclasses.replace(using, on_command=shown.append)
    for task in (
        lambda: build.build(clone.for_architecture(OTHER), told),
        lambda: build.build_all(clone, told),
    ):
        with pytest.raises(Problem, match=r"different Pythons, .*3\.13\.6-1.* for"):
            task()
    assert not [command for command in shown if "build" in command]
