"""The service's settings: `SERVED_*` variables, typed and checked before it starts."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

PREFIX = "SERVED_"

_LINK = re.compile(r"(?:tcp|udp|sctp)://.*")
_LINKED = re.compile(
    r"SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.*)?)?|NAME|ENV_.*"
)


class SettingsError(ValueError):
    """A value that cannot be used; its text is one line that names the variable."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a setting's text must be, and the function that makes a value of it."""

    wanted: str
    parse: Callable[[str], Any]


def _number(low: float, high: float, parse: Callable[[str], float] = int) -> Kind:
    def parse_number(text: str) -> float:
        number = parse(text)
        if not low <= number <= high:
            raise ValueError
        return number

    noun = "a whole number" if parse is int else "a number of seconds"
    return Kind(f"{noun} from {low:g} to {high:g}", parse_number)


def _size(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,11})([kmg]?)", text)
    if not match:
        raise ValueError
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2]]


def _choice(*names: str) -> Kind:
    values = {name: name for name in names}
    return Kind(" or ".join(names), values.__getitem__)


def _matching(pattern: str, wanted: str) -> Kind:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return Kind(wanted, parse)


def _network(text: str) -> Any:
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped and network.prefixlen >= 96:
            return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


def _listed(wanted: str, parse: Callable[[str], Any]) -> Kind:
    return Kind(
        f"{wanted}, separated by commas",
        lambda text: tuple(parse(part.strip()) for part in text.split(",") if part),
    )


def _address() -> Kind:
    def parse(text: str) -> str:
        if "%" in text:  # a zone, which cannot be bound to
            raise ValueError
        return str(ipaddress.ip_address(text))

    return Kind("an IP address without a zone", parse)


SECONDS = _number(0.1, 86400, float)
SIZE = Kind("a size in bytes, such as 65536, 64k or 1m", _size)
FLAG = Kind("true or false", {"true": True, "false": False}.__getitem__)


def _setting(default: str, kind: Kind, text: str) -> Any:
    value = kind.parse(default)
    metadata = {"default": default, "kind": kind, "text": text}
    return dataclasses.field(default=value, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings; a field `name` is the variable `SERVED_NAME`."""

    host: str = _setting(
        "0.0.0.0",  # noqa: S104
        _address(),
        "address to listen on; :: is both families",
    )
    port: int = _setting("8080", _number(1, 65535), "TCP port to listen on")
    threads: int = _setting("4", _number(1, 256), "requests worked on at once")
    connections: int = _setting(
        "500",
        _number(1, 10000),
        "connections held open at once; the kernel keeps further ones waiting",
    )
    grace_period: float = _setting(
        "25",
        SECONDS,
        "seconds that a stop leaves to the requests in flight; keep it under the "
        "engine's stop timeout",
    )
    drain_delay: float = _setting(
        "0",
        _number(0, 86400, float),
        "seconds of the grace period for which a stopping service still accepts "
        "connections, while a load balancer sees it not ready",
    )
    request_timeout: float = _setting(
        "20", SECONDS, "seconds that a request may take to arrive whole"
    )
    idle_timeout: float = _setting(
        "75",
        SECONDS,
        "seconds that a connection may wait for its next request, or a response for "
        "its reader",
    )
    max_header: int = _setting("16k", SIZE, "size of a request's line and headers")
    max_body: int = _setting("1m", SIZE, "size of a request's body")
    max_bodies: int = _setting(
        "32m", SIZE, "size of all request bodies that are held at once"
    )
    trusted_proxies: tuple[Any, ...] = _setting(
        "",
        _listed("IP addresses or networks", _network),
        "proxies whose X-Forwarded-* headers are believed",
    )
    proxy_hops: int = _setting(
        "1", _number(1, 16), "proxies in a row that add to X-Forwarded-For"
    )
    ready_path: str = _setting(
        "",
        _matching(r"(/[!-~]*)?", "a path like /ready"),
        "the app's own route that says with a 2xx whether it is ready; not asked "
        "when empty",
    )
    log_format: str = _setting(
        "plain", _choice("plain", "json"), "form of the log's lines"
    )
    log_query: bool = _setting("false", FLAG, "log query strings too")
    log_health: bool = _setting("false", FLAG, "log health checks that pass too")


@dataclasses.dataclass(frozen=True)
class Row:
    """What a reader wants to know of one setting."""

    variable: str
    default: str
    wanted: str
    text: str


def rows() -> Iterator[Row]:
    """The settings in their order, for the help text and the docs."""
    for field in dataclasses.fields(Settings):
        data = field.metadata
        kind: Kind = data["kind"]
        yield Row(
            PREFIX + field.name.upper(), data["default"], kind.wanted, data["text"]
        )


def load(environ: Mapping[str, str]) -> Settings:
    """The settings that an environment gives; raises SettingsError for a bad one."""
    values = {}
    for field in dataclasses.fields(Settings):
        variable = PREFIX + field.name.upper()
        text = environ.get(variable)
        if text is None or _LINK.fullmatch(text):
            continue
        kind: Kind = field.metadata["kind"]
        try:
            values[field.name] = kind.parse(text)
        except (ValueError, KeyError):
            raise SettingsError(
                f"{variable} must be {kind.wanted}, not {text!r}"
            ) from None
    settings = Settings(**values)
    if settings.drain_delay >= settings.grace_period:
        raise SettingsError(
            f"{PREFIX}DRAIN_DELAY must be less than {PREFIX}GRACE_PERIOD"
        )
    return settings


def usage() -> str:
    """The text of `python -m served --help`."""
    lines = [
        "usage: python -m served",
        "",
        "Serves the application that FLASK_APP names, or that of wsgi.py or app.py,",
        "until SIGTERM or SIGINT, then drains. Its settings are environment variables:",
    ]
    for row in rows():
        lines += ["", f"  {row.variable}={row.default}"]
        lines += textwrap.wrap(
            f"{row.text}; {row.wanted}",
            72,
            initial_indent=" " * 6,
            subsequent_indent=" " * 6,
        )
    return "\n".join(lines)


def notes(environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable that looks like a setting and is none."""
    known = [field.name.upper() for field in dataclasses.fields(Settings)]
    given = {
        name.removeprefix(PREFIX): text
        for name, text in sorted(environ.items())
        if name.startswith(PREFIX)
    }
    linked = any(_LINK.fullmatch(text) for text in given.values())
    for name, text in given.items():
        if _LINK.fullmatch(text) and name in known:
            yield (
                f"{PREFIX}{name}={text} is a link to a service called "
                f"{PREFIX[:-1].lower()}, not a setting: ignored (Kubernetes leaves it "
                "out with enableServiceLinks: false)"
            )
        if name in known or (linked and _LINKED.fullmatch(name)):
            continue
        import difflib  # rarely needed

        near = difflib.get_close_matches(name, known, 1)
        hint = "python -m served --help lists them"
        if near:
            hint = f"did you mean {PREFIX}{near[0]}?"
        yield f"{PREFIX}{name} is no setting: {hint}"
