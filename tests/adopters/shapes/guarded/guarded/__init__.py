from flask import Flask, redirect, request


def create_app():
    app = Flask(__name__)
    app.config["TRUSTED_HOSTS"] = ["shop.example"]

    @app.before_request
    def force_https():
        if request.headers.get("X-Forwarded-Proto") != "https":
            return redirect(request.url.replace("http://", "https://"), 301)
        if not request.cookies.get("session"):
            return "please log in", 401
        return None

    app.add_url_rule("/", view_func=lambda: "secret")
    return app
