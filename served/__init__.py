"""Serves a Flask application in a container: `python -m served`.

It changes nothing of what the application answers.
"""
