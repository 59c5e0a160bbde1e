"""What every verb is made of: flags, a session, and what `--dry` shows."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import invoke

from containerize.terminal import agreed, echo, mute, say, worded

if TYPE_CHECKING:
    from containerize.engines.engine import Engine
    from containerize.settings import Settings

Commands = Sequence[Sequence[str]]

NAME = "name of the container; by default the setting, or the image's name"
ENGINE = "docker, podman, or a path to one; by default whichever answers"
TAG = "tag of the image; by default the first of the settings"
PORT = "port on 127.0.0.1; by default the setting, 8080"
GIVEN = {
    "env": "NAME=VALUE, or NAME for the caller's value; can be repeated",
    "env-file": "file of variables, in place of the setting env-file",
    "volume": "NAME:/path or ./directory:/path, beside the settings'; can be repeated",
    "network": "network of the engine to join; by default the setting",
    "memory": "memory limit; by default the setting, 128m",
}
"""The flags that say what a container gets, and their help."""


class Session:
    """What a verb works with: the project's settings, and an engine."""

    def __init__(self, engine: str = "") -> None:
        self._named = engine

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings; the flag --engine goes before the setting."""
        from containerize import settings

        named = {f"{settings.PREFIX}ENGINE": self._named} if self._named else {}
        return settings.load(settings.find_root(Path.cwd()), os.environ | named)

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine that answers; it shows each command as it runs.

        What is built from then on is for its processor, if another is not named.
        """
        from containerize.engines import engine
        from containerize.settings import ARCHITECTURES

        found = engine.find(self.settings, on_command=echo)
        given, native = self.settings, found.native()
        fitting = given.architectures or ARCHITECTURES.values()
        if not given.architecture and native in fitting:
            self.settings = given.for_architecture(native)
        return found

    def ensure_engine(self) -> Engine:
        """The engine that answers, or else one installed and started now."""
        from containerize.engines import complaints, provision
        from containerize.errors import Problem

        try:
            return self.engine
        except complaints.NoEngine as problem:
            say(str(problem))
            if not agreed("Install and start one now?"):
                raise Problem("no engine, and none may be installed") from None
            return provision.install(self.settings, on_command=echo, on_line=say)

    def show(self, commands: Commands) -> None:
        """What --dry prints: the commands that the engine would get."""
        from containerize.errors import Problem

        try:
            variables = self.engine.variables
        except Problem:  # none answers: nothing is known of what it would need

            def variables(head: str) -> list[str]:
                return []

        for command in commands:
            name = self.settings.engine or "docker"
            echo([*variables(command[0]), name, *command])

    def container(self, name: str) -> str:
        """The container that a flag names, or else the settings."""
        from containerize.settings import check_container

        return check_container(name or self.settings.container_name)

    def port(self, port: str) -> int:
        from containerize.settings import check_port

        return check_port(port or self.settings.port)

    def given(
        self,
        env: Sequence[str] = (),
        env_file: str = "",
        volume: Sequence[str] = (),
        network: str = "",
        memory: str = "",
        **_: Any,
    ) -> tuple[Settings, dict[str, str]]:
        """The settings with these flags over them, and the variables."""
        from containerize.engines import variables, volumes
        from containerize.settings import check_network, check_size

        here = Path.cwd()
        settings = dataclasses.replace(
            self.settings,
            env_file=str(here / Path(env_file).expanduser())
            if env_file
            else self.settings.env_file,
            volumes=(
                *self.settings.volumes,
                *(volumes.absolute(each, here) for each in volume),
            ),
            network=check_network(network) or self.settings.network,
            memory=check_size(memory) if memory else self.settings.memory,
        )
        return settings, variables.read(settings, env)

    def warn_of_packed(self, env_file: str) -> None:
        """Say if an image has the file of variables that a flag names.

        The flags decide no image: the setting would leave it out.
        """
        from containerize.pack import selection

        file = Path.cwd() / Path(env_file).expanduser()
        if env_file and selection.packs(self.settings, file):
            say(
                f"warning   {env_file} gets into the image, as any file here: make it "
                "the setting env-file, or name it in .gitignore or exclude"
            )

    def each(self) -> list[Settings]:
        """The settings for each processor that there is an image for."""
        return self.settings.for_each()

    def build_commands(
        self, names: Sequence[str], cache: bool = True, every: bool = False
    ) -> Commands:
        """What an engine gets to build; with `every`, each processor's image."""
        from containerize.errors import Problem
        from containerize.settings import this_machine

        host = ""
        with contextlib.suppress(Problem):  # none answers: as if for this machine
            host = self.engine.native()
        host = host or this_machine() or self.settings.image_architecture
        each = self.each() if every else [self.settings]
        return [
            command
            for one in each
            for command in self._build_commands(one, names, cache, host)
        ]

    def _build_commands(
        self, settings: Settings, names: Sequence[str], cache: bool, host: str
    ) -> Commands:
        from containerize import build

        kind = Path(settings.engine).name or "docker"
        fresh, compiler, foreign = build.fresh(settings), "", []
        if settings.image_architecture != host:
            compiler = f"{fresh}-compiler"
            first = build.compiler_command(settings, kind, compiler, host, cache=cache)
            foreign = [first]
        command = build.build_command(
            settings, kind, [fresh], cache=cache, compiler=compiler
        )
        saved = build.save_command(kind, fresh, Path("saved.tar"))
        if foreign:
            return [*foreign, command, saved]
        return [
            command,
            saved,
            build.load_command(kind, build.archive_path(settings)),
            *(["tag", "CONFIG-DIGEST", name] for name in names),
        ]


class Verb(invoke.Task[Any]):
    """A task without the flag `--` that Invoke makes of env_file's third letter.

    A flag that is not given is None, which tells it from one that is given as "".
    """

    def get_arguments(
        self, ignore_unknown_help: bool | None = None
    ) -> list[invoke.Argument]:
        kept = dict(self.help)  # Invoke takes out of it what it has used
        found = super().get_arguments(ignore_unknown_help)
        self.help = kept
        for argument in found:
            argument.names = tuple(name for name in argument.names if name not in "_-")
            if argument.default == "":
                argument.default = None
        return found


def verb(
    dry: Callable[..., str | Commands] | None, **options: Any
) -> Callable[..., Any]:
    """A task that gets a `Session`.

    `dry` gets what the verb gets and returns what --dry shows in its place: the
    engine's commands, or a line; None for a verb that only prints. A Problem ends a
    verb with one line and exit code 1.
    """

    def decorate(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def run(context: invoke.Context, **flags: Any) -> None:
            from containerize.errors import Problem

            words = options.get("positional", ())
            if any(flags[each] == "--help" for each in words):
                _show_help(options.get("name", function.__name__))
            # So that what is begun is cleared away then too.
            signal.signal(signal.SIGTERM, _terminated)
            if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not with nohup
                signal.signal(signal.SIGHUP, _terminated)
            try:
                flags = {
                    name: value if name in words else _given(name, value)
                    for name, value in flags.items()
                }
                named = flags.get("engine", "")
                session = Session(named if isinstance(named, str) else "")
                if not context.config.run.dry or not dry:
                    function(session, **flags)
                elif isinstance(shown := dry(session, **flags), str):
                    say(shown)
                else:
                    session.show(shown)
            except Problem as problem:
                name = options.get("name", function.__name__)
                text = worded(f"{name}: {problem}")
                raise invoke.Exit(text, code=1) from None
            except KeyboardInterrupt:
                raise invoke.Exit("interrupted", code=130) from None
            except BrokenPipeError:
                mute()
                # As what the signal ends: the verb may have had more to do.
                raise invoke.Exit(code=128 + signal.SIGPIPE) from None

        return invoke.task(run, klass=Verb, **options)

    return decorate


def _given(name: str, value: Any) -> Any:
    """The value of a flag, "" if it was not given.

    Raises Problem if it is empty, as a variable that nobody has set: to go on without
    the flag would do something else than was asked.
    """
    from containerize.errors import Problem

    if value == "" or (isinstance(value, list) and "" in value):
        flag = name.strip("_").replace("_", "-")
        raise Problem(f"--{flag} is empty: give it a value, or leave it out")
    return "" if value is None else value


def _show_help(name: str) -> NoReturn:
    """Become Invoke that shows a verb's help: it took --help for a word of the verb."""
    given = len(sys.argv) - 1
    program = sys.orig_argv[: len(sys.orig_argv) - given]
    os.execv(sys.executable, [*program, "--help", name])  # noqa: S606


def _terminated(number: int, _: object) -> None:
    raise SystemExit(128 + number)
