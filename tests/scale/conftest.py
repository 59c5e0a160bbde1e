"""One cluster for all proofs; each finds the app's first version in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.scale import proof
from tests.scale.proof import Proof


@pytest.fixture(scope="session")
def ready() -> Iterator[Proof]:
    if os.geteuid() != 0:
        raise pytest.UsageError("tests/scale starts engines: run `nox -s scale`")
    with proof.ready() as made:
        yield made


@pytest.fixture
def shop(ready: Proof) -> Iterator[Proof]:
    """Three replicas of the first version, behind an edge on each node."""
    ready.deploy("1")
    try:
        ready.wait_running(3, "1")
        ready.wait_answers()
        yield ready
    finally:
        for one in ready.cluster.ask("service", "ps", "--no-trunc", proof.SERVICE):
            print(*(one[key] for key in ("Node", "Image", "CurrentState", "Error")))
        ready.remove()
