"""The image for the other processor, built once on each engine."""

from __future__ import annotations

import pytest

from containerize import build
from containerize.engines.engine import Engine
from containerize.fetch import inputs
from containerize.settings import Settings, this_machine
from tests.conftest import Quiet

OTHER = {"amd64": "arm64", "arm64": "amd64"}[this_machine()]


@pytest.fixture(scope="session")
def foreign(
    using: Engine, project: Settings, tmp_path_factory: pytest.TempPathFactory
) -> build.Image:
    """The repository's image for the other processor."""
    settings = project.for_architecture(OTHER)
    inputs.fetch(settings, progress=Quiet())
    archive = tmp_path_factory.mktemp("foreign") / "image.tar"
    return build.build(settings, using, output=archive)
