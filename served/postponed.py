"""Werkzeug's development server, which is not loaded before somebody asks for it.

Nobody does in an image, but Werkzeug itself imports it, and with it the standard
library's HTTP server, its client and OpenSSL: 2.3 MB of what an idle service holds in
memory, and a quarter of the time that Flask's import takes.
"""

from __future__ import annotations

import http
import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

NAME = "werkzeug.serving"
NAMED = ("run_simple", "is_running_from_reloader")
"""Its functions that Werkzeug and Flask import by name. Whatever else is asked of the
module loads it."""


def install() -> None:
    """Postpone it; to be called before Flask is imported."""
    sys.meta_path.insert(0, _Finder())
    # Whoever imports `http` alone finds these two in it wherever Werkzeug has been.
    vars(http)["__getattr__"] = _submodule


def _submodule(name: str) -> ModuleType:
    if name in ("client", "server"):
        return importlib.import_module(f"http.{name}")
    raise AttributeError(f"module 'http' has no attribute {name!r}")


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != NAME:
            return None
        sys.meta_path.remove(self)
        found = PathFinder.find_spec(name, path, target)
        if found and found.loader:
            found.loader = _Postponed(found.loader)
        return found


class _Postponed(Loader):
    """Fills its module when something is looked for in it that it does not have."""

    def __init__(self, real: Loader) -> None:
        self._real = real
        self._lock = threading.RLock()
        self._begun = False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        names = vars(module)
        for name in NAMED:
            names[name] = self._later(module, name)

        def look_up(name: str) -> Any:
            # The import system itself asks for those that begin so.
            if not name.startswith("__"):
                self._fill(module)
                if name in names:
                    return names[name]
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")

        names["__getattr__"] = look_up

    def _fill(self, module: ModuleType) -> None:
        with self._lock:  # which another thread holds until it is whole
            if not self._begun:
                self._begun = True
                self._real.exec_module(module)

    def _later(self, module: ModuleType, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._fill(module)
            return getattr(module, name)(*args, **kwargs)

        return call
