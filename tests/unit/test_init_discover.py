# ruff: noqa: E501 -- a layout is read best as one line a file
"""Discovery, held against the real Flask: what `init` names, Flask must load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from containerize.errors import Problem
from containerize.init.discover import discover, image_name

APP = "from flask import Flask\napp = Flask(__name__)\n"
FACTORY = (
    "from flask import Flask\ndef create_app(test=None):\n    return Flask(__name__)\n"
)
PROJECT = '[project]\nname = "Shop_Web"\nversion = "1"\ndependencies = ["flask"]\n'
ARGS = "from flask import Flask\ndef create_app(stage):\n    return Flask(__name__)\n"

LAYOUTS = {
    "tutorial": ({"app.py": APP, "templates/index.html": ""}, "app"),
    "factory": ({"flaskr/__init__.py": FACTORY, "flaskr/db.py": ""}, "flaskr"),
    "re-exported factory": (
        {
            "shop/__init__.py": "from .factory import create_app",
            "shop/factory.py": FACTORY,
        },
        "shop",
    ),
    "src with [project]": (
        {
            "src/shop/__init__.py": FACTORY,
            "pyproject.toml": PROJECT
            + '[tool.setuptools.packages.find]\nwhere = ["src"]',
        },
        "shop",
    ),
    "src without [project]": ({"src/shop/__init__.py": FACTORY}, "src/shop"),
    "package called app": ({"app/__init__.py": FACTORY}, "app"),
    "wsgi": ({"wsgi.py": APP, "other.py": APP}, "wsgi"),
    "wsgi that imports": (
        {
            "wsgi.py": "from shop import create_app\napp = create_app()",
            "shop/__init__.py": FACTORY,
        },
        "wsgi",
    ),
    "application": (
        {"web.py": "import flask\napplication = flask.Flask(__name__)"},
        "web",
    ),
    "other name": ({"web.py": "import flask\nsite = flask.Flask(__name__)"}, "web"),
    "two apps of other names": (
        {"web.py": "import flask\na = flask.Flask('a')\nb = flask.Flask('b')"},
        "web:a",
    ),
    "factory of another name": (
        {
            "web.py": "import flask\ndef build() -> flask.Flask:\n    return flask.Flask('b')"
        },
        "web:build",
    ),
    "under try and if": (
        {
            "app.py": "try:\n    import nothing_\nexcept ImportError:\n    from flask import Flask\n"
            "if 1:\n    app: 'Flask' = Flask(__name__)"
        },
        "app",
    ),
    "subclass": (
        {
            "app.py": "from flask import Flask as F\nclass Own(F): pass\napp = Own(__name__)"
        },
        "app",
    ),
    "flaskenv": (
        {"hello.py": APP, "a.py": APP, ".flaskenv": "FLASK_APP=hello.py"},
        "hello",
    ),
    "flaskenv with a factory": (
        {
            "shop.py": ARGS,
            ".flaskenv": "export FLASK_APP=\"shop:create_app('x')\" # one",
        },
        "shop:create_app('x')",
    ),
    "subdirectory": (
        {"backend/app.py": "import models\n" + APP, "backend/models.py": ""},
        "backend/app",
    ),
    "namespace package": (
        {"shop/app.py": "from .models import x\n" + APP, "shop/models.py": "x = 1"},
        "shop.app",
    ),
    "submodule of a package": (
        {"shop/__init__.py": "", "shop/main.py": APP},
        "shop.main",
    ),
    "factory with arguments, called": (
        {
            "app/__init__.py": ARGS,
            "flasky.py": "from app import create_app\napp = create_app('x')",
        },
        "flasky",
    ),
    "src/app.py is not what Flask looks for": (
        {
            "shop/__init__.py": FACTORY,
            "src/app.py": "from shop import create_app\napp = create_app()",
        },
        "shop",
    ),
    "login guard": (
        {"app.py": APP + "@app.before_request\ndef guard():\n    return 'no', 401\n"},
        "app",
    ),
    "worker beside": (
        {
            "shop/__init__.py": FACTORY,
            "shop/worker.py": "from shop import create_app\napp = create_app()",
        },
        "shop",
    ),
    "Latin-1 beside a syntax error": (
        {"app.py": "# coding: latin-1\n# \xe9\n" + APP, "broken.py": "def ("},
        "app",
    ),
    "tests and examples beside": (
        {
            "tests/app.py": APP,
            "examples/x/app.py": APP,
            "docs/conf.py": APP,
            "z.py": APP,
        },
        "z",
    ),
    "environments beside": (
        {
            ".venv/a.py": APP,
            "e/pyvenv.cfg": "",
            "e/app.py": APP,
            "node_modules/app.py": APP,
            "z.py": APP,
        },
        "z",
    ),
}


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("latin-1" if "latin-1" in text else "utf-8"))
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flask_loads_what_is_found(layout, tmp_path):
    files, expected = LAYOUTS[layout]
    found = discover(lay(tmp_path, files), {})
    assert found.app == expected
    # As in the image: the top is on the path, and what [project] installs.
    installed = [tmp_path / "src"] if "pyproject.toml" in files else []
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [tmp_path, *installed])),
        "FLASK_SKIP_DOTENV": "1",
    }
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", found.app, "routes"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "static" in result.stdout


def test_this_repository_is_the_app_beside_the_tool(tmp_path):
    tool = PROJECT + '[tool.setuptools]\npackages = ["containerize", "served"]\n'
    files = {
        "app/__init__.py": FACTORY,
        "containerize/__init__.py": "",
        "served/__init__.py": "def create_app():\n    pass",
        "pyproject.toml": tool,
    }
    lay(tmp_path, files)
    assert discover(tmp_path, {}).requirements == ""  # [project] is the tool's
    lay(tmp_path, {"requirements.in": "flask"})
    found = discover(tmp_path, {})
    assert (found.app, found.requirements) == ("app", "requirements.in")
    assert found.undecided == ()


@pytest.mark.parametrize(
    ("files", "requirements", "lock"),
    [
        ({"requirements.in": "flask"}, "requirements.in", "requirements.txt"),
        ({"requirements.txt": "flask==3.1.3"}, "requirements.txt", "requirements.lock"),
        (
            {
                "requirements.in": "flask",
                "requirements.txt": "# autogenerated by pip-compile\n",
            },
            "requirements.in",
            "requirements.lock",
        ),
        (
            {
                "requirements.in": "flask",
                "requirements.txt": "# Made by `invoke lock` from requirements.in\n",
            },
            "requirements.in",
            "requirements.txt",
        ),
        (
            {"requirements.in": "flask", "requirements.txt": "gunicorn\n"},
            "requirements.in",
            "requirements.lock",
        ),
        (
            {"pyproject.toml": '[project]\nname = "app"\ndependencies = ["flask"]'},
            "pyproject.toml",
            "requirements.txt",
        ),
        (  # as `uv init` and `uv add` write it
            {"pyproject.toml": PROJECT, "models.py": "", "uv.lock": ""},
            "pyproject.toml",
            "requirements.txt",
        ),
        (
            {
                "pyproject.toml": PROJECT + "[tool.poetry]\npackage-mode = false\n"
                "[build-system]\nrequires = []",
            },
            "pyproject.toml",
            "requirements.txt",
        ),
        (
            {
                "pyproject.toml": '[project]\nname = "app"\ndynamic = ["dependencies"]\n'
                "[tool.setuptools.dynamic]\ndependencies = {file = ['needs.txt']}",
                "needs.txt": "flask",
            },
            "needs.txt",
            "requirements.lock",
        ),
    ],
)
def test_where_requirements_are(tmp_path, files, requirements, lock):
    found = discover(lay(tmp_path, {"app.py": APP, **files}), {})
    assert (found.requirements, found.requirements_lock) == (requirements, lock)
    assert found.undecided == ()


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"pyproject.toml": '[tool.poetry.dependencies]\nflask = "^3"'}, "poetry"),
        ({"Pipfile": ""}, "Pipfile"),
        ({"environment.yml": ""}, "environment.yml"),
        ({}, "requirements.in"),
    ],
)
def test_requirements_that_are_not_read_are_one_line(tmp_path, files, word):
    found = discover(lay(tmp_path, {"app.py": APP, **files}), {})
    assert found.requirements == ""
    assert [word in line for line in found.undecided] == [True]


def test_what_is_undecided_names_the_setting(tmp_path):
    assert "setting app" in discover(tmp_path, {}).undecided[0]
    lay(tmp_path, {"one/__init__.py": FACTORY, "two/__init__.py": FACTORY})
    line = discover(tmp_path, {}).undecided[0]
    assert "one, two" in line
    assert "setting app" in line


def test_a_factory_with_arguments_alone_is_undecided(tmp_path):
    found = discover(lay(tmp_path, {"app.py": ARGS, "requirements.in": ""}), {})
    assert found.app == ""
    assert "app:create_app('…')" in found.undecided[0]
    assert len(found.undecided) == 1


def test_the_shell_goes_first_and_is_named(tmp_path):
    lay(tmp_path, {"app.py": APP, "x.py": APP, ".env": "FLASK_APP=app"})
    found = discover(tmp_path, {"FLASK_APP": "x.py:app"})
    assert (found.app, found.said_by) == ("x:app", "FLASK_APP of this shell")


def test_a_broken_pyproject_is_one_line(tmp_path):
    for broken in (b"[", b"\xff", b"project = 1"):
        (tmp_path / "pyproject.toml").write_bytes(broken)
        with pytest.raises(Problem, match=r"pyproject\.toml"):
            discover(tmp_path, {})


def test_a_module_that_cannot_be_read_is_a_line(tmp_path):
    found = discover(lay(tmp_path, {"a.py": "def (", "b.py": "\0", "z.py": APP}), {})
    assert found.app == "z"
    assert [line.split()[0] for line in found.undecided[:2]] == ["a.py", "b.py"]


def test_image_names_are_valid():
    names = [image_name(n) for n in ("Shop_Web", "a..b", "__", "Ünï", "-x-")]
    assert names == ["shop-web", "a-b", "app", "n", "x"]


def test_env_goes_before_flaskenv_as_in_flask(tmp_path):
    lay(tmp_path, {"a.py": APP, "b.py": APP})
    lay(tmp_path, {".env": "FLASK_APP=a\n", ".flaskenv": "FLASK_APP=b\n"})
    assert discover(tmp_path, {}).said_by == "FLASK_APP in .env"
