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
    state = {"answer": os.environ.get("ANSWER", "ok")}

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

    @app.post("/answer/<answer>")
    def set_answer(answer: str) -> dict[str, str]:
        """What becomes of every other request: ok, fail, redirect, login or hang."""
        state["answer"] = answer
        return state

    @app.get("/own-ready")
    def own_ready() -> str:
        return "ready"

    @app.before_request
    def guard() -> object:
        if request.method == "POST":
            return None
        if state["answer"] == "fail":
            raise RuntimeError
        if state["answer"] == "hang":
            time.sleep(60)
        if state["answer"] == "login":
            return "please log in", 401
        return redirect("/") if state["answer"] == "redirect" else None

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
