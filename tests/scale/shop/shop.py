"""A shop that counts what it is sent, in a file that all its replicas have."""

import os
import socket
import sys
import time

from flask import Flask
from release import FAULT, VERSION


def create_app():
    if FAULT == "exits":
        sys.exit("no shop today")
    while FAULT == "never ready":
        time.sleep(1)
    app = Flask(__name__)

    @app.get("/")
    def index():
        return {"version": VERSION, "host": socket.gethostname()}

    @app.post("/count/<name>")
    def count(name):
        # One write to the end, which no other's can cut in two.
        with open(os.environ["COUNTS"], "ab", buffering=0) as file:
            file.write(f"{name}\n".encode())
        return {"version": VERSION, "counted": name}

    @app.get("/ready")
    def ready():
        if FAULT == "500":
            raise RuntimeError("the shop is in disorder")
        return "ready"

    return app
