"""Without SMOKE_URL, a new container on each engine."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from containerize import smoke
from containerize.engines.container import Container
from tests.conftest import built, free_port, project, start, using

__all__ = ["built", "free_port", "project", "start", "using"]

if smoke.VARIABLE not in os.environ:

    @pytest.fixture
    def url(start: Callable[..., Container], free_port: int) -> str:
        """Where a new container under the production flags answers."""
        return start(port=free_port).url.rstrip("/")
