"""Live containers under the production flags, serving an application of the tests."""

from __future__ import annotations

import hashlib
import http.client
import random
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containerize.engines.container import Container

HERE = Path(__file__).parent


@pytest.fixture
def serve(start: Callable[..., Container]) -> Callable[..., Container]:
    """Start a container whose own serving code serves testapp/routes.py.

    Takes what `start` takes.
    """

    def serve(environment=None, options=(), **more):
        factory = {"FLASK_APP": "testapp.routes"}
        volume = f"--volume={HERE / 'testapp'}:/srv/testapp:ro"
        environment = {**factory, **(environment or {})}
        return start(environment=environment, options=[volume, *options], **more)

    return serve


@pytest.fixture
def connect() -> Iterator[Callable[..., http.client.HTTPConnection]]:
    """Open a connection to a container; closed after the test."""
    opened = []

    def connect(container, timeout=30):
        where = urllib.parse.urlsplit(container.url)
        connection = http.client.HTTPConnection(where.netloc, timeout=timeout)
        opened.append(connection)
        connection.connect()
        return connection

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture(scope="session")
def large_digest() -> str:
    """SHA-256 of what testapp's /large answers."""
    block = random.Random(0).randbytes(1 << 20)
    return hashlib.sha256(block * 50).hexdigest()
