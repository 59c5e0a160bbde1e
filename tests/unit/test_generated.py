"""What `init` generates, beside an app whose own tests need what ours has not."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from containerize.init import plan
from tests.conftest import ROOT


class Elsewhere(BaseHTTPRequestHandler):
    """Healthy; everything else is redirected to where nothing answers."""

    def do_GET(self):
        self.send_response(200 if self.path.startswith("/health/") else 308)
        self.send_header("Location", "https://127.0.0.1:1/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "app.py").write_text("from flask import Flask\napp = Flask('x')\n")
    (tmp_path / "requirements.in").write_text("flask\n")
    (tmp_path / "tests").mkdir()
    # A plugin, an option and a package that the tools' environment has not.
    (tmp_path / "tests/conftest.py").write_text("import a_package_of_the_app\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --cov=app --no-such\n")
    plan.write(plan.plan(tmp_path))
    return tmp_path


def run(root, *command, **environ):
    return subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_smoke_needs_nothing_of_the_apps_own_tests(root, url):
    done = run(root, "-m", "nox", "-s", "smoke", SMOKE_URL=url, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_apps_own_tests_pass_where_the_tool_is_missing(root):
    (root / "tests/conftest.py").unlink()
    (root / "pytest.ini").unlink()
    (root / "tests/test_own.py").write_text("def test_own(): pass\n")
    # As an environment without it: None makes the import fail.
    hidden = "import sys, pytest; sys.modules['containerize'] = None; "
    done = run(root, "-c", f"{hidden}sys.exit(pytest.main())")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
