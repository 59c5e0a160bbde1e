"""Running containers of the project: under production flags, found by label."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence

from containerize.build import identifier
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.settings import Settings

HARDENING = (
    "--read-only",
    "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
"""What every container of the project runs under, beside its limits."""

LOG_LINES = 20
"""How much of its log a container that fails shows."""


@dataclasses.dataclass(frozen=True)
class Container:
    """A container of the project."""

    name: str
    engine: Engine
    port: int
    """The port on 127.0.0.1."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


def run_command(
    settings: Settings,
    reference: str,
    *,
    name: str,
    port: int,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> list[str]:
    """The arguments after the engine's name that start a container, detached.

    Port 0 lets the engine choose one.
    """
    host = f"127.0.0.1:{port or ''}"
    command = [
        "run",
        "--detach",
        f"--name={name}",
        f"--label={settings.label}",
        f"--publish={host}:{settings.container_port}",
        *HARDENING,
        f"--pids-limit={settings.pids}",
        f"--memory={settings.memory}",
        f"--stop-timeout={settings.stop_timeout}",
    ]
    for key, value in (environment or {}).items():
        command.append(f"--env={key}={value}")
    return [*command, *options, reference]


def run(
    settings: Settings,
    engine: Engine,
    reference: str,
    *,
    name: str | None = None,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    wait: bool = True,
) -> Container:
    """Start a container and, unless told not to `wait`, see it healthy.

    A container of this name that has ended is replaced. Raises Problem where one
    runs, where the image or the port cannot be had, and where the container ends or
    does not become healthy in time; then no container is left behind.
    """
    name = name or settings.container_name
    port = settings.port if port is None else port
    engine.run("image", "inspect", "--format", "{{.Id}}", reference, echo=False)
    known = state(settings, engine, name)
    if known == "running":
        raise Problem(
            f"container {name} runs already: `invoke stop` ends it, --name starts "
            "another"
        )
    if known:
        engine.run("rm", name)
    command = run_command(
        settings, reference, name=name, port=port, environment=environment,
        options=options,
    )  # fmt: skip
    try:
        engine.run(*command)
        container = Container(name, engine, published(settings, engine, name))
        if wait:
            wait_healthy(settings, container)
    except BaseException as error:
        # A name in use is another container's; anything else that is there is ours.
        ours = state(settings, engine, name)
        tail = log_tail(engine, name) if ours else ""
        if ours:
            # Podman would leave it its time to stop first.
            now = ["--time", "0"] if engine.kind == "podman" else []
            engine.run("rm", "--force", *now, name, check=False)
        if isinstance(error, Problem) and tail and ours != "created":
            raise Problem(f"{error}\n{tail}") from None
        raise
    return container


def state(settings: Settings, engine: Engine, name: str) -> str | None:
    """The state of this project's container of that name; None where there is none."""
    answer = engine.run(
        "container", "inspect", "--format", "{{json .Config.Labels}} {{.State.Status}}",
        name, check=False, echo=False,
    )  # fmt: skip
    if answer.returncode:
        if "no such container" in answer.stderr.lower():
            return None
        raise engine.problem(("inspect",), answer.stderr)
    labels, _, status = answer.stdout.strip().rpartition(" ")
    key, _, value = settings.label.partition("=")
    return status if (json.loads(labels) or {}).get(key) == value else None


def published(settings: Settings, engine: Engine, name: str) -> int:
    """The port on 127.0.0.1 that leads to the app in the container, which must run."""
    port = f"{settings.container_port}/tcp"
    answer = engine.run("port", name, port, check=False, echo=False)
    if not answer.stdout and state(settings, engine, name) != "running":
        raise Problem(f"container {name} has ended; its log says why:")
    if not answer.stdout:
        raise engine.problem(("port",), answer.stderr)
    return int(answer.stdout.split()[0].rpartition(":")[2])


def wait_healthy(settings: Settings, container: Container) -> None:
    """Return once the image's own health check passes.

    The check is run here, through the engine: Docker's first own one comes only
    after a whole interval, and Podman runs none where systemd does not. Raises
    Problem where the container ends or `health_timeout` passes first.
    """
    engine, name = container.engine, container.name
    deadline = time.monotonic() + settings.health_timeout
    check = _health_command(engine, name)
    while True:
        status = state(settings, engine, name)
        if status != "running":
            raise Problem(f"container {name} has ended; its log says why:")
        answer = engine.run("exec", name, *check, check=False, echo=False)
        if answer.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise Problem(
                f"container {name} was not healthy within {settings.health_timeout} s; "
                "its log says why:"
            )
        time.sleep(0.1)


def _health_command(engine: Engine, name: str) -> list[str]:
    form = "{{json .Config.Healthcheck}}"
    answer = engine.run("container", "inspect", "--format", form, name, echo=False)
    test = (json.loads(answer.stdout) or {}).get("Test") or ["NONE"]
    if test[0] != "CMD":
        raise Problem(
            f"the image of container {name} has no HEALTHCHECK in exec form: "
            'give its Dockerfile one, HEALTHCHECK CMD ["…"]'
        )
    return list(test[1:])


def log_tail(engine: Engine, name: str) -> str:
    """The last lines that a container wrote."""
    answer = engine.run(
        "logs", f"--tail={LOG_LINES}", name, check=False, echo=False, merge=True
    )
    return answer.stdout.rstrip()


def names(settings: Settings, engine: Engine) -> list[str]:
    """The names of the project's containers, whatever their state."""
    answer = engine.run(
        "ps", "--all", f"--filter=label={settings.label}", "--format={{.Names}}",
        echo=False,
    )  # fmt: skip
    return answer.stdout.split()


def require(settings: Settings, engine: Engine, name: str) -> str:
    """The state of the project's container of that name; a Problem without one."""
    found = state(settings, engine, name)
    if found is None:
        raise Problem(
            f"no container {name} of this project is there: `invoke ps` lists them"
        )
    return found


def ensure(
    settings: Settings, engine: Engine, reference: str, *, port: int
) -> Container:
    """A healthy container of the image on the port: the one that runs, or a new one."""
    name = settings.container_name
    if state(settings, engine, name) == "running":
        running = Container(name, engine, published(settings, engine, name))
        answer = engine.run(
            "container", "inspect", "--format", "{{.Image}}", name, echo=False
        )
        image = "sha256:" + answer.stdout.strip().removeprefix("sha256:")
        if image == identifier(engine, reference) and running.port == port:
            wait_healthy(settings, running)
            return running
        stop(settings, engine, name)
    return run(settings, engine, reference, port=port)


def exit_code(container: Container) -> int:
    """The exit code of a container that has ended; waits for its end."""
    return int(container.engine.run("wait", container.name, echo=False).stdout)


def stop(settings: Settings, engine: Engine, name: str) -> None:
    """Stop a container of the project, leaving it time to drain, and remove it."""
    require(settings, engine, name)
    engine.run("stop", name, timeout=settings.stop_timeout + 30)
    engine.run("rm", name)
