# containerize format 3 sha256:9539181d613c09a3876dd57acc8a9ab1
"""What the service promises over HTTP, asked of a live container."""

import http.client
import urllib.parse

import pytest

# Where the app's own tests run, the tool may be missing; nox has it.
pytest.importorskip("containerize", reason="`nox -s smoke` runs these")
# `url` is where the container answers: a new one, or the one at SMOKE_URL.
pytest_plugins = ["containerize.smoke"]


def status(url):
    """The status of an answer, whatever it is; a redirect may lead anywhere."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    connection.request("GET", parts.path)
    return connection.getresponse().status


def test_the_service_is_healthy(url):
    assert status(f"{url}/health/live") == 200
    assert status(f"{url}/health/ready") == 200


def test_the_app_answers(url):
    # Whatever it says: without its data or its secrets it may be an error.
    assert status(f"{url}/") in range(100, 600)
