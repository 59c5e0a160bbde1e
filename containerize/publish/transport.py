"""HTTP to one registry: TLS, proxies, tokens, and faults that pass.

Who asks is told as the registry wants it: by Basic (RFC 7617), or by a token that its
token server gives for a scope (distribution, "Token Authentication Specification" and
"OAuth2 Token Authentication"). No secret is written anywhere, whatever a server says
back, and none leaves for another host than the one that it is for.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import email.utils
import itertools
import json
import re
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from urllib3.exceptions import (
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
)
from urllib3.response import BaseHTTPResponse

from containerize.errors import Problem
from containerize.image.archive import CHUNK, MAX_JSON, printable
from containerize.publish import credentials
from containerize.publish.credentials import Credentials
from containerize.publish.reference import Reference, is_loopback

TRIES = 5
"""Times that something is asked for that a registry refuses for a moment."""
FULL = "see whether its disk is full"
"""What to do about a registry that fails in a push."""
_PAUSE = 0.3  # seconds before the second try; twice as long before each one after it
_LONGEST = 60.0  # seconds that a registry may ask us to wait
_TIMEOUT = urllib3.Timeout(connect=20, read=60)
_LONG = urllib3.Timeout(connect=20, read=300)  # a registry hashes a blob at its end
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = 5
_SKEW = 300.0  # seconds by which clocks may differ before a refusal speaks of them
_AGENT = "flask-containerize"
# dockerd's "Verify repository client with certificates", containers-certs.d(5)
CERTIFICATES = (
    *("/etc/docker/certs.d", "/etc/containers/certs.d", "~/.config/containers/certs.d"),
)

_T = TypeVar("_T")

Body = Callable[[], Iterator[bytes]]
"""Makes the same bytes each time it is called: what is cut off is sent again."""


class Passing(Problem):
    """A fault that may be gone when one tries again, in `after` seconds if it says."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = after


class Unreachable(Passing):
    """Nothing answers at all."""


class NoTLS(Problem):
    """Something answers, and it is no TLS."""


class Refused(Problem):
    """A registry's no: its HTTP status, and the code of its first error."""

    def __init__(self, text: str, status: int, code: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.code = code


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a registry has answered."""

    status: int
    headers: Mapping[str, str]
    """Their names in lower or upper case, as one asks."""
    content: bytes


@dataclasses.dataclass(frozen=True)
class _Token:
    value: str = dataclasses.field(repr=False)
    ends: float
    """By `time.monotonic`: no wrong clock counts."""


class Transport:
    """The way to a registry for one repository; threads may share it.

    Nothing is asked before the first request. `insecure` are the registries that may
    be spoken to without TLS; those on loopback always may. `on_wait` is told
    of each fault that another try may mend. Where it `pushes`, a failing registry may
    have no room.
    """

    def __init__(
        self,
        repository: Reference,
        insecure: Collection[str] = (),
        on_wait: Callable[[str], None] = lambda _: None,
        *,
        pushes: bool = False,
    ) -> None:
        self.repository = repository
        self.registry = repository.registry
        self.stopped = threading.Event()
        """If set, nothing more is sent: another thread has failed."""
        self._insecure = frozenset(insecure)
        self._on_wait = on_wait
        self._pushes = pushes
        self._lock = threading.RLock()
        self._pools: dict[tuple[str, str, int], urllib3.PoolManager] = {}
        self._base = ""
        self._challenge: dict[str, str] = {}
        self._writes = False
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self._secrets: set[str] = set()
        self._skew = 0.0
        self._looked = False
        self._credentials: Credentials | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        ok: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        also: Sequence[str] = (),
        tries: int = TRIES,
    ) -> Answer:
        """The registry's answer, of a status in `ok`.

        `path` begins with /v2/, or is a URL that the registry has named. `also` are
        repositories of the same registry that are read. Raises Refused for another
        status, and Passing if the last of the tries failed too.
        """

        def once() -> Answer:
            response = self._asked(method, path, ok, headers or {}, body, also)
            with contextlib.closing(response):
                content = b"".join(self.chunks(response, MAX_JSON))
                return Answer(response.status, response.headers, content)

        return self.patient(once, tries)

    @contextlib.contextmanager
    def opened(
        self, path: str, *, ok: Collection[int], headers: Mapping[str, str]
    ) -> Iterator[BaseHTTPResponse]:
        """The answer to a GET, whose content is still to be read by `chunks`."""
        response = self._asked("GET", path, ok, headers, None, ())
        with contextlib.closing(response):
            yield response

    def chunks(
        self, response: BaseHTTPResponse, most: int | None = None
    ) -> Iterator[bytes]:
        """The content of an answer. Raises Passing where it is cut off, and Problem
        for more than `most` bytes."""
        size = 0
        try:
            while chunk := response.read(CHUNK, decode_content=False):
                size += len(chunk)
                if most is not None and size > most:
                    raise Problem(f"{self.registry} answers more than {most} bytes")
                yield chunk
        except (HTTPError, OSError) as error:
            raise self._broken(self._base, error) from None

    def patient(self, run: Callable[[], _T], tries: int = TRIES) -> _T:
        """What `run` returns, tried again with growing pauses as faults pass."""
        for number in itertools.count(1):
            try:
                return run()
            except Passing as fault:
                if number >= tries:
                    raise
                self.pause(fault, number)
        raise AssertionError

    def pause(self, fault: Passing, number: int) -> None:
        """Wait after the `number`th fault in a row; it is told, for it may have taken a
        minute to be one."""
        seconds = _PAUSE * 2 ** (number - 1) if fault.after is None else fault.after
        self._on_wait(f"{fault}; waiting {seconds:.1f} s")
        if self.stopped.wait(seconds):
            raise fault

    def _asked(
        self,
        method: str,
        path: str,
        ok: Collection[int],
        headers: Mapping[str, str],
        body: Body | None,
        also: Sequence[str],
    ) -> BaseHTTPResponse:
        self._begin()
        if method not in ("GET", "HEAD"):
            self._writes = True
        url, hops, asked_again = self._url(path), 0, False
        while True:
            own = self._origin(url) == self._origin(self._base)
            who = self._authorization(also) if own else {}
            response = self._send(method, url, {**headers, **who}, body)
            if response.status in ok:
                return response
            with contextlib.closing(response):
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location and hops < _HOPS:
                    url, hops = self._url(self.join(url, location)), hops + 1
                elif response.status == 401 and own and not asked_again:
                    asked_again = True  # the token may have ended, or been revoked
                    self._challenged(response, who)
                else:
                    raise self._fault(response, method)

    def _begin(self) -> None:
        """Find out how the registry is spoken to (distribution spec, end-1)."""
        with self._lock:
            if self._base:
                return
            schemes = ["https"]
            if self._may_be_plain(self.registry):
                schemes.insert(0, "http")  # no secret is in this request
            cut: Passing | None = None
            for scheme in schemes:
                base = f"{scheme}://{self.registry}"
                try:
                    response = self._send("GET", f"{base}/v2/", {}, None)
                except Unreachable as fault:
                    raise Problem(str(fault)) from None
                except NoTLS as problem:
                    raise cut or problem from None
                except Passing as fault:
                    if scheme == schemes[-1]:
                        raise
                    cut = fault  # so do some servers of TLS answer what is none
                    continue
                with contextlib.closing(response):
                    if response.status == 400 and scheme != schemes[-1]:
                        continue
                    if response.status in _PASSING:
                        raise self._fault(response, "GET")
                    if response.status not in (200, 401, 403):
                        raise Problem(
                            f"{self.registry} is no registry: it answers GET /v2/ with "
                            f"{response.status}: name the host of its API"
                        )
                    if response.status == 401:
                        self._challenged(response)
                    self._base = base
                    return

    def _url(self, path: str) -> str:
        if path.startswith("/"):
            return self._base + path
        url = self._split(path)
        if self._host(url) == self.registry and self._base:
            # Behind a proxy that ends TLS a registry may take itself for a plain one.
            scheme = urllib.parse.urlsplit(self._base).scheme
            return urllib.parse.urlunsplit(url._replace(scheme=scheme))
        self._check(path)
        return path

    def _check(self, url: str) -> None:
        """Raise Problem where anyone could listen."""
        parts = self._split(url)
        host = self._host(parts)
        plain = parts.scheme == "http" and self._may_be_plain(host)
        if not host or not (plain or parts.scheme == "https"):
            raise Problem(
                f"{self.registry} leads to {printable(host) or 'no host'} without TLS: "
                f"if you trust that way, set insecure-registries to it"
            )

    def _may_be_plain(self, host: str) -> bool:
        return host in self._insecure or is_loopback(re.sub(r":\d+$", "", host))

    @staticmethod
    def _host(url: urllib.parse.SplitResult) -> str:
        return url.netloc.rpartition("@")[2]

    def _split(self, url: str) -> urllib.parse.SplitResult:
        """The parts of a URL that the registry may have named."""
        try:
            parts = urllib.parse.urlsplit(url)
            _ = parts.port
        except ValueError:
            raise self._no_url() from None
        return parts

    def _no_url(self) -> Problem:
        return Problem(f"{self.registry} leads to what is no URL: ask who runs it")

    def join(self, base: str, url: str) -> str:
        """`url`, which the registry has named, as seen from `base`."""
        try:
            return urllib.parse.urljoin(base, url)
        except ValueError:
            raise self._no_url() from None

    def _origin(self, url: str) -> tuple[str, str, int]:
        parts = self._split(url)
        port = parts.port or (80 if parts.scheme == "http" else 443)
        return parts.scheme, parts.hostname or "", port

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None
    ) -> BaseHTTPResponse:
        """One request, one answer. Raises Passing if there is none."""
        if self.stopped.is_set():
            raise Problem("interrupted")
        try:
            response = self._pool(url).urlopen(
                method,
                url,
                headers={"User-Agent": _AGENT, **headers},
                body=body() if body else None,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=_LONG if method in ("PATCH", "PUT") else _TIMEOUT,
            )
        except (HTTPError, OSError) as error:
            raise self._broken(url, error) from None
        if date := email.utils.parsedate_tz(response.headers.get("Date", "")):
            self._skew = email.utils.mktime_tz(date) - time.time()
        return response

    def _pool(self, url: str) -> urllib3.PoolManager:
        """The connections to a host, through a proxy where the environment says so."""
        scheme, host, _ = origin = self._origin(url)
        with self._lock:
            if origin not in self._pools:
                named = urllib.request.getproxies()
                proxy = named.get(scheme) or named.get("all", "")
                netloc = self._host(self._split(url))
                if is_loopback(host) or urllib.request.proxy_bypass(netloc):
                    proxy = ""
                self._pools[origin] = self._new_pool(scheme, proxy)
            return self._pools[origin]

    def _new_pool(self, scheme: str, proxy: str) -> urllib3.PoolManager:
        context = None
        if "https" in (scheme, proxy.partition(":")[0]):
            # It heeds SSL_CERT_FILE and SSL_CERT_DIR, and takes its time.
            context = ssl.create_default_context()
            for directory in CERTIFICATES:
                _trust(context, Path(directory).expanduser() / self.registry)
        if not proxy:
            return urllib3.PoolManager(ssl_context=context, maxsize=8)
        try:
            parts = urllib.parse.urlsplit(
                proxy if "://" in proxy else f"http://{proxy}"
            )
            headers = {}
            if parts.username:
                words = (parts.username, parts.password or "")
                who = ":".join(map(urllib.parse.unquote, words))
                headers = urllib3.make_headers(proxy_basic_auth=who)
                self._secrets |= {words[1], who, *headers.values()} - {""}
            return urllib3.ProxyManager(
                f"{parts.scheme}://{self._host(parts)}",
                proxy_headers=headers,
                ssl_context=context,
                maxsize=8,
            )
        except (HTTPError, ValueError, AssertionError):
            raise Problem(
                f"the proxy for {scheme} cannot be used: set HTTPS_PROXY to "
                "http://HOST:PORT"
            ) from None

    def _broken(self, url: str, error: Exception) -> Problem:
        """What a failed connection means."""
        host = printable(self._host(urllib.parse.urlsplit(url)))
        if isinstance(error, ProxyError):
            return Unreachable(
                f"the proxy on the way to {host} cannot be used "
                f"({_why(error.original_error)}): see HTTPS_PROXY and NO_PROXY"
            )
        if isinstance(error, NameResolutionError):
            return Unreachable(
                f"no host {host} is known: is the registry's name right?"
            )
        if isinstance(error, NewConnectionError):
            return Unreachable(
                f"nothing answers at {host} ({_why(error)}): is the registry's name "
                "right, and does it run?"
            )
        cause = _tls(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            clock = (
                ": is the clock of this machine right?"
                if cause.verify_code in (9, 10)  # X509_V_ERR_CERT_(NOT_YET_VALID|…)
                else ": if its CA is yours, name it in SSL_CERT_FILE, or put it into "
                f"/etc/docker/certs.d/{host}"
            )
            return Problem(
                f"the certificate of {host} is not trusted ({cause.verify_message})"
                + clock
            )
        if cause is not None and cause.reason in (
            *("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"),
            *("UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"),
        ):
            return NoTLS(
                f"{host} does not speak TLS: if you trust the way there, set "
                "insecure-registries to it"
            )
        return Passing(f"the connection to {host} broke off ({_why(error)}): try again")

    def _challenged(
        self, response: BaseHTTPResponse, who: Mapping[str, str] | None = None
    ) -> None:
        """Heed what a 401 says of how it wants to be told who asks (RFC 9110, 11.6).

        The token in `who` goes; another thread may have got a new one since.
        """
        found = _challenges(response.headers.get("WWW-Authenticate", ""))
        with self._lock:
            self._challenge = found.get("bearer") or found.get("basic") or {}
            refused = (who or {}).get("Authorization", "").removeprefix("Bearer ")
            self._tokens = {
                scopes: token
                for scopes, token in self._tokens.items()
                if token.value != refused
            }

    def _authorization(self, also: Sequence[str]) -> dict[str, str]:
        with self._lock:
            scheme = self._challenge.get("scheme")
            if scheme == "basic":
                found = self._who()
                return self._basic(found) if found and not found.is_token else {}
            if scheme != "bearer":
                return {}
            actions = "pull,push" if self._writes else "pull"
            scopes = (
                f"repository:{self.repository.name}:{actions}",
                *(f"repository:{name}:pull" for name in sorted(set(also))),
            )
            token = self._tokens.get(scopes)
            if token is None or token.ends <= time.monotonic():
                token = self._tokens[scopes] = self._new_token(scopes)
            return {"Authorization": f"Bearer {token.value}"}

    def _who(self) -> Credentials | None:
        if not self._looked:
            self._credentials = credentials.find(self.registry, self.repository.name)
            self._looked = True
            if self._credentials:
                self._secrets.add(self._credentials.secret)
        return self._credentials

    def _basic(self, found: Credentials) -> dict[str, str]:
        text = base64.b64encode(f"{found.user}:{found.secret}".encode()).decode()
        self._secrets.add(text)
        return {"Authorization": f"Basic {text}"}

    def _new_token(self, scopes: Sequence[str]) -> _Token:
        realm = self.join(self._base, self._challenge.get("realm", ""))
        self._check(realm)
        found = self._who()
        fields = [("service", self._challenge.get("service", ""))]
        if found and found.is_token:
            fields += [("grant_type", "refresh_token"), ("client_id", _AGENT)]
            fields += [("scope", " ".join(scopes)), ("refresh_token", found.secret)]
            form = urllib.parse.urlencode(fields).encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            headers = kind | {"Content-Length": str(len(form))}
            response = self._send("POST", realm, headers, lambda: iter([form]))
        else:
            fields += [("scope", scope) for scope in scopes]
            fields += [("account", found.user)] if found else []
            url = urllib.parse.urlsplit(realm)
            query = "&".join(filter(None, (url.query, urllib.parse.urlencode(fields))))
            asked = urllib.parse.urlunsplit(url._replace(query=query))
            headers = self._basic(found) if found else {}
            response = self._send("GET", asked, headers, None)
        with contextlib.closing(response):
            if response.status in (400, 401, 403):
                raise self._no_credentials(response.status)
            if response.status != 200:
                raise self._fault(response, "GET", urllib.parse.urlsplit(realm).netloc)
            content = b"".join(self.chunks(response, MAX_JSON))
        try:
            answer = json.loads(content)
            value = str(answer.get("token") or answer["access_token"])
            seconds = float(answer.get("expires_in") or 60)  # the default of the spec
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Problem(
                f"the token server of {self.registry} gives no token: try again, or "
                "ask who runs it"
            ) from None
        self._secrets.add(value)
        return _Token(value, time.monotonic() + 0.8 * seconds)

    def _no_credentials(self, status: int) -> Refused:
        """What a user does who is not let in."""
        found, login = self._who(), f"run `docker login {self.registry}`"
        if found:
            text = f"{self.registry} refuses the credentials of {found.source}: {login}"
        else:
            places = " or ".join(credentials.files())
            text = f"{self.registry} wants credentials, none are in {places}: {login}"
        return Refused(text + self._clock(), status, "UNAUTHORIZED")

    def _clock(self) -> str:
        if abs(self._skew) < _SKEW:
            return ""
        way = "ahead of" if self._skew > 0 else "behind"
        minutes = abs(self._skew) / 60
        return f" (its clock is {minutes:.0f} minutes {way} this machine's: mend that)"

    def _fault(
        self, response: BaseHTTPResponse, method: str, host: str = ""
    ) -> Problem:
        """What an answer means that is not what was asked for."""
        status, other, host = response.status, host, host or self.registry
        code, said = self._said(response)
        name = self.repository.name
        reads = method in ("GET", "HEAD")
        bearer = self._challenge.get("scheme") == "bearer"
        scope = "insufficient_scope" in response.headers.get("WWW-Authenticate", "")
        if status in _PASSING:
            after = _retry_after(response.headers.get("Retry-After", ""))
            text = f"{host} fails with {status}{said}"
            if status == 429:
                text = f"{host} takes no more requests for now ({status}{said})"
            if after is not None and after > _LONGEST:
                return Problem(f"{text}: try again in {after:.0f} s, as it asks")
            # Without room it fails at reads too: it made files that it could not fill.
            full = self._pushes and not other and status != 429
            return Passing(f"{text}: try again{f', and {FULL}' if full else ''}", after)
        if status == 401 and not bearer and not self._challenge:
            text = f"{host} refuses in a way that names no login ({status}{said})"
            return Refused(f"{text}: ask who runs it", status, code)
        if status == 401 and not (bearer and (scope or self._credentials)):
            return self._no_credentials(status)
        if status == 401 and not scope:
            text = (
                f"{host} does not take the token that its token server has just given"
            )
            hint = "ask who runs it (do the clocks of both agree?)"
            return Refused(f"{text}{said}: {hint}{self._clock()}", status, code)
        if status in (401, 403):
            who = self._credentials and self._credentials.source
            whose = f"with the credentials of {who}" if who else "without credentials"
            verb = "reads" if reads else "writes"
            text = f"{host} denies {name} to who {verb} {whose}{said}"
            return Refused(
                f"{text}: run `docker login {self.registry}` as one who may",
                status,
                code,
            )
        if status == 405:
            text = f"{host} takes no {method} for {name}{said}: it may be read-only"
            return Refused(f"{text}: ask who runs it", status, code)
        if status in (413, 507):
            text = f"{host} has no room for this in {name} ({status}{said})"
            return Refused(f"{text}: make room there", status, code)
        if status == 404:
            remedy = "see that it is pushed" if reads else "make the repository first"
            text = f"{host} has no {name}, or not what is asked of it{said}: {remedy}"
            return Refused(text, status, code)
        text = f"{host} answers {method} for {name} with {status}{said}"
        return Refused(text, status, code)

    def _said(self, response: BaseHTTPResponse) -> tuple[str, str]:
        """The code of a registry's error, and its words to be put behind a message."""
        code = text = ""
        try:
            content = b"".join(self.chunks(response, MAX_JSON))
            [error, *_] = json.loads(content)["errors"]
            code, text = str(error.get("code", "")), str(error.get("message") or "")
        except (Problem, ValueError, KeyError, TypeError, AttributeError):
            pass
        for secret in sorted(self._secrets - {""}, key=len, reverse=True):
            code, text = code.replace(secret, "…"), text.replace(secret, "…")
        words = ": ".join(printable(word)[:200] for word in (code, text) if word)
        return code, f", {words}" if words else ""


def _trust(context: ssl.SSLContext, directory: Path) -> None:
    """Add the CAs and the client's certificate of a registry's directory."""
    try:
        for file in sorted(directory.glob("*.crt")):
            context.load_verify_locations(file)
        for file in sorted(directory.glob("*.cert")):
            context.load_cert_chain(file, file.with_suffix(".key"))
    except OSError as error:
        why = error.strerror or "no certificate"
        raise Problem(f"{directory} cannot be used ({why}): mend it") from None


def _tls(error: BaseException) -> ssl.SSLError | None:
    """The TLS error in one of urllib3's."""
    causes: list[Any] = [error, *error.args, error.__cause__]
    return next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)


def _why(error: BaseException) -> str:
    """The innermost words of an error of urllib3's, which wraps them more than once."""
    inner = [each for each in error.args if isinstance(each, BaseException)]
    inner += [cause for cause in (error.__cause__,) if cause]
    if inner:
        return _why(inner[0])
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).rpartition(": ")[2]
    return printable(text) or type(error).__name__


def _retry_after(text: str) -> float | None:
    """Seconds that a server asks one to wait (RFC 9110, 10.2.3), where it does."""
    if text.isascii() and text.isdigit():
        return float(text)
    date = email.utils.parsedate_tz(text)
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None


def _challenges(text: str) -> dict[str, dict[str, str]]:
    """The parameters of each scheme that a WWW-Authenticate header names."""
    found: dict[str, dict[str, str]] = {}
    scheme: dict[str, str] = {}
    for key, quoted, value, word in re.findall(
        r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([\w-]+)', text[:8192]
    ):
        if word:
            scheme = found[word.lower()] = {"scheme": word.lower()}
        else:
            scheme[key.lower()] = re.sub(r"\\(.)", r"\1", quoted) or value
    return found
