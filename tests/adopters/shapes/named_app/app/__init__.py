from flask import Flask

from app import settings


def create_app():
    app = Flask(__name__)
    app.config.from_object(settings)

    @app.get("/")
    def index():
        return {"greeting": app.config["GREETING"]}

    return app
