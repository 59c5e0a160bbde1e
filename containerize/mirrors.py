"""Debian's mirrors: which this host uses, and how they are reached."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import http.client
import os
import platform
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.response import addinfourl

from containerize import environ
from containerize.errors import Problem
from containerize.settings import Settings

TIMEOUT = 30
"""Seconds without a byte after which a mirror is given up."""

_SCHEMES = ("http://", "https://", "file:/")


@dataclasses.dataclass(frozen=True)
class Mirrors:
    """URLs of the mirrors' tops, without a slash at the end, in order of trial."""

    main: tuple[str, ...]
    security: tuple[str, ...]

    def urls(self, path: str) -> list[str]:
        """Where a file of the pool may be had."""
        tops = self.security if path.startswith("pool/updates/") else self.main
        return [f"{top}/{urllib.parse.quote(path)}" for top in tops]


def find(settings: Settings) -> Mirrors:
    """The mirrors of the settings, else those of this host's apt.

    Raises Problem where neither names one.
    """
    main, security = settings.mirrors, settings.security_mirrors
    if not (main and security):
        host = _host_mirrors()
        main, security = main or host.main, security or host.security
    for name, value in (("mirrors", main), ("security-mirrors", security)):
        if not value:
            raise Problem(
                f"this host's apt names no {name.replace('-', ' ')} of Debian: set "
                f"INVOKE_{name.upper().replace('-', '_')} to the URL of one"
            )
        for url in value:
            if not _is_url(url):
                raise Problem(
                    f"{name}: {url!r} is no mirror's URL: use one like "
                    "http://HOST/debian"
                )
    return Mirrors(
        tuple(url.rstrip("/") for url in main),
        tuple(url.rstrip("/") for url in security),
    )


def _is_url(text: str) -> bool:
    try:
        _ = urllib.parse.urlsplit(text).port  # which judges it
    except ValueError:
        return False
    return text.startswith(_SCHEMES)


def open_url(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> addinfourl:
    """The answer to a request, through the proxy that apt or the environment names.

    Raises OSError; of these HTTPError has the status as `code`.
    """
    request = urllib.request.Request(  # noqa: S310 (a mirror may be a directory)
        url, headers=dict(headers or {}), method=method
    )
    parts = urllib.parse.urlsplit(url)
    proxies = _apt_proxies()
    handlers = []
    for key in (f"{parts.scheme}::{parts.hostname}", parts.scheme):
        if key in proxies:
            named = {parts.scheme: proxies[key]} if proxies[key] else {}
            handlers = [urllib.request.ProxyHandler(named)]
            break
    opener = urllib.request.build_opener(*handlers)
    try:
        answer: addinfourl = opener.open(request, timeout=TIMEOUT)
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {str(error).strip()}") from None
    return answer


def is_gone(error: Exception) -> bool:
    """Whether a mirror answered that it has no such file."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (404, 410)
    return isinstance(getattr(error, "reason", error), FileNotFoundError)


def gone(settings: Settings, paths: Iterable[str]) -> list[str]:
    """Those of the pool's paths that no mirror has any more.

    What no mirror could be asked about is not among them.
    """
    mirrors = find(settings)

    def missing(path: str) -> bool:
        for url in mirrors.urls(path):
            try:
                open_url(url, method="HEAD").close()
            except OSError as error:
                if is_gone(error):
                    continue
            return False
        return True

    paths = sorted(set(paths))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(missing, paths))
    return [path for path, is_missing in zip(paths, found, strict=True) if is_missing]


def apt_options() -> list[tuple[str, str]]:
    """This host's apt configuration; empty where there is no apt."""
    if not shutil.which("apt-config"):
        return []
    return re.findall(r'^(\S+) "(.*)";$', run("apt-config", "dump").stdout, re.M)


def run(
    *command: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A finished command of apt, in English."""
    return subprocess.run(
        command,
        env=environ.system(os.environ) | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@functools.cache
def _apt_proxies() -> dict[str, str]:
    """Proxies by `SCHEME` or `SCHEME::HOST`; empty for a direct connection."""
    found = {}
    for key, value in apt_options():
        match = re.fullmatch(r"Acquire::(https?)::proxy(::.+)?", key, re.I)
        if match:
            found[match[1].lower() + (match[2] or "")] = value
    return {key: "" if value == "DIRECT" else value for key, value in found.items()}


def _host_mirrors() -> Mirrors:
    """The mirrors that this host's apt takes Debian itself from."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    if release.get("ID") != "debian" or not shutil.which("apt-get"):
        return Mirrors((), ())
    codename = release.get("VERSION_CODENAME", "")
    # Only lists that `apt-get update` has fetched tell whose they are.
    rows = [row for row in _targets() if row[2:] == ["main", "Debian"]]
    if not rows:
        # Others publish suites of that name too, but no updates suite beside it.
        every = _targets("--no-release-info")
        debian = {row[0] for row in every if row[1] == f"{codename}-updates"}
        rows = [
            row
            for row in every
            if row[2] == "main"
            and (row[0] in debian or row[1] == f"{codename}-security")
        ]
    security = {row[0] for row in rows if row[1].endswith("-security")}
    return Mirrors(
        _expand(row[0] for row in rows if row[0] not in security),
        _expand(row[0] for row in rows if row[0] in security),
    )


def _targets(*options: str) -> list[list[str]]:
    """URL, suite, component and origin of each package list that apt would fetch."""
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    command = ("apt-get", "indextargets", *options, "--format", form)
    lines = run(*command, "Created-By: Packages").stdout.splitlines()
    return [row for line in lines if len(row := line.split()) == 4]


def _expand(urls: Iterable[str]) -> tuple[str, ...]:
    """Without repeats, and with what the lists hold that `mirror+file:` names."""
    found: list[str] = []
    for url in urls:
        if url.startswith("mirror+file:"):
            file = Path(url.removeprefix("mirror+file:").rstrip("/"))
            text = file.read_text("utf-8") if file.is_file() else ""
            found += re.findall(r"^(https?:\S+)", text, re.M)
        elif url.startswith(_SCHEMES):
            found.append(url)
    return tuple(dict.fromkeys(found))
