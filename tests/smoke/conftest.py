"""The URL under test: SMOKE_URL's, with no engine touched, or a new container's."""

from __future__ import annotations

import http.client
import os
import urllib.parse
from collections.abc import Callable

import pytest

from containerize.engines.container import Container

SMOKE_URL = os.environ.get("SMOKE_URL")


def reason_against(url: str) -> str:
    """Why nothing can be tested at `url`, or nothing."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            return "it must look like http://127.0.0.1:8080"
        connection = http.client.HTTPConnection(parts.netloc, timeout=5)
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return "" if status == 200 else f"/health/ready answers {status}"


if SMOKE_URL is not None:

    @pytest.fixture(scope="session")
    def url() -> str:
        """Where the container that already runs answers."""
        if reason := reason_against(SMOKE_URL):
            pytest.exit(f"SMOKE_URL={SMOKE_URL} cannot be tested: {reason}", 2)
        return SMOKE_URL

else:

    @pytest.fixture
    def url(start: Callable[..., Container], free_port: int) -> str:
        """Where a new container under the production flags answers."""
        return start(port=free_port).url
