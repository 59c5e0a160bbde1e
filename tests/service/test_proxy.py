"""X-Forwarded-* on a live container: believed from the configured proxy alone."""

from __future__ import annotations

import pytest

from containerize.build import Image
from containerize.engines.engine import Engine
from containerize.settings import Settings
from tests.service import raw

CLAIMS = (
    "X-Forwarded-For: 198.51.100.1, 203.0.113.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: shop.example",
    "X-Forwarded-Port: 8443",
    "X-Forwarded-Prefix: /evil",
    "Forwarded: for=192.0.2.9;proto=https",
)


@pytest.fixture(scope="module")
def peer(using: Engine, project: Settings, built: Image) -> str:
    """The address from which this machine's requests come to a container.

    Found in a service that trusts a proxy elsewhere: it believes no word.
    """
    with raw.serving(
        project, using, built, "proxy-elsewhere", SERVED_TRUSTED_PROXIES="192.0.2.0/24"
    ) as service:
        asked = [service.request("GET", "/who", *lines) for lines in ((), CLAIMS)]
        lines = service.lines(*asked)
    plain, claiming = (response.json for response in asked)
    assert claiming == plain
    assert claiming["claims"] == {}
    assert claiming["url"] == "http://test/who"
    assert claiming["address"] not in ("198.51.100.1", "203.0.113.7", "192.0.2.9")
    for line in lines:
        assert line.split()[1] == claiming["address"]
    address: str = claiming["address"]
    return address


def test_nobody_is_trusted_by_default(
    using: Engine, project: Settings, built: Image, peer: str
) -> None:
    with raw.serving(project, using, built, "proxy-none") as service:
        found = service.request("GET", "/who", *CLAIMS).json
    assert found == {
        "address": peer, "url": "http://test/who", "root": "", "claims": {}
    }  # fmt: skip


def test_the_proxy_is_believed(
    using: Engine, project: Settings, built: Image, peer: str
) -> None:
    """One hop: the address that the proxy itself has added, not its client's word."""
    with raw.serving(
        project, using, built, "proxy-here", SERVED_TRUSTED_PROXIES=f"192.0.2.1, {peer}"
    ) as service:
        told = service.request("GET", "/who", *CLAIMS)
        silent = service.request("GET", "/who")
        strange = service.request("GET", "/", "X-Forwarded-For: a b\x1b[31m<c>")
        blank = service.request("GET", "/", "X-Forwarded-For: a b <c>")
        lines = service.lines(told, silent, strange, blank)
    found = told.json
    assert found["address"] == "203.0.113.7"
    assert found["url"] == "https://shop.example:8443/who"
    assert found["root"] == ""
    assert silent.json["address"] == peer
    assert (strange.status, blank.status) == (400, 200)
    clients = [line.split()[1] for line in lines]
    assert clients == ["203.0.113.7", peer, peer, "a%20b%20%3Cc%3E"]


def test_two_proxies_in_a_row(
    using: Engine, project: Settings, built: Image, peer: str
) -> None:
    with raw.serving(
        project,
        using,
        built,
        "proxy-two",
        SERVED_TRUSTED_PROXIES="0.0.0.0/0",
        SERVED_PROXY_HOPS="2",
    ) as service:
        who = service.request("GET", "/who", CLAIMS[0]).json
        short = service.request("GET", "/who", "X-Forwarded-For: 203.0.113.7").json
    assert who["address"] == "198.51.100.1"
    # Fewer than two addresses: the request came past a proxy.
    assert short["address"] == peer
