"""The provenance: what it names, which commit, and that it can be read back."""

import dataclasses
import json
import subprocess

import pytest

from containerize.errors import Problem
from containerize.image import record
from containerize.publish import provenance
from containerize.publish.provenance import COMMITTED, DIRTY, NO_REPOSITORY, Source
from containerize.publish.subjects import Subject
from tests.unit import images

INDEX = f"sha256:{'9' * 64}"
SOURCE = Source(COMMITTED, "1" * 40)


@pytest.fixture
def project(tmp_path):
    return images.project(tmp_path / "project")


def subject(project, architecture="amd64"):
    """An image of the project, of which no byte is looked at."""
    settings = project.for_architecture(architecture)
    manifest = f"sha256:{images.digest(architecture)}"
    archive = project.dist_dir / "shop.tar"
    return Subject(settings, archive, manifest, record.inputs(settings))


def both(project):
    settings = dataclasses.replace(project, architectures=("amd64", "arm64"))
    return [subject(settings, each) for each in settings.architectures]


def git(root, *arguments):
    names = ("-c", "user.name=x", "-c", "user.email=x@example")
    command = ["git", *names, *arguments]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def committed(project):
    (project.root / ".gitignore").write_text("/dist/\n*.mo\n")
    git(project.root, "init", "--quiet")
    git(project.root, "add", "--all")
    git(project.root, "commit", "--quiet", "--message=x")
    return project


def source(project):
    return provenance.source(project, record.inputs(project))


def test_it_is_a_statement_of_in_toto_on_all_images(project):
    found = json.loads(provenance.make(both(project), SOURCE, INDEX))
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert found["subject"] == [
        {"name": "shop (amd64)", "digest": {"sha256": images.digest("amd64")}},
        {"name": "shop (arm64)", "digest": {"sha256": images.digest("arm64")}},
        {"name": "shop", "digest": {"sha256": "9" * 64}},
    ]
    # SLSA's provenance has these and no more at its top
    predicate = found["predicate"]
    assert predicate.keys() == {"buildDefinition", "runDetails"}
    assert predicate["runDetails"].keys() == {"builder"}
    assert predicate["runDetails"]["builder"]["id"] == "pkg:pypi/flask-containerize"


def test_it_names_every_input_by_hash(project):
    found = json.loads(provenance.make(both(project), SOURCE))
    listed = found["predicate"]["buildDefinition"]["resolvedDependencies"]
    by_hash = {each["digest"].get("sha256"): each for each in listed}
    for name, (version, *_) in images.DEBS.items():
        for architecture in ("amd64", "arm64"):
            each = by_hash[images.digest(f"{architecture} {name}")]
            assert each["uri"].startswith(f"pkg:deb/debian/{name}@{version[:2]}")
    for name, (version, _) in images.WHEELS.items():
        each = by_hash[images.digest(name)]
        assert each["uri"] == f"pkg:pypi/{name}@{version}"
    files = {each["name"] for each in listed if "uri" not in each}
    assert files == {
        *("source", "Dockerfile", "base.lock", "requirements.txt", "package served"),
        *("app/__init__.py", "app/go", "app/run"),
    }
    assert "://" not in json.dumps(found["predicate"])


def test_the_parameters_are_the_settings_that_decide_the_images(project):
    names = {
        "amd64": f"x/y@sha256:{'4' * 64}",
        "arm64": f"x/y@sha256:{'5' * 64}",
    }
    subjects = both(dataclasses.replace(project, base_image=names))
    statement = provenance.make(subjects, SOURCE)
    built = json.loads(statement)["predicate"]["buildDefinition"]
    parameters = built["externalParameters"]
    assert parameters["architectures"] == ["amd64", "arm64"]
    assert (parameters["app"], parameters["python"]) == ("app", "3.13")
    assert parameters["base-image"] == names
    bases = [
        each
        for each in built["resolvedDependencies"]
        if each.get("uri", "").startswith("pkg:oci/")
    ]
    assert [each["name"] for each in bases] == ["x/y", "x/y"]
    assert [each["digest"]["sha256"][0] for each in bases] == ["4", "5"]
    # what differs comes back for each
    for each in subjects:
        assert provenance.read(statement, each.manifest).inputs == each.inputs


def test_what_builds_an_installed_app_is_named(project):
    (project.root / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "2"\ndependencies = ["flask"]\n'
    )
    installed = dataclasses.replace(project, requirements="pyproject.toml")
    images.write_locks(installed)
    images.write_backend(installed)
    found = json.loads(provenance.make([subject(installed)], SOURCE))
    listed = found["predicate"]["buildDefinition"]["resolvedDependencies"]
    hashes = {each["digest"].get("sha256") for each in listed}
    assert images.digest("setuptools") in hashes


def test_it_can_be_read_back_for_each_image(project):
    subjects = both(project)
    statement = provenance.make(subjects, SOURCE, INDEX)
    for each in subjects:
        facts = provenance.read(statement, each.manifest)
        assert facts == provenance.Facts(SOURCE, each.inputs)
        assert "link to __init__.py" in facts.inputs.values()
        assert facts.inputs["app/go"].endswith(" executable")


def test_a_clean_checkout_is_named_by_its_commit(committed):
    head = git(committed.root, "rev-parse", "HEAD")
    assert source(committed) == Source(COMMITTED, head)
    statement = provenance.make([subject(committed)], source(committed))
    assert provenance.read(statement, subject(committed).manifest).source.commit == head


@pytest.mark.parametrize("name", ["app/__init__.py", "README.md"])
def test_a_changed_checkout_has_no_commit(committed, name):
    (committed.root / name).write_text("app = 2\n")
    assert source(committed) == Source(DIRTY)
    statement = provenance.make([subject(committed)], source(committed))
    assert b"gitCommit" not in statement
    assert DIRTY.encode() in statement
    git(committed.root, "add", name)  # staged is not committed
    assert source(committed) == Source(DIRTY)


def test_what_only_containers_get_changes_no_commit(committed):
    for name in ("secrets/db", "variables"):
        (committed.root / name).parent.mkdir(exist_ok=True)
        (committed.root / name).write_text("hunter2\n")
    assert source(committed) == Source(DIRTY)
    own = dataclasses.replace(
        committed, env_file="variables", secrets={"db": "secrets/db"}
    )
    assert source(own).state == COMMITTED
    (committed.root / "secrets" / "other").write_text("")
    assert source(own) == Source(DIRTY)


def test_a_packed_file_that_git_ignores_is_no_commits(committed):
    (committed.root / "app" / "x.mo").write_text("x")
    assert source(committed).state == COMMITTED
    included = dataclasses.replace(committed, include=("*.mo",))
    assert source(included) == Source(DIRTY)


def test_without_a_repository_or_a_commit_there_is_none(project):
    assert source(project) == Source(NO_REPOSITORY)
    git(project.root, "init", "--quiet")
    assert source(project) == Source(DIRTY)


def test_it_is_the_same_whatever_the_time_and_the_checkouts_name(committed, tmp_path):
    (committed.root / "app" / "go").touch()
    first = provenance.make([subject(committed)], source(committed))
    git(tmp_path, "clone", "--quiet", committed.root, "another")
    there = dataclasses.replace(committed, root=tmp_path / "another")
    assert provenance.make([subject(there)], source(there)) == first


MANIFEST = f"sha256:{images.digest('amd64')}"


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda s: s.update(predicateType="https://slsa.dev/provenance/v0.2"),
        lambda s: s.pop("subject"),
        lambda s: s["predicate"].pop("runDetails"),
        lambda s: s["predicate"]["buildDefinition"].update(buildType="x"),
        lambda s: s["predicate"]["buildDefinition"].update(externalParameters=[]),
        lambda s: s["predicate"]["buildDefinition"].update(resolvedDependencies=[1]),
        lambda s: s["predicate"]["buildDefinition"].update(internalParameters={}),
        lambda s: s["predicate"]["buildDefinition"]["internalParameters"].update(
            source="\x1b[1m"
        ),
        lambda s: s["predicate"]["buildDefinition"]["resolvedDependencies"].append(
            {"name": "source", "digest": {"gitCommit": "--upload-pack=x"}}
        ),
    ],
)
def test_another_statement_is_refused(project, change):
    statement = json.loads(provenance.make([subject(project)], SOURCE))
    change(statement)
    with pytest.raises(Problem, match="none that this tool writes"):
        provenance.read(json.dumps(statement).encode(), MANIFEST)


def places(value, path=()):
    """The path of each value within a document."""
    yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*path, key))


def test_whatever_stands_in_a_statement_gets_one_line(project):
    """A registry gives what it likes: there is no traceback for any value of it."""
    text = provenance.make([subject(project)], SOURCE)
    for path in [*places(json.loads(text))][1:]:
        for other in (None, 7, "x", [], {}, [None], {"x": None}, True):
            statement = json.loads(text)
            holder = statement
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = other
            try:
                provenance.read(json.dumps(statement).encode(), MANIFEST)
            except Problem as problem:
                assert "\n" not in str(problem)  # noqa: PT017


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000])
def test_what_is_no_statement_is_refused(text):
    with pytest.raises(Problem, match="none that this tool writes"):
        provenance.read(text, MANIFEST)


def test_a_statement_on_another_image_is_refused(project):
    statement = provenance.make([subject(project)], SOURCE, INDEX)
    for digest in (INDEX, f"sha256:{'8' * 64}"):
        with pytest.raises(Problem, match="not that of"):
            provenance.read(statement, digest)


def test_a_lock_out_of_step_is_told(project):
    (project.root / "base.in").write_text("python3.13\ntzdata\n")
    with pytest.raises(Problem, match=r"base\.lock is out of step"):
        provenance.make([subject(project)], SOURCE)
