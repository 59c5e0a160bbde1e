"""What `--against` names: the first that a name fits, and one line if it fits none."""

import json
import sys

import pytest

from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.settings import Settings
from containerize.verify import against
from tests.conftest import Quiet

# Tells what it was asked; it has the containers and services of the file's names.
SCRIPT = """
import json, sys
top, kind, verb, name, *_ = sys.argv[1:]
print(kind, name, file=open(top + "/asked", "a"))
found = json.load(open(top + "/there")).get(f"{kind} {name}")
if found is None:
    sys.exit(f"Error: no such {kind}: {name}")
print(json.dumps([found]))
"""


@pytest.fixture
def engine(tmp_path):
    (tmp_path / "there").write_text("{}")
    return Engine("docker", (sys.executable, "-c", SCRIPT, str(tmp_path)))


@pytest.fixture
def asked(tmp_path):
    def read():
        file = tmp_path / "asked"
        return file.read_text().splitlines() if file.exists() else []

    return read


@pytest.fixture
def find(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project = Settings(root=tmp_path, image="shop", architectures=("amd64", "arm64"))

    def run(text, **options):
        return against.find(project, [engine], text, progress=Quiet(), **options)

    return run


def test_a_digest_may_be_any_images_or_that_of_their_index(find, asked):
    digest = f"sha256:{'1' * 64}"
    target = find(digest)
    assert {one.digest for one in target.images} == {target.index} == {digest}
    assert len(target.images) == 2
    assert target.either
    assert asked() == []


def test_a_file_goes_before_a_container(find, asked, tmp_path):
    (tmp_path / "web").write_text("no archive")
    with pytest.raises(Problem, match="web is truncated"):
        find("web")
    assert asked() == []
    (tmp_path / "web").unlink()
    (tmp_path / "web").mkdir()  # a directory is none
    with pytest.raises(Problem, match="docker has no container and no service of that"):
        find("web")


def test_a_container_goes_before_a_service(find, asked, tmp_path):
    there = {"container web": {"State": {"Status": "exited"}}}
    (tmp_path / "there").write_text(json.dumps(there))
    with pytest.raises(Problem, match=r"container web does not run \(exited\)"):
        find("web")
    assert asked() == ["container web"]
    with pytest.raises(Problem, match="api is no file and no digest"):
        find("api")
    assert asked()[1:] == ["container api", "service api"]


@pytest.mark.parametrize("text", ["-x", "a b", "sha256:12", "--help", "ü"])
def test_what_is_no_name_is_never_asked_for(find, asked, text):
    with pytest.raises(Problem, match="is no file and no digest"):
        find(text)
    assert asked() == []


def test_all_processors_are_those_of_a_file_like_digests_json(find, asked):
    for text in ("web", f"sha256:{'1' * 64}", "example.org/a:b"):
        with pytest.raises(Problem, match="leave out --all, or name one"):
            find(text, every=True)
    assert asked() == []
    assert [one.architecture for one in find("", every=True).images] == [
        "amd64",
        "arm64",
    ]
    assert len(find("").images) == 1


def test_an_engine_that_fails_is_told(find, engine, tmp_path):
    (tmp_path / "there").write_text("{")  # so that it ends with an error of its own
    with pytest.raises(Problem, match="docker"):
        find("web")
