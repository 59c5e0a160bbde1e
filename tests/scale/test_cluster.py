"""What the proofs stand on: all that was started ends with who started it."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from containerize import settings
from tests.conftest import ROOT
from tests.matrix.releases import BOOKWORM
from tests.scale.cluster import wait

CHILD = """
import sys, time
from pathlib import Path
from tests.scale.cluster import cluster
with cluster(Path(sys.argv[1]), 2):
    print("ready", flush=True)
    time.sleep(600)
"""


def processes():
    """Parent and start of each process, by its number."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(stat.parent.name)] = (int(fields[1]), fields[19])
    return found


@pytest.fixture
def short():
    """A directory with a path that leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory() as directory:
        yield directory


def test_a_cluster_ends_with_the_process_that_made_it(short):
    usr = BOOKWORM.unpacked(settings.load(ROOT))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(usr)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": short},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    every, ours = processes(), {child.pid}
    while more := {pid for pid, (parent, _) in every.items() if parent in ours} - ours:
        ours |= more
    # The registry; for each machine what made it, its first process and what that
    # waits for, the way in, dockerd and containerd.
    assert len(ours) >= 1 + 1 + 2 * 6
    started = {pid: every[pid][1] for pid in ours}
    child.send_signal(signal.SIGKILL)
    child.wait()

    def left():
        now = processes()
        return [pid for pid in started if pid in now and now[pid][1] == started[pid]]

    wait(lambda: not left(), 30)
