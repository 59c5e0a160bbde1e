"""What the service is made of."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def test_it_knows_neither_the_app_nor_the_tool() -> None:
    found = set()
    for file in (ROOT / "served").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module
                assert not node.level
                found.add(node.module.partition(".")[0])
    foreign = found - sys.stdlib_module_names
    assert foreign == {"flask", "served", "waitress", "werkzeug"}


def test_modules_of_the_apps_take_no_place_in_it(tmp_path: Path) -> None:
    """Not even what only dataclasses imports; `flask run` starts with such an app."""
    for name in ("token", "queue", "signal", "dataclasses", "logging"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    (tmp_path / "shop.py").write_text("import flask\napp = 1\n")
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-m", "served"],
        cwd=tmp_path,
        env={"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "FLASK_APP": "shop:app"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("served: FLASK_APP=shop:app: ")


def told(code: str) -> str:
    """What a process that postpones the development server says."""
    start = "from served import postponed; postponed.install(); import flask, sys\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = 'print("ssl" in sys.modules, "http.server" in sys.modules)'


def test_the_development_server_stays_out() -> None:
    assert told(
        f"import werkzeug.serving; from werkzeug import run_simple\n{LOADED}"
    ) == ("False False\n")


@pytest.mark.parametrize(
    "use",
    [
        "from werkzeug.serving import WSGIRequestHandler",
        "import werkzeug.serving; werkzeug.serving.make_server",
        "from werkzeug import run_simple; flask.Flask.run",
        "from werkzeug.serving import is_running_from_reloader as f; assert not f()",
        "import http; http.server.HTTPServer",
        "from http.server import HTTPServer",
    ],
)
def test_whoever_asks_for_it_has_it(use: str) -> None:
    whole = "from werkzeug import serving; serving.ThreadedWSGIServer"
    said = told(f"{use}\n{whole}\nprint(serving.run_simple.__module__)\n{LOADED}")
    assert said == "werkzeug.serving\nTrue True\n"


def test_its_functions_that_were_named_before_do_their_work() -> None:
    """Those that Werkzeug has imported while it was not there."""
    asked = """
from werkzeug import run_simple
try:
    run_simple("127.0.0.1", "no port", None)
except TypeError as error:
    print(error)
"""
    assert told(asked) == "port must be an integer\n"


def test_what_it_does_not_have_is_missing() -> None:
    asked = """
import http, werkzeug.serving
for module in (http, werkzeug.serving):
    try:
        module.nothing
    except AttributeError as error:
        print(error)
"""
    assert told(asked) == (
        "module 'http' has no attribute 'nothing'\n"
        "module 'werkzeug.serving' has no attribute 'nothing'\n"
    )


def test_threads_that_ask_at_once_have_it_whole() -> None:
    asked = """
import threading, werkzeug.serving
found = []
def ask():
    found.append(werkzeug.serving.select_address_family)
threads = [threading.Thread(target=ask) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len(set(found)))
"""
    assert told(asked) == "20 1\n"
