"""Settings: one table, typed, checked, overridden by CONTAINERIZE_*."""

from pathlib import Path

import pytest

from containerize import settings
from containerize.errors import Problem

ROOT = settings.find_root(Path(__file__).parent)


def project(tmp_path, lines=""):
    table = f'[tool.containerize]\nimage = "demo"\n{lines}\n'
    (tmp_path / "pyproject.toml").write_text(table)
    return tmp_path


def test_this_project_is_the_tutorials():
    loaded = settings.load(ROOT, {})
    assert loaded.image == "flask-introduction"
    assert loaded.container_port == 8080


def test_environment_overrides_the_file(tmp_path):
    root = project(tmp_path, "port = 8000")
    assert settings.load(root, {}).port == 8000
    loaded = settings.load(
        root, {"CONTAINERIZE_PORT": "9000", "CONTAINERIZE_TAGS": "a, b"}
    )
    assert (loaded.port, loaded.tags) == (9000, ("a", "b"))


def test_find_root_from_below(tmp_path):
    below = project(tmp_path) / "a" / "b"
    below.mkdir(parents=True)
    assert settings.find_root(below) == tmp_path
    with pytest.raises(Problem, match="change into the repository"):
        settings.find_root(tmp_path.parent)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PORT", "0", "number from 1 to 65535"),
        ("PORT", "70000", "number from 1 to 65535"),
        ("PORT", "abc", "CONTAINERIZE_PORT must be a whole number"),
        ("IMAGE", "Flask", "no image name"),
        ("TAGS", "a:b", "no tag"),
        ("TAGS", "-a", "no tag"),
        ("TAGS", "", "tags is empty"),
        ("CONTAINER", "a b", "no container name"),
        ("PYTHON", "2.7", "no version"),
        ("GLIBC", "3", "no version"),
        ("ARCHITECTURE", "mips", "amd64 or arm64"),
        ("BASE_IMAGE", "python:3.13-slim", "has no digest"),
        ("MEMORY", "lots", "no size"),
        ("PIDS", "0", "at least 1"),
    ],
)
def test_bad_values_get_one_line(tmp_path, variable, value, message):
    with pytest.raises(Problem, match=message) as caught:
        settings.load(project(tmp_path), {f"CONTAINERIZE_{variable}": value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("prot = 1", "no setting prot"),
        ("port = true", "whole number"),
        ('tags = "latest"', "list of strings"),
        ("memory = 128", "must be a string"),
        ("port =", "cannot be read"),
    ],
)
def test_a_bad_file_gets_one_line(tmp_path, lines, message):
    with pytest.raises(Problem, match=message) as caught:
        settings.load(project(tmp_path, lines), {})
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_image_is_named(tmp_path):
    with pytest.raises(Problem, match="missing"):
        settings.load(tmp_path, {})
    (tmp_path / "pyproject.toml").write_text("[tool.containerize]\n")
    with pytest.raises(Problem, match="sets no image"):
        settings.load(tmp_path, {})
