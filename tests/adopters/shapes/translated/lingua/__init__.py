import gettext
import os

from flask import Flask


def create_app():
    app = Flask(__name__)
    where = os.path.join(app.root_path, "translations")

    @app.get("/")
    def index():
        return gettext.translation("messages", where, ["de"]).gettext("Good morning")

    return app
