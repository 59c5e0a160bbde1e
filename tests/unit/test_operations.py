"""The settings table of docs/operations.md is the code's."""

from __future__ import annotations

from served import settings
from tests.conftest import ROOT


def table() -> str:
    """The table in Markdown, made from the code."""
    lines = ["| variable | default | value | meaning |", "|---|---|---|---|"]
    for row in settings.rows():
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| `{row.variable}` | {default} | {row.wanted} | {row.text} |")
    return "\n".join(lines)


def test_settings_table() -> None:
    """When it fails, put what it prints between the page's two marks."""
    wanted = table()
    print(wanted)
    page = (ROOT / "docs/operations.md").read_text()
    found = page.partition("<!-- settings -->\n")[2].partition("\n<!-- /settings -->")[
        0
    ]
    assert found == wanted
    assert wanted.count("\n") > 15
