"""Routes that the product has not and its tests need; mounted into the container."""

from __future__ import annotations

import hashlib
import time

from flask import Flask, Response, request

import app as product


def create_app() -> Flask:
    app = product.create_app()

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

    return app
