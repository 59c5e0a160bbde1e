"""What `init` writes: only what is missing, all of it or none, once."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from containerize import FORMAT
from containerize.errors import Problem
from containerize.init import marks
from containerize.init import plan as planning
from containerize.init.plan import describe, plan, write

APP = "from flask import Flask\napp = Flask(__name__)\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "requirements.in").write_text("flask\n")
    return tmp_path


def tree(root: Path) -> dict[str, bytes]:
    files = (file for file in root.rglob("*") if file.is_file())
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def settings(root: Path) -> dict[str, object]:
    return tomllib.loads((root / "pyproject.toml").read_text())["tool"]["containerize"]


def test_a_second_run_changes_nothing(root):
    write(plan(root))
    before = tree(root)
    for name in ("Dockerfile", ".dockerignore", "base.in", "tasks.py", planning.SMOKE):
        assert marks.state(before[name].decode()).kind == "untouched", name
    write(plan(root))
    assert tree(root) == before
    assert "nothing to write" in describe(plan(root))[-2]
    assert settings(root)["app"] == "app"


def test_a_file_of_an_older_format_is_named(root):
    write(plan(root))
    file = root / "Dockerfile"
    file.write_text(marks.marked("FROM x\n", FORMAT - 1))
    [line] = (x for x in describe(plan(root)) if "Dockerfile" in x)
    assert line.startswith("undecided: Dockerfile is of format")
    assert line.endswith("`invoke lock` rewrites it")
    file.write_text(file.read_text() + "RUN y\n")
    [line] = (x for x in describe(plan(root)) if "Dockerfile" in x)
    assert "move it away" in line


def test_a_plan_alone_writes_nothing(root):
    before = tree(root)
    lines = describe(plan(root), dry=True)
    assert tree(root) == before
    assert "would write Dockerfile: was missing" in lines


def test_what_the_user_has_stays_and_the_table_says_where_ours_is(root):
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / "tasks.py").write_text("")
    (root / "requirements.in").unlink()
    (root / "requirements.txt").write_text("flask==3.1.3\n")
    (root / ".dockerignore").write_text("build\n")
    before = tree(root)
    write(plan(root))
    after = tree(root)
    assert before.items() <= after.items()
    assert settings(root) == {
        "image": planning.discover(root).image,
        "app": "app",
        "requirements": "requirements.txt",
        "requirements-lock": "requirements.lock",
        "dockerfile": "containerize.Dockerfile",
    }
    assert "invoke --collection containerize_tasks" in after["pyproject.toml"].decode()
    write(plan(root))
    assert tree(root) == after


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"[tool.x]\na = 1",
        b"\xef\xbb\xbf[tool.x]\r\na = 1\r\n",
        "# \xe9\n".encode(),
    ],
)
def test_the_table_leaves_the_other_bytes_of_pyproject(root, before):
    file = root / "pyproject.toml"
    file.write_bytes(before)
    file.chmod(0o600)
    write(plan(root))
    after = file.read_bytes()
    assert after.startswith(before)
    if b"\r\n" in before:
        assert after.count(b"\n") == after.count(b"\r\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "containerize" in tomllib.loads(after.decode("utf-8-sig"))["tool"]


def test_the_settings_that_are_there_decide(root):
    (root / "shop.py").write_text(APP)
    (root / "requirements.txt").write_text("flask\n")
    table = '[tool.containerize]\nimage = "mine"\napp = "shop"\n'
    (root / "pyproject.toml").write_text(table + 'requirements = "requirements.txt"\n')
    made = plan(root)
    assert made.notes[:-1] == ()  # the last one asks for 'git init'
    write(made)
    lines = (root / "Dockerfile").read_text().splitlines()
    assert {"ARG PROJECT=mine", "ARG APP=shop"} <= set(lines)


def test_what_a_table_of_the_users_lacks_is_said(root):
    (root / "app.py").rename(root / "shop.py")
    (root / "requirements.in").rename(root / "requirements.txt")
    (root / "pyproject.toml").write_text("[tool.containerize]\nport = 9000\n")
    found = [n for n in plan(root).notes if n.startswith("in [tool.containerize]")]
    image = planning.discover(root).image
    assert [note.partition(" set ")[2] for note in found] == [
        f'image = "{image}"',
        'app = "shop"',
        'requirements = "requirements.txt"',
    ]


def test_a_pyproject_that_takes_no_table_is_one_line(root):
    for text in ("tool = {x = 1}\n", "[tool\n"):
        (root / "pyproject.toml").write_text(text)
        with pytest.raises(Problem, match=r"pyproject\.toml"):
            plan(root)


def test_gitignore_gets_the_lines_it_lacks(root):
    (root / ".gitignore").write_bytes(b"__pycache__\r\nbuild/\r\n*.log")
    write(plan(root))
    lines = (root / ".gitignore").read_bytes().split(b"\r\n")
    assert lines[:3] == [b"__pycache__", b"build/", b"*.log"]
    assert b"/dist/" in lines
    assert b"/build/" not in lines


def test_gitignore_lets_own_wheels_through(root):
    """`wheels/` is in the .gitignore that many start a Python repository with."""
    (root / ".gitignore").write_text("wheels/\n*.whl\n")
    subprocess.run(["git", "init", "--quiet", root], check=True)
    write(plan(root))
    (root / "wheels").mkdir()
    (root / "wheels/a-1-py3-none-any.whl").write_text("")
    asked = ["git", "-C", root, "check-ignore", "wheels/a-1-py3-none-any.whl"]
    assert subprocess.run(asked, check=False).returncode == 1
    before = tree(root)
    write(plan(root))
    assert tree(root) == before


@pytest.mark.parametrize("kind", ["directory", "dangling", "loop", "outside", "parent"])
def test_what_stands_in_the_way_is_one_line(root, kind, tmp_path_factory):
    file = root / "Dockerfile"
    if kind == "directory":
        file.mkdir()
    elif kind == "dangling":
        file.symlink_to("nowhere")
    elif kind == "loop":
        file.symlink_to("Dockerfile")
    elif kind == "outside":
        outside = tmp_path_factory.mktemp("outside") / "f"
        outside.write_text("")
        file.symlink_to(outside)
    else:
        (root / "tests").write_text("")
    before = tree(root)
    with pytest.raises(Problem, match=r"Dockerfile|tests"):
        write(plan(root))
    assert tree(root) == before


def test_where_nothing_is_nothing_is_written(root, monkeypatch):
    (root / "app.py").unlink()
    plan(root)  # requirements alone: the app may be of a kind that only Flask finds
    (root / "requirements.in").unlink()
    with pytest.raises(Problem, match="neither a Flask app nor its requirements"):
        plan(root)
    monkeypatch.setenv("FLASK_APP", "later")
    found = {change.path: change.content or b"" for change in plan(root).changes}
    assert b'app = "later"' in found["pyproject.toml"]


def test_a_write_that_fails_takes_the_others_back(root):
    # Below a file that the plan itself writes: fails late, when the others are there.
    (root / "pyproject.toml").write_text("# mine\n")
    made = plan(root)
    late = planning.Change("Dockerfile/x", "below a file", b"")
    before = tree(root)
    changed = planning.Plan(root, made.found, (*made.changes, late), ())
    with pytest.raises(Problem, match="cannot write"):
        write(changed)
    assert tree(root) == before
    assert not (root / "tests").exists()


def test_a_file_that_appears_meanwhile_is_not_overwritten(root):
    made = plan(root)
    (root / "Dockerfile").write_text("mine")
    with pytest.raises(Problem, match="Dockerfile changed meanwhile"):
        write(made)
    assert (root / "Dockerfile").read_text() == "mine"


def test_the_dockerfile_holds_any_app(root):
    (root / ".flaskenv").write_text("""FLASK_APP='shop:create_app("a$b")'\n""")
    write(plan(root))
    text = (root / "Dockerfile").read_text()
    assert 'ARG APP="shop:create_app(\\"a\\$b\\")"\n' in text
    assert settings(root)["app"] == 'shop:create_app("a$b")'


def test_generated_python_is_formatted_python(root):
    write(plan(root))
    for name in ("tasks.py", "noxfile.py", planning.SMOKE):
        compile((root / name).read_text(), name, "exec")
