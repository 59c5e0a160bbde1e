"""How a Flask app becomes a container image whose digest anyone can recompute.

The package knows nothing of the app it packs. But for `tasks`, it prints nothing and
never exits: functions take files and values, return files and values, and raise
`Problem`.
"""

DISTRIBUTION = "flask-containerize"
"""The name that this tool is installed by."""

FORMAT = 3
"""Goes up if the tool writes other bytes for the same inputs, and only then."""
