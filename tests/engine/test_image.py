"""Building on real engines: the same bytes each time, nothing from the network."""

import json

import pytest

from containerize import image
from containerize.errors import Problem
from tests.canary import reaches_out


def test_the_engine_runs_what_the_archive_holds(built, using):
    answer = using.run(
        "image", "inspect", "--format", "{{json .RootFS.Layers}}", built.references[0]
    )
    assert tuple(json.loads(answer.stdout)) == built.digests.diff_ids


def test_the_image_is_small(built):
    """The goals of issue 2: 75 MB unpacked with bytecode, 25 MB compressed."""
    assert sum(layer.size for layer in built.digests.layers) < 75e6
    assert sum(layer.compressed_size for layer in built.digests.layers) < 25e6


def test_there_is_no_shell_and_no_package_manager(built, using, project):
    script = (
        "import os, json; d = os.environ['PATH'].split(':') + ['/bin', '/sbin'];"
        "print(json.dumps([n for x in d if os.path.isdir(x) for n in os.listdir(x)]))"
    )
    answer = using.run(
        "run", "--rm", f"--label={project.label}", "--network=none",
        "--entrypoint=python3", built.references[0], "-c", script,
    )  # fmt: skip
    programs = set(json.loads(answer.stdout))
    assert "python3.13" in programs
    assert not programs & {
        "sh",
        "bash",
        "dash",
        "busybox",
        "apt",
        "apt-get",
        "dpkg",
        "pip",
    }


def test_bytecode_is_found_where_python_looks(built, using, project):
    """Every module that a start imports comes from the layer of compiled modules."""
    script = (
        "import app, served.__main__, served.server, sys, os;"
        "print([m.__name__ for m in sys.modules.values()"
        " if (c := getattr(m, '__cached__', None)) and not os.path.exists(c)])"
    )
    answer = using.run(
        "run", "--rm", f"--label={project.label}", "--network=none",
        "--entrypoint=python3", built.references[0], "-c", script,
    )  # fmt: skip
    assert answer.stdout.strip() == "[]"


def test_a_build_step_cannot_reach_out(built, using, project, tmp_path):
    arguments = project, using, built.references[0], tmp_path
    assert not reaches_out(*arguments)
    # The same step, given the host's network: it is the flag that keeps it in.
    assert reaches_out(*arguments, network="host")


def test_a_missing_dockerfile_is_one_line(using, clone, tmp_path):
    (clone.root / "Dockerfile").unlink()
    with pytest.raises(Problem, match="there is no Dockerfile"):
        image.build(clone, using, output=tmp_path / "x.tar")


def test_a_step_that_fails_leaves_no_archive(built, using, clone, tmp_path):
    dockerfile = clone.root / "Dockerfile"
    text = dockerfile.read_text() + '\nRUN ["python3", "-c", "raise SystemExit(3)"]\n'
    dockerfile.write_text(text)
    with pytest.raises(Problem) as caught:
        image.build(clone, using, tags=["broken"], output=tmp_path / "broken.tar")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["clone"]
    assert using.run(
        "image", "inspect", f"{clone.image}:broken", check=False
    ).returncode


def test_a_change_of_the_app_changes_only_its_layers(built, using, clone):
    (clone.root / "app" / "new.py").write_text("x = 1\n")
    name = clone.reference("changed")
    assert not image.is_current(clone, using, name)
    changed = image.build(clone, using, tags=["changed"])
    layers = zip(built.digests.diff_ids, changed.digests.diff_ids, strict=True)
    assert [a == b for a, b in layers] == [True, True, True, False, False]
    assert image.is_current(clone, using, name)
    (clone.root / "app" / "new.py").write_text("x = 2\n")
    assert not image.is_current(clone, using, name)
