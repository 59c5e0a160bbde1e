"""Builds that are killed: nothing half-done under a final name, in no engine either."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

from containerize import build
from containerize.image import canonical, record
from containerize.lock import locks

SCRIPT = """
import json, pathlib, sys
from containerize import build
from containerize.engines.engine import Engine
from containerize.settings import Settings
plan = json.load(sys.stdin)
output = pathlib.Path(plan["output"])
settings = Settings(**plan["settings"] | {"root": pathlib.Path.cwd()})
kind, command, options = plan["engine"]
engine = Engine(kind, tuple(command), options=options)
build.build(settings, engine, output=output)
"""


def exporting(output):
    parts = [*output.parent.glob(".*/saved.tar"), *output.parent.glob(".*/.docker*")]
    return any(map(begun, parts))


def canonicalising(output):
    return any(map(begun, output.parent.glob(f".*/{output.name}")))


def begun(file):
    """Whether something is in a file, which may go meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return file.stat().st_size > 0
    return False


def loading(output):
    # A rename is a change of status.
    return output.exists() and time.time() - output.stat().st_ctime > 0.1


def kill_build(project, using, output, stage):
    """Build in a process group that is killed once `stage` has begun."""
    plan = {
        "settings": dataclasses.asdict(project) | {"root": ""},
        "engine": [using.kind, using.command, dict(using.options)],
        "output": str(output),
    }
    log = output.parent.with_name("log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=project.root,
            start_new_session=True,
        )
    process.stdin.write(json.dumps(plan).encode())
    process.stdin.close()
    while not stage(output):
        assert process.poll() is None, (
            f"ended before {stage.__name__}: {log.read_text()}"
        )
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_build_leaves_nothing_half_done(built, using, project, tmp_path):
    output = tmp_path / "dist" / "image.tar"
    output.parent.mkdir()
    named = dataclasses.replace(project, tags=("killed",))
    name = named.reference()
    for stage in (exporting, canonicalising, loading):
        kill_build(named, using, output, stage)
        found = using.run("image", "inspect", name, check=False)
        if stage is not loading:
            assert not output.exists()
            assert found.returncode  # the name comes with the canonical image
        else:
            assert canonical.read_digests(output) == built.digests
            assert found.returncode or is_whole(named, built, using, tmp_path)
    again = build.build(named, using, output=output)
    assert again.digests == built.digests
    assert list(output.parent.iterdir()) == [output]
    assert using.identifier(name) == using.identifier(built.references[0])


def is_whole(named, built, using, tmp_path):
    """Whether the image of that name has all that the built one has."""
    saved = tmp_path / "whole.tar"
    saved.unlink(missing_ok=True)
    using.run(*build.save_command(using.kind, named.reference(), saved))
    digests = canonical.canonicalize(
        saved,
        tmp_path / "again.tar",
        time=locks.read_base(named).time,
        labels=build.labels(named, record.inputs(named)),
        references=[],
    )
    return digests.manifest == built.digests.manifest
