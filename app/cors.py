"""Which responses a browser lets other origins' pages read (CORS).

A few lines in place of Flask-CORS: the server's own answers, to requests that never
reach Flask, need the headers too, and the tutorial's second header stands on every
response, where Flask-CORS gives it to preflights only.
"""

from __future__ import annotations

from app.settings import Settings

Headers = list[tuple[str, str]]


class Policy:
    """The headers that the settings ask for.

    https://fetch.spec.whatwg.org/#http-cors-protocol says what browsers do with them.
    """

    def __init__(self, settings: Settings) -> None:
        self._origins = frozenset(settings.cors_origins)
        self._always = [
            ("Access-Control-Allow-Methods", ", ".join(settings.cors_methods))
        ]
        self._preflight: Headers = []
        if settings.cors_headers:
            names = ", ".join(settings.cors_headers)
            self._preflight.append(("Access-Control-Allow-Headers", names))
        if settings.cors_max_age:
            self._preflight.append(
                ("Access-Control-Max-Age", str(settings.cors_max_age))
            )

    def headers(self, origin: str | None, *, preflight: bool) -> Headers:
        """The headers of a response to a request from `origin`."""
        if not self._origins:
            return []
        if "*" in self._origins:
            found = [("Access-Control-Allow-Origin", "*")]
        elif origin in self._origins and origin is not None:
            found = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        else:
            # The answer to another origin would differ: caches must know.
            return [("Vary", "Origin")]
        return found + self._always + (self._preflight if preflight else [])
