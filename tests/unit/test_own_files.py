"""This repository is the tool's first user: what init writes is what stands here."""

import shutil
import tomllib
from pathlib import Path

import pytest

from containerize.init import marks, plan
from tests.conftest import ROOT

FILES = (
    "Dockerfile",
    ".dockerignore",
    "base.in",
    "tasks.py",
    "tests/smoke/test_smoke.py",
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of app/ and requirements.in, and what init adds to them."""
    top = tmp_path_factory.mktemp("bare") / "flask-introduction"
    top.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "app", top / "app", ignore=ignored)
    shutil.copy(ROOT / "requirements.in", top)
    plan.write(plan.plan(top))
    return top


@pytest.mark.parametrize("name", FILES)
def test_a_generated_file_stands_here(bare: Path, name: str) -> None:
    assert (bare / name).read_text("utf-8") == (ROOT / name).read_text("utf-8")
    assert marks.state((ROOT / name).read_text("utf-8")).kind == "untouched"


def test_the_noxfile_is_inits_and_sessions_of_ours(bare: Path) -> None:
    _, _, body = (bare / "noxfile.py").read_text("utf-8").partition("\n")
    ours = (ROOT / "noxfile.py").read_text("utf-8")
    for part in body.split("\n\n\n"):
        assert part.strip() in ours or "import" in part


def test_the_table_has_what_init_says(bare: Path) -> None:
    said, ours = (
        tomllib.loads((top / "pyproject.toml").read_text("utf-8"))["tool"][
            "containerize"
        ]
        for top in (bare, ROOT)
    )
    assert said.items() <= ours.items()
