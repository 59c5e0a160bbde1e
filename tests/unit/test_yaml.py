"""YAML is written so that each version of it reads the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from containerize.deploy.yaml import Note, written

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(TEXTS, inner)),
    max_leaves=12,
)


def read(text, version):
    loader = YAML(typ="safe", pure=True)
    loader.version = version
    return loader.load(text)


@pytest.mark.parametrize("version", ["1.1", "1.2"])
@given(value=st.dictionaries(TEXTS, VALUES, min_size=1))
def test_what_is_written_is_read(version, value):
    assert read(written(value), version) == value


@pytest.mark.parametrize("version", ["1.1", "1.2"])
@pytest.mark.parametrize(
    "text",
    ["yes", "NO", "on", "Null", "~", "1_000", "0o17", "1e3", ".inf", "12:30", "<<", "=",
     "a: b", "- a", "#", "a #b", "@a", "`a`", "%a", "\x85", "\u2028", "\ufeff", "\x7f"],
)  # fmt: skip
def test_words_that_yaml_has_a_meaning_for_stay_texts(version, text):
    assert read(written({text: [text]}), version) == {text: [text]}


def test_a_note_is_a_comment_above_what_follows():
    assert written({"a": {Note("one\n\ntwo"): None, "b": []}, "c": [{"d": 1}]}) == (
        "a:\n  # one\n  #\n  # two\n  b: []\nc:\n  - d: 1\n"
    )
