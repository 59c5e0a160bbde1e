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
