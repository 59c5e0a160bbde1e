"""What a build came from, as JSON beside its archive and in digests.json."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from containerize import FORMAT, build, settings
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.image import record
from containerize.image.canonical import ImageDigests
from containerize.verify import against

ROOT = settings.find_root(Path(__file__).parent)
DIGESTS = ImageDigests("sha256:" + "1" * 64, "sha256:" + "2" * 64, ())


def built(project):
    """As after a build of the files as they are."""
    names, loaded = ["x:latest"], {"docker": "sha256:1"}
    sources = record.inputs(project)
    record.write(project, DIGESTS, sources=sources, names=names, loaded=loaded)


def expected(project, text):
    """The image of this processor that a text names."""
    image, *_ = against.find(project, [], text, progress=None).images
    return image


def save_golden(project):
    built(project)
    record.save_golden(project, DIGESTS)


@pytest.fixture
def project(tmp_path):
    for name in ("Dockerfile", "base.lock", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "app", tmp_path / "app")
    return settings.load(tmp_path, {})


def test_a_record_holds_as_long_as_the_files_do(project):
    built(project)
    assert record.read(project)["manifest"] == DIGESTS.manifest
    assert record.read(dataclasses.replace(project, python="3.12")) == {}
    file = project.root / "app" / "__init__.py"
    text = file.read_text("utf-8")
    file.write_text(text + "#\n", "utf-8")
    assert record.read(project) == {}
    file.write_text(text, "utf-8")
    assert record.read(project)["references"] == ["x:latest"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"inputs": 1}'])
def test_a_broken_record_is_none(project, text):
    record.path(project).parent.mkdir()
    record.path(project).write_text(text)
    assert record.read(project) == {}


@pytest.mark.parametrize(
    ("record_of", "held"),
    [
        ({}, ["sha256:3"]),
        ({"diff_ids": 3}, []),
        ({"diff_ids": None}, []),
        ({"loaded": []}, []),
        ({"loaded": {}}, []),
        ({"loaded": {"podman": "sha256:2"}}, []),
        # The ID of a containerd store is the manifest's digest.
        ({"loaded": {"docker": "sha256:1"}}, []),
        ({"config": None, "loaded": {"docker": None}}, []),
    ],
    ids=str,
)
def test_which_layers_an_engine_is_taken_to_hold(project, record_of, held):
    facts = {
        "manifest": "sha256:1",
        "config": "sha256:2",
        "diff_ids": ["sha256:3"],
        "loaded": {"docker": "sha256:2"},
    }
    record.path(project).parent.mkdir()
    record.path(project).write_text(json.dumps(facts | record_of))
    assert [*build._held(project, Engine("docker", ("docker",)))] == held
    assert [*build._held(project, Engine("podman", ("docker",)))] == []


def test_changed_inputs_are_named(project):
    for name in ("gone.py", "run.py"):
        (project.root / "app" / name).write_text("")
    save_golden(project)
    golden = json.loads(record.golden_path(project).read_text("utf-8"))
    facts = golden[project.image_architecture]
    assert record.changes(project, facts) == []
    (project.root / "requirements.txt").write_text("")
    (project.root / "app" / "new.py").write_text("")
    (project.root / "app" / "gone.py").unlink()
    (project.root / "app" / "run.py").chmod(0o755)
    expected = ["app/gone.py", "app/new.py", "app/run.py", "requirements.txt"]
    assert record.changes(project, facts) == expected


def test_committed_digests_keep_those_of_other_architectures(project):
    save_golden(dataclasses.replace(project, architecture="arm64"))
    save_golden(dataclasses.replace(project, architecture="amd64"))
    assert set(record.read_golden(record.golden_path(project))) == {"amd64", "arm64"}


def test_digests_of_a_build_are_not_saved_for_later_files(project):
    built(project)
    (project.root / "app" / "new.py").write_text("")
    with pytest.raises(Problem, match="files changed since the build"):
        record.save_golden(project, DIGESTS)
    assert not record.golden_path(project).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"amd64": 1}', '{"amd64": {}}'])
def test_a_broken_file_of_digests_is_one_line(project, text):
    record.golden_path(project).write_text(text)
    with pytest.raises(Problem, match="has no digests as"):
        record.read_golden(record.golden_path(project))


def test_what_is_expected_can_be_a_file_or_a_digest(project):
    save_golden(project)
    file = str(record.golden_path(project))
    for text in ("", file, DIGESTS.manifest):
        assert expected(project, text).digest == DIGESTS.manifest
    other = dataclasses.replace(project, architecture="arm64")
    assert expected(other, "").digest == ""
    with pytest.raises(Problem, match="has no digest for arm64"):
        expected(other, file)
    with pytest.raises(Problem, match="is no file and no digest"):
        expected(project, "sha256:12")


def test_the_committed_digests_are_of_the_files_as_they_are():
    """Changed on purpose? `invoke digest --save` writes them anew."""
    project = settings.load(ROOT, {})
    for facts in record.read_golden(record.golden_path(project)).values():
        # Another machine's architecture, and code that may pack the same all the same.
        changed = {*record.changes(project, facts)} - {
            "setting image-architecture",
        }
        assert not changed, "run `invoke digest --save`"


def test_digests_of_another_format_are_told_apart_in_a_line(project):
    save_golden(project)
    assert expected(project, "").digest == DIGESTS.manifest
    golden = json.loads(record.golden_path(project).read_text("utf-8"))
    golden[project.image_architecture]["format"] = 7
    record.golden_path(project).write_text(json.dumps(golden))
    with pytest.raises(Problem, match=rf"format 7 .* format {FORMAT},"):
        expected(project, "")
