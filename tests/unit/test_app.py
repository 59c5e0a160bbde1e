"""The tutorial's application, which knows nothing of what serves it."""

from __future__ import annotations

import ast

import pytest

import app as app_module
from tests.conftest import ROOT


def test_it_imports_flask_alone() -> None:
    (file,) = (ROOT / "app").glob("**/*.py")
    tree = ast.parse(file.read_text("utf-8"))
    imported = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert imported == ["flask"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("OPTIONS", "/", 200),
        ("GET", "/nowhere", 404),
        ("DELETE", "/", 405),
    ],
)
def test_every_response_has_the_two_headers(
    method: str, path: str, status: int
) -> None:
    response = app_module.create_app().test_client().open(path, method=method)
    assert response.status_code == status
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    methods = response.headers["Access-Control-Allow-Methods"]
    assert methods == "GET, HEAD, OPTIONS, POST, PUT"
    if (method, path) == ("GET", "/"):
        assert response.json == {"message": "Hello World from Flask"}
