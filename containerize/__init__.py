"""How a Flask app becomes a container image whose digest anyone can recompute.

The package knows nothing of the app it packs, prints nothing and never exits:
functions take files and values, return files and values, and raise `Problem`.
"""

import importlib
from types import ModuleType

FORMAT = 1
"""Goes up if the tool writes other bytes for the same inputs, and only then."""


def __getattr__(name: str) -> ModuleType:
    """Import a module when it is first named: a command loads no more than it uses."""
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"{__name__}.{name}":
            raise AttributeError(name) from None
        raise
