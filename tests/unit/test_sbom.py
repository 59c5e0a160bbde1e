"""The bill of materials: what it says, and that it always says it in the same bytes."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from containerize.errors import Problem
from containerize.image import index
from containerize.publish import evidence, provenance, sbom
from containerize.publish.subjects import Images, current
from tests.conftest import ROOT
from tests.unit import images


@pytest.fixture
def project(tmp_path):
    return images.project(tmp_path / "project")


@pytest.fixture
def made(project, save):
    return read(images.subject(project, save))


def read(subject):
    """The document, which is valid."""
    made = sbom.make(subject)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.content) is None
    return json.loads(made.content)


def components(document):
    return {each["bom-ref"]: each for each in document["components"]}


def needs(document):
    return {x["ref"]: x.get("dependsOn", []) for x in document["dependencies"]}


def test_every_package_is_named_as_scanners_name_it(made):
    found = components(made)
    assert {c["purl"] for c in found.values() if "purl" in c} == {
        "pkg:deb/debian/base-files@13.8?arch=all&distro=debian-13",
        "pkg:deb/debian/libssl3t64@3.5.9-1~deb13u1?arch=amd64&distro=debian-13"
        "&upstream=openssl",
        "pkg:deb/debian/openssl-provider-legacy@3.5.9-1~deb13u1?arch=amd64"
        "&distro=debian-13&upstream=openssl%403.5",
        "pkg:deb/debian/python3.13@3.13.5-2?arch=amd64&distro=debian-13",
        "pkg:deb/debian/zlib1g@1:1.3%2Breally1.3.1-1?arch=amd64&distro=debian-13"
        "&upstream=zlib",
        "pkg:pypi/flask@3.1.3",
        "pkg:pypi/markup-safe@3.0.4",
        "pkg:pypi/dotted@1.0",
        "pkg:pypi/waitress@3.0.2",
    }
    assert found["deb zlib1g"]["version"] == "1:1.3+really1.3.1-1"
    for name in images.DEBS:
        expected = [{"alg": "SHA-256", "content": images.digest(f"amd64 {name}")}]
        assert found[f"deb {name}"]["hashes"] == expected
    for name in images.WHEELS:
        expected = [{"alg": "SHA-256", "content": images.digest(name)}]
        assert found[f"pypi {name}"]["hashes"] == expected
    # Trivy finds Debian's advisories by these
    for name, source in (
        ("libssl3t64", ["openssl", "3.5.9-1~deb13u1"]),
        ("openssl-provider-legacy", ["openssl", "3.5"]),
        ("python3.13", ["python3.13", "3.13.5-2"]),
    ):
        told = {p["name"]: p["value"] for p in found[f"deb {name}"]["properties"]}
        assert [
            told[f"aquasecurity:trivy:Src{x}"] for x in ("Name", "Version")
        ] == source
    assert (found["system"]["name"], found["system"]["version"]) == ("debian", "13")


def test_licences_come_from_the_image(made):
    found = components(made)
    licensed = {name: each.get("licenses") for name, each in found.items()}
    expression = [{"expression": "Apache-2.0 AND (GPL-1.0-or-later OR Artistic-1.0)"}]
    assert licensed["deb zlib1g"] == [{"license": {"id": "Zlib"}}]
    assert licensed["deb libssl3t64"] == expression
    # of the same source, which it needs (by a name that this one provides)
    assert licensed["deb openssl-provider-legacy"] == expression
    named = [{"license": {"name": "see /usr/share/doc/python3.13/copyright"}}]
    assert licensed["deb python3.13"] == named
    assert licensed["pypi flask"] == [{"license": {"id": "BSD-3-Clause"}}]
    assert licensed["pypi markup-safe"] == [{"license": {"name": "BSD License"}}]
    assert licensed["pypi dotted"] == [{"license": {"id": "MIT"}}]


def test_the_graph_has_what_is_there_and_leads_everywhere(made):
    found = needs(made)
    assert found["deb libssl3t64"] == ["deb zlib1g"]  # the alternative that is there
    assert found["deb openssl-provider-legacy"] == ["deb libssl3t64", "deb python3.13"]
    assert found["deb python3.13"] == ["deb zlib1g"]
    assert found["pypi flask"] == ["pypi dotted", "pypi markup-safe"]
    assert found["app"] == ["deb python3.13", "pypi flask"]
    assert found["served"] == ["app", "deb python3.13", "pypi flask", "pypi waitress"]
    reached, waiting = set(), ["image"]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += [each for each in found[name] if each not in reached]
    assert reached == {"image", *components(made)}


def test_an_extra_that_nobody_asks_for_brings_nothing(project, save):
    (project.root / "requirements.in").write_text("flask\n")
    images.write_locks(project)
    assert needs(read(images.subject(project, save)))["pypi flask"] == [
        "pypi markup-safe"
    ]


def test_the_image_and_the_app_are_named_by_digest(project, save):
    subject = images.subject(project, save)
    document = read(subject)
    image = document["metadata"]["component"]
    assert (image["type"], image["name"]) == ("container", "shop")
    assert image["version"] == subject.manifest
    assert image["purl"] == f"pkg:oci/shop@{subject.manifest}?arch=amd64"
    with_layers = json.loads((project.dist_dir / "shop-amd64.json").read_bytes())
    [layer] = components(document)["app"]["properties"]
    assert layer["value"] == f"diff ID {with_layers['diff_ids'][2]}"
    assert layer["name"].startswith("containerize:layer:sha256:")


def test_an_installed_app_is_named_as_its_project(project, save):
    (project.root / "pyproject.toml").write_text(
        '[project]\nname = "My.Shop"\nversion = "2"\ndependencies = ["flask"]\n'
    )
    installed = dataclasses.replace(project, requirements="pyproject.toml")
    images.write_locks(installed)
    metadata = b"Name: My.Shop\nVersion: 2\nLicense: MIT\n"
    layers = images.rootfs(), images.deps(), images.app()
    layers[2][f"{images.SITE}/my_shop-2.dist-info/METADATA"] = metadata
    app = components(read(images.subject(installed, save, *layers)))["app"]
    assert (app["name"], app["version"]) == ("my-shop", "2")
    assert app["purl"] == "pkg:pypi/my-shop@2"
    assert app["licenses"] == [{"license": {"id": "MIT"}}]


def test_what_a_base_image_holds_is_said_to_be_unknown(project, save):
    digest = f"sha256:{'1' * 64}"
    based = dataclasses.replace(project, base_image=f"r.example/python:3@{digest}")
    images.write_locks(based)
    subject = images.subject(based, save)
    [note] = sbom.make(subject).notes
    assert "what r.example/python:3 holds is unknown" in note
    document = read(subject)
    incomplete = [{"aggregate": "incomplete", "assemblies": ["image", "base image"]}]
    assert document["compositions"] == incomplete
    found = components(document)
    assert not any(ref.startswith("deb ") for ref in found)
    assert found["python"]["version"] == "3.13"
    base = found["base image"]
    assert (base["name"], base["version"]) == ("r.example/python:3", digest)
    assert base["purl"] == f"pkg:oci/python@{digest}"
    assert needs(document)["app"] == ["pypi flask", "python"]


def test_without_a_base_image_nothing_is_said_to_be_missing(project, save):
    assert "compositions" not in read(images.subject(project, save))
    assert sbom.make(images.subject(project, save)).notes == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"var/lib/dpkg/status.d/zlib1g": None}, "not say that it holds zlib1g 1:1.3"),
        ({"var/lib/dpkg/status.d/zlib1g": b""}, "not say that it holds zlib1g 1:1.3"),
        (
            {"var/lib/dpkg/status.d/zlib1g": b"Package: zlib1g\nVersion: 2\n"},
            "zlib1g 2, and 1:1.3",
        ),
    ],
)
def test_a_package_that_the_image_does_not_hold_is_refused(
    project, save, change, words
):
    root = {k: v for k, v in (images.rootfs() | change).items() if v is not None}
    subject = images.subject(project, save, root, images.deps(), images.app())
    with pytest.raises(Problem, match=words) as problem:
        sbom.make(subject)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("metadata", [b"", b"\xff\xfe", b"Version: 3.1.3\n"])
def test_a_wheel_without_metadata_is_refused(project, save, metadata):
    deps = images.deps() | {f"{images.SITE}/flask-3.1.3.dist-info/METADATA": metadata}
    subject = images.subject(project, save, images.rootfs(), deps, images.app())
    with pytest.raises(Problem, match=r"holds flask 3\.1\.3, which is locked"):
        sbom.make(subject)


def test_a_version_may_be_written_in_several_ways(project, save):
    path = f"{images.SITE}/flask-3.1.3.dist-info/METADATA"
    deps = images.deps() | {path: b"Name: FLASK\nVersion: 3.01.03\n"}
    subject = images.subject(project, save, images.rootfs(), deps, images.app())
    assert components(read(subject))["pypi flask"]["version"] == "3.1.3"
    deps[path] = b"Name: flask\nVersion: 3.1.30\n"
    subject = images.subject(project, save, images.rootfs(), deps, images.app())
    with pytest.raises(Problem, match=r"holds flask 3\.1\.30, and 3\.1\.3 is locked"):
        sbom.make(subject)


def test_a_file_of_a_package_that_is_called_metadata_is_none(project, save):
    other = {f"{images.SITE}/tables/METADATA": b"Name: flask\nVersion: 1\n"}
    layers = images.rootfs(), images.deps() | other, images.app()
    found = components(read(images.subject(project, save, *layers)))
    assert found["pypi flask"]["version"] == "3.1.3"


def test_what_cannot_be_read_is_left_out_and_told(project, save):
    root = images.rootfs() | {"usr/share/doc/zlib1g/copyright": b"Format: \xff"}
    deps = images.deps()
    path = f"{images.SITE}/waitress-3.0.2.dist-info/METADATA"
    deps[path] = b"Name: waitress\nVersion: 3.0.2\nRequires-Dist: a b c\n"
    subject = images.subject(project, save, root, deps, images.app())
    assert sbom.make(subject).notes == (
        "waitress: its metadata asks for 'a b c', which is no requirement: that "
        "dependency is left out",
        "zlib1g: its copyright file is not UTF-8: no licence is named",
    )
    assert "licenses" not in components(read(subject))["deb zlib1g"]


def test_layers_above_count_and_links_are_followed(project, save):
    root = images.rootfs()
    root["usr/share/doc/python3.13/copyright"] = "../zlib1g/copyright"
    removed = {
        "usr/share/doc/libssl3t64/.wh.copyright": b"",
        "usr/share/doc/base-files/copyright": "nowhere",
    }
    subject = images.subject(project, save, root, images.deps(), removed, images.app())
    found = components(read(subject))
    assert found["deb python3.13"]["licenses"] == [{"license": {"id": "Zlib"}}]
    assert "licenses" not in found["deb libssl3t64"]
    assert "licenses" not in found["deb base-files"]


def test_a_damaged_archive_is_refused(project, save):
    subject = images.subject(project, save)
    with tarfile.open(subject.archive) as archive:
        layer = next(each for each in archive if each.isfile())
    with subject.archive.open("r+b") as file:
        file.seek(layer.offset_data + 20)
        file.write(b"damage")
    with pytest.raises(Problem, match=r"digest of its name.*`invoke digest` builds"):
        sbom.make(subject)


def test_a_lock_out_of_step_is_told(project, save):
    subject = images.subject(project, save)
    (project.root / "base.in").write_text("python3.13\ntzdata\n")
    with pytest.raises(Problem, match=r"base\.lock is out of step"):
        sbom.make(subject)


def test_only_images_of_the_files_as_they_are_count(project, save):
    subject = images.subject(project, save)
    given = [(project, subject.archive)]
    joined = project.dist_dir / "index.tar"
    assert current(given, joined) == Images((subject,), subject.archive)
    (project.root / "app" / "__init__.py").write_text("app = 2\n")
    assert current(given, joined) is None
    (project.root / "app" / "__init__.py").write_text("app = 1\n")
    subject.archive.write_bytes(b"")
    assert current(given, joined) is None


def test_the_images_of_several_processors_count_with_their_index(both, save):
    found, digest = build(both, save)
    given = [(each.settings, each.archive) for each in found]
    joined = both.dist_dir / "shop.tar"
    assert current(given, joined) == Images(tuple(found), joined, digest)
    whole = joined.read_bytes()
    joined.write_bytes(whole[:1000])
    assert current(given, joined) is None
    joined.write_bytes(whole)
    # another image than the index's, though it is of the files as they are
    more = images.app() | {"srv/app/more.py": b""}
    images.subject(given[1][0], save, images.rootfs(), images.deps(), more)
    assert current(given, joined) is None


MAKE = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from containerize.publish import evidence, provenance, sbom, subjects
from containerize.settings import Settings
settings = Settings(root=Path(sys.argv[1]), image="shop", architecture="amd64")
found = subjects.subject(settings, settings.dist_dir / "shop-amd64.tar")
source = provenance.Source(provenance.COMMITTED, "1" * 40)
for each in evidence.attachments([found], source):
    sys.stdout.buffer.write(each.content)
"""


def test_the_bytes_are_the_same_everywhere(project, save, tmp_path):
    images.subject(project, save)
    there = shutil.copytree(project.root, tmp_path / "élsewhere" / "x", symlinks=True)
    (there / "dist" / "shop-amd64.json").touch()

    def run(root, umask, **environment):
        return subprocess.run(
            [sys.executable, "-c", MAKE, root, umask],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            check=True,
        ).stdout

    first = run(project.root, "022", LC_ALL="C", TZ="UTC", PYTHONHASHSEED="1")
    other = run(there, "077", LC_ALL="de_DE.UTF-8", TZ="Asia/Tokyo", PYTHONHASHSEED="2")
    assert first == other
    assert first.count(b"2025-11-23T00:00:00+00:00") == 1
    for word in (tmp_path.name, os.uname().nodename, "http://127"):
        assert word.encode() not in first


def test_other_content_has_another_serial_number(project, save):
    first = read(images.subject(project, save))
    more = images.app() | {"srv/app/more.py": b""}
    layers = images.rootfs(), images.deps(), more
    other = read(images.subject(project, save, *layers))
    assert first["serialNumber"].startswith("urn:uuid:")
    assert first["serialNumber"] != other["serialNumber"]


def test_each_manifest_gets_its_sbom_and_all_get_the_statement(project, save):
    subject = images.subject(project, save)
    both = [subject, images.other(subject, "arm64")]
    index = f"sha256:{'9' * 64}"
    source = provenance.Source(provenance.COMMITTED, "1" * 40)
    # the archive is one processor's: this shows which goes where
    found = evidence.attachments(both[:1], source, index)
    assert [(each.subject, each.artifact_type) for each in found] == [
        (subject.manifest, "application/vnd.cyclonedx+json"),
        (subject.manifest, "application/vnd.in-toto+json"),
        (index, "application/vnd.in-toto+json"),
    ]
    assert found[0].content == sbom.make(subject).content
    assert found[1].content == found[2].content
    assert found[0].annotations == {
        "org.opencontainers.image.created": "2025-11-23T00:00:00+00:00"
    }


def verb(settings, *words):
    """Run a verb in the project, where no engine answers."""
    variables = {"CONTAINERIZE_ENGINE": "no-such-engine", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "containerize", *words],
        cwd=settings.root,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def both(tmp_path):
    return images.project(tmp_path / "project", architectures=("amd64", "arm64"))


def build(both, save, *layers):
    """Both images, those of arm64 with other layers if some are given, and an index."""
    one, other = (both.for_architecture(name) for name in both.architectures)
    found = [images.subject(one, save), images.subject(other, save, *layers)]
    joined = both.dist_dir / "shop.tar"
    archives = [each.archive for each in found]
    digest = index.write(archives, joined, time=images.TIME, references=["shop:1"])
    return found, digest


def test_the_verbs_need_no_engine_for_what_is_built(both, save):
    found, digest = build(both, save)
    done = verb(both, "sbom")
    assert (done.returncode, done.stderr) == (0, "")
    paths = [both.dist_dir / f"shop-{name}.cdx.json" for name in both.architectures]
    assert done.stdout.splitlines() == [f"sbom      {path}" for path in paths]
    for path, subject in zip(paths, found, strict=True):
        assert path.read_bytes() == sbom.make(subject).content
    done = verb(both, "provenance")
    path = both.dist_dir / "shop.provenance.json"
    assert done.stdout.splitlines() == [
        f"statement {path}",
        f"note      it names no commit: {provenance.NO_REPOSITORY}",
    ]
    source = provenance.Source(provenance.NO_REPOSITORY)
    assert path.read_bytes() == provenance.make(found, source, digest)


def test_all_sboms_are_written_or_none(both, save):
    root = images.rootfs()
    del root["var/lib/dpkg/status.d/zlib1g"]
    build(both, save, root, images.deps(), images.app())
    done = verb(both, "sbom")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("sbom: shop-arm64.tar does not say that it holds zlib1g")
    assert not list(both.dist_dir.glob("*.cdx.json"))


def test_what_has_changed_is_built_first(both, save):
    build(both, save)
    (both.root / "app" / "__init__.py").write_text("app = 2\n")
    done = verb(both, "sbom")
    assert done.returncode == 1
    assert "no-such-engine" in done.stderr
