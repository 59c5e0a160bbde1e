"""Building on real engines: the same bytes each time, nothing from the network."""

import dataclasses
import json
import os
import re
import secrets
from pathlib import Path

import pytest

from containerize import build
from containerize.engines import container
from containerize.errors import Problem
from containerize.image import canonical
from tests.canary import reaches_out


def test_the_engine_runs_what_the_archive_holds(built, using):
    answer = using.run(
        "image", "inspect", "--format", "{{json .RootFS.Layers}}", built.references[0]
    )
    assert tuple(json.loads(answer.stdout)) == built.digests.diff_ids


def test_others_read_the_archive_and_keep_its_name(built, using, project, tmp_path):
    """By the names in its index: Podman's library of images is skopeo's too."""
    name = f"{project.image}-read:test"
    archive = tmp_path / "read.tar"
    label, _, value = project.label.partition("=")
    canonical.canonicalize(
        built.archive, archive, references=[name], time=0, labels={label: value}
    )
    kept = name if using.kind == "docker" else f"localhost/{name}"
    ways = [("load", "--input", str(archive))]
    if using.kind == "podman":
        ways.append(("pull", f"oci-archive:{archive}"))
        ways.append(("pull", f"oci-archive:{archive}:test"))
    for command in ways:
        answer = using.run(*command)
        named = using.listing("images", "--format", "{{.Repository}}:{{.Tag}}")
        # Who asks for a tag gives the name, and gets the image.
        assert kept in named or command[-1].endswith(":test"), answer.stdout
        digest = canonical.read_digests(archive).config
        assert using.identifier(digest)
        using.run("rmi", "--force", digest)


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
        build.build(clone, using, output=tmp_path / "x.tar")


def test_a_step_that_fails_leaves_no_archive(built, using, clone, tmp_path):
    dockerfile = clone.root / "Dockerfile"
    text = dockerfile.read_text() + '\nRUN ["python3", "-c", "raise SystemExit(3)"]\n'
    dockerfile.write_text(text)
    with pytest.raises(Problem) as caught:
        build.build(clone, using, tags=["broken"], output=tmp_path / "broken.tar")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["clone"]
    assert using.run(
        "image", "inspect", f"{clone.image}:broken", check=False
    ).returncode


def test_a_change_of_the_app_changes_only_its_layers(built, using, clone):
    (clone.root / "app" / "new.py").write_text("x = 1\n")
    name = clone.reference("changed")
    assert not build.is_current(clone, using, name)
    changed = build.build(clone, using, tags=["changed"])
    layers = zip(built.digests.diff_ids, changed.digests.diff_ids, strict=True)
    assert [a == b for a, b in layers] == [True] * 4 + [False] * 2
    assert sum(layer.compressed_size for layer in changed.digests.layers[-2:]) < 100e3
    assert build.is_current(clone, using, name)
    (clone.root / "app" / "new.py").write_text("x = 2\n")
    assert not build.is_current(clone, using, name)


def test_a_change_of_the_app_leaves_its_large_files(using, clone):
    large = clone.root / "app" / "static" / "photo.jpg"
    large.parent.mkdir()
    large.write_bytes(os.urandom(1_000_000))
    first = build.build(clone, using, tags=["large"]).digests
    (clone.root / "app" / "new.py").write_text("x = 1\n")
    second = build.build(clone, using, tags=["large"]).digests
    large.write_bytes(os.urandom(1_000_000))
    third = build.build(clone, using, tags=["large"]).digests
    pairs = zip(first.diff_ids, second.diff_ids, third.diff_ids, strict=True)
    assert [(a == b, b == c) for a, b, c in pairs] == [
        *[(True, True)] * 4,
        (True, False),
        *[(False, True)] * 2,
    ]


def test_nothing_of_the_app_runs_while_its_modules_are_compiled(built, using, clone):
    """What is named like a module of Python's, or like what `site` imports."""
    for name in ("token.py", "struct.py", "sitecustomize.py", "usercustomize.py"):
        (clone.root / name).write_text("raise SystemExit(7)\n")
    (clone.root / "evil.pth").write_text("import os; os._exit(7)\n")
    made = build.build(clone, using, tags=["traps"])
    assert made.digests.diff_ids[:4] == built.digests.diff_ids[:4]


def wrapped(using, path, script):
    """The engine behind a script that sees each of its commands first."""
    path.write_text(f'#!/bin/sh\n{script}\nexec {" ".join(using.command)} "$@"\n')
    path.chmod(0o755)
    return dataclasses.replace(using, command=(os.fspath(path),))


def test_a_builder_that_keeps_its_result_is_found_out(built, using, clone, tmp_path):
    """Such as a remote one of buildx; the older image must not be taken for its."""
    build.build(clone, using, tags=["kept"])
    before = using.identifier(clone.reference("kept"))
    (clone.root / "app" / "new.py").write_text("x = 1\n")
    keeping = wrapped(using, tmp_path / "engine", '[ "$1" = build ] && exit 0')
    with pytest.raises(Problem, match="left no image in the engine"):
        build.build(clone, keeping, tags=["kept"])
    assert using.identifier(clone.reference("kept")) == before
    assert not build.is_current(clone, using, clone.reference("kept"))
    assert build.current(clone) is None


def test_files_that_change_during_the_build_are_named(built, using, clone, tmp_path):
    late = clone.root / "app" / "late.py"
    editing = wrapped(using, tmp_path / "engine", f'[ "$1" = save ] && : >"{late}"')
    with pytest.raises(Problem, match=r"app/late.py changed during the build"):
        build.build(clone, editing, tags=["edited"])
    assert build.current(clone) is None
    name = clone.reference("edited")
    assert using.run("image", "inspect", name, check=False).returncode


def test_a_damaged_archive_is_not_the_last_build(built, using, clone):
    made = build.build(clone, using, tags=["damaged"])
    assert build.current(clone) == made.digests
    with made.archive.open("r+b") as file:
        file.truncate(100_000)
    assert build.current(clone) is None


def test_a_build_leaves_no_name_of_its_own(built, using, clone, tmp_path):
    def listing():
        return {*using.listing("images", "--format={{.Tag}}", clone.image)}

    (clone.root / "app" / "new.py").write_text("x = 3\n")
    before = listing()  # a killed build of another test may have left its name
    build.build(clone, using, tags=["alone"], output=tmp_path / "image.tar")
    assert listing() - before == {"alone"}


def test_removed_images_are_named_in_a_line(built, using, clone):
    other = dataclasses.replace(clone, image=f"{clone.image}-gone")
    build.build(other, using, tags=["a", "b"])
    said = []
    build.remove(dataclasses.replace(other), using, on_line=said.append)
    assert len(said) == 1
    assert f"{other.image}:a" in said[0]
    assert f"{other.image}:b" in said[0]
    assert said[0].startswith("removed ")
    assert "image" in said[0]


@pytest.fixture
def kept(using, clone):
    """What a container is made with that something else starts and stops."""
    if using.kind == "docker":  # as a Swarm has it; a real one is in tests/matrix
        yield "--label=com.docker.swarm.task.id=x"
        return
    pod = f"{clone.image}-pod"
    using.run("pod", "create", "--infra=false", "--name", pod)
    yield f"--pod={pod}"
    using.run("pod", "rm", "--force", pod)


def test_what_a_swarm_or_a_pod_runs_is_left_alone(built, using, clone, kept):
    other = dataclasses.replace(clone, image=f"{clone.image}-kept", container="")
    image = build.build(other, using, tags=["a"]).references[0]
    theirs, own = f"{other.image}-theirs", f"{other.image}-own"
    try:
        using.run("create", f"--name={theirs}", kept, image)
        using.run("create", f"--name={own}", image)
        assert container.listed(other, using) == [own]
        assert container.state(other, using, own)
        with pytest.raises(Problem, match="those of a Swarm or a pod are not ours"):
            container.stop(other, using, theirs)
        said = []
        build.remove(other, using, on_line=said.append)
        assert said[0] == f"removed   1 container: {own}"
        assert re.fullmatch(
            f"kept      1 image: .*{other.image}:a, which a Swarm or a pod runs",
            said[-1],
        )
        using.run("container", "inspect", theirs)
    finally:
        using.discard(theirs)
    said = []
    build.remove(other, using, on_line=said.append)
    assert [line[:19] for line in said] == ["removed   1 image: "]


def loaded(shown):
    """What was loaded, of the commands that were shown."""
    found = [command[-1] for command in shown if {"load", "pull"} & {*command}]
    return [name.removeprefix("docker-archive:") for name in found]


def test_an_edit_loads_the_new_layers_alone(built, using, clone):
    """On a classic store, which has the others of the last build."""
    shown = []
    told = dataclasses.replace(using, on_command=shown.append)
    classic = built.digests.config == using.identifier(built.references[0])
    archive = str(build.archive_path(clone))
    build.build(clone, told, tags=["part"])
    assert [archive in name for name in loaded(shown)] == [True]
    shown.clear()
    (clone.root / "app" / "new.py").write_text("x = 'new'\n")
    made = build.build(clone, told, tags=["part"])
    parted = using.kind == "docker" and classic
    assert [archive in name for name in loaded(shown)] == [not parted]
    words = ("--entrypoint=python3", clone.reference("part"), "-c")
    said = using.run("run", "--rm", *words, "import app.new; print(app.new.x)")
    assert said.stdout == "new\n"
    assert build.build(clone, told, tags=["part"], cache=False).digests == made.digests


def test_an_engine_that_lost_its_layers_gets_them_all(using, project, built, tmp_path):
    """An image of another time, which it never had, stands for one that is removed."""
    name, archive = project.reference("lost"), tmp_path / "image.tar"
    digests = canonical.canonicalize(
        built.archive, archive, time=secrets.randbelow(10**9), references=[name],
        labels=dict([project.label.split("=")]),
    )  # fmt: skip
    shown = []
    told = dataclasses.replace(using, on_command=shown.append)
    build.load(told, archive, digests, digests.diff_ids[:1])
    assert [name == str(archive) for name in loaded(shown)] == [False, True]
    assert build._name_loaded(using, digests, [name])


def test_a_setting_that_changes_is_in_the_next_image(built, using, clone):
    """Podman's cache does not heed the value of an argument (issue 8, first kind)."""
    form = ("image", "inspect", "--format", "{{json .Config.Env}}")
    for app in ("app:app", "app:create_app"):
        named = dataclasses.replace(clone, app=app)
        made = build.build(named, using, tags=[f"t{secrets.token_hex(4)}"])
        found = json.loads(using.run(*form, made.references[0]).stdout)
        assert f"FLASK_APP={app}" in found


def test_a_place_that_takes_no_archive_is_told_before_the_build(using, project):
    shown = []
    told = dataclasses.replace(using, on_command=shown.append)
    with pytest.raises(Problem, match="cannot write to /proc: "):
        build.build(project, told, output=Path("/proc/image.tar"))
    assert not [command for command in shown if "build" in command]
