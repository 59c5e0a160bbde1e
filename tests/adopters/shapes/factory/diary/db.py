import sqlite3

import click
from flask import current_app, g, request


def get_db():
    if "db" not in g:
        g.db = sqlite3.connect(current_app.config["DATABASE"])
    return g.db


def close_db(error=None):
    db = g.pop("db", None)
    if db is not None:
        db.close()


@click.command("init-db")
def init_db():
    with current_app.open_resource("schema.sql") as file:
        get_db().executescript(file.read().decode())
    click.echo("Initialized the database.")


def entries():
    db = get_db()
    if request.method == "POST":
        db.execute("INSERT INTO entry (body) VALUES (?)", (request.form["body"],))
        db.commit()
    return [body for (body,) in db.execute("SELECT body FROM entry ORDER BY id")]


def init_app(app):
    app.teardown_appcontext(close_db)
    app.cli.add_command(init_db)
    app.add_url_rule("/", view_func=entries, methods=["GET", "POST"])
