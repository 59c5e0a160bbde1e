"""What the service gives any Flask application: CORS, JSON errors, health, proxies."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from app import settings as settings_module
from app.cors import Policy
from app.settings import Settings

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

LIVE = "/health/live"
READY = "/health/ready"
DRAINING = "app.draining"
"""Key of the WSGI environment: whether the server is stopping."""


def extend(app: Flask, settings: Settings | None = None) -> Flask:
    """Give `app` what it lacks of the service's own; once is enough, twice no harm.

    Routes and error handlers that the application has itself are left alone.
    """
    if "service" in app.extensions:
        return app
    app.extensions["service"] = True
    policy = Policy(settings or settings_module.load(os.environ))

    @app.after_request
    def allow_origins(response: Response) -> Response:
        preflight = (
            request.method == "OPTIONS"
            and "Access-Control-Request-Method" in request.headers
        )
        found = policy.headers(request.headers.get("Origin"), preflight=preflight)
        for name, value in found:
            # What the application says itself stands; a second one would void it.
            if name == "Vary" or name not in response.headers:
                response.headers.add(name, value)
        return response

    @app.before_request
    def refuse_readiness() -> ResponseReturnValue | None:
        if request.path == READY and request.environ.get(DRAINING):
            return {"status": "draining"}, 503
        return None

    own = {rule.rule for rule in app.url_map.iter_rules()}
    for path, status in ((LIVE, "live"), (READY, "ready")):
        if path not in own:
            answer = {"status": status}
            app.add_url_rule(path, f"service.{status}", lambda answer=answer: answer)
    app.error_handler_spec[None][None].setdefault(HTTPException, _error)
    return app


def error_body(code: int | None, name: str, description: str | None) -> dict[str, Any]:
    """What every error says, whoever finds it."""
    return {"code": code, "name": name, "description": description}


def _error(error: HTTPException) -> Response:
    """Flask's own way to JSON errors; headers such as Allow stay."""
    response = cast(Response, error.get_response())
    body = error_body(error.code, error.name, error.description)
    response.data = json.dumps(body)
    response.content_type = "application/json"
    return response
