"""The tutorial's application."""

from flask import Flask, Response


def create_app() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def hello() -> dict[str, str]:
        return {"message": "Hello World from Flask"}

    @app.after_request
    def allow_origins(response: Response) -> Response:
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Allow-Methods"] = (
            "GET, HEAD, OPTIONS, POST, PUT"
        )
        return response

    return app
