"""Variables for containers: what a dotenv file says, and that no value is shown."""

import dataclasses
import stat
from pathlib import Path

import pytest

from containerize import settings
from containerize.engines import variables
from containerize.errors import Problem

SECRET = "hunter2-hunter2"


@pytest.fixture
def project(tmp_path):
    return settings.Settings(root=tmp_path, image="shop", env_file=".env")


def written(project, text):
    file = project.root / ".env"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return project


def test_a_file_is_read_as_dotenv(project, monkeypatch):
    monkeypatch.setenv("CALLERS", "from outside")
    text = (
        "\ufeff# a comment\n\n"
        "PLAIN=one two  # and a comment\n"
        "export EXPORTED='quoted # no comment'\n"
        'LINES="first\nsecond"\n'
        'ESCAPED="a\\nb"\n'
        "EMPTY=\n"
        "URL=postgres://u:p@db/${PLAIN}\n"
        "OUTSIDE=${CALLERS}\n"
        "DEFAULT=${NOWHERE:-other}\n"
    )
    assert variables.read(written(project, text)) == {
        "PLAIN": "one two",
        "EXPORTED": "quoted # no comment",
        "LINES": "first\nsecond",
        "ESCAPED": "a\nb",
        "EMPTY": "",
        "URL": "postgres://u:p@db/one two",
        "OUTSIDE": "from outside",
        "DEFAULT": "other",
    }


def test_flags_go_before_the_file(project):
    found = variables.read(
        written(project, "A=file\nB=file\n"), ["A=x=y", "MINE"], {"MINE": "caller's"}
    )
    assert found == {"A": "x=y", "B": "file", "MINE": "caller's"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"A=1\n{SECRET}\n", "line 2 is not NAME=VALUE"),
        (f'A="{SECRET}\n', "line 1 is not NAME=VALUE"),
        (f"=\n{SECRET}", "line 1 is not NAME=VALUE"),
        (f"{SECRET}\xfc=1".encode("latin-1"), "is not UTF-8"),
        (f"1A={SECRET}", "a variable's name"),
        (f"'A B'={SECRET}", "a variable's name"),
        (f"A=\0{SECRET}", "A has a NUL"),
        (f"A={SECRET * 10_000}", "A is longer than the 128 KiB"),
    ],
)
def test_a_bad_file_is_one_line_without_a_value(project, text, message):
    with pytest.raises(Problem, match=message) as caught:
        variables.read(written(project, text))
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_file(project):
    with pytest.raises(Problem, match="there is no file"):
        variables.read(project)
    (project.root / ".env").mkdir()
    with pytest.raises(Problem, match="cannot be read"):
        variables.read(project)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("NOWHERE", "--env NOWHERE: there is no such variable here"),
        (f"={SECRET}", "a variable's name"),
        (f"A B={SECRET}", "a variable's name"),
        (f"{SECRET} {SECRET}", "--env \\(not a name\\)"),
    ],
)
def test_a_bad_flag_is_one_line_without_a_value(project, flag, message):
    with pytest.raises(Problem, match=message) as caught:
        variables.read(dataclasses.replace(project, env_file=""), [flag], {})
    assert SECRET not in str(caught.value)


def test_values_are_handed_over_off_the_command_line():
    given = {"A": f"{SECRET}\nb", "DOCKER_HOST": SECRET, "PATH": f"/{SECRET}"}
    with variables.handed(given) as (options, environment):
        assert SECRET not in " ".join(options)
        # The client must not go to that host, nor look for its helpers on that path.
        assert environment == {"A": f"{SECRET}\nb"}
        file = Path(options[0].partition("=")[2])
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text() == f"DOCKER_HOST={SECRET}\nPATH=/{SECRET}\n"
        assert options[1:] == ["--env=A"]
    assert not file.exists()


def test_what_a_file_of_the_engine_cannot_hold_is_told():
    with (
        pytest.raises(Problem, match="DOCKER_CERT is a variable that engines read"),
        variables.handed({"DOCKER_CERT": f"{SECRET}\n2"}),
    ):
        pass


def test_the_callers_own_value_may_have_several_lines(monkeypatch):
    monkeypatch.setenv("KEY", "a\nb")
    with variables.handed({"KEY": "a\nb"}) as (options, environment):
        assert (options, environment) == (["--env=KEY"], {"KEY": "a\nb"})


def test_a_mark_changes_with_command_and_values_and_tells_neither():
    mark = variables.mark(["run"], {"A": SECRET})
    assert variables.mark(["run"], {"A": SECRET}, mark) == mark
    assert variables.mark(["run"], {"A": "other"}, mark) != mark
    assert variables.mark(["create"], {"A": SECRET}, mark) != mark
    assert variables.mark(["run"], {"A": SECRET}) != mark
    assert SECRET not in mark
