"""SMOKE_URL: a service that runs already is tested, and no engine is touched."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import until

ROOT = Path(__file__).parents[2]


def smoke(url):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/smoke"],
        cwd=ROOT, env={"SMOKE_URL": url, "PATH": "/nowhere"}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def listens(port):
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


def test_a_service_that_runs_is_tested_without_any_engine(free_port):
    environment = {
        **os.environ,
        "SERVED_HOST": "127.0.0.1",
        "SERVED_PORT": str(free_port),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "served"], cwd=ROOT, env=environment,
        stdout=subprocess.DEVNULL,
    ) as service:  # fmt: skip
        try:
            until(lambda: listens(free_port))
            done = smoke(f"http://127.0.0.1:{free_port}/")
        finally:
            service.terminate()
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize("path", ["", "/x", "no url", "https://127.0.0.1", "http://["])
def test_what_is_no_address_is_named(path):
    done = smoke(path)
    assert done.returncode == 2
    assert f"SMOKE_URL={path} cannot be tested: " in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_an_address_where_nothing_answers_is_named(free_port):
    done = smoke(f"http://127.0.0.1:{free_port}")
    assert done.returncode == 2
    assert "Connection refused" in done.stdout + done.stderr


def test_an_address_that_hangs_is_named():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        done = smoke(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert done.returncode == 2
    assert "timed out" in done.stdout + done.stderr
