"""`containerize.unit`: an app's own tests, with its packages, wherever nox stands."""

import subprocess
import sys

import pytest

from containerize import unit
from tests.conftest import ROOT

TABLE = '[tool.containerize]\nimage = "shop"\nrequirements = "needs.txt"\n'
TEST = "import shop, json, made_here\ndef test_it(): assert shop.x == 1\n"


@pytest.fixture
def app(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "shop.py").write_text("x = 1\n")
    (tmp_path / "pyproject.toml").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_tests_nothing_is_installed(app, capfd):
    (app / "tests" / "smoke").mkdir()
    (app / "tests" / "smoke" / "test_smoke.py").write_text("def test_x(): assert 0\n")
    assert unit.main(["tests", "--ignore=tests/smoke"]) == 5
    assert "no tests" in capfd.readouterr().out
    assert not (app / ".nox").exists()


def test_beside_flask_they_run_there(app):
    (app / "tests" / "test_it.py").write_text("import flask\n" + "def test_x(): ...\n")
    assert unit.main(["tests"]) == 0
    (app / "tests" / "test_it.py").write_text("def test_x(): assert 0\n")
    assert unit.main(["tests"]) == 1


def test_what_tests_need_is_what_the_app_asks_for(app):
    (app / "needs.txt").write_text("flask>=3\n")
    (app / "requirements-dev.txt").write_text("pytest-flask\n")
    (app / "requirements.lock").write_text(
        "# Made by `invoke lock`\nflask==3.1.3 \\\n    --hash=sha256:00\n"
    )
    (app / "pyproject.toml").write_text(
        '[project.optional-dependencies]\ntest = ["pytest"]\n'
        '[dependency-groups]\ndev = ["mock", {include-group = "x"}]\n'
        + TABLE
        + 'requirements-lock = "requirements.lock"\n'
    )
    project = unit.settings.load(app, {})
    assert unit._wanted(project) == ["pytest", "flask>=3", "pytest-flask", "mock"]
    assert unit._pinned(project) == ["flask==3.1.3"]


def test_where_no_flask_is_they_get_their_own(app, monkeypatch):
    """With a package that no index knows, in the project's wheels."""
    held = app / "wheels"
    held.mkdir()
    from tests.unit.test_layers import wheel

    wheel(held, "made_here", {"made_here.py": "y = 2\n"})
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d"]
    tools = [
        line.split(" ")[0] for line in (ROOT / "tools.txt").read_text().splitlines()
    ]
    names = ("pytest==", "iniconfig==", "packaging==", "pluggy==", "pygments==")
    wanted = [line for line in tools if line.startswith(names)]
    subprocess.run([*pip, str(held), *wanted], check=True)
    (app / "needs.txt").write_text("made-here\n")
    (app / "tests" / "test_it.py").write_text(TEST)
    monkeypatch.setattr(unit.importlib.util, "find_spec", lambda name: None)
    assert unit.main(["tests"]) == 0
    made = (app / ".nox" / "app-tests" / "made-of").stat().st_mtime_ns
    assert unit.main(["tests"]) == 0
    assert (app / ".nox" / "app-tests" / "made-of").stat().st_mtime_ns == made
