"""A repository that an older format of the tool initialised, after an upgrade."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from containerize import FORMAT
from containerize.init import marks
from tests.adopters.conftest import Adopter
from tests.adopters.test_shapes import ENGINES, SHAPES, answer

FORMAT_1 = Path(__file__).with_name("format1.json")
"""What the wheel of format 1 wrote for the tutorial's app, by path."""


def test_what_format_1_initialised_builds_after_lock_alone(
    adopter: Adopter, free_port: int
) -> None:
    shutil.copytree(SHAPES / "tutorial", adopter.root, dirs_exist_ok=True)
    (adopter.root / "shape.toml").unlink()
    old = json.loads(FORMAT_1.read_text("utf-8"))
    for name, text in old.items():
        (adopter.root / name).parent.mkdir(parents=True, exist_ok=True)
        (adopter.root / name).write_text(text, "utf-8")
    file = adopter.root / "pyproject.toml"
    file.write_text(file.read_text("utf-8").replace('"shop"', f'"{adopter.root.name}"'))
    adopter.run("git", "init", "--quiet")
    adopter.run("containerize", "lock")
    for name, text in old.items():
        if marks.state(text).kind == "untouched":
            now = marks.state((adopter.root / name).read_text("utf-8"))
            assert now == marks.State("untouched", FORMAT)
    for engine in ENGINES:
        flags = ("--engine", engine)
        adopter.run("containerize", "up", *flags, "--port", str(free_port))
        assert answer(f"http://127.0.0.1:{free_port}/")[0] == 200
        adopter.run("containerize", "stop", *flags)
