"""The verbs, as a collection: `invoke --list` and `containerize --list` name them.

A verb imports what it uses when it runs, so that a list of the verbs takes no time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import invoke

from containerize import tasks_deploy, tasks_publish
from containerize.terminal import (
    Meter,
    agreed,
    amount,
    aside,
    consented,
    echo,
    prepare_streams,
    say,
)
from containerize.verbs import ENGINE, GIVEN, NAME, PORT, TAG, Commands, Session, verb

if TYPE_CHECKING:
    from containerize.build import All, Image
    from containerize.engines.container import Container
    from containerize.engines.engine import Engine
    from containerize.fetch.inputs import Inputs
    from containerize.settings import Settings
    from containerize.verify.rebuild import Rebuild, Verdict

# Here, since --list and --help write too.
prepare_streams()


def _dry_init(s: Session, dry: bool = True) -> str:
    from containerize.init import plan

    return "\n".join(plan.describe(plan.plan(Path.cwd()), dry=True))


@verb(_dry_init, help={"dry": "only say what would be written"})
def init(s: Session, dry: bool = False) -> None:
    """Find the Flask app here, and write the files that are missing to pack it."""
    from containerize.init import plan

    if dry:
        say(_dry_init(s))
        return
    planned = plan.plan(Path.cwd())
    plan.write(planned)
    for line in plan.describe(planned):
        say(line)
    say("Next: containerize up")


def _dry_lock(s: Session, upgrade: bool = False, check: bool = False) -> str:
    return f"Would {'check' if check else 'resolve'} the locks in {s.settings.root}."


@verb(
    _dry_lock,
    help={
        "upgrade": "take the newest versions, instead of keeping those that still fit",
        "check": "only say whether the locks are in step with their inputs",
    },
)
def lock(s: Session, upgrade: bool = False, check: bool = False) -> None:
    """Lock the packages of the image and the tools, each by its hash."""
    from containerize.errors import Problem
    from containerize.lock import locks

    if not check:
        refresh(s.settings)
        report(locks.lock(s.settings, upgrade=upgrade, progress=Meter()))
        return
    if stale := locks.check(s.settings):
        raise Problem("; ".join(dict.fromkeys(stale)))
    say("The locks are in step with their inputs.")


@verb(
    lambda s, security=False: (
        f"Would resolve the locks in {s.settings.root} and write none."
    ),
    help={
        "security": "only what concerns security, and exit code 1 if there is any: "
        "versions of Debian's security suite, advisories of the package index",
    },
)
def outdated(s: Session, security: bool = False) -> None:
    """Say what `lock --upgrade` would take now, and what was yanked; writes nothing."""
    from containerize.errors import Problem, some
    from containerize.lock import outdated as looking

    # What is found is all that stdout gets.
    with contextlib.redirect_stdout(sys.stderr):
        found = looking.find(s.settings, progress=Meter())
    if security:
        found = found.about_security()
    for line in (*found.updates, *found.told.known):
        say(f"  {line}")
    for text in found.told.untold:
        say(text)
    if found.failed:
        raise Problem(found.failed)
    if not security:
        say(found.summary())
    elif names := found.names():
        raise Problem(
            f"security concerns {some(names)}: run `invoke lock --upgrade`, then "
            "`invoke outdated --security` again"
        )
    else:
        say(found.clearance())


def refresh(settings: Settings) -> None:
    """Rewrite what an older format of the tool made and nobody edited."""
    import containerize
    from containerize.init import marks, plan

    bodies = plan.bodies(settings.app, settings.image)
    found = marks.refresh(settings.root, bodies, containerize.FORMAT)
    for name in found.written:
        say(f"  {name}: rewritten as this version makes it")
    for name in found.edited:
        say(
            f"  {name}: an older version made it and you edited it: kept; to have the "
            "new one, move it away and run `containerize init`"
        )


def report(changes: Sequence[str]) -> None:
    for change in changes:
        say(f"  {change}")
    if not changes:
        say("The locks are as they were.")
    elif any(not re.match(r"tools\.txt:|\S+ new, ", change) for change in changes):
        say("The image's digest changes with these locks.")


@verb(lambda s: f"$ hadolint {s.settings.dockerfile}")
def lint(s: Session) -> None:
    """Check the Dockerfile with hadolint."""
    import shutil
    import subprocess

    from containerize import build as building
    from containerize.errors import Problem

    building.check_dockerfile(s.settings)  # hadolint cannot tell what build refuses
    file = s.settings.dockerfile
    # Where the tools are, were .venv activated or not.
    path = os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
    echo(["hadolint", file])
    hadolint = shutil.which("hadolint", path=path)
    if not hadolint:
        raise Problem("hadolint is missing: install it beside this tool")
    done = subprocess.run(
        [hadolint, file],
        cwd=s.settings.root,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise Problem("hadolint says above what to mend")


@verb(
    lambda s, from_="", **_: (
        f"Would {f'take from {from_}' if from_ else 'fetch'} "
        f"what is missing into {s.settings.cache_dir}."
    ),
    help={"from": "a bundle to take it from, in place of mirrors and index"},
)
def fetch(s: Session, from_: str = "") -> None:
    """Download what the locks name into the input cache, each file checked."""
    from containerize.fetch import inputs

    if from_:
        from containerize.publish import bundle

        restored = bundle.restore(
            s.settings, Path(from_).expanduser(), progress=Meter()
        )
        say(f"from      {from_}, of commit {restored.commit}")
        for line in restored.told():
            say(line)
    held = {
        path
        for one in s.each()
        for path in inputs.fetch(one, progress=Meter(), offline=bool(from_)).paths
    }
    say(f"All {len(held)} inputs are in {s.settings.cache_dir}, their hashes checked.")


def _dry_build(
    s: Session,
    all: bool = False,  # noqa: A002 - the flag's name
    tag: Sequence[str] = (),
    no_cache: bool = False,
    **_: Any,
) -> Commands:
    from containerize import build

    names = build.references(s.settings, tag)
    return s.build_commands(names, cache=not no_cache, every=all)


@verb(
    _dry_build,
    iterable=["tag"],
    help={
        "all": "every processor's image of the setting architectures, and their index",
        "tag": "tag to give; can be repeated; by default those of the settings",
        "no-cache": "ignore the builder's cache",
        "engine": ENGINE,
    },
)
def build(
    s: Session,
    tag: list[str],
    all: bool = False,  # noqa: A002 - the flag's name
    no_cache: bool = False,
    engine: str = "",
) -> None:
    """Build the image, with no network, and load it in its canonical form."""
    from containerize import build as building
    from containerize.fetch import inputs

    building.references(s.settings, tag)  # a bad tag is told before anything else
    using = s.engine
    if all:
        made = build_all(s, using, tag, cache=not no_cache)
        if made.index:
            say(f"index     {made.index}")
            say(f"archive   {made.archive}")
        return
    found = inputs.fetch(s.settings, progress=Meter(), host=using.native())
    describe(
        building.build(
            s.settings,
            using,
            tags=tag,
            cache=not no_cache,
            collected=found,
            on_line=say,
        )
    )


def build_all(
    s: Session, using: Engine, tags: Sequence[str] = (), *, cache: bool = True
) -> All:
    """Fetch the inputs of every processor's image, and build all; each is described."""
    from containerize import build as building
    from containerize.fetch import inputs

    def tell(settings: Settings, image: Image) -> None:
        say(f"platform  linux/{settings.image_architecture}")
        describe(image)

    for one in s.each():
        inputs.fetch(one, progress=Meter(), host=using.native())
    return building.build_all(
        s.settings, using, tags=tags, cache=cache, on_image=tell, on_line=say
    )


def describe(built: Image) -> None:
    from containerize.errors import some

    for reference in built.references:
        say(f"image     {reference}")
    say(f"digest    {built.digests.manifest}")
    say(f"config    {built.digests.config}")
    layers = built.digests.layers
    say(
        f"size      {amount(sum(layer.size for layer in layers))}, compressed "
        f"{amount(sum(layer.compressed_size for layer in layers))}"
    )
    say(f"archive   {built.archive}")
    packed = built.packed
    for word, names in (("left out", packed.left_out), ("ignored", built.ignored)):
        if names:
            say(f"{word:9} {some(names, 12)}")
    if built.ignored:
        say("          .gitignore names these: the setting include packs what you need")
    for note in packed.notes:
        say(f"note      {note}")
    of_layers = [line for layer in packed.layers for line in layer.warnings]
    for warning in (*of_layers, *built.digests.warnings):
        say(f"warning   {warning}")


@verb(
    lambda s, **_: _dry_build(s, all=True),
    help={"save": "put them into digests.json, on purpose", "engine": ENGINE},
)
def digest(s: Session, save: bool = False, engine: str = "") -> None:
    """Print each image's digests and the index's, building first what has changed."""
    from containerize import build as building
    from containerize.image import record

    found = building.current_all(s.settings) or build_all(s, s.engine)
    for one, digests in zip(s.each(), found.digests, strict=True):
        if found.index:
            say(f"platform  linux/{one.image_architecture}")
        say(f"manifest  {digests.manifest}")
        say(f"config    {digests.config}")
        for diff_id in digests.diff_ids:
            say(f"diff ID   {diff_id}")
    if found.index:
        say(f"index     {found.index}")
    if save:
        record.save_golden(s.settings, *found.digests, index=found.index)
        say("They are in digests.json: commit it with what has changed them.")


def _dry_verify(
    s: Session,
    all: bool = False,  # noqa: A002 - the flag's name
    engine: Sequence[str] = (),
    **_: Any,
) -> Commands:
    sessions = [Session(name) for name in engine or [""]]
    found = [each.build_commands([], cache=False, every=all) for each in sessions]
    return [
        command for commands in found for command in commands if command[0] == "build"
    ]


@verb(
    _dry_verify,
    iterable=["engine"],
    help={
        "all": "every processor's image of the setting architectures, and their index",
        "against": "sha256:…, an archive, a file like digests.json, REGISTRY/NAME:TAG "
        "or …@sha256:…, or the name or ID of a running container or Swarm service; "
        "where a name fits several of these, the first is taken",
        "engine": "docker, podman, or a path to one; can be repeated",
        "verbose": "show each difference, and all that is known of it",
    },
)
def verify(
    s: Session,
    engine: list[str],
    all: bool = False,  # noqa: A002 - the flag's name
    against: str = "",
    verbose: bool = False,
) -> None:
    """Rebuild from nothing, otherwise each time, and compare the digests."""
    using = [Session(name).engine for name in engine or [""]]
    compare(s, using, against, every=all, verbose=verbose)


def compare(
    s: Session,
    using: Sequence[Engine],
    against: str,
    *,
    every: bool = False,
    verbose: bool = False,
) -> None:
    """Rebuild what `against` names, and say that it is equal, or raise Problem."""
    from containerize.errors import Problem
    from containerize.fetch import inputs
    from containerize.verify import against as named
    from containerize.verify import every as rebuilding

    target = named.find(s.settings, using, against, every=every, progress=Meter())
    for note in target.notes:
        say(note)
    for wanted in target.images:
        one = s.settings.for_architecture(wanted.architecture)
        for each in using:
            inputs.fetch(one, progress=Meter(), host=each.native())

    def tell(rebuilt: Rebuild) -> None:
        say(f"{rebuilt.digests.manifest}  {rebuilt.name}, {rebuilt.seconds:.1f} s")

    found = rebuilding.verify(
        s.settings,
        using,
        target,
        varied=not against,
        verbose=verbose,
        on_rebuild=tell,
    )
    if found.equal:
        say(found.words)
        return
    for verdict in found.verdicts:
        if not verdict.equal:
            explain(verdict, several=len(found.verdicts) > 1)
    for line in found.unlike:
        say(line)
    raise Problem(found.words)


def explain(verdict: Verdict, *, several: bool) -> None:
    """Say why a rebuild is another image; which one, if there are several."""
    from containerize.image import record

    if several:
        say(f"platform  linux/{verdict.architecture}")
    for name in verdict.changed:
        say(f"changed   {name}")
    if verdict.changed and verdict.expected == record.GOLDEN:
        say("If these changes are meant: invoke digest --save, and commit digests.json")
    for found in verdict.differences:
        say(f"{found.layer}: {found.path}: {found.field} differs: {found.cause}")
        say(f"          {found.remedy}")
        for line in found.detail.splitlines():
            say(f"          {line}")
    if not verdict.changed and not verdict.differences:
        say(verdict.hint)


def _dry_run(
    s: Session, port: str = "", name: str = "", tag: str = "", **given: Any
) -> Commands:
    from containerize.engines import container

    settings, environment = s.given(**given)
    reference, name = settings.reference(tag or None), s.container(name)
    service = container.Launch(
        settings=settings,
        reference=reference,
        name=name,
        port=s.port(port),
        environment=environment,
    )
    others = container.commands(settings, reference, name=name, environment=environment)
    return [launch.command() for launch in (service, *others)]


@verb(
    _dry_run,
    iterable=["env", "volume"],
    help={
        "port": PORT,
        "name": NAME,
        "detach": "return once the container is healthy; the default",
        "foreground": "show the log, and stop and remove the container on Ctrl-C",
        "tag": TAG,
        **GIVEN,
        "engine": ENGINE,
    },
)
def run(
    s: Session,
    env: list[str],
    volume: list[str],
    port: str = "",
    name: str = "",
    detach: bool = False,
    foreground: bool = False,
    tag: str = "",
    env_file: str = "",
    network: str = "",
    memory: str = "",
    engine: str = "",
) -> None:
    """Run the image under production flags and wait until it is healthy."""
    from containerize.engines import container
    from containerize.errors import Problem

    if detach and foreground:
        raise Problem("--detach and --foreground exclude each other: give one")
    reference, name, number = (
        s.settings.reference(tag or None),
        s.container(name),
        s.port(port),
    )
    settings, environment = s.given(env, env_file, volume, network, memory)
    started = container.run(
        settings,
        s.engine,
        reference,
        name=name,
        port=number,
        environment=environment,
        on_line=say,
    )
    say(started.answer)
    if foreground:
        follow(settings, started)
    else:
        say("Next: invoke logs --follow, invoke ps, invoke stop")


def follow(settings: Settings, started: Container) -> None:
    """Show the log until the container ends or Ctrl-C, then stop and remove it."""
    from containerize.engines import container

    try:
        started.engine.stream("logs", "--follow", started.name)
        code = container.exit_code(started)
        if code:
            raise container.ended(settings, started.engine, started.name)
    except KeyboardInterrupt:
        pass
    finally:
        container.stop(settings, started.engine, started.name)


@verb(
    lambda s, **flags: [*_dry_build(s), *_dry_run(s, **flags)],
    iterable=["env", "volume"],
    help={"port": PORT, **GIVEN, "engine": ENGINE},
)
def up(
    s: Session,
    env: list[str],
    volume: list[str],
    port: str = "",
    env_file: str = "",
    network: str = "",
    memory: str = "",
    engine: str = "",
) -> None:
    """Get from nothing to the app answering: engine, inputs, image, container."""
    from containerize import build as building
    from containerize.engines import container

    number, reference = s.port(port), s.settings.reference()
    settings, environment = s.given(env, env_file, volume, network, memory)
    using = s.ensure_engine()
    lock_what_is_missing(s.settings)
    found = fetch_or_relock(s.settings)
    s.warn_of_packed(env_file)
    # With the settings alone: what the flags say of a container changes no image.
    if not building.is_current(s.settings, using, reference):
        describe(building.build(s.settings, using, collected=found, on_line=say))
    started = container.ensure(
        settings, using, reference, port=number, environment=environment, on_line=say
    )
    say(started.answer)
    say(f"Next: curl {started.url}, invoke logs --follow, invoke ps, invoke stop")


def _dry_dev(s: Session, port: str = "", name: str = "", **given: Any) -> Commands:
    from containerize.develop import session

    settings, environment = s.given(**given)
    s.port(port)
    name = s.container(name or f"{settings.container_name}-dev")
    launch = session.launch(
        settings,
        settings.reference(),
        name=name,
        user="USER",
        environment=environment,
    )
    start = [*session.start_words(), name]
    return [*_dry_build(s), launch.command(("create",)), start]


@verb(
    _dry_dev,
    iterable=["env", "volume"],
    help={
        "port": PORT,
        "name": "name of the container; by default NAME-dev",
        **GIVEN,
        "engine": ENGINE,
    },
)
def dev(
    s: Session,
    env: list[str],
    volume: list[str],
    port: str = "",
    name: str = "",
    env_file: str = "",
    network: str = "",
    memory: str = "",
    engine: str = "",
) -> None:
    """Serve the working tree in the image, with Flask's debugger, until Ctrl-C."""
    from containerize import build as building
    from containerize.develop import session

    number, reference = s.port(port), s.settings.reference()
    settings, environment = s.given(env, env_file, volume, network, memory)
    name = s.container(name or f"{settings.container_name}-dev")
    using = s.ensure_engine()
    session.see_free(settings, using, name=name, port=number)
    lock_what_is_missing(s.settings)
    if not building.carries(s.settings, using, reference):
        fetch_or_relock(s.settings)
        s.warn_of_packed(env_file)
        describe(building.build(s.settings, using, on_line=say))
    if settings.commands:
        say(f"{', '.join(settings.commands)}: dev runs the app alone, not these")
    with contextlib.suppress(KeyboardInterrupt):
        session.serve(
            settings,
            using,
            reference,
            name=name,
            port=number,
            environment=environment,
            look=lambda: building.wants_build(Session(engine).settings),
            on_line=say,
        )


def _words() -> list[str]:
    """What follows `--`, word by word: Invoke itself joins it and loses the quotes."""
    from containerize.errors import Problem

    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if not words:
        raise Problem("there is no command: give it as in exec -- flask db upgrade")
    return words


def _dry_exec(s: Session, tag: str = "", **given: Any) -> Commands:
    from containerize.engines import container

    settings, environment = s.given(**given)
    reference = settings.reference(tag or None)
    launch = container.once(settings, reference, _words(), environment=environment)
    return [launch.command(("run",))]


@verb(
    _dry_exec,
    name="exec",
    iterable=["env", "volume"],
    help={"tag": TAG, **GIVEN, "engine": ENGINE},
)
def execute(
    s: Session,
    env: list[str],
    volume: list[str],
    tag: str = "",
    env_file: str = "",
    network: str = "",
    memory: str = "",
    engine: str = "",
) -> None:
    """Run a command in a new container of the image: exec -- flask db upgrade."""
    from containerize.engines import container

    words, reference = _words(), s.settings.reference(tag or None)
    settings, environment = s.given(env, env_file, volume, network, memory)
    # What the command writes is all that stdout gets.
    using = dataclasses.replace(
        s.engine, on_command=lambda command: aside(f"$ {shlex.join(command)}")
    )
    code = container.execute(
        settings,
        using,
        reference,
        words,
        environment=environment,
        on_line=aside,
    )
    if code:
        raise invoke.Exit(code=code)


def lock_what_is_missing(settings: Settings) -> None:
    """Bring the locks in step where they are missing or older than their inputs."""
    from containerize.lock import locks

    stale = locks.check(settings)
    if stale and not any("edited by hand" in line for line in stale):
        for line in stale:
            say(line)
        report(locks.lock(settings, upgrade=False, progress=Meter()))


def fetch_or_relock(settings: Settings) -> Inputs:
    """Fetch the inputs; where Debian dropped some, lock their successors and fetch."""
    from containerize.errors import Problem
    from containerize.fetch import inputs
    from containerize.lock import locks

    try:
        return inputs.fetch(settings, progress=Meter())
    except inputs.Superseded as problem:
        say(str(problem))
        if not agreed("Lock the packages that are there now?"):
            raise Problem("packages of base.lock are gone, and it must stay") from None
        report(locks.lock_base(settings, upgrade=True, progress=Meter()))
        return inputs.fetch(settings, progress=Meter())


@verb(
    lambda s, name="", **_: [["stop", s.container(name)], ["rm", s.container(name)]],
    help={"name": NAME, "engine": ENGINE},
)
def stop(s: Session, name: str = "", engine: str = "") -> None:
    """Stop the container, leaving it time to drain, and remove it."""
    from containerize.engines import container

    name = s.container(name)
    for killed in container.stop(s.settings, s.engine, name):
        say(
            f"{killed} did not end in the time that it had to drain and was killed "
            f"(setting stop-timeout, {s.settings.stop_timeout} s)."
        )
    say(f"{name} is stopped and removed.")


def _listing(s: Session, *verb: str) -> list[str]:
    return [*verb, "--filter", f"label={s.settings.label}"]


@verb(lambda s, **_: [_listing(s, "ps", "--all")], help={"engine": ENGINE})
def ps(s: Session, engine: str = "") -> None:
    """List the project's containers."""
    s.engine.stream(*_listing(s, "ps", "--all"))


@verb(lambda s, **_: [_listing(s, "images")], help={"engine": ENGINE})
def images(s: Session, engine: str = "") -> None:
    """List the project's images."""
    s.engine.stream(*_listing(s, "images"))


def _logs(s: Session, follow: bool, name: str) -> list[str]:
    return ["logs", *(["--follow"] if follow else []), s.container(name)]


@verb(
    lambda s, follow=False, name="", **_: [_logs(s, follow, name)],
    help={"follow": "go on until Ctrl-C", "name": NAME, "engine": ENGINE},
)
def logs(s: Session, follow: bool = False, name: str = "", engine: str = "") -> None:
    """Show the container's log."""
    from containerize.engines import container

    command = _logs(s, follow, name)
    container.require(s.settings, s.engine, command[-1])
    s.engine.stream(*command)
    if container.state(s.settings, s.engine, command[-1]) == "exited":
        aside(str(container.ended(s.settings, s.engine, command[-1])))


@verb(
    lambda s, volumes=False, **_: (
        f"Would remove what has the label {s.settings.label}, build/ and dist/"
        + (", and the volumes with it." if volumes else "; volumes stay.")
    ),
    help={
        "volumes": "remove the project's volumes too, with all that they hold",
        "yes": "do not ask whether to remove the volumes",
        "engine": ENGINE,
    },
)
def clean(
    s: Session, volumes: bool = False, yes: bool = False, engine: str = ""
) -> None:
    """Remove the project's containers, images, packed layers and archives."""
    from containerize import build as building
    from containerize.engines import volumes as held

    found = held.owned(s.settings, s.engine)
    named = ", ".join(found)
    if volumes and found and not yes:
        question = f"Remove the volumes {named} with all that they hold?"
        consented(question, "give --yes")
    building.clean(s.settings)
    building.remove(s.settings, s.engine, on_line=say)
    if volumes:
        held.remove(s.engine, found)
    elif found:
        say(f"The volumes stay: {named}; clean --volumes removes them.")
    say(f"The inputs stay in {s.settings.cache_dir}.")


@verb(
    lambda s, **_: "Would say which engine and builder are used, and why.",
    help={"install": "install and start an engine where none answers (root or sudo)"},
)
def engine(s: Session, install: bool = False) -> None:
    """Say which engine and builder are used, and why."""
    using = s.ensure_engine() if install else s.engine
    for key, value in dataclasses.asdict(using.describe()).items():
        say(f"{key:9} {value}")


namespace = invoke.Collection.from_module(sys.modules[__name__])
for module in (tasks_publish, tasks_deploy):
    for task in invoke.Collection.from_module(module).tasks.values():
        namespace.add_task(task)
