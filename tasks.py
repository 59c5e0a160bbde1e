"""The daily verbs: `invoke --list` names them, `invoke --help TASK` explains one."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import invoke

import containerize

if TYPE_CHECKING:
    import containerize.complaints
    import containerize.container
    import containerize.engine
    import containerize.image
    import containerize.inputs
    import containerize.locks
    import containerize.provision
    import containerize.record
    import containerize.verify
    from containerize.engine import Engine
    from containerize.settings import Settings

NAME = "name of the container; by default the setting, or the image's name"
ENGINE = "docker, podman, or a path to one; by default whichever answers"
TAG = "tag of the image; by default the first of the settings"


def prepare_streams() -> None:
    """Make the standard streams take whatever is written, wherever they lead.

    A stream that the caller closed leads nowhere, so that no file that is opened later
    takes its number; what an encoding lacks is written as a backslash and digits.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


# Here, since --list and --help write too.
prepare_streams()


def task(**options: Any) -> Callable[[Callable[..., None]], Any]:
    """A task whose problems end it with one line and exit code 1."""

    def decorate(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                function(*args, **kwargs)
            except containerize.errors.Problem as problem:
                raise invoke.Exit(f"{function.__name__}: {problem}", code=1) from None
            except KeyboardInterrupt:
                raise invoke.Exit("interrupted", code=130) from None
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

        return invoke.task(run, **options)

    return decorate


def load(engine: str = "") -> Settings:
    """The project's settings; `engine` is a flag that goes before the setting."""
    root = containerize.settings.find_root(Path(__file__).resolve().parent)
    environ = os.environ | ({"INVOKE_ENGINE": engine} if engine else {})
    return containerize.settings.load(root, environ)


def say(text: str) -> None:
    print(text, flush=True)


def echo(command: Sequence[str]) -> None:
    say(f"$ {shlex.join(command)}")


def show(settings: Settings, commands: Iterable[Sequence[str]]) -> None:
    """What --dry prints in place of doing it."""
    for command in commands:
        echo([settings.engine or "docker", *command])


def dry_build(
    settings: Settings, names: Sequence[str], cache: bool = True
) -> Sequence[Sequence[str]]:
    kind = Path(settings.engine).name or "docker"
    return containerize.image.commands(settings, names, kind=kind, cache=cache)


def find_engine(settings: Settings) -> Engine:
    return containerize.engine.find(settings, on_command=echo)


def agreed(question: str) -> bool:
    """Ask on a terminal; without one, go ahead."""
    if not sys.stdin.isatty():
        return True
    try:
        return input(f"{question} [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


@task(
    help={
        "upgrade": "take the newest versions, instead of keeping those that still fit",
        "check": "only say whether the locks are in step with their inputs",
    }
)
def lock(c: invoke.Context, upgrade: bool = False, check: bool = False) -> None:
    """Lock the packages of the image and the tools, each by its hash."""
    settings = load()
    if check:
        stale = containerize.locks.check(settings)
        if stale:
            raise containerize.errors.Problem("; ".join(stale))
        say("The locks are in step with their inputs.")
    elif c.config.run.dry:
        say("Would resolve requirements.in, tools.in and base.in.")
    else:
        report(containerize.locks.lock(settings, upgrade=upgrade, progress=Meter()))


def report(changes: Sequence[str]) -> None:
    for change in changes:
        say(f"  {change}")
    if not changes:
        say("The locks are as they were.")
    elif any(not change.startswith("tools.txt") for change in changes):
        say("The image's digest changes with these locks.")


@task()
def lint(c: invoke.Context) -> None:
    """Check the Dockerfile with hadolint."""
    settings = load()
    if not (settings.root / "Dockerfile").is_file():
        raise containerize.errors.Problem(
            "there is no Dockerfile: restore it (git checkout Dockerfile)"
        )
    # Where the tools are, were .venv activated or not.
    path = os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
    echo(["hadolint", "Dockerfile"])
    if c.config.run.dry:
        return
    hadolint = shutil.which("hadolint", path=path)
    if not hadolint:
        raise containerize.errors.Problem("hadolint is missing: use ./dev invoke lint")
    done = subprocess.run(
        [hadolint, "Dockerfile"],
        cwd=settings.root,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise containerize.errors.Problem("hadolint says above what to mend")


@task()
def fetch(c: invoke.Context) -> None:
    """Download what the locks name into the input cache, each file checked."""
    settings = load()
    if c.config.run.dry:
        say(f"Would fetch what is missing into {settings.cache_dir}.")
        return
    found = containerize.inputs.fetch(settings, progress=Meter())
    count = len(found.wheels) + len(found.packages)
    say(f"All {count} inputs are in {settings.cache_dir}, their hashes checked.")


class Meter:
    """Download progress: a line that counts on a terminal, a line a file when piped."""

    def __init__(self) -> None:
        self.moving = sys.stdout.isatty()

    def start(self, name: str, total: int | None) -> None:
        self.name, self.total, self.size = name, total, 0
        if self.moving:
            print(name, end="", flush=True)

    def advance(self, size: int) -> None:
        self.size += size
        if self.moving:
            of = f" of {megabytes(self.total)}" if self.total else ""
            print(
                f"\r{self.name}  {megabytes(self.size)}{of}\033[K", end="", flush=True
            )

    def done(self) -> None:
        start = "\r\033[K" if self.moving else ""
        size = f"  {megabytes(self.size)}" if self.size else ""
        say(f"{start}{self.name}{size}")

    def note(self, text: str) -> None:
        say(text)


@task(
    iterable=["tag"],
    help={
        "tag": "tag to give; can be repeated; by default those of the settings",
        "no-cache": "ignore the builder's cache",
        "engine": ENGINE,
    },
)
def build(
    c: invoke.Context, tag: list[str], no_cache: bool = False, engine: str = ""
) -> None:
    """Build the image, with no network, and load it in its canonical form."""
    settings = load(engine)
    names = containerize.image.references(settings, tag)
    if c.config.run.dry:
        show(settings, dry_build(settings, names, cache=not no_cache))
        return
    using = find_engine(settings)
    containerize.inputs.fetch(settings, progress=Meter())
    describe(containerize.image.build(settings, using, tags=tag, cache=not no_cache))


def describe(built: containerize.image.Image) -> None:
    for reference in built.references:
        say(f"image     {reference}")
    say(f"digest    {built.digests.manifest}")
    say(f"config    {built.digests.config}")
    layers = built.digests.layers
    say(
        f"size      {megabytes(sum(layer.size for layer in layers))}, compressed "
        f"{megabytes(sum(layer.compressed_size for layer in layers))}"
    )
    say(f"archive   {built.archive}")
    for warning in built.digests.warnings:
        say(f"warning   {warning}")


@task(
    help={
        "save": "put them into digests.json, on purpose",
        "engine": ENGINE,
    }
)
def digest(c: invoke.Context, save: bool = False, engine: str = "") -> None:
    """Print the image's digests, building it first where files have changed."""
    settings = load(engine)
    if c.config.run.dry:
        show(settings, dry_build(settings, containerize.image.references(settings)))
        return
    found = containerize.image.current(settings)
    if not found:
        using = find_engine(settings)
        containerize.inputs.fetch(settings, progress=Meter())
        found = containerize.image.build(settings, using).digests
    say(f"manifest  {found.manifest}")
    say(f"config    {found.config}")
    for diff_id in found.diff_ids:
        say(f"diff ID   {diff_id}")
    if save:
        containerize.record.save_golden(settings, found)
        say("They are in digests.json: commit it with what has changed them.")


@task(
    iterable=["engine"],
    help={
        "against": "an archive, a file like digests.json, or a digest sha256:…",
        "engine": "docker, podman, or a path to one; can be repeated",
        "verbose": "show each difference, and all that is known of it",
    },
)
def verify(
    c: invoke.Context, engine: list[str], against: str = "", verbose: bool = False
) -> None:
    """Rebuild from nothing, otherwise each time, and compare the digests."""
    settings = [load(name) for name in engine or [""]]
    if c.config.run.dry:
        for each in settings:
            show(each, dry_build(each, [each.reference("verify")], cache=False)[:1])
        return
    using = [find_engine(each) for each in settings]
    containerize.inputs.fetch(settings[0], progress=Meter())
    verdict = containerize.verify.verify(
        settings[0],
        using,
        against=against,
        verbose=verbose,
        on_rebuild=lambda r: say(f"{r.digests.manifest}  {r.name}, {r.seconds:.1f} s"),
    )
    if not verdict.equal:
        explain(verdict)
        raise containerize.errors.Problem(
            f"the image is not that of {verdict.expected}, {verdict.digest}"
            if verdict.expected != verdict.digest
            else f"the image is not {verdict.digest}"
        )
    say(f"Equal to {verdict.expected}: {verdict.digest}")


def explain(verdict: containerize.verify.Verdict) -> None:
    for name in verdict.changed:
        say(f"changed   {name}")
    if verdict.changed:
        say("If these changes are meant: invoke digest --save, and commit digests.json")
    for found in verdict.differences:
        say(f"{found.layer}: {found.path}: {found.field} differs: {found.cause}")
        say(f"          {found.remedy}")
        for line in found.detail.splitlines():
            say(f"          {line}")
    if not verdict.changed and not verdict.differences:
        say(verdict.hint)


@task(
    help={
        "port": "port on 127.0.0.1; by default the setting, 8080",
        "name": NAME,
        "detach": "return once the container is healthy; the default",
        "foreground": "show the log, and stop and remove the container on Ctrl-C",
        "tag": TAG,
        "engine": ENGINE,
    }
)
def run(
    c: invoke.Context,
    port: str = "",
    name: str = "",
    detach: bool = False,
    foreground: bool = False,
    tag: str = "",
    engine: str = "",
) -> None:
    """Run the image under production flags and wait until it is healthy."""
    if detach and foreground:
        raise containerize.errors.Problem(
            "--detach and --foreground exclude each other: give one"
        )
    settings = load(engine)
    reference = settings.reference(tag or None)
    name = containerize.settings.check_container(name or settings.container_name)
    number = containerize.settings.check_port(port or settings.port)
    if c.config.run.dry:
        command = containerize.container.run_command(
            settings, reference, name=name, port=number
        )
        show(settings, [command])
        return
    using = find_engine(settings)
    started = containerize.container.run(
        settings, using, reference, name=name, port=number
    )
    say(f"{name} answers at {started.url}")
    if foreground:
        follow(settings, started)
    else:
        say("Next: invoke logs --follow, invoke ps, invoke stop")


def follow(settings: Settings, started: containerize.container.Container) -> None:
    """Show the log until the container ends or Ctrl-C, then stop and remove it."""
    try:
        started.engine.stream("logs", "--follow", started.name)
        code = containerize.container.exit_code(started)
        if code:
            raise containerize.errors.Problem(
                f"container {started.name} ended by itself with code {code}"
            )
    except KeyboardInterrupt:
        pass
    finally:
        containerize.container.stop(settings, started.engine, started.name)


@task(
    help={
        "port": "port on 127.0.0.1; by default the setting, 8080",
        "engine": ENGINE,
    }
)
def up(c: invoke.Context, port: str = "", engine: str = "") -> None:
    """Get from nothing to the app answering: engine, inputs, image, container."""
    settings = load(engine)
    number = containerize.settings.check_port(port or settings.port)
    reference = settings.reference()
    if c.config.run.dry:
        names = containerize.image.references(settings)
        command = containerize.container.run_command(
            settings, reference, name=settings.container_name, port=number
        )
        show(settings, [*dry_build(settings, names), command])
        return
    using = ensure_engine(settings)
    fetch_or_relock(settings)
    if not containerize.image.is_current(settings, using, reference):
        describe(containerize.image.build(settings, using))
    started = containerize.container.ensure(settings, using, reference, port=number)
    say(f"{settings.container_name} answers at {started.url}")
    say(f"Next: curl {started.url}, invoke logs --follow, invoke ps, invoke stop")


def ensure_engine(settings: Settings) -> Engine:
    """The engine that answers, or else one installed and started now."""
    try:
        return containerize.engine.find(settings, on_command=echo)
    except containerize.complaints.NoEngine as problem:
        say(str(problem))
        if not agreed("Install and start one now?"):
            raise containerize.errors.Problem(
                "no engine, and none may be installed"
            ) from None
        return containerize.provision.install(settings, on_command=echo, on_line=say)


def fetch_or_relock(settings: Settings) -> None:
    """Fetch the inputs; where Debian dropped some, lock their successors and fetch."""
    try:
        containerize.inputs.fetch(settings, progress=Meter())
    except containerize.inputs.Superseded as problem:
        say(str(problem))
        if not agreed("Lock the packages that are there now?"):
            raise containerize.errors.Problem(
                "packages of base.lock are gone, and it must stay"
            ) from None
        report(containerize.locks.lock_base(settings, upgrade=True, progress=Meter()))
        containerize.inputs.fetch(settings, progress=Meter())


@task(help={"name": NAME, "engine": ENGINE})
def stop(c: invoke.Context, name: str = "", engine: str = "") -> None:
    """Stop the container, leaving it time to drain, and remove it."""
    settings = load(engine)
    name = containerize.settings.check_container(name or settings.container_name)
    if c.config.run.dry:
        show(settings, [["stop", name], ["rm", name]])
        return
    containerize.container.stop(settings, find_engine(settings), name)
    say(f"{name} is stopped and removed.")


@task(help={"engine": ENGINE})
def ps(c: invoke.Context, engine: str = "") -> None:
    """List the project's containers."""
    listing(c, engine, "ps", "--all")


@task(help={"engine": ENGINE})
def images(c: invoke.Context, engine: str = "") -> None:
    """List the project's images."""
    listing(c, engine, "images")


def listing(c: invoke.Context, engine: str, *verb: str) -> None:
    settings = load(engine)
    command = [*verb, "--filter", f"label={settings.label}"]
    if c.config.run.dry:
        show(settings, [command])
    else:
        find_engine(settings).stream(*command)


@task(help={"follow": "go on until Ctrl-C", "name": NAME, "engine": ENGINE})
def logs(
    c: invoke.Context, follow: bool = False, name: str = "", engine: str = ""
) -> None:
    """Show the container's log."""
    settings = load(engine)
    name = containerize.settings.check_container(name or settings.container_name)
    command = ["logs", *(["--follow"] if follow else []), name]
    if c.config.run.dry:
        show(settings, [command])
        return
    using = find_engine(settings)
    containerize.container.require(settings, using, name)
    using.stream(*command)


@task(help={"engine": ENGINE})
def clean(c: invoke.Context, engine: str = "") -> None:
    """Remove the project's containers, images, packed layers and archives."""
    settings = load(engine)
    if c.config.run.dry:
        say(f"Would remove what has the label {settings.label}, build/ and dist/.")
        return
    containerize.image.clean(settings)
    containerize.image.remove(settings, find_engine(settings))
    say(f"The inputs stay in {settings.cache_dir}.")


@task(help={"install": "install and start an engine where none answers (root or sudo)"})
def engine(c: invoke.Context, install: bool = False) -> None:
    """Say which engine is used, and why."""
    settings = load()
    using = ensure_engine(settings) if install else find_engine(settings)
    for key, value in dataclasses.asdict(using.describe()).items():
        say(f"{key:9} {value}")
