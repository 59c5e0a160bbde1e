"""Building on real engines: the same bytes each time, nothing from the network."""

import dataclasses
import json
import shutil
import socket
import threading

import pytest

from containerize import image
from containerize.errors import Problem

TREE = (
    ".dockerignore", "Dockerfile", "app", "base.in", "base.lock", "pyproject.toml",
    "requirements.in", "requirements.txt",
)  # fmt: skip


def clone(project, target):
    """The project's files in another directory, with fresh mtimes."""
    target.mkdir(parents=True)
    for name in TREE:
        source = project.root / name
        if source.is_dir():
            shutil.copytree(source, target / name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, target / name)
    return dataclasses.replace(project, root=target)


def test_clones_give_the_same_digests(built, using, project, tmp_path):
    """Another path, another time, no cache of the builder."""
    other = clone(project, tmp_path / "deeper" / "clone")
    again = image.build(
        other, using, tags=["again"], cache=False, output=tmp_path / "again.tar"
    )
    assert again.digests.diff_ids == built.digests.diff_ids
    assert again.digests.manifest == built.digests.manifest


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
        "import app.__main__, sys, os; print([m.__name__ for m in sys.modules.values()"
        " if (c := getattr(m, '__cached__', None)) and not os.path.exists(c)])"
    )
    answer = using.run(
        "run", "--rm", f"--label={project.label}", "--network=none",
        "--entrypoint=python3", built.references[0], "-c", script,
    )  # fmt: skip
    assert answer.stdout.strip() == "[]"


CANARY = """
FROM {base}
RUN ["python3", "-c", "import socket; socket.create_connection(('{host}', {port}), 3)"]
"""


def test_a_build_step_cannot_reach_out(built, using, project, tmp_path):
    """A step that calls a listening port of this host fails with our flags only."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        accepted = []
        threading.Thread(
            target=lambda: accepted.append(listener.accept()), daemon=True
        ).start()
        port = listener.getsockname()[1]
        host = _own_address()
        text = CANARY.format(base=built.references[0], host=host, port=port)
        (tmp_path / "Dockerfile").write_text(text)
        other = dataclasses.replace(project, root=tmp_path)
        make = image.commands(other, [f"{project.image}:canary"], kind=using.kind)[0]
        with pytest.raises(Problem):
            using.stream(*make, "--no-cache", cwd=tmp_path)
        assert not accepted
        # The same step where the flag is not: it is the flag that kept it in.
        free = [word if word != "none" else "host" for word in make]
        using.stream(*free, "--no-cache", cwd=tmp_path)
        assert accepted


def _own_address() -> str:
    """An address of this host that is not loopback; loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737); nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def test_a_missing_dockerfile_is_one_line(using, project, tmp_path):
    other = clone(project, tmp_path / "clone")
    (other.root / "Dockerfile").unlink()
    with pytest.raises(Problem, match="there is no Dockerfile"):
        image.build(other, using, output=tmp_path / "x.tar")


def test_a_step_that_fails_leaves_no_archive(built, using, project, tmp_path):
    other = clone(project, tmp_path / "clone")
    dockerfile = other.root / "Dockerfile"
    text = dockerfile.read_text() + '\nRUN ["python3", "-c", "raise SystemExit(3)"]\n'
    dockerfile.write_text(text)
    with pytest.raises(Problem) as caught:
        image.build(other, using, tags=["broken"], output=tmp_path / "broken.tar")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["clone"]
    assert using.run(
        "image", "inspect", f"{project.image}:broken", check=False
    ).returncode


def test_a_second_build_is_current_and_a_change_is_not(using, project, tmp_path):
    other = clone(project, tmp_path / "clone")
    name = other.reference("current")
    assert not image.is_current(other, using, name)
    image.build(other, using, tags=["current"])
    assert image.is_current(other, using, name)
    (other.root / "app" / "new.py").write_text("x = 1\n")
    assert not image.is_current(other, using, name)


def test_an_app_of_ones_own_changes_only_its_layers(built, using, project, tmp_path):
    other = clone(project, tmp_path / "clone")
    (other.root / "app" / "new.py").write_text("x = 1\n")
    changed = image.build(other, using, tags=["new"], output=tmp_path / "new.tar")
    same = [
        a == b
        for a, b in zip(built.digests.diff_ids, changed.digests.diff_ids, strict=True)
    ]
    assert same == [True, True, False, False]
