"""The same repository gives the same digest on engines of every kind and age."""

import json
import shutil
import tempfile
import urllib.request
from pathlib import Path

import pytest

from containerize.engines import container
from containerize.image import canonical, index, record
from containerize.verify import explain, running
from containerize.verify.expected import Built
from tests.canary import reaches_out
from tests.conftest import taking_turns


@pytest.fixture(scope="session")
def first(common):
    """The archive of the row that was built first, for the others to equal."""
    return common / "first.tar"


def test_the_engine_is_what_the_row_says(built):
    row, found = built.row, built.description
    assert found.server.startswith(f"{row.version}.")
    assert found.client.startswith(f"{row.version}.")
    assert found.builder.startswith(row.builder)
    assert found.store.startswith(row.store)
    assert found.rootless == row.rootless


def test_every_row_has_the_same_digest(built, first):
    archive = built.rebuild.archive
    with taking_turns():
        if not first.exists():
            shutil.copyfile(archive, first)
    expected = canonical.read_digests(first).manifest
    if built.rebuild.digests.manifest != expected:
        pytest.fail("\n".join(map(str, explain.compare(first, archive))))


def test_the_digest_is_the_committed_one(built, repository):
    """Where this fails on purpose: `invoke digest --save`, as docs/ say."""
    golden = record.read_golden(record.golden_path(repository))
    facts = golden[repository.image_architecture]
    assert built.rebuild.digests.manifest == facts["manifest"], (
        f"these inputs have changed: {record.changes(repository, facts)}"
    )


def test_every_row_has_the_committed_index(built, repository):
    """Of the images for all processors, none of which but one runs there."""
    assert built.foreign
    made = [index.describe(one.archive) for one in (built.rebuild, *built.foreign)]
    golden = record.read_golden_index(record.golden_path(repository))
    assert index.digest(made) == golden


def test_a_build_step_cannot_reach_out(built, repository, top):
    arguments = repository, built.engine, built.reference, top
    assert not reaches_out(*arguments)
    # The same step, given the host's network: it is the flag that keeps it in.
    assert reaches_out(*arguments, network="host")


@pytest.fixture
def top(built):
    with tempfile.TemporaryDirectory(dir=built.rebuild.scratch.parent) as directory:
        yield Path(directory)


def test_the_engine_has_what_the_archive_holds_and_runs_it(built, repository):
    engine, reference = built.engine, built.reference
    layers = "{{json .RootFS.Layers}}"
    answer = engine.run("image", "inspect", "--format", layers, reference)
    assert tuple(json.loads(answer.stdout)) == built.rebuild.digests.diff_ids
    if (
        built.row.kind == "docker"
    ):  # tests/builds runs it on Podman, which has no daemon
        started = container.run(repository, engine, reference, port=0)
        with urllib.request.urlopen(started.url, timeout=5) as page:
            assert b"Hello World from Flask" in page.read()
        see_known(built, repository, started.name)
        container.stop(repository, engine, started.name)


def see_known(built, repository, name):
    """A container's image is known, whatever the engine's store calls it by."""
    target = running.find(repository, [built.engine], name)
    [found] = target.images
    digests = built.rebuild.digests
    assert found.digest in (digests.config, digests.manifest)
    assert target.besides(built.rebuild.archive) == []
    with tempfile.TemporaryDirectory(dir=built.rebuild.scratch) as scratch:
        archive = built.rebuild.archive
        rebuilt = Built(digests=digests, archive=archive, scratch=Path(scratch))
        assert found.look(found, rebuilt).digest == digests.config
