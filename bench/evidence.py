"""`sbom` and `provenance` of what is built, against Syft on the same archives."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.copy import Copy, builders, copy
from bench.measure import Row, interleaved, judged, quiet, timed
from containerize import build as building
from tests.conftest import ROOT

GOAL = 1.0
"""In seconds, on a quiet machine."""


def main() -> Iterator[Row]:
    """Print what both verbs take, for the images of all architectures."""
    with copy(builders()[0]) as made, tempfile.TemporaryDirectory() as directory:
        syft = install(Path(directory))
        made.invoke("sbom")  # which builds them

        def ours() -> None:
            made.invoke("sbom")
            made.invoke("provenance")

        with quiet():
            found = interleaved(
                {"ours": timed(ours), "peer": timed(lambda: peer(made, syft))}
            )
    yield judged(
        f"`sbom` and `provenance`, {len(made.settings.image_architectures)} images",
        found["ours"],
        "Syft's SBOM of the same",
        found["peer"],
        most=GOAL,
    )


def install(top: Path) -> Path:
    """Syft, of the version that the tests compare with."""
    subprocess.run([sys.executable, "-m", "venv", top], check=True)
    lock = str(ROOT / "tests" / "scanners.txt")
    pip = (str(top / "bin" / "python"), "-m", "pip", "install", "--quiet")
    subprocess.run([*pip, "--require-hashes", "--requirement", lock], check=True)
    return top / "bin" / "syft"


def peer(made: Copy, syft: Path) -> None:
    """An SBOM of each archive, one after the other."""
    variables = os.environ | {"SYFT_CHECK_FOR_APP_UPDATE": "false"}
    for architecture in made.settings.image_architectures:
        archive = building.archive_path(made.settings.for_architecture(architecture))
        subprocess.run(
            [syft, "scan", f"oci-archive:{archive}", "-q", "-o=cyclonedx-json"],
            env=variables,
            stdout=subprocess.DEVNULL,
            check=True,
        )
