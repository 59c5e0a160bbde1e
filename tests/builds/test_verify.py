"""Rebuilding on real engines: equal when it should be, and told apart when not."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from containerize import build, settings
from containerize.engines import provision
from containerize.errors import Problem
from containerize.fetch import inputs
from containerize.image import record
from containerize.publish import evidence, provenance, subjects
from containerize.publish import push as pushing
from containerize.verify import against, every, rebuild
from tests import registries
from tests.conftest import ROOT, Quiet, copied, taking_turns


def spoil(clone, instruction):
    """Put an instruction into the stage that the image comes from."""
    file = clone.root / "Dockerfile"
    text = file.read_text("utf-8")
    file.write_text(text.replace("WORKDIR", f"{instruction}\nWORKDIR", 1), "utf-8")


def named(project, using, text):
    """The image of this processor that `--against` names."""
    return against.find(project, [using], text, progress=Quiet()).images[0]


def names(using):
    return "\n".join(using.listing("images", "--format={{.Repository}}:{{.Tag}}"))


def dangling(using, project):
    filters = ("--filter=dangling=true", f"--filter=label={project.label}")
    return set(using.listing("images", "--quiet", "--no-trunc", *filters))


def test_a_rebuild_under_other_conditions_gives_the_committed_digest(using):
    # Not a copy below pytest's directory, where no other user could pack.
    ours = settings.load(ROOT, {})
    before = dangling(using, ours)
    verdict = rebuild.verify(ours, [using])
    assert [r.name.partition(", ")[2] for r in verdict.rebuilds] == ["plain", "varied"]
    golden = record.read_golden(record.golden_path(ours))[ours.image_architecture]
    assert verdict.digest == golden["manifest"]
    assert verdict.equal, verdict.changed
    assert "verify-" not in names(using)
    assert dangling(using, ours) <= before


def test_a_step_of_ones_own_is_found(built, using, clone):
    spoil(clone, 'RUN ["python3", "-c", "open(\'/srv/new\', \'w\').close()"]')
    verdict = rebuild.verify(
        clone, [using], against=named(clone, using, str(built.archive))
    )
    assert not verdict.equal
    assert len(verdict.rebuilds) == 1
    assert "/srv/new" in "\n".join(found.detail for found in verdict.differences)


def test_a_step_that_writes_the_time_is_found(using, clone):
    # Coarsely: two builds at the same time would write the same.
    step = "import time; time.sleep(4 - time.time() % 4); t = int(time.time() / 4)"
    write = f"{step}; open('/when', 'w').write(str(t))"
    label = "ARG PROJECT\nLABEL containerize.project=${PROJECT}\n"
    (clone.root / "Dockerfile").write_text(
        f"FROM scratch\n{label}ADD build/rootfs.tar /\n"
        f'RUN ["/usr/bin/python3", "-c", "{write}"]\n'
    )
    (clone.root / record.GOLDEN).unlink()
    verdict = rebuild.verify(clone, [using])
    assert not verdict.equal
    assert [found.path for found in verdict.differences] == ["/when"]


def test_the_task_says_what_differs_and_fails(using, clone):
    (clone.root / "app" / "more.txt").write_text("more\n")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "invoke", "verify"),
            *(f"--engine={using.command[0]}", f"--against={record.GOLDEN}"),
        ],
        cwd=clone.root,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 1
    assert "changed   app/more.txt" in result.stdout
    assert "invoke digest --save" in result.stdout
    (line,) = result.stderr.strip().splitlines()
    assert re.match(r"verify: the image is not that of digests.json, sha256:\w+$", line)


@pytest.mark.parametrize("text", ["nothing-there.tar", "sha256:12", "tasks.py"])
def test_what_cannot_be_compared_is_refused_before_a_build(using, project, text):
    with pytest.raises(Problem, match=re.escape(text)):
        against.find(project, [using], text, progress=Quiet())


def test_a_rebuild_that_fails_says_why(using, clone):
    # With the label by which the container that failed is removed.
    label = "ARG PROJECT\nLABEL containerize.project=${PROJECT}\n"
    (clone.root / "Dockerfile").write_text(f'FROM scratch\n{label}RUN ["nonsense"]\n')
    with pytest.raises(Problem, match=r"a rebuild failed: .*build"):
        rebuild.verify(
            clone, [using], against=named(clone, using, f"sha256:{'0' * 64}")
        )
    assert "verify-" not in names(using)


# --- What runs, and what was pushed ----------------------------------------------


def verified(project, using, text):
    """What a rebuild of the project says of what `--against` names."""
    target = against.find(project, [using], text, progress=Quiet())
    return every.verify(project, [using], target)


def change(clone):
    file = clone.root / "app" / "__init__.py"
    file.write_text(file.read_text("utf-8") + "# changed\n", "utf-8")


def test_a_container_runs_what_the_files_make(built, using, clone, start):
    name = start().name
    found = verified(clone, using, name)
    own = f"linux/{clone.image_architecture}, config {built.digests.config}"
    assert found.words == f"Equal to container {name}: {own}"
    assert found.equal


def test_what_a_container_runs_otherwise_is_told(built, using, clone, tmp_path):
    name = f"{clone.image}-otherwise"
    change(clone)
    using.run(
        *("run", "--detach", f"--name={name}", f"--label={clone.label}"),
        "--env=PYTHONPATH=/usr/local/lib/served:/srv:/data",
        f"--volume={tmp_path}:/srv/more",
        built.references[0],
    )
    try:
        write = "open('/srv/app/more.py', 'w').close()"
        using.run("exec", "--user=0", name, "python3", "-c", write)
        found = verified(clone, using, name)
    finally:
        using.discard(name)
    assert not found.equal
    [verdict] = found.verdicts
    paths = [difference.path for difference in verdict.differences]
    assert paths[0] == "/srv/app/__init__.py"
    assert "+# changed" in verdict.differences[0].detail
    variable, mount, file = found.unlike
    assert variable.startswith("it has PYTHONPATH=/usr/local/lib/served:/srv:/data, ")
    assert "is mounted at /srv/more, among its image's modules" in mount
    assert file.endswith("not in its image: /srv/app/more.py")


def invoke_verify(project, engine, text, cwd):
    return subprocess.run(
        [
            *(sys.executable, "-m", "invoke", "verify"),
            *("--engine", engine, "--against", text),
        ],
        cwd=cwd,
        env=os.environ | {"CONTAINERIZE_IMAGE": project.image},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("using", ["docker"], indirect=True)
def test_another_clone_and_engine_rebuild_what_was_pushed(
    using, built, clone, tmp_path
):
    """Both processors' images and their index; then one, of another commit."""
    podman = dataclasses.replace(clone, engine="podman")
    with taking_turns():
        provision.install(podman, lambda command: print("$", *command))
    commit(clone.root)
    both = clone.for_each()
    assert len(both) == 2
    for one in both:
        inputs.fetch(one, progress=Quiet(), host=using.native())
    made = build.build_all(clone, using)
    known = [subjects.subject(one, build.archive_path(one)) for one in both]
    source = provenance.source(clone, known[0].inputs)
    other = copied(clone, tmp_path / "other")
    commit(other.root)
    with registries.registry() as registry:
        name = f"{registry.host}/team/app:latest"
        pushing.push(
            clone,
            made.archive,
            pushing.targets(clone, name),
            progress=Quiet(),
            beside=evidence.attachments(known, source, made.index),
        )
        same = invoke_verify(clone, "podman", name, other.root)
        change(other)
        commit(other.root)
        single = f"{registry.host}/team/app@{made.digests[0].manifest}"
        differs = invoke_verify(clone, "docker", single, other.root)
    assert same.returncode == 0, same.stderr + same.stdout
    amd64, arm64 = (one.manifest for one in made.digests)
    assert same.stdout.splitlines()[-1] == (
        f"Equal to {name}: linux/amd64, manifest {amd64}; linux/arm64, manifest "
        f"{arm64}; index {made.index}"
    )
    assert f"was built from commit {source.commit[:12]}" in same.stdout
    assert differs.returncode == 1
    assert "this checkout is at commit " in differs.stdout
    assert "\nchanged   app/__init__.py\n" in differs.stdout
    assert "/srv/app/__init__.py: bytes differs: its text differs" in differs.stdout
    assert "          +# changed\n" in differs.stdout
    [line] = differs.stderr.strip().splitlines()
    assert line == f"verify: the image is not that of {single}, {amd64}"


def commit(top):
    """Give a copy of the repository a commit of all that is in it."""
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "x")):
        subprocess.run(["git", *words], cwd=top, check=True)
