"""The README and the docs are whole."""

import re
from pathlib import Path

from containerize import settings

ROOT = settings.find_root(Path(__file__).parent)


def test_nothing_is_left_to_fill_in():
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert "@@" not in file.read_text("utf-8"), file


def test_links_lead_to_files():
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^):#]+)\)", file.read_text("utf-8")):
            assert (file.parent / target).exists(), f"{file.name}: {target}"


def test_the_architecture_names_what_is_there_and_each_folder():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`([\w./]+(?:/|\.py))`", text))
    assert {name for name in named if not (ROOT / name).exists()} == set()
    folders = {
        f"{top}/{path.parent.name}/"
        for top in ("containerize", "tests")
        for path in (ROOT / top).glob("*/*.py")
    }
    assert folders - named == set()
