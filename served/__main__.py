"""`python -m served`: serve the application until SIGTERM or SIGINT."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Returns the exit code: 0, 1 if requests were lost or the app failed, 2 if a
    setting is wrong.
    """
    # Imported from elsewhere than the app's directory, which may hold a queue.py, or a
    # token.py that even dataclasses would import.
    known, app_directory = sys.path[:], os.path.realpath(os.getcwd())
    sys.path[:] = [path for path in known if os.path.realpath(path) != app_directory]
    try:
        import signal

        # First of all: as PID 1 a process without handlers ignores both signals.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(0))

        import dataclasses

        from served import settings as settings_module

        if sys.argv[1:]:
            asked = sys.argv[1] in ("-h", "--help")
            print(settings_module.usage(), file=sys.stdout if asked else sys.stderr)
            return 0 if asked else 2
        try:
            settings = settings_module.load(os.environ)
        except settings_module.SettingsError as error:
            return _fail(str(error), 2)

        from served import postponed

        postponed.install()
        from served import loader, logs, validators
        from served.health import Health
        from served.proxies import Proxies
        from served.server import Server
        from served.threads import TooManyThreads
    finally:
        sys.path[:] = known

    logs.configure(settings)
    for line in settings_module.notes(os.environ):
        logs.events.warning(line)
    validators.install()
    try:
        app = loader.load(os.environ.get("FLASK_APP"))
    except loader.LoadError as error:
        sys.stderr.write(error.trace)
        return _fail(str(error), 1 if error.trace else 2)
    if hidden := loader.hidden():
        logs.events.warning("%s is hidden by what serves the app: rename it", hidden)
    allowed = loader.max_content_length(app)
    if allowed > settings.max_body:
        logs.events.info(
            "bodies may have %d bytes, the app's MAX_CONTENT_LENGTH", allowed
        )
        settings = dataclasses.replace(
            settings, max_body=allowed, max_bodies=max(allowed, settings.max_bodies)
        )
    try:
        server = Server(
            Proxies(app, settings), settings, Health(app, settings.ready_path)
        )
    except OSError as error:
        where = f"{settings.host} port {settings.port}"
        return _fail(f"cannot listen on {where}: {os.strerror(error.errno or 0)}", 1)
    except TooManyThreads as error:
        return _fail(str(error), 2)

    def stop(*_: object) -> None:
        if server.stopping:
            os.write(2, b"served: a second signal: ended at once\n")
            os._exit(1)
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return 1 if server.run() else 0


def _fail(text: str, code: int) -> int:
    # One write: of a line in parts, `podman logs --tail` may show the last part alone.
    sys.stderr.write(f"served: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
