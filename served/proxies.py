"""Who a request comes from, where proxies stand in front."""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

from served.logs import events
from served.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_CLAIMS = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_BY",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_PROTO",
)


class Proxies:
    """Lets the configured proxies alone say whom they speak for.

    From anyone else the headers are taken away, so that no application code can
    believe them by mistake.
    """

    def __init__(self, application: WSGIApplication, settings: Settings) -> None:
        self._application = application
        self._said = False
        hops = settings.proxy_hops
        self._behind_proxy = ProxyFix(
            application, x_for=hops, x_proto=hops, x_host=hops, x_port=hops
        )
        networks = settings.trusted_proxies

        @functools.lru_cache(maxsize=1024)
        def trusted(address: str) -> bool:
            return any(ipaddress.ip_address(address) in network for network in networks)

        self._trusted = trusted

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        if self._trusted(environ["REMOTE_ADDR"]):
            return self._behind_proxy(environ, start_response)
        for name in _CLAIMS:
            if environ.pop(name, None) is not None and not self._said:
                self._said = True
                events.warning(
                    "%s of %s was removed, and all such headers are, unless "
                    "SERVED_TRUSTED_PROXIES names the proxy",
                    name.removeprefix("HTTP_").replace("_", "-").title(),
                    environ["REMOTE_ADDR"],
                )
        return self._application(environ, start_response)
