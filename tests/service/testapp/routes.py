"""An application whose answers are slow, large or wrong, served as any other is."""

import os
import random
import socket
import time

from flask import Flask, Response, redirect, request

from app import create_app as create_product

BLOCK = random.Random(0).randbytes(1 << 20)
BLOCKS = 50


def create_app() -> Flask:
    """The product's application and these routes."""
    app = create_product()
    live = {"answer": "ok"}

    @app.get("/slow")
    def slow() -> dict[str, float]:
        seconds = float(request.args["seconds"])
        time.sleep(seconds)
        return {"slept": seconds}

    @app.get("/large")
    def large() -> Response:
        return Response((BLOCK for _ in range(BLOCKS)), mimetype="image/x-test")

    @app.get("/fail")
    def fail() -> None:
        raise RuntimeError("a secret of the application")

    @app.post("/echo")
    def echo() -> dict[str, int]:
        return {"size": len(request.get_data())}

    @app.post("/live/<answer>")
    def set_live(answer: str) -> dict[str, str]:
        """What /health/live does from now on: ok, fail, redirect or hang."""
        live["answer"] = answer
        return live

    @app.before_request
    def wrong_health() -> object:
        if request.path != "/health/live":
            return None
        if live["answer"] == "fail":
            raise RuntimeError
        if live["answer"] == "hang":
            time.sleep(60)
        return redirect("/") if live["answer"] == "redirect" else None

    @app.post("/deafen")
    def deafen() -> dict[str, bool]:
        """End the listener, as no application should, and nothing else."""
        for name in os.listdir("/proc/self/fd"):
            try:
                found = socket.socket(fileno=os.dup(int(name)))
            except OSError:
                continue
            with found:
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.shutdown(socket.SHUT_RDWR)
        return {"deaf": True}

    return app
