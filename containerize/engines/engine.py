"""Container engines: found, described and run, their errors in one line."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

from containerize import environ, signals
from containerize.engines.complaints import INSTALL, Complaint, NoEngine, explain, known
from containerize.errors import Problem
from containerize.settings import PREFIX, Settings

Kind = Literal["docker", "podman"]
SILENT = "it wrote no reason; see whether it works by hand"
OnCommand = Callable[[Sequence[str]], None]


# Where an engine's own last words begin, after what the steps of a build wrote.
_ERROR = re.compile(r"^(?=Error|ERROR)", re.MULTILINE)


def ignore(_: object) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Description:
    """What `docker build` and `docker run` would use."""

    kind: Kind
    client: str
    """Version of the command."""
    server: str
    """Version of the daemon; for Podman, which has none, of Podman itself."""
    builder: str
    """`legacy`, `BuildKit …` or `buildah …`, and what decides it."""
    store: str
    """Image store: `classic` or `containerd` and its driver; for Podman, the driver."""
    rootless: bool
    reason: str
    """Why this engine was taken."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """A container engine, as a command that may be run."""

    kind: Kind
    command: tuple[str, ...]
    """The command and the options that come before a subcommand."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Variables that are set for the command, besides those of this process."""
    options: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Options that a subcommand always gets, by subcommand."""
    assigned: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    """Variables that are set for a subcommand alone, by subcommand."""
    on_command: OnCommand = ignore
    """Is told each command before it runs, as a shell would take it."""
    reason: str = "it was named"
    processor: str = ""
    """What it says of the processor that it runs on, in OCI's terms."""

    def arguments(self, *arguments: str) -> list[str]:
        """The whole command line for a subcommand and its arguments."""
        head, *rest = arguments
        return [*self.command, head, *self.options.get(head, ()), *rest]

    def run(
        self,
        *arguments: str,
        check: bool = True,
        echo: bool = True,
        merge: bool = False,
        input: bytes | None = None,  # noqa: A002 - as subprocess.run calls it
        timeout: float | None = None,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a subcommand and return what it wrote, with stderr in stdout if `merge`.

        `variables` are set for the command and never shown. A signal that is kept from
        this process (`signals`) is kept from the command, too. Raises Problem where it
        cannot be run, takes longer than `timeout` seconds, or, unless `check` is false,
        fails.
        """
        command = self._begin(arguments, echo)
        kept = signals.kept()
        try:
            with self._place(arguments, cwd) as place:
                done = subprocess.run(
                    command,
                    check=False,
                    input=input,
                    stdin=subprocess.DEVNULL if input is None else None,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT if merge else subprocess.PIPE,
                    timeout=timeout,
                    cwd=place,
                    env={**(variables or {}), **self._environ(arguments[0])},
                    process_group=0 if kept else None,
                    preexec_fn=signals.forget if kept else None,
                )
        except subprocess.TimeoutExpired:
            raise Problem(
                f"`{_short(command)}` did not end within {timeout:g} s: see whether "
                f"{self.kind} still answers (`invoke engine`)"
            ) from None
        except OSError as error:
            raise _not_run(command, error) from None
        out, err = (
            (part or b"").decode(errors="replace")
            for part in (done.stdout, done.stderr)
        )
        if check and done.returncode:
            silent = f"exit code {done.returncode}: {SILENT}"
            raise self.problem(arguments, err.strip() or out.strip() or silent)
        return subprocess.CompletedProcess(command, done.returncode, out, err)

    def stream(self, *arguments: str, cwd: Path | None = None) -> None:
        """As `call`, but raises Problem where the subcommand fails."""
        code, said = self.call(*arguments, cwd=cwd)
        if code:
            if said:
                raise self.problem(arguments, said)
            raise self._ended(arguments) or Problem(
                f"`{_short(self.arguments(*arguments))}` failed with exit code {code}: "
                + ("see what it wrote above" if os.isatty(2) else SILENT)
            )

    def call(
        self,
        *arguments: str,
        echo: bool = True,
        cwd: Path | None = None,
        grace: float = 10,
        variables: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """Run a subcommand that reads and writes where this process does.

        Returns its exit code, and the error that its last words begin; none where
        they went to a terminal. `variables` are set for it and never shown. On
        Ctrl-C, which the terminal sends to the command too, the command has `grace`
        seconds to end by itself; then, and on any other exception, it is told to end.
        """
        command = self._begin(arguments, echo)
        # Engines draw their progress on terminals only, where the reason stands above.
        stderr = None if os.isatty(2) else subprocess.PIPE
        environ = {**(variables or {}), **self._environ(arguments[0])}
        tail: collections.deque[bytes] = collections.deque(maxlen=64)
        with self._place(arguments, cwd) as place:
            try:
                process = subprocess.Popen(
                    command, cwd=place, env=environ, stderr=stderr
                )
            except OSError as error:
                raise _not_run(command, error) from None
            copier = threading.Thread(target=_copy, args=(process, tail), daemon=True)
            copier.start()
            try:
                code = process.wait()
                # Not longer: what the command has left may hold its stderr.
                copier.join(1)
            except BaseException as error:
                if not isinstance(error, KeyboardInterrupt):
                    process.terminate()
                _end(process, grace)
                raise
        return code, _ERROR.split(b"".join(tail).decode(errors="replace"))[-1]

    @contextlib.contextmanager
    def _place(
        self, arguments: Sequence[str], cwd: Path | None
    ) -> Iterator[Path | None]:
        """The directory to run a subcommand in: `cwd`, or one that goes with it.

        Podman 4.3 leaves an empty file called oom where a container was started, if
        that is killed for memory later.
        """
        if self.kind == "docker" or arguments[0] not in ("run", "start"):
            yield cwd
            return
        with tempfile.TemporaryDirectory() as place:
            yield Path(place)

    @contextlib.contextmanager
    def pipe(self, *arguments: str, echo: bool = True) -> Iterator[IO[bytes]]:
        """What a subcommand writes to stdout, as a stream to read to its end.

        Raises Problem on leaving where the subcommand failed.
        """
        command = self._begin(arguments, echo)
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=self._environ(arguments[0]),
                )
            except OSError as error:
                raise _not_run(command, error) from None
            stdout = cast(IO[bytes], process.stdout)
            try:
                with stdout:
                    yield stdout
                code = process.wait()
            except BaseException:
                process.terminate()
                _end(process, 10)
                raise
            if code:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()
                raise self.problem(arguments, said or f"exit code {code}: {SILENT}")

    def identifier(self, image: str) -> str:
        """The engine's own ID of an image; a Problem where it has none of that name."""
        form = ("image", "inspect", "--format", "{{.Id}}")
        answer = self.run(*form, image, echo=False)
        return "sha256:" + answer.stdout.strip().removeprefix("sha256:")

    def native(self) -> str:
        """The processor that it runs on, in OCI's terms; asked if it is not known."""
        return self.processor or probe(self.command, self._environ()).processor

    def discard(self, name: str, *, echo: bool = True) -> None:
        """Remove a container at once, whatever it does, if it is there."""
        # Podman would leave it its time to stop first.
        now = ["--time", "0"] if self.kind == "podman" else []
        self.run("rm", "--force", *now, name, check=False, echo=echo)

    def describe(self) -> Description:
        """Versions, builder and image store. Raises Problem where none answers."""
        client, server = self._answers()
        info = json.loads(self.run("info", "--format", "{{json .}}", echo=False).stdout)
        if self.kind == "podman":
            host, store = info["host"], info["store"]["graphDriverName"]
            builder = f"buildah {host['buildahVersion']}"
            rootless = bool(host["security"]["rootless"])
        else:
            builder = self._builder(client, server, info)
            containerd = "io.containerd.snapshotter.v1" in str(info["DriverStatus"])
            store = f"{'containerd' if containerd else 'classic'}, {info['Driver']}"
            rootless = "name=rootless" in (info.get("SecurityOptions") or ())
        return Description(
            self.kind, client, server, builder, store, rootless, self.reason
        )

    def problem(self, arguments: Sequence[str], message: str) -> Problem:
        """What the engine's `message` about a subcommand means, and what to do."""
        named = naming(self.kind, self._environ())
        complaint = Complaint(self.kind, arguments[0], message, self.publisher, named)
        problem = explain(complaint)
        # What has never answered has not ended.
        if isinstance(problem, NoEngine) or arguments[0] == "version":
            return problem
        return self._ended(arguments) or problem

    def elsewhere(self) -> str:
        """The host that the engine is on, where it is named and is not this one."""
        address = _address(self.kind, self.command, self._environ())
        parts = urllib.parse.urlsplit(address)
        here = parts.scheme not in ("tcp", "ssh", "http", "https")
        host = parts.hostname or ""
        return "" if here or host == "localhost" or host.startswith("127.") else host

    def _begin(self, arguments: Sequence[str], echo: bool) -> list[str]:
        command = self.arguments(*arguments)
        if echo:
            self.on_command([*self.variables(arguments[0]), *command])
        return command

    def variables(self, head: str) -> list[str]:
        """What a shell sets before a subcommand, `NAME=VALUE` each."""
        found = {**self.environment, **self.assigned.get(head, {})}
        return [f"{name}={value}" for name, value in found.items()]

    def _ended(self, arguments: Sequence[str]) -> Problem | None:
        """A Problem if a subcommand failed because there is no daemon any more."""
        found = probe(self.command, self._environ())
        if found.kind != "docker" or found.server or "denied" in found.message:
            return None
        said = f"the Docker daemon ended during `docker {arguments[0]}`"
        if named := naming(self.kind, self._environ()):
            return Problem(f"{said}: see to the one that {named} names")
        return NoEngine(f"{said}: {INSTALL}")

    def listing(self, *arguments: str) -> list[str]:
        """The words that `ps`, `images` and their like write.

        Podman's fail if an image goes meanwhile, as after another's build: asked again,
        the longer the more images there are to look at.
        """
        for pause in (0.1, 0.3, 1, 2, 3, 5, 8):
            answer = self.run(*arguments, check=False, echo=False)
            if answer.returncode == 0:
                return answer.stdout.split()
            if "not known" not in answer.stderr:
                break
            time.sleep(pause)
        return self.run(*arguments, echo=False).stdout.split()

    def publisher(self, port: int) -> str:
        """The name of a container that publishes the port; empty if none does."""
        listing = self.run(
            "ps", "--format", "{{.Names}} {{.Ports}}", check=False, echo=False
        )
        for line in listing.stdout.splitlines():
            name, _, ports = line.partition(" ")
            for first, last in re.findall(r":(\d+)(?:-(\d+))?->", ports):
                if int(first) <= port <= int(last or first):
                    return name
        return ""

    def _environ(self, head: str = "") -> dict[str, str]:
        own = {**self.environment, **self.assigned.get(head, {})}
        return environ.engine(os.environ) | own

    def _answers(self) -> tuple[str, str]:
        """The versions of client and server. Raises Problem where none answers."""
        found = probe(self.command, self._environ())
        if found.kind and not found.server:
            raise self.problem(("version",), found.message)
        return found.client, found.server

    def _builder(self, client: str, server: str, info: Mapping[str, Any]) -> str:
        """What `docker build` uses, by the rules of the client's own release."""
        wanted = self._environ("build").get("DOCKER_BUILDKIT", "")
        plugins = (info.get("ClientInfo") or {}).get("Plugins") or ()
        buildx = next((p["Version"] for p in plugins if p["Name"] == "buildx"), None)
        if wanted and wanted.lower() in ("0", "f", "false"):
            return f"legacy (DOCKER_BUILDKIT={wanted})"
        if _release(client) >= (23,):
            if buildx:
                return f"BuildKit through buildx {buildx}"
            if wanted:
                return "none (DOCKER_BUILDKIT is set, but there is no buildx)"
            return "legacy (the client has no buildx)"
        if "build" in self.assigned:
            return f"BuildKit of the daemon (DOCKER_BUILDKIT={wanted}, set for `build`)"
        if wanted:
            return f"BuildKit of the daemon (DOCKER_BUILDKIT={wanted})"
        if _release(server) >= (23,):
            return "BuildKit of the daemon (its default)"
        return "legacy (the default of this release)"


def docker(command: str, client: str, server: str, processor: str = "") -> Engine:
    """Docker, whose versions are given, with the best builder that they both have.

    Until release 23 a client has BuildKit in it, which it asks for if it is told to;
    the daemon has one since 18.09 (docs.docker.com/build/buildkit, "Getting
    started"). What the caller sets of DOCKER_BUILDKIT stands.
    """
    releases = (_release(client), _release(server))
    asked = os.environ.get("DOCKER_BUILDKIT")
    if asked or not all((18, 9) <= release < (23,) for release in releases):
        return Engine("docker", (command,), processor=processor)
    assigned = {"build": {"DOCKER_BUILDKIT": "1"}}
    return Engine("docker", (command,), assigned=assigned, processor=processor)


def podman(*command: str, **fields: Any) -> Engine:
    """Podman with the options that it needs on this host; see `Engine` for `fields`."""
    words = list(command or ("podman",))
    # crun refuses hosts where cgroup v2 has a controller beside a v1 hierarchy.
    hybrid = Path("/sys/fs/cgroup/unified/cgroup.controllers")
    if hybrid.is_file() and hybrid.read_text().strip() and which("runc"):
        words += ["--runtime", "runc"]
    options = dict.fromkeys(("run", "create", "build"), _ulimits())
    return Engine("podman", tuple(words), options=options, **fields)


def find(settings: Settings, on_command: OnCommand = ignore) -> Engine:
    """The engine of the settings, else Docker whose daemon answers, else Podman.

    Where the environment or a context names an engine of one of them, it is that one.
    Raises NoEngine where none answers and one can be installed or started, and
    Problem where a user must mend what is there.
    """
    named = settings.engine
    kinds: tuple[Kind, ...] = ("docker", "podman")
    chosen = [kind for kind in kinds if naming(kind, os.environ)]
    problems: list[Problem] = []
    for command in (named,) if named else chosen[:1] or kinds:
        try:
            engine, version = _try(command)
        except Problem as problem:
            problems.append(problem)
            continue
        reason = f"{engine.kind} {version} answers"
        if named:
            reason = f"the setting engine names it ({PREFIX}ENGINE)"
        elif chosen:
            reason = f"{naming(engine.kind, os.environ)} names it"
        elif problems:
            reason = f"{reason}; {problems[0]}".partition(": ")[0]
        return dataclasses.replace(engine, on_command=on_command, reason=reason)
    if len(problems) == 1:
        raise problems[0]
    said = "; ".join(str(p).removesuffix(f": {INSTALL}") for p in problems)
    if any(isinstance(problem, NoEngine) for problem in problems):
        raise NoEngine(f"no engine can be used: {said}: {INSTALL}")
    raise Problem(f"no engine can be used: {said}")


def _try(command: str) -> tuple[Engine, str]:
    """The engine behind a command, and its version. Raises Problem, NoEngine."""
    name = Path(command).name
    if not shutil.which(command):
        if name != command or name not in ("docker", "podman"):
            raise Problem(
                f"the engine {command} is not there or cannot be run: "
                f"mend {PREFIX}ENGINE, which takes docker, podman or a path to one"
            )
        kind: Kind = "podman" if name == "podman" else "docker"
        if by := naming(kind, os.environ):
            raise Problem(
                f"{name} is not installed, and {by} names the engine it is to ask: "
                f"install it, or unset that, or name another engine in {PREFIX}ENGINE"
            )
        raise NoEngine(f"{name} is not installed: {INSTALL}")
    found = probe((command,), environ.engine(os.environ))
    if not found.kind:
        kind = "podman" if name == "podman" else "docker"
        by = naming(kind, os.environ)
        if problem := known(Complaint(kind, "version", found.message, _nobody, by)):
            raise problem
        raise Problem(
            f"{command} is no Docker and no Podman, or it is broken: {found.message}"
        )
    if found.kind == "docker":
        engine = docker(command, found.client, found.server, found.processor)
    else:
        engine = podman(command, processor=found.processor)
    if not found.server:
        raise engine.problem(("version",), found.message)
    if engine.kind == "podman":
        # Its version is known even where it cannot work.
        engine.run("info", echo=False)
    return engine, found.server


def naming(kind: Kind, environ: Mapping[str, str]) -> str:
    """What names the engine that a client of that kind asks; empty for its default.

    As the clients' manuals have it: Docker's DOCKER_HOST goes before DOCKER_CONTEXT,
    and that before the context in use; Podman's has CONTAINER_HOST and
    CONTAINER_CONNECTION.
    """
    if kind == "podman":
        names = ("CONTAINER_HOST", "CONTAINER_CONNECTION")
        return next((f"{n}={environ[n]}" for n in names if environ.get(n)), "")
    if host := environ.get("DOCKER_HOST"):
        return f"DOCKER_HOST={host}"
    if context := environ.get("DOCKER_CONTEXT"):
        return f"DOCKER_CONTEXT={context}" if context != "default" else ""
    directory = environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    try:
        config = json.loads(Path(directory, "config.json").read_bytes())
        context = config.get("currentContext")
    except (OSError, ValueError, AttributeError):
        return ""
    return f"`docker context use {context}`" if context not in (None, "default") else ""


def _address(kind: Kind, command: Sequence[str], environ: Mapping[str, str]) -> str:
    """The address of the engine that is named; empty where none is."""
    by = naming(kind, environ)
    if by.startswith(("DOCKER_HOST=", "CONTAINER_HOST=")):
        return by.partition("=")[2]
    if not by:
        return ""
    if kind == "docker":
        form = "{{.Endpoints.docker.Host}}"
        line = [*command, "context", "inspect", "--format", form]
    else:
        form = "{{.Name}} {{.URI}}"
        line = [*command, "system", "connection", "list", "--format", form]
    done = subprocess.run(
        line, check=False, capture_output=True, text=True, env=environ
    )
    if kind == "docker":
        return done.stdout.strip()
    found = dict(row.split()[:2] for row in done.stdout.splitlines() if " " in row)
    name = environ["CONTAINER_CONNECTION"]
    return found.get(name) or found.get(f"{name}*") or ""


def _nobody(_: int) -> str:
    return ""


@dataclasses.dataclass(frozen=True)
class Probe:
    kind: Kind | None
    client: str
    server: str
    message: str
    processor: str = ""
    """The one that it runs on, in OCI's terms."""


def probe(command: Sequence[str], variables: Mapping[str, str]) -> Probe:
    """Which engine a command is, and its versions; an empty one does not answer."""
    line = [*command, "version", "--format", "{{json .}}"]
    try:
        done = subprocess.run(
            line, check=False, capture_output=True, env=variables, timeout=30
        )
    except subprocess.TimeoutExpired:
        return Probe("docker", "", "", "Cannot connect to the Docker daemon.")
    except OSError as error:
        raise _not_run(line, error) from None
    message = done.stderr.decode(errors="replace").strip()
    try:
        answer = json.loads(done.stdout)
        client, server = answer["Client"], answer.get("Server") or {}
        version = str(client["Version"])
    except (ValueError, KeyError, TypeError):
        last = message.splitlines()[-1:] or ["it answers nothing"]
        return Probe(None, "", "", last[0])
    if "OsArch" in client:  # Podman's field; `docker` may be Podman under that name.
        runs_on = str(server.get("OsArch", client["OsArch"])).partition("/")[2]
        served = str(server.get("Version", version))
        return Probe("podman", version, served, message, runs_on.partition("/")[0])
    served, runs_on = (str(server.get(key, "")) for key in ("Version", "Arch"))
    return Probe("docker", version, served, message, runs_on)


def _ulimits() -> tuple[str, ...]:
    """Podman's default limits, lowered to what this process may give.

    Podman as root asks for 2^20 files and for as many processes as the host can
    have, which the kernel grants to CAP_SYS_RESOURCE only; many sandboxes lack it.
    """
    status = Path("/proc/self/status")
    if os.geteuid() != 0 or not status.is_file():
        return ()
    capabilities = re.search(r"^CapEff:\s*(\w+)", status.read_text(), re.MULTILINE)
    if capabilities and int(capabilities[1], 16) >> 24 & 1:  # CAP_SYS_RESOURCE
        return ()
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    options: list[str] = []
    for name, limit, default in (
        ("nofile", resource.RLIMIT_NOFILE, 1 << 20),
        ("nproc", resource.RLIMIT_NPROC, most),
    ):
        hard = resource.getrlimit(limit)[1]
        value = default if hard == resource.RLIM_INFINITY else min(default, hard)
        options += ["--ulimit", f"{name}={value}:{value}"]
    return tuple(options)


def which(name: str) -> str | None:
    # Daemons live in sbin, which is not on the path of every user.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path)


def _release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with; none if it begins with another thing."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _short(command: Sequence[str]) -> str:
    return shlex.join(command if len(command) < 8 else [*command[:8], "…"])


def _not_run(command: Sequence[str], error: OSError) -> Problem:
    if isinstance(error, FileNotFoundError):
        return NoEngine(f"{command[0]} is not installed: {INSTALL}")
    return Problem(
        f"{command[0]} cannot be run ({error.strerror}): mend it, or name another "
        f"engine in {PREFIX}ENGINE"
    )


def _copy(process: subprocess.Popen[bytes], tail: collections.deque[bytes]) -> None:
    """Pass on what a process writes to a stderr that is ours, and keep its end."""
    source = cast("io.BufferedReader | None", process.stderr)
    while source and (chunk := source.read1(1 << 16)):
        tail.append(chunk)
        with contextlib.suppress(OSError):  # Whoever read ours may be gone.
            os.write(2, chunk)


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Wait for a process that was told to end, and kill it when it does not."""
    try:
        process.wait(grace)
    except BaseException as error:  # A second Ctrl-C as well.
        process.kill()
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
