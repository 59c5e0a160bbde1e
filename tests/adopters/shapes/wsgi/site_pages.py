from flask import Flask


def make_site(title):
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: title)
    return app
