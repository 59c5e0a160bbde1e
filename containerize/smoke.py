"""A pytest plugin: the fixture `url` is where the app answers, in a live container."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

VARIABLE = "SMOKE_URL"
"""Names a service that runs already; then no engine is touched."""


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


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The service at SMOKE_URL, or a new container of the image as the files make it.

    The container runs under the production flags, on a port that the engine chooses,
    with `env-file` and `secrets` and without the `commands`. Its volumes are its
    own, directories are mounted read-only, and all is removed afterwards.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        if reason := reason_against(named):
            pytest.exit(f"{VARIABLE}={named} cannot be tested: {reason}", 2)
        yield named.rstrip("/")
        return
    from containerize.errors import Problem

    try:
        with _container() as found:
            yield found
    except Problem as problem:
        pytest.exit(f"no container can be tested: {problem}", 2)


@contextlib.contextmanager
def _container() -> Iterator[str]:
    from containerize import build, settings
    from containerize.engines import container, engine, variables, volumes
    from containerize.fetch import inputs
    from containerize.terminal import Meter, echo

    project = settings.load(settings.find_root(Path.cwd()))
    using = engine.find(project, on_command=echo)
    inputs.fetch(project, progress=Meter())
    reference = project.reference()
    if not build.is_current(project, using, reference):
        build.build(project, using)
    name = f"{project.container_name}-smoke-{os.getpid()}"
    apart = volumes.apart(project, f"smoke-{os.getpid()}")
    project = dataclasses.replace(project, volumes=apart, commands={})
    try:
        started = container.run(
            project, using, reference, name=name, port=0,
            environment=variables.read(project),
        )  # fmt: skip
        try:
            yield started.url.rstrip("/")
        finally:
            print(container.log_tail(using, name))
            container.stop(project, using, name)
    finally:
        named = {mount.source for mount in volumes.mounts(project) if mount.named}
        volumes.remove(using, sorted(named & set(volumes.owned(project, using))))
