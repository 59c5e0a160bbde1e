# containerize format 1 sha256:110e0bece1498b30c77eaa4fa63d72fc
"""What the service promises over HTTP, asked of a live container."""

import urllib.error
import urllib.request

# `url` is where the container answers: a new one, or the one at SMOKE_URL.
pytest_plugins = ["containerize.smoke"]


def status(url):
    """The status of an answer, whatever it is."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_service_is_healthy(url):
    assert status(f"{url}/health/live") == 200
    assert status(f"{url}/health/ready") == 200


def test_the_app_answers(url):
    # Whatever it says: without its data or its secrets it may be an error.
    assert status(f"{url}/") in range(100, 600)
