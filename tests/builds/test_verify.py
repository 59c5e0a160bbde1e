"""Rebuilding on real engines: equal when it should be, and told apart when not."""

import re
import subprocess
import sys

import pytest

from containerize import settings
from containerize.errors import Problem
from containerize.image import record
from containerize.verify import against, rebuild
from tests.conftest import ROOT, Quiet


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
