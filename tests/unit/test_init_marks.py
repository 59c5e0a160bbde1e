"""The mark on generated files, and who may rewrite them."""

from containerize.init.marks import State, marked, refresh, state


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
