"""Routes that the product has not and its tests need; mounted into the container."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

from flask import Flask, Response, request

from app import create_app as create_product

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def create_app() -> Flask:
    app = create_product()

    @app.get("/fail")
    @app.get("/fail/<path:rest>")
    def fail(rest: str = "") -> str:
        raise RuntimeError("only the log may hold this")

    @app.post("/echo")
    def echo() -> dict[str, object]:
        body = request.get_data()
        return {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}

    @app.get("/wait/<int:milliseconds>")
    def wait(milliseconds: int) -> dict[str, int]:
        time.sleep(milliseconds / 1000)
        return {"waited": milliseconds}

    @app.get("/large")
    def large() -> Response:
        return Response(bytes(1 << 20) for _ in range(40))

    @app.get("/chunk")
    def chunk() -> Response:
        return Response(iter([b"x" * (40 << 20)]))

    @app.get("/who")
    def who() -> dict[str, object]:
        claims = {
            name: value
            for name, value in request.headers.items()
            if "forwarded" in name.lower()
        }
        return {
            "address": request.remote_addr,
            "url": request.base_url,
            "root": request.script_root,
            "claims": claims,
        }

    if os.environ.get("VALIDATED"):
        app.wsgi_app = validated(app.wsgi_app)  # type: ignore[method-assign]
    app.wsgi_app = Bare(app.wsgi_app)  # type: ignore[method-assign]
    return app


def validated(application: WSGIApplication) -> WSGIApplication:
    """The application under the standard library's checks of PEP 3333.

    They want the size of each read, which Werkzeug leaves out where the server says
    that the stream has an end.
    """

    def sized(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        del environ["wsgi.input_terminated"]
        return application(environ, start)

    checked: WSGIApplication = validator(sized)
    return checked


class Bare:
    """What a WSGI application without a framework may answer, whatever the method."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application

    def __call__(
        self, environ: WSGIEnvironment, start: StartResponse
    ) -> Iterable[bytes]:
        found = getattr(self, environ["PATH_INFO"].replace("/", "_"), None)
        if found is None:
            return self.application(environ, start)
        answer: Iterable[bytes] = found(environ, start)
        return answer

    def _bare_list(self, _: WSGIEnvironment, start: StartResponse) -> Any:
        start("200 OK", [("Content-Type", "text/plain"), ("Server", "own")])
        return [b"body"]

    def _bare_sized(self, _: WSGIEnvironment, start: StartResponse) -> Any:
        start("200 OK", [("Content-Length", "4")])
        return iter([b"body"])

    def _bare_unsized(self, _: WSGIEnvironment, start: StartResponse) -> Any:
        start("200 OK", [])
        return iter([b"bo", b"dy"])

    def _bare_write(self, _: WSGIEnvironment, start: StartResponse) -> Any:
        start("200 OK", [])(b"body")
        return []

    def _bare_file(self, environ: WSGIEnvironment, start: StartResponse) -> Any:
        start("200 OK", [])
        file = io.BytesIO(b"body")
        return environ.get("wsgi.file_wrapper", iter)(file)
