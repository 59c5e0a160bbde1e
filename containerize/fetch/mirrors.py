"""Debian's mirrors: which this host uses, and how they are reached."""

from __future__ import annotations

import concurrent.futures
import contextlib
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
from collections.abc import Callable, Iterable, Mapping
from urllib.response import addinfourl

from containerize import environ
from containerize.errors import Problem
from containerize.settings import Settings

TIMEOUT = 30
"""Seconds without a byte after which a mirror is given up."""

_SCHEMES = ("http://", "https://", "file:/")
_ALIASES = ("stable", "oldstable", "testing", "unstable", "sid")
_LISTED = re.compile(r"^(https?:\S+)", re.M)  # in a list that `mirror+…:` names

Run = Callable[..., subprocess.CompletedProcess[str]]
"""Runs a command where an apt is, and gives what it wrote."""


@dataclasses.dataclass(frozen=True)
class Mirrors:
    """URLs of the mirrors' tops, without a slash at the end, in order of trial."""

    main: tuple[str, ...]
    security: tuple[str, ...]

    def urls(self, path: str) -> list[str]:
        """Where a file of the pool may be had."""
        tops = self.security if path.startswith("pool/updates/") else self.main
        return [f"{top}/{urllib.parse.quote(path)}" for top in tops]


def find(settings: Settings, other: Callable[[], Mirrors] | None = None) -> Mirrors:
    """The mirrors of the settings, else those of this host's apt, else `other`'s.

    The latter are by default those of Debian's image. Raises Problem where none
    names one.
    """
    main, security = settings.mirrors, settings.security_mirrors
    for source in (_host_mirrors, other or functools.partial(_image_mirrors, settings)):
        if not (main and security):
            found = source()
            main, security = main or found.main, security or found.security
    for name, value in (("mirrors", main), ("security-mirrors", security)):
        if not value:
            raise Problem(
                f"neither this host's apt nor {settings.debian_image_name} names "
                f"{name.replace('-', ' ')} of Debian: set "
                f"CONTAINERIZE_{name.upper().replace('-', '_')} to the URL of one"
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


@functools.cache
def _image_mirrors(settings: Settings) -> Mirrors:
    from containerize.fetch import debianimage  # which reads this module

    with debianimage.start(settings) as image:
        return image.mirrors()


def _is_url(text: str) -> bool:
    try:
        _ = urllib.parse.urlsplit(text).port  # which judges it
    except ValueError:
        return False
    return text.startswith(_SCHEMES)


def open_url(url: str, *, method: str = "GET") -> addinfourl:
    """The answer to a request, through the proxy that apt or the environment names.

    Raises OSError; of these HTTPError has the status as `code`.
    """
    # A mirror may be a directory.
    request = urllib.request.Request(url, method=method)  # noqa: S310
    parts = urllib.parse.urlsplit(url)
    proxy = _apt_proxy(url)
    handlers = []
    if proxy is not None:
        named = {parts.scheme: proxy} if proxy else {}
        handlers = [urllib.request.ProxyHandler(named)]
    opener = urllib.request.build_opener(*handlers)
    try:
        answer: addinfourl = opener.open(request, timeout=TIMEOUT)
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {str(error).strip()}") from None
    return answer


def shown(text: str) -> str:
    """A text without the names and passwords of the URLs in it."""
    return re.sub(r"//[^/\s@]+@", "//****@", text)


def is_gone(error: Exception) -> bool:
    """Whether a mirror answered that it has no such file."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (404, 410)
    return isinstance(getattr(error, "reason", error), FileNotFoundError)


@dataclasses.dataclass(frozen=True)
class Presence:
    """Whether the mirrors have files of the pool."""

    gone: tuple[str, ...]
    """Those paths that no mirror has any more."""
    unknown: str
    """Why no mirror could be asked about some; empty if it could about all."""


def presence(settings: Settings, paths: Iterable[str]) -> Presence:
    """Ask the mirrors for paths of the pool. Raises Problem as `find` does."""
    mirrors = find(settings)

    def ask(path: str) -> tuple[bool, str]:
        """Whether it is gone, and why that is not known."""
        unknown = ""
        for url in mirrors.urls(path):
            try:
                open_url(url, method="HEAD").close()
            except OSError as error:
                if not is_gone(error):
                    unknown = shown(f"{url}: {getattr(error, 'reason', error)}")
                continue
            return False, ""
        return not unknown, unknown

    paths = sorted(set(paths))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = dict(zip(paths, pool.map(ask, paths), strict=True))
    return Presence(
        tuple(path for path, (is_gone, _) in found.items() if is_gone),
        next(filter(None, (unknown for _, unknown in found.values())), ""),
    )


def apt_options() -> list[tuple[str, str]]:
    """This host's apt configuration; empty where there is no apt."""
    if not shutil.which("apt-config"):
        return []
    return re.findall(r'^(\S+) "(.*)";$', run("apt-config", "dump").stdout, re.M)


def run(
    *command: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A finished command of apt, in English."""
    variables = environ.system(os.environ) | dict(environment or {})
    return environ.heard(command, variables)


def _apt_proxy(url: str) -> str | None:
    """The proxy that apt would use, empty for none; None where apt does not say.

    As in apt.conf(5) and apt-transport-https(1): what names the host goes first, then
    what a program answers, and HTTPS has HTTP's settings where it has none itself.
    """
    parts = urllib.parse.urlsplit(url)
    options = _apt_acquire()
    schemes = ("https", "http") if parts.scheme == "https" else (parts.scheme,)
    found = [options.get(f"{scheme}::proxy::{parts.hostname}") for scheme in schemes]
    for scheme in schemes:
        for name in ("proxy-auto-detect", "proxyautodetect"):
            program = options.get(f"{scheme}::{name}")
            if program and shutil.which(program) and not any(found):
                found += run(program, url).stdout.split()[:1]
    found += [options.get(f"{scheme}::proxy") for scheme in schemes]
    for proxy in found:
        if proxy:
            return "" if proxy == "DIRECT" else proxy
    return None


@functools.cache
def _apt_acquire() -> dict[str, str]:
    """What apt's configuration says of HTTP and HTTPS, by name in lower case."""
    prefix = "acquire::"
    return {
        key.lower().removeprefix(prefix): value
        for key, value in apt_options()
        if key.lower().startswith((f"{prefix}http::", f"{prefix}https::"))
    }


def _host_mirrors() -> Mirrors:
    """The mirrors that this host's apt takes Debian itself from."""
    if not shutil.which("apt-get"):
        return Mirrors((), ())
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return of_apt(run, release)


def of_apt(run: Run, release: Mapping[str, str]) -> Mirrors:
    """The mirrors that an apt takes Debian itself from; none where it is not Debian's.

    `release` is the os-release file of the system that has this apt.
    """
    if release.get("ID") != "debian":
        return Mirrors((), ())
    # Whose a list is, only those say that `apt-get update` has fetched.
    origins = {(row[0], row[1]): row[3] for row in _targets(run) if len(row) > 3}
    every = _targets(run, "--no-release-info")
    rows = [(row[0], row[1]) for row in every if row[2] == "main"]
    ours = [row for row in rows if origins.get(row) == "Debian"]
    unknown = [row for row in rows if row not in origins]
    suites = {release.get("VERSION_CODENAME", ""), *_ALIASES}
    suites |= {suite.partition("-")[0] for _, suite in ours}
    main = [url for url, suite in ours if not suite.endswith(("-security", "-debug"))]
    # Others publish suites of those names too, but no updates suite beside it.
    beside = {url for url, suite in unknown if suite.removesuffix("-updates") in suites}
    beside &= {url for url, suite in unknown if suite.endswith("-updates")}
    main += [url for url, _ in unknown if url in beside]
    if not main:
        main = [
            url
            for url, suite in unknown
            if suite in suites and url.rstrip("/").endswith("/debian")
        ]
    security = [
        [url for url, suite in some if suite.endswith("-security")]
        for some in (ours, [r for r in unknown if r[1].partition("-")[0] in suites])
    ]
    return Mirrors(_expand(main, run), _expand(security[0] or security[1], run))


def _targets(run: Run, *options: str) -> list[tuple[str, ...]]:
    """URL, suite, component and, if known, origin of each list that apt would fetch."""
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    command = ("apt-get", "indextargets", *options, "--format", form)
    lines = run(*command, "Created-By: Packages").stdout.splitlines()
    return [row for line in lines if len(row := tuple(line.split())) >= 3]


def _expand(urls: Iterable[str], run: Run) -> tuple[str, ...]:
    """Without repeats, and with what the lists hold that `mirror+…:` names."""
    found: list[str] = []
    for url in urls:
        scheme, _, rest = url.rstrip("/").partition(":")
        if scheme == "mirror+file":
            text = run("cat", re.sub("^/+", "/", rest)).stdout
            found += _LISTED.findall(text)
        elif scheme in ("mirror", "mirror+http", "mirror+https"):
            transport = scheme.partition("+")[2] or "http"
            with contextlib.suppress(OSError), open_url(f"{transport}:{rest}") as file:
                found += _LISTED.findall(file.read(1 << 20).decode(errors="replace"))
        elif url.startswith(_SCHEMES):
            found.append(url)
    return tuple(dict.fromkeys(url.rstrip("/") for url in found))
