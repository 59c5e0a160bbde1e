"""The mark on generated files, and who may rewrite them."""

import pytest

from containerize.errors import Problem
from containerize.init.marks import State, check, marked, refresh, state


def test_a_mark_tells_an_edit():
    text = marked("body\n", 3)
    assert state(text) == State("untouched", 3)
    assert state(text.replace("\n", "\r\n")) == State("untouched", 3)
    assert state(text + "more\n") == State("edited", 3)
    assert state("body\n") == State("foreign")
    assert state("#!/bin/sh\n" + text) == State("foreign")


def test_refresh_rewrites_what_nobody_touched(tmp_path):
    old = marked("old\n", 1)
    files = {
        "same": old,
        "edited": old + "mine\n",
        "foreign": "mine\n",
        "newer": marked("new\n", 3),
        "current": marked("other\n", 2),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = refresh(tmp_path, dict.fromkeys([*files, "missing"], "now\n"), 2)
    assert (done.written, done.edited) == (("same",), ("edited",))
    assert (tmp_path / "same").read_text() == marked("now\n", 2)
    for name in ("edited", "foreign", "newer", "current"):
        assert (tmp_path / name).read_text() == files[name]
    assert not (tmp_path / "missing").exists()
    assert refresh(tmp_path, {"same": "now\n"}, 2).written == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (marked("FROM x\n", 1), "of format 1 .* format 2: `invoke lock` rewrites it$"),
        (marked("FROM x\n", 1) + "RUN y\n", "of format 1 .* move it away, .*init`"),
        (marked("FROM x\n", 3), "of format 3 .* format 2: install that version"),
    ],
    ids=["older", "older and edited", "newer"],
)
def test_a_file_of_another_format_is_refused_in_a_line(tmp_path, text, said):
    file = tmp_path / "Dockerfile"
    file.write_text(text)
    with pytest.raises(Problem, match=f"^Dockerfile is {said}") as caught:
        check(file, 2)
    assert "\n" not in str(caught.value)


def test_a_file_of_this_format_or_the_users_own_is_taken(tmp_path):
    file = tmp_path / "Dockerfile"
    for text in (marked("FROM x\n", 2), marked("FROM x\n", 2) + "RUN y\n", "FROM x"):
        file.write_text(text)
        check(file, 2)
