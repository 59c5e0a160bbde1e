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


def test_a_file_of_another_encoding_is_one_line(tmp_path):
    text = f"# \xe9\n[{settings.TABLE}]\n".encode("latin-1")
    (tmp_path / "pyproject.toml").write_bytes(text)
    with pytest.raises(Problem, match=r"pyproject\.toml cannot be read: 'utf-8'"):
        settings.load(settings.find_root(tmp_path), {})


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
        ("NETWORK", "none", "is none that a port can be published on"),
        ("NETWORK", "container:x", "is none that a port can be published on"),
        ("VOLUMES", "/data", "use NAME:/path"),
        ("VOLUMES", "a:/", "use NAME:/path"),
        ("VOLUMES", "data:data", "use NAME:/path"),
        ("VOLUMES", "data:/a/../b", "use NAME:/path"),
        ("VOLUMES", "da ta:/data", "use NAME:/path"),
        ("VOLUMES", "data:/data:ro:x", "use NAME:/path"),
        ("COMMANDS", "x", "use pyproject.toml"),
        ("SECRETS", "x", "use pyproject.toml"),
        ("REPLICAS", "0", "replicas must be at least 1"),
        ("DRAIN_DELAY", "-1", "drain-delay -1 is not from 0 to 3600"),
        ("DRAIN_DELAY", "3601", "drain-delay 3601 is not from 0 to 3600"),
        ("DRAIN_DELAY", "1.5", "must be a whole number"),
        ("INGRESS_PORT", "70000", "ingress-port 70000 is no port"),
        ("INGRESS_PORT", "-1", "ingress-port -1 is no port"),
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:/data", ("data", "/data", "")),
        ("data:/data:ro,z", ("data", "/data", "ro,z")),
        ("./data:/data", ("./data", "/data", "")),
        ("/srv/data:/data", ("/srv/data", "/data", "")),
        ("~/data:/data", ("~/data", "/data", "")),
    ],
)
def test_volumes_are_names_or_directories(text, expected):
    assert settings.check_volume(text) == expected


def test_commands_are_a_table(tmp_path):
    table = '[tool.containerize.commands]\nworker = "python3 -m shop.worker"'
    loaded = settings.load(project(tmp_path, table), {})
    assert loaded.commands == {"worker": "python3 -m shop.worker"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('next = "x"', "'next' is no name"),
        ('"A b" = "x"', "'A b' is no name"),
        ('worker = ""', "worker is empty"),
        ('worker = "python3 \'"', "cannot be read"),
        ("worker = 1", "must be a table"),
    ],
)
def test_bad_commands_get_one_line(tmp_path, line, message):
    root = project(tmp_path, f"[tool.containerize.commands]\n{line}")
    with pytest.raises(Problem, match=message):
        settings.load(root, {})


def test_secrets_are_a_table(tmp_path):
    table = '[tool.containerize.secrets]\ndb-password = "secrets/db"'
    loaded = settings.load(project(tmp_path, table), {})
    assert loaded.secrets == {"db-password": "secrets/db"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"a/b" = "x"', "'a/b' is no name"),
        ('".." = "x"', r"'\.\.' is no name"),
        (f'{"a" * 65} = "x"', "is no name: use up to 64"),
        ('"a-" = "x"', "'a-' is no name"),
        ('db = ""', "'' is no file"),
        ('db = "a,b"', "is no file that engines can mount"),
        ("db = 1", "must be a table"),
    ],
)
def test_bad_secrets_get_one_line(tmp_path, line, message):
    root = project(tmp_path, f"[tool.containerize.secrets]\n{line}")
    with pytest.raises(Problem, match=message) as caught:
        settings.load(root, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "expected"), [("1k", 1 << 10), ("128m", 128 << 20), ("2g", 2 << 30)]
)
def test_a_size_is_so_many_bytes(size, expected):
    assert settings.size_in_bytes(settings.check_size(size)) == expected


def test_a_missing_file_or_image_is_named(tmp_path):
    with pytest.raises(Problem, match="missing"):
        settings.load(tmp_path, {})
    (tmp_path / "pyproject.toml").write_text("[tool.containerize]\n")
    with pytest.raises(Problem, match="sets no image"):
        settings.load(tmp_path, {})


@pytest.mark.parametrize(
    "head",
    ["[tool.containerize]", "[ tool.'containerize' ]", "\ufeff[tool.containerize]"],
)
def test_the_table_is_found_however_toml_writes_it(tmp_path, head):
    file = tmp_path / "pyproject.toml"
    file.write_text(f'{head}\nimage = "shop"\n', "utf-8")
    (tmp_path / "sub").mkdir()
    # One of another project's in between, in another encoding.
    (tmp_path / "sub" / "pyproject.toml").write_bytes(b"# caf\xe9\n")
    assert settings.find_root(tmp_path / "sub") == tmp_path
    assert settings.load(tmp_path, {}).image == "shop"
    file.write_text('[tool.containerize.commands]\nx = "y"\n')
    assert settings.find_root(tmp_path) == tmp_path


def test_settings_can_be_remembered_by():
    # Which mirrors Debian's image has is asked once for the same settings.
    given = {"CONTAINERIZE_DEBIAN_IMAGE": "x"}
    assert hash(settings.load(ROOT, given)) == hash(settings.load(ROOT, given))
