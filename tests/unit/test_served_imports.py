"""What the service is made of."""

from __future__ import annotations

import ast
import sys

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
