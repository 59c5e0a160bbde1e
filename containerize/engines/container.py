"""Running containers of the project: under production flags, found by label."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import re
import secrets
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from containerize import confinement, signals
from containerize.confinement import Confinement
from containerize.engines import variables, volumes
from containerize.engines.engine import Engine, ignore
from containerize.errors import Problem
from containerize.settings import PREFIX, PROJECT, Settings

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """A container to be: what the engine is told to start."""

    settings: Settings
    reference: str
    name: str
    port: int | None = None
    """The port on 127.0.0.1; 0 lets the engine choose, None publishes none."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """A command in place of the service, without a health check of its own."""

    def command(
        self, verb: Sequence[str] = ("run", "--detach"), passed: Sequence[str] = ()
    ) -> list[str]:
        """The arguments after the engine's name; the variables by their names alone."""
        settings = self.settings
        command = [*verb, f"--name={self.name}", f"--label={settings.label}"]
        if self.port is not None:
            host = f"127.0.0.1:{self.port or ''}"
            command.append(f"--publish={host}:{settings.container_port}")
        command += [
            *confined(confinement.of(settings)),
            f"--stop-timeout={settings.stop_timeout}",
            *(mount.option for mount in volumes.mounts(settings)),
            *(secret.option for secret in volumes.secrets(settings)),
        ]
        if settings.network:
            command.append(f"--network={settings.network}")
        command += passed or variables.options(self.environment)
        command += self.options
        if not self.words:
            return [*command, self.reference]
        entry, *rest = self.words
        command += ["--no-healthcheck", f"--entrypoint={entry}"]
        return [*command, self.reference, *rest]

    def mark(self, engine: Engine, earlier: str = "") -> str:
        """What tells this launch from another one; see `variables.mark`."""
        image = engine.identifier(self.reference)
        same = dataclasses.replace(self, reference=image)
        return variables.mark(same.command(), self.environment, earlier)

    def start(
        self, engine: Engine, verb: Sequence[str] = ("run", "--detach"), mark: str = ""
    ) -> None:
        """Start it, or what `verb` says."""
        marked = f"--label={MARK}={mark or self.mark(engine)}"
        with variables.handed(self.environment) as (passed, environ):
            engine.run(*self.command((*verb, marked), passed), variables=environ)

    def runs(self, engine: Engine) -> bool:
        """Whether the container of that name runs, and was launched as this one is."""
        status, labels = inspected(self.settings, engine, self.name)
        earlier = labels.get(MARK, "")
        return (
            status == "running"
            and bool(earlier)
            and self.mark(engine, earlier) == earlier
        )


def confined(found: Confinement) -> Iterator[str]:
    """The options of what a container may do; its user is the image's own."""
    if found.read_only:
        yield "--read-only"
    for path, size in found.temporary.items():
        yield f"--tmpfs={path}:rw,noexec,nosuid,nodev,size={size >> 20}m"
    yield from (f"--cap-drop={each}" for each in found.dropped)
    if not found.new_privileges:
        yield "--security-opt=no-new-privileges"
    yield from (f"--sysctl={name}={value}" for name, value in found.sysctls.items())
    yield f"--pids-limit={found.pids}"
    yield f"--memory={found.memory}"


MARK = "containerize.launch"
"""Label of a container: the mark of what it was launched with."""
SERVICE = "containerize.service"
"""Label of a command's container: the name of the service's."""
ONCE = "containerize.once"
"""Label of the containers of `exec`."""


def commands(
    settings: Settings,
    reference: str,
    *,
    name: str,
    environment: Mapping[str, str] | None = None,
) -> tuple[Launch, ...]:
    """The containers of the setting `commands`, beside the service's, `name`."""
    return tuple(
        Launch(
            settings=settings,
            reference=reference,
            name=f"{name}-{key}",
            environment=environment or {},
            options=(f"--label={SERVICE}={name}",),
            words=tuple(shlex.split(command)),
        )
        for key, command in settings.commands.items()
    )


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
    on_line: Callable[[str], None] = ignore,
) -> Container:
    """Start a container and, unless told not to `wait`, see it healthy.

    Those of the setting `commands` come with it. A container of this name that has
    ended is replaced. Raises Problem where one runs, where the image or the port
    cannot be had, and where the container ends or does not become healthy in time or
    answer at its port; then no container is left.
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
    volumes.prepare(settings, engine, reference, on_line)
    if known == "exited":
        on_line(f"{ended(settings, engine, name)}; a new one takes its place")
    if known:
        engine.run("rm", name)
    service = Launch(
        settings=settings, reference=reference, name=name, port=port,
        environment=environment or {}, options=tuple(options),
    )  # fmt: skip
    with _discarded_unless_well(settings, engine, name):
        service.start(engine)
        container = _started(settings, engine, name)
        if wait:
            wait_healthy(settings, container)
            see_answer(settings, container)
        see_commands(settings, engine, reference, name=name, environment=environment)
    return container


@contextlib.contextmanager
def _discarded_unless_well(
    settings: Settings, engine: Engine, name: str
) -> Iterator[None]:
    """Remove the container on any exception; a Problem tells the end of its log."""
    try:
        yield
    except BaseException as error:
        with signals.undisturbed():
            # A name in use is another container's; anything else that is there is ours.
            ours = state(settings, engine, name)
            said = log_words(engine, name) if ours and ours != "created" else ""
            for each in [*([name] if ours else []), *_with(settings, engine, name)]:
                engine.discard(each)
        if (
            isinstance(error, Problem)
            and said
            and "the end of its log" not in str(error)
        ):
            raise Problem(f"{error}; {said}") from None
        raise


def see_commands(
    settings: Settings,
    engine: Engine,
    reference: str,
    *,
    name: str,
    environment: Mapping[str, str] | None = None,
    patience: float = 1,
) -> None:
    """Have the containers of the setting `commands` run, each as it is set now.

    Raises Problem where one that is started here ends within `patience` seconds.
    """
    wanted = commands(settings, reference, name=name, environment=environment)
    fresh = [launch for launch in wanted if not launch.runs(engine)]
    kept = {launch.name for launch in wanted if launch not in fresh}
    old = [each for each in _with(settings, engine, name) if each not in kept]
    if old:
        engine.run("stop", *old, timeout=settings.stop_timeout + 30)
        engine.run("rm", *old)
    for launch in fresh:
        launch.start(engine)
    end, over = time.monotonic() + patience, not fresh
    while not over:
        time.sleep(0.1)
        over = time.monotonic() >= end  # and the last look comes after that
        for launch in fresh:
            if state(settings, engine, launch.name) != "running":
                problem = ended(settings, engine, launch.name)
                said = log_words(engine, launch.name)
                engine.discard(launch.name)
                raise Problem(f"{problem}; {said}")


def _with(settings: Settings, engine: Engine, name: str) -> list[str]:
    """The containers of commands beside the service's container `name`."""
    return listed(settings, engine, f"label={SERVICE}={name}")


_TASK = "com.docker.swarm.task.id"
"""Label of the containers of a Swarm's services."""
_KEEPER = {
    "docker": f'{{{{.Label "{_TASK}"}}}}',
    "podman": "{{.Pod}}",
}
"""What else starts and stops a container, as `ps` has it: a Swarm, or a pod."""


def listed(
    settings: Settings, engine: Engine, *filters: str, form: str = "{{.Names}}"
) -> list[str]:
    """The project's containers, as `form` has each; none that is a Swarm's or a pod's,
    which have its label from the image."""
    found = _with_keepers(settings, engine, *filters, form=form)
    return [one for one, keeper in found if not keeper]


def images_kept(settings: Settings, engine: Engine) -> set[str]:
    """The IDs of the images that a Swarm or a pod runs here."""
    found = _with_keepers(settings, engine, form="{{.ID}}")
    kept = [one for one, keeper in found if keeper]
    if not kept:
        return set()
    # One that has gone meanwhile keeps none.
    words = ("container", "inspect", "--format={{.Image}}", *kept)
    answer = engine.run(*words, check=False, echo=False)
    return {f"sha256:{one.removeprefix('sha256:')}" for one in answer.stdout.split()}


def _with_keepers(
    settings: Settings, engine: Engine, *filters: str, form: str
) -> list[tuple[str, str]]:
    every = [f"--filter={each}" for each in (f"label={settings.label}", *filters)]
    words = (*every, "--no-trunc", f"--format={form}/{_KEEPER[engine.kind]}")
    found = engine.listing("ps", "--all", *words)
    return [(one.rpartition("/")[0], one.rpartition("/")[2]) for one in found]


def execute(
    settings: Settings,
    engine: Engine,
    reference: str,
    words: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = ignore,
) -> int:
    """Run a command in a new container of the image; returns its exit code.

    It has the service's environment, volumes and limits, this process's stdin,
    stdout and stderr, and is removed in the end. `on_line` is told if it was killed
    for memory. Raises Problem where it cannot be started.
    """
    engine.run("image", "inspect", "--format", "{{.Id}}", reference, echo=False)
    volumes.prepare(settings, engine, reference, on_line)
    # Those of an `exec` that was killed.
    for name in listed(settings, engine, f"label={ONCE}", "status=exited"):
        engine.discard(name)
    launch = once(settings, reference, words, environment=environment)
    try:
        with variables.handed(launch.environment) as (passed, environ):
            code, said = engine.call(
                *launch.command(("run",), passed), variables=environ
            )
        # Docker's and Podman's own exit codes; a command may end with them too.
        never_ran = state(settings, engine, launch.name) in (None, "created")
        if code in (125, 126, 127) and never_ran:
            raise engine.problem(("run",), said or f"{words[0]} could not be run")
        if _short_of_memory(engine, launch.name):
            on_line(f"{words[0]} was killed for memory: {_memory(engine, launch.name)}")
        elif code == KILLED:
            memory = _memory(engine, launch.name)
            on_line(f"{words[0]} was killed, perhaps for memory: {memory}")
    finally:
        with signals.undisturbed():
            engine.discard(launch.name, echo=False)
    return code


def once(
    settings: Settings,
    reference: str,
    words: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """The container of `exec`, with a terminal where this process has one."""
    terminal = ["--tty"] if os.isatty(0) and os.isatty(1) else []
    return Launch(
        settings=settings,
        reference=reference,
        name=f"{settings.container_name}-exec-{secrets.token_hex(4)}",
        environment=environment or {},
        options=("--interactive", *terminal, f"--label={ONCE}=yes"),
        words=tuple(words),
    )


def _started(
    settings: Settings, engine: Engine, name: str, port: int | None = None
) -> Container:
    """The container of that name, whose `port` is asked for if it is not known."""
    port = port or published(settings, engine, name)
    return Container(name, engine, port, engine.elsewhere())


def state(settings: Settings, engine: Engine, name: str) -> str | None:
    """The state of this project's container of that name; None where there is none."""
    return inspected(settings, engine, name)[0]


def inspected(
    settings: Settings, engine: Engine, name: str
) -> tuple[str | None, dict[str, str]]:
    """The state and the labels of this project's container of that name.

    None, and no labels, where there is none, and for one that is a Swarm's or a pod's.
    """
    pod = "{{.Pod}}" if engine.kind == "podman" else ""
    form = "{{json .Config.Labels}} {{.State.Status}}/" + pod
    answer = engine.run(
        "container", "inspect", "--format", form, name, check=False, echo=False
    )
    if answer.returncode:
        if "no such container" in answer.stderr.lower():
            return None, {}
        raise engine.problem(("inspect",), answer.stderr)
    text, _, words = answer.stdout.strip().rpartition(" ")
    status, _, keeper = words.partition("/")
    labels = json.loads(text) or {}
    keeper = keeper or labels.get(_TASK, "")
    ours = labels.get(PROJECT) == settings.image and not keeper
    return (status, labels) if ours else (None, {})


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
    # To ask the port costs nothing; a check is a process, which slows the app's start.
    soon = time.monotonic() + 1
    while _unanswered(container, 1) and time.monotonic() < soon:
        time.sleep(0.01)
    while True:
        answer = engine.run("exec", name, *check, check=False, echo=False, merge=True)
        if answer.returncode == 0:
            return
        if state(settings, engine, name) != "running":
            raise ended(settings, engine, name)
        if time.monotonic() > deadline:
            said = answer.stdout.strip().splitlines()[-1:]
            raise Problem(
                f"container {name} was not healthy within {settings.health_timeout} s: "
                + (said[0] if said else f"its check {_end(answer.returncode)}")
                + (
                    f", and {_memory(engine, name)}"
                    if _short_of_memory(engine, name)
                    else ""
                )
            )
        time.sleep(0.05)


def see_answer(settings: Settings, container: Container, patience: float = 3) -> None:
    """Return once the published port has answered HTTP to this process.

    The health check asks inside of the container, where an app may listen that the
    port does not lead to. Raises Problem where none answers within `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while error := _unanswered(container, patience):
        if time.monotonic() > deadline:
            raise Problem(
                f"container {container.name} is healthy inside, but "
                f"{container.url} does not answer ({_words(error)}): its app must "
                "listen on 0.0.0.0 (SERVED_HOST) and port "
                f"{settings.container_port} (SERVED_PORT, setting container-port)"
            )
        time.sleep(0.01)


def _unanswered(container: Container, timeout: float) -> Exception | None:
    """Why the published port does not answer HTTP within `timeout` seconds, if so."""
    if container.elsewhere or not container.port:
        return None
    asking = http.client.HTTPConnection("127.0.0.1", container.port, timeout=timeout)
    try:
        asking.request("GET", "/health/live")
        asking.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return error
    finally:
        asking.close()
    return None


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
        return Problem(f"container {name} {how}: {_memory(engine, name)}")
    # Not every engine and kernel says that it was for memory.
    perhaps = f", perhaps for memory: {_memory(engine, name)}" if code == KILLED else ""
    return Problem(f"container {name} {_end(code)}{perhaps}")


KILLED = 128 + signal.SIGKILL
"""The exit code of a container that was killed."""


def _memory(engine: Engine, name: str) -> str:
    """That a container's memory was not enough, which a flag may have set."""
    form = "{{.HostConfig.Memory}}"
    answer = engine.run(
        "container", "inspect", "--format", form, name, check=False, echo=False
    )
    size, unit = int(answer.stdout.strip() or 0), ""
    for larger in "kmg":
        if size and size % 1024 == 0:
            size, unit = size // 1024, larger
    return f"{size}{unit} was not enough (setting memory, {PREFIX}MEMORY)"


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
    said = [f"the end of its log:\n{tail}" if tail else "it wrote no log"]
    return "\n".join([*said, *filter(None, [writing(tail)])])


_READ_ONLY = re.compile(
    r"Read-only file system(?:: b?['\"](?P<path>[^'\"\n]+))?"
    r"|unable to open database file|attempt to write a readonly database"
)


def writing(log: str) -> str:
    """How the app may write, if its log says that it could not; empty without that."""
    found = list(_READ_ONLY.finditer(log))
    if not found:
        return ""
    named = PurePosixPath("/srv", found[-1]["path"] or "data")
    place = named.parent if named.suffix else named
    if place == PurePosixPath("/srv"):  # a volume there would hide the app
        place /= "data"
    return (
        "The image's files are read-only. A directory that the app may write is a line "
        f'in [tool.containerize]: volumes = ["NAME:{place}"]'
    )


def log_tail(engine: Engine, name: str) -> str:
    """The last lines that a container wrote."""
    # Podman's --tail takes each part of a line that was written in parts for a line.
    tail = () if engine.kind == "podman" else (f"--tail={LOG_LINES}",)
    answer = engine.run("logs", *tail, name, check=False, echo=False, merge=True)
    return "\n".join(answer.stdout.rstrip().splitlines()[-LOG_LINES:])


def require(settings: Settings, engine: Engine, name: str) -> str:
    """The state of the project's container of that name; a Problem without one."""
    found = state(settings, engine, name)
    if found is None:
        raise Problem(
            f"no container {name} of this project is there: `invoke ps` lists them, "
            "and those of a Swarm or a pod are not ours"
        )
    return found


def ensure(
    settings: Settings,
    engine: Engine,
    reference: str,
    *,
    port: int,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = ignore,
) -> Container:
    """A healthy container of the image on the port: the one that runs, or a new one.

    What runs is replaced if the image, a setting or a variable has changed since.
    """
    name = settings.container_name
    mend(settings, engine, name, on_line)
    status, labels = inspected(settings, engine, name)
    if status != "running":
        return run(
            settings, engine, reference, port=port, environment=environment,
            on_line=on_line,
        )  # fmt: skip
    service = Launch(
        settings=settings, reference=reference, name=name, port=port,
        environment=environment or {},
    )  # fmt: skip
    earlier = labels.get(MARK, "")
    mark = service.mark(engine, earlier)
    if mark == earlier:
        container = _started(settings, engine, name, port)
        try:
            wait_healthy(settings, container)
            see_answer(settings, container)
        except Problem as problem:
            raise Problem(f"{problem}; {log_words(engine, name)}") from None
    else:
        volumes.prepare(settings, engine, reference, on_line)
        container = replace(service, engine, mark, on_line)
    see_commands(settings, engine, reference, name=name, environment=environment)
    return container


def replace(
    service: Launch,
    engine: Engine,
    mark: str,
    on_line: Callable[[str], None] = ignore,
) -> Container:
    """Put a new container in the place of the one that runs, if it can be healthy.

    It proves that unpublished, as `trial`. Then that and the old one drain, and a
    published one starts, which bears `mark`: if that does not answer, the old one is
    started again. `on_line` is told for how long none answered. Raises Problem where
    the old one serves on or again.
    """
    settings, name = service.settings, service.name
    coming, trying = following(name), trial(name)
    candidate = dataclasses.replace(service, name=trying, port=None)
    try:
        with (
            _discarded_unless_well(settings, engine, coming),
            _discarded_unless_well(settings, engine, trying),
        ):
            candidate.start(engine, mark=mark)
            # Podman's networks know a container by the name that it was made with.
            alias = [f"--network-alias={name}"] if settings.network else []
            published = dataclasses.replace(
                service, name=coming, options=(*service.options, *alias)
            )
            # While the candidate comes up.
            published.start(engine, ("create",), mark)
            wait_healthy(settings, Container(trying, engine, 0))
    except Problem as problem:
        raise Problem(f"{name} serves on as it was; {problem}") from None
    began = time.monotonic()
    try:
        with _discarded_unless_well(settings, engine, coming):
            engine.run("stop", trying, name, timeout=settings.stop_timeout + 30)
            engine.run("start", coming)
            container = _started(settings, engine, coming, service.port)
            wait_healthy(settings, container)
            see_answer(settings, container)
    except BaseException as error:
        how = "serves again"
        with signals.undisturbed():
            engine.discard(trying)
            try:
                _restart(settings, engine, name)
            except Problem as worse:
                how = f"cannot be started again either ({worse})"
        if isinstance(error, Problem):
            raise Problem(f"the old {name} {how}; {error}") from None
        raise
    gap = time.monotonic() - began
    engine.run("rm", trying, name)
    engine.run("rename", coming, name)
    on_line(f"{name} is replaced; for {gap:.1f} s at most none answered")
    return dataclasses.replace(container, name=name)


def following(name: str) -> str:
    """The name of a container until it takes the place of `name`."""
    return f"{name}-next"


def trial(name: str) -> str:
    """The name of a container that only proves that what replaces `name` can live."""
    return f"{name}-trial"


def mend(
    settings: Settings,
    engine: Engine,
    name: str,
    on_line: Callable[[str], None] = ignore,
) -> None:
    """Finish or undo a `replace` that was killed in the middle."""
    coming, trying = following(name), trial(name)
    names = listed(settings, engine)
    if trying in names:
        engine.discard(trying)
    if coming not in names:
        return
    there = state(settings, engine, coming)
    old = state(settings, engine, name)
    serves = (
        there == "running"
        and engine.run("port", coming, check=False, echo=False).stdout.strip()
    )
    if serves and old != "running":
        if old:
            engine.run("rm", name)
        engine.run("rename", coming, name)
        on_line(f"{name} was about to be replaced, which is finished now")
        return
    engine.discard(coming)
    if old and old != "running":
        _restart(settings, engine, name)
        on_line(f"{name} was about to be replaced, and runs again now")


def _restart(settings: Settings, engine: Engine, name: str) -> None:
    """Start a container that was told to stop, and see it healthy."""
    # One that still drains would take the start for done.
    engine.run("stop", name, timeout=settings.stop_timeout + 30)
    engine.run("start", name)
    wait_healthy(settings, _started(settings, engine, name))


def exit_code(container: Container) -> int:
    """The exit code of a container that has ended; waits for its end."""
    return int(container.engine.run("wait", container.name, echo=False).stdout)


def stop(settings: Settings, engine: Engine, name: str) -> tuple[str, ...]:
    """Stop a container of the project, leaving it time to drain, and remove it.

    A service's container takes those of its commands along. Returns the names of those
    that the engine killed, since their time was over.
    """
    found = _with(settings, engine, name)
    if not found or state(settings, engine, name):
        require(settings, engine, name)
        found.insert(0, name)
    names = listed(settings, engine)
    found += [each for each in (following(name), trial(name)) if each in names]
    ran = [each for each in found if state(settings, engine, each) == "running"]
    engine.run("stop", *found, timeout=settings.stop_timeout + 30)
    killed = tuple(each for each in ran if _was_killed(engine, each))
    engine.run("rm", *found)
    return killed


def _was_killed(engine: Engine, name: str) -> bool:
    """Whether a container was killed, and not for its memory."""
    form = "{{.State.ExitCode}}"
    answer = engine.run("container", "inspect", "--format", form, name, echo=False)
    return answer.stdout.strip() == str(KILLED) and not _short_of_memory(engine, name)
