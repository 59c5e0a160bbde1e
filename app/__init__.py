"""The application: its routes. What serves it, and how, stands beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def create_app() -> Flask:
    """The application, with what every response of the service carries."""
    # Imported here: the process listens to signals before it spends time on Flask.
    from flask import Flask

    from app.service import extend

    app = Flask(__name__)

    @app.get("/")
    def hello() -> dict[str, str]:
        return {"message": "Hello World from Flask"}

    return extend(app)
