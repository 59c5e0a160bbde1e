"""What is said names the program that a person runs."""

import sys

import pytest

from containerize import terminal


@pytest.mark.parametrize(
    ("program", "text", "said"),
    [
        ("/x/bin/containerize", "run `invoke lock`", "run `containerize lock`"),
        ("/x/bin/containerize", "Next: invoke ps", "Next: containerize ps"),
        ("/x/bin/containerize", "./dev invoke up", "./dev invoke up"),
        ("/x/containerize/__main__.py", "`invoke ps`", "`containerize ps`"),
        ("/x/bin/invoke", "run `invoke lock`", "run `invoke lock`"),
    ],
)  # fmt: skip
def test_verbs_are_named_for_the_program(monkeypatch, capsys, program, text, said):
    monkeypatch.setattr(sys, "argv", [program, "lock"])
    terminal.say(text)
    assert capsys.readouterr().out == f"{said}\n"


def test_a_command_is_shown_as_it_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/x/bin/containerize", "exec"])
    terminal.echo(["docker", "run", "shop", "invoke", "build"])
    assert capsys.readouterr().out == "$ docker run shop invoke build\n"


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0.0 kB"), (240, "0.2 kB"), (99_000, "99.0 kB"), (24_800_000, "24.8 MB")],
)
def test_what_is_small_is_not_said_to_be_nothing(size, words):
    assert terminal.amount(size) == words
