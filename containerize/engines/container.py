"""Running containers of the project: under production flags, found by label."""

from __future__ import annotations

import dataclasses
import http.client
import json
import signal
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
    elsewhere: str = ""
    """The machine that has the port, where that is not this one."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def answer(self) -> str:
        """Where it answers, in words."""
        if not self.elsewhere:
            return f"{self.name} answers at {self.url}"
        return (
            f"{self.name} is healthy; its port {self.port} is on 127.0.0.1 of "
            f"{self.elsewhere}, where the engine is, not of this machine"
        )


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
    does not become healthy in time or answer at its port; then no container is left.
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
        container = _started(settings, engine, name)
        if wait:
            wait_healthy(settings, container)
            see_answer(settings, container)
    except BaseException as error:
        # A name in use is another container's; anything else that is there is ours.
        ours = state(settings, engine, name)
        said = log_words(engine, name) if ours and ours != "created" else ""
        if ours:
            # Podman would leave it its time to stop first.
            now = ["--time", "0"] if engine.kind == "podman" else []
            engine.run("rm", "--force", *now, name, check=False)
        if isinstance(error, Problem) and said:
            raise Problem(f"{error}; {said}") from None
        raise
    return container


def _started(settings: Settings, engine: Engine, name: str) -> Container:
    return Container(
        name, engine, published(settings, engine, name), engine.elsewhere()
    )


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
        raise ended(settings, engine, name)
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
            raise ended(settings, engine, name)
        answer = engine.run("exec", name, *check, check=False, echo=False, merge=True)
        if answer.returncode == 0:
            return
        if time.monotonic() > deadline:
            said = answer.stdout.strip().splitlines()[-1:]
            raise Problem(
                f"container {name} was not healthy within {settings.health_timeout} s: "
                + (said[0] if said else f"its check {_end(answer.returncode)}")
                + (
                    f", and {_memory(settings)}"
                    if _short_of_memory(engine, name)
                    else ""
                )
            )
        time.sleep(0.1)


def see_answer(settings: Settings, container: Container, patience: float = 3) -> None:
    """Return once the published port has answered HTTP to this process.

    The health check asks inside of the container, where an app may listen that the
    port does not lead to. Raises Problem where none answers within `patience` seconds.
    """
    if container.elsewhere:
        return
    deadline = time.monotonic() + patience
    while True:
        asking = http.client.HTTPConnection(
            "127.0.0.1", container.port, timeout=patience
        )
        try:
            asking.request("GET", "/health/live")
            asking.getresponse()
            return
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                raise Problem(
                    f"container {container.name} is healthy inside, but "
                    f"{container.url} does not answer ({_words(error)}): its app must "
                    f"listen on 0.0.0.0 (APP_HOST) and port {settings.container_port} "
                    "(APP_PORT, setting container_port)"
                ) from None
        finally:
            asking.close()
        time.sleep(0.1)


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error or type(error).__name__)


def ended(settings: Settings, engine: Engine, name: str) -> Problem:
    """How a container ended that was to run: killed for memory, a signal, a code."""
    form = "{{.State.ExitCode}}"
    code = int(
        engine.run("container", "inspect", "--format", form, name, echo=False).stdout
    )
    if _short_of_memory(engine, name):
        how = "was killed for memory" if code == KILLED else f"{_end(code)}"
        return Problem(f"container {name} {how}: {_memory(settings)}")
    # Not every engine and kernel says that it was for memory.
    perhaps = f", perhaps for memory: {_memory(settings)}" if code == KILLED else ""
    return Problem(f"container {name} {_end(code)}{perhaps}")


KILLED = 128 + signal.SIGKILL
"""The exit code of a container that was killed."""


def _memory(settings: Settings) -> str:
    return f"{settings.memory} was not enough (setting memory, CONTAINERIZE_MEMORY)"


def _short_of_memory(engine: Engine, name: str) -> bool:
    """Whether the kernel killed a process of the container for its memory."""
    form = "{{.State.OOMKilled}}"
    answer = engine.run(
        "container", "inspect", "--format", form, name, check=False, echo=False
    )
    return answer.stdout.strip() == "true"


def _end(code: int) -> str:
    """What an exit code says, after the name of what ended."""
    try:
        return f"was ended by {signal.Signals(code - 128).name} (exit code {code})"
    except ValueError:
        return f"ended with exit code {code}"


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


def log_words(engine: Engine, name: str) -> str:
    """The last lines that a container wrote, introduced, or that there are none."""
    tail = log_tail(engine, name)
    return f"the end of its log:\n{tail}" if tail else "it wrote no log"


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
        running = _started(settings, engine, name)
        answer = engine.run(
            "container", "inspect", "--format", "{{.Image}}", name, echo=False
        )
        image = "sha256:" + answer.stdout.strip().removeprefix("sha256:")
        if image == identifier(engine, reference) and running.port == port:
            try:
                wait_healthy(settings, running)
                see_answer(settings, running)
            except Problem as problem:
                raise Problem(f"{problem}; {log_words(engine, name)}") from None
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
