"""What apt says of its mirrors: real apt, with the sources of each kind of host."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from containerize.fetch import mirrors

RELEASE = {"ID": "debian", "VERSION_CODENAME": "trixie"}
MAIN, SECURITY = "http://mirror.test/debian", "http://mirror.test/debian-security"
OTHERS = """\
deb https://docker.test/linux/debian trixie stable
deb https://ppa.test/php trixie main
deb https://chrome.test/deb stable main
deb https://ppa.test/flat ./
"""


@pytest.fixture
def host(tmp_path: Path, apt_conf: Callable[..., None]) -> Callable[..., Path]:
    """Gives apt a state and sources of its own; returns where its lists are."""

    def make(name: str, sources: str) -> Path:
        etc, state = tmp_path / "etc", tmp_path / "state"
        (etc / "sources.list.d").mkdir(parents=True)
        (state / "lists/partial").mkdir(parents=True)
        (etc / "sources.list.d" / name).write_text(sources)
        (state / "status").touch()
        apt_conf(
            f'Dir::Etc "{etc}";',
            f'Dir::State "{state}";',
            f'Dir::State::status "{state}/status";',
            'APT::Architecture "amd64";',
        )
        return state / "lists"

    return make


def fetched(lists: Path, url: str, suite: str, origin: str = "Debian") -> None:
    """What `apt-get update` leaves of a suite."""
    stem = url.partition("://")[2].replace("/", "_") + f"_dists_{suite}"
    (lists / f"{stem}_InRelease").write_text(
        f"Origin: {origin}\nLabel: {origin}\nSuite: {suite}\nCodename: {suite}\n"
        "Date: Sat, 01 Jun 2024 10:20:30 UTC\nArchitectures: amd64 arm64\n"
        f"Components: main\nSHA256:\n {'0' * 64} 0 main/binary-amd64/Packages\n"
    )
    (lists / f"{stem}_main_binary-amd64_Packages").touch()


def of_apt() -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = mirrors.of_apt(mirrors.run, RELEASE)
    return found.main, found.security


ONE_LINE = f"""\
deb {MAIN} trixie main
deb {MAIN} trixie-updates main
deb {SECURITY} trixie-security main
# deb http://off.test/debian trixie main
"""
DEB822 = f"""\
Types: deb deb-src
URIs: {MAIN}
Suites: trixie trixie-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {SECURITY}
Suites: trixie-security
Components: main

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: trixie trixie-updates
Components: main

Types: deb-src
URIs: http://source.test/debian
Suites: trixie trixie-updates
Components: main
"""


@pytest.mark.parametrize(
    ("name", "sources"), [("a.list", ONE_LINE + OTHERS), ("a.sources", DEB822)]
)
@pytest.mark.parametrize("lists", ["none", "main", "security", "all"])
def test_all_targets_count_fetched_or_not(
    host: Callable[..., Path], name: str, sources: str, lists: str
) -> None:
    made = host(name, sources)
    if lists in ("main", "all"):
        fetched(made, MAIN, "trixie")
    if lists in ("security", "all"):
        fetched(made, SECURITY, "trixie-security")
    if lists == "all":
        fetched(made, MAIN, "trixie-updates")
        fetched(made, "https://ppa.test/php", "trixie", "PPA")
    assert of_apt() == ((MAIN,), (SECURITY,))


def test_lists_may_be_absent(host: Callable[..., Path]) -> None:
    lists = host("a.list", ONE_LINE)
    (lists / "partial").rmdir()
    lists.rmdir()
    assert of_apt() == ((MAIN,), (SECURITY,))


def test_lists_may_be_of_another_release(host: Callable[..., Path]) -> None:
    # As in the middle of an upgrade, when os-release says another name.
    lists = host("a.list", ONE_LINE.replace("trixie", "bookworm"))
    fetched(lists, MAIN, "bookworm")
    assert of_apt() == ((MAIN,), (SECURITY,))


def test_one_main_suite_alone_is_taken_by_its_path(host: Callable[..., Path]) -> None:
    host("a.list", f"deb {MAIN} trixie main\n{OTHERS}")
    assert of_apt() == ((MAIN,), ())


def test_what_is_known_to_be_anothers_is_left_out(host: Callable[..., Path]) -> None:
    other = "http://other.test/debian"
    sources = ONE_LINE.replace(MAIN, other).replace(SECURITY, f"{other}-security")
    lists = host("a.list", ONE_LINE + sources)
    for suite in ("trixie", "trixie-updates"):
        fetched(lists, other, suite, "Other")
    fetched(lists, f"{other}-security", "trixie-security", "Other")
    assert of_apt() == ((MAIN,), (SECURITY,))


def test_several_mirrors_architectures_paths_and_transports(
    host: Callable[..., Path],
) -> None:
    host(
        "a.list",
        "deb [arch=arm64] https://a.test/pub/linux/debian trixie main\n"
        "deb [arch=arm64] https://a.test/pub/linux/debian trixie-updates main\n"
        "deb [arch=amd64,arm64] file:///srv/b trixie main\n"
        "deb [arch=amd64,arm64] file:///srv/b trixie-updates main\n"
        "deb tor+http://c.test/debian trixie main\n"
        "deb [arch=amd64] http://b.test/security trixie-security main\n"
        "deb http://d.test/security stable-security main\n",
    )
    assert of_apt() == (
        ("https://a.test/pub/linux/debian", "file:/srv/b"),
        ("http://b.test/security", "http://d.test/security"),
    )


def test_a_list_of_mirrors_is_read_from_a_file_or_a_server(
    host: Callable[..., Path], tmp_path: Path, serve: Callable[..., object]
) -> None:
    web = serve("web")
    for file in (tmp_path / "main", tmp_path / "web/security"):
        file.write_text(f"# ours\nhttp://{file.name}.test/a\tpriority:1\n")
    host(
        "a.list",
        f"deb mirror+file:{tmp_path}/main trixie main\n"
        f"deb mirror+file:{tmp_path}/main trixie-updates main\n"
        f"deb mirror+{web.url}/security trixie-security main\n"  # type: ignore[attr-defined]
        f"deb mirror+http://127.0.0.1:1/gone trixie-security main\n",
    )
    assert of_apt() == (("http://main.test/a",), ("http://security.test/a",))


def test_another_systems_apt_says_nothing_of_debian(host: Callable[..., Path]) -> None:
    host("a.list", ONE_LINE)
    assert not mirrors.of_apt(mirrors.run, {"ID": "ubuntu"}).main


@pytest.mark.parametrize(
    ("lines", "url", "expected"),
    [
        (['Acquire::http::Proxy "http://p:1";'], "http://a/", "http://p:1"),
        (['Acquire::HTTP::proxy "http://p:1";'], "https://a/", "http://p:1"),
        (
            ['Acquire::http::Proxy "http://p:1";', 'Acquire::http::Proxy::a "DIRECT";'],
            "http://a/",
            "",
        ),
        (
            ['Acquire::http::Proxy "http://p:1";', 'Acquire::https::Proxy "DIRECT";'],
            "https://a/",
            "",
        ),
        (['Acquire::http::Proxy-Auto-Detect "{}";'], "http://a/", "http://auto:1"),
        (
            [
                'Acquire::http::Proxy-Auto-Detect "{}";',
                'Acquire::http::Proxy::a "http://p:1";',
            ],
            "http://a/",
            "http://p:1",
        ),
        ([], "http://a/", None),
    ],
)
def test_the_proxy_is_the_one_that_apt_takes(
    apt_conf: Callable[..., None],
    tmp_path: Path,
    lines: list[str],
    url: str,
    expected: str | None,
) -> None:
    program = tmp_path / "detect"
    program.write_text('#!/bin/sh\n[ "$1" = http://a/ ] && echo http://auto:1\n')
    program.chmod(0o755)
    apt_conf(*(line.replace("{}", str(program)) for line in lines))
    assert mirrors._apt_proxy(url) == expected


def test_this_hosts_release_file_decides(
    host: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    host("a.list", ONE_LINE)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: RELEASE)
    assert mirrors._host_mirrors() == mirrors.Mirrors((MAIN,), (SECURITY,))
