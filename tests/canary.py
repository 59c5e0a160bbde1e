"""A build step that calls this host, to see whether a build can reach out at all."""

import socket
from pathlib import Path

from containerize import build
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.settings import Settings

STEP = """FROM {base}
RUN ["python3", "-c", "import socket; socket.create_connection({address}, 3)"]
"""


def reaches_out(
    settings: Settings, engine: Engine, base: str, top: Path, *, network: str = "none"
) -> bool:
    """Whether a step of a build reaches a port of this host; `top` is a directory of
    the test's own. The command is the one that builds the image, but for its network.
    """
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        address = (own_address(), listener.getsockname()[1])
        (top / "Dockerfile").write_text(STEP.format(base=base, address=address))
        name = settings.reference("canary")
        command = build.build_command(settings, engine.kind, [name], cache=False)
        given = command.index("--network") + 1
        command[given] = network
        command[-1] = "."
        try:
            engine.stream(*command, cwd=top)
        except Problem:
            succeeded = False
        else:
            succeeded = True
            engine.run("rmi", name)
        listener.setblocking(False)
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            called = False
        else:
            called = True
    assert succeeded == called
    return called


def own_address() -> str:
    """An address of this host that is not loopback; loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737); nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
