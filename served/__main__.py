"""`python -m app`: serve the application until SIGTERM or SIGINT."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def main() -> int:
    """Returns the exit code: 0, 1 where requests were lost, 2 for a bad setting."""
    # First of all: as PID 1 a process without handlers ignores both signals.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))

    from app import settings as settings_module

    if sys.argv[1:]:
        asked = sys.argv[1] in ("-h", "--help")
        print(settings_module.usage(), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        settings = settings_module.load(os.environ)
        application = _create(settings.factory)
    except settings_module.SettingsError as error:
        return _fail(str(error), 2)

    from app import logs
    from app.proxies import Proxies
    from app.server import Server
    from app.service import extend

    logs.configure(settings)
    for line in settings_module.unknown(os.environ):
        logs.events.warning(line)
    application = extend(application, settings)
    try:
        server = Server(Proxies(application, settings), settings)
    except OSError as error:
        where = f"{settings.host} port {settings.port}"
        return _fail(f"cannot listen on {where}: {error.strerror}", 1)

    def stop(*_: object) -> None:
        if server.stopping:
            os.write(2, b"app: a second signal: ended at once\n")
            os._exit(1)
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return 1 if server.run() else 0


def _create(factory: str) -> Flask:
    import importlib

    from app import validators
    from app.settings import SettingsError

    validators.install()
    module, _, function = factory.partition(":")
    try:
        application: Flask = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"APP_FACTORY {factory} cannot be used: {error}") from None
    return application


def _fail(text: str, code: int) -> int:
    # One write: of a line in parts, `podman logs --tail` may show the last part alone.
    sys.stderr.write(f"app: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
