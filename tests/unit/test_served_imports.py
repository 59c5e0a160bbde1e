"""What the service is made of."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

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
