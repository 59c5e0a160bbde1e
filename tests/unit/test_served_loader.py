"""What to serve is said as Flask says it, and an app that fails says why itself."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, ROOT
from tests.service import raw

SHOP = """
from flask import Flask

def make(name):
    app = Flask("shop")
    app.add_url_rule("/", "name", lambda: name)
    return app
"""
FORMS = {
    "shop": "from flask import Flask\nfrom shop_parts import make\napp = make('app')",
    "with_application": "from shop_parts import make\napplication = make('app')",
    "with_any": "from shop_parts import make\nanything = make('app')",
    "with_create": "from shop_parts import make\ndef create_app(): return make('app')",
    "with_make": "from shop_parts import make\ndef make_app(): return make('app')",
    "named:site": "from shop_parts import make\nsite = make('app')",
    "called:create": "from shop_parts import make\ndef create(): return make('app')",
    "called:create()": "from shop_parts import make\ndef create(): return make('app')",
    "given:create('app')": "from shop_parts import make as create",
    'given:create(name="app")': "from shop_parts import make as create",
    "path/to/inner.py": "from shop_parts import make\napp = make('app')",
    "package.wsgi": "from shop_parts import make\napp = make('app')",
    "package": "from shop_parts import make\ndef create_app(): return make('app')",
}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))


def served(directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`python -m served` in a directory, which must end by itself."""
    # Beside this repository's package `app` none could be missing.
    alone = directory / "alone"
    alone.mkdir()
    (alone / "served").symlink_to(ROOT / "served")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
    given = {"PYTHONPATH": str(alone), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-P", "-m", "served"],
        cwd=directory,
        env={**clean, **given, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("form", FORMS)
def test_form(form: str, tmp_path: Path) -> None:
    write(tmp_path, {"shop_parts.py": SHOP})
    module = form.partition(":")[0].removesuffix(".py")
    if module.startswith("package"):
        write(tmp_path, {"package/__init__.py": "\n"})
    path = "package/__init__" if module == "package" else module.replace(".", "/")
    write(tmp_path, {f"{path}.py": FORMS[form]})
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    with raw.running(tmp_path, tmp_path, FLASK_APP=form, PYTHONPATH=paths) as service:
        assert service.request("GET", "/").body == b"app"


@pytest.mark.parametrize("file", ["wsgi.py", "app.py"])
def test_without_flask_app(file: str, tmp_path: Path) -> None:
    write(tmp_path, {"shop_parts.py": SHOP, file: FORMS["with_any"]})
    with raw.running(tmp_path, tmp_path) as service:
        assert service.request("GET", "/").body == b"app"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("", "FLASK_APP is not set: neither wsgi.py nor app.py in {} has an app"),
        ("nowhere", "FLASK_APP=nowhere: Could not import 'nowhere'."),
        ("empty:x", "FLASK_APP=empty:x: Failed to find attribute 'x' in 'empty'."),
        ("empty:f(", "FLASK_APP=empty:f(: Failed to parse 'f(' as an attribute name"),
        ("empty:f(1)", "FLASK_APP=empty:f(1): The factory 'f(1)' in module 'empty'"),
        ("empty", "FLASK_APP=empty: Failed to find Flask application or factory"),
    ],
)
def test_a_wrong_name_is_one_line(name: str, line: str, tmp_path: Path) -> None:
    write(tmp_path, {"empty.py": "def f(): pass\n"})
    answer = served(tmp_path, FLASK_APP=name)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"served: {line}".format(tmp_path))
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("import nothing", "ModuleNotFoundError: No module named 'nothing'"),
        ("from flask import nothing", "ImportError: cannot import name 'nothing'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def create_app(): return deep(None)\n\ndef deep(x): return x.split()",
         "AttributeError: 'NoneType' object has no attribute 'split'"),
        ("def create_app(): len(1)", "TypeError: object of type 'int' has no len()"),
        ("def create_app(): raise KeyError('SECRET')", "KeyError: 'SECRET'"),
        ("def create_app(: pass", "SyntaxError: invalid syntax"),
    ],
)  # fmt: skip
def test_the_apps_own_error(text: str, last: str, tmp_path: Path) -> None:
    """Its traceback, which begins in its own code, then one line."""
    write(tmp_path, {"broken.py": text})
    answer = served(tmp_path, FLASK_APP="broken")
    assert answer.returncode == 1
    *trace, line = answer.stderr.splitlines()
    assert line.startswith(f"served: the app failed (FLASK_APP=broken): {last}")
    assert trace[-1].startswith(last)
    assert any(str(tmp_path / "broken.py") in found for found in trace)
    if "create_app" in text:
        assert "/served/" not in answer.stderr
        assert "/flask/" not in answer.stderr


def test_an_app_that_ends_the_process(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": "import sys\nsys.exit('no database')"})
    answer = served(tmp_path)
    assert (answer.returncode, answer.stderr) == (1, "no database\n")


def test_modules_of_the_app_take_no_ones_place(tmp_path: Path) -> None:
    """In the image the app's directory is in PYTHONPATH, before Python's own."""
    traps = ("queue", "secrets", "select", "ipaddress", "textwrap", "settings", "logs")
    write(tmp_path, {f"{name}.py": f"print('{name}')" for name in traps})
    write(tmp_path, {"shop_parts.py": SHOP, "app.py": FORMS["with_any"]})
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    with raw.running(tmp_path, tmp_path, PYTHONPATH=paths) as service:
        assert service.request("GET", "/").body == b"app"
        assert "secrets" not in service.out.read_text()
        assert "select" not in service.out.read_text()
        assert service.err.read_text() == ""


def test_an_app_of_our_name_is_told_so(tmp_path: Path) -> None:
    write(tmp_path, {"shop_parts.py": SHOP, "app.py": FORMS["with_any"]})
    write(tmp_path, {"served.py": ""})
    with raw.running(tmp_path, tmp_path) as service:
        warning = f"{tmp_path}/served.py is hidden by what serves the app: rename it"
        assert warning in service.err.read_text()


def test_the_apps_max_content_length_counts_if_it_is_larger(tmp_path: Path) -> None:
    text = """
    from flask import Flask, request
    app = Flask("shop")
    app.config["MAX_CONTENT_LENGTH"] = {}
    @app.post("/")
    def size():
        return str(len(request.get_data()))
    """
    for limit, sizes in (
        (3 << 20, {2 << 20: 200, 3 << 20: 200, (3 << 20) + 1: 413}),
        (1 << 10, {1 << 10: 200, 2 << 10: 413, (1 << 20) + 1: 413}),
        (None, {1 << 20: 200, (1 << 20) + 1: 413}),
    ):
        write(tmp_path, {"app.py": text.format(limit)})
        with raw.running(tmp_path, tmp_path, SERVED_MAX_BODIES="2m") as service:
            for size, status in sizes.items():
                answer = service.request("POST", "/", body=bytes(size))
                assert (size, answer.status) == (size, status)
