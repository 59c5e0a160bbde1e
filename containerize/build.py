"""From packed layers to one canonical image: built, exported, loaded, recorded."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from containerize import DISTRIBUTION, FORMAT, disk
from containerize.engines import container
from containerize.engines.engine import Engine, ignore
from containerize.errors import Problem, some
from containerize.fetch import bases, inputs
from containerize.image import archive, canonical, index, record
from containerize.image.canonical import ImageDigests
from containerize.init import marks
from containerize.lock import locks
from containerize.pack import compile_modules, layers, selection
from containerize.settings import ARCHITECTURES, PROJECT, Settings, check_tag

WAITS = "waiting for another build of this checkout"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """A built image: its names, its archive and what the archive holds."""

    references: tuple[str, ...]
    """None if it is for another processor than the engine's, which does not have it."""
    archive: Path
    digests: ImageDigests
    packed: layers.Packed
    ignored: tuple[str, ...]
    """What only a .gitignore keeps out (`selection.ignored`)."""


def archive_path(settings: Settings) -> Path:
    """The OCI archive of the last build, for the architecture that is built."""
    return settings.dist_dir / f"{settings.image}-{settings.image_architecture}.tar"


def index_path(settings: Settings) -> Path:
    """The OCI archive of the index, if there is an image for several processors."""
    return settings.dist_dir / f"{settings.image}.tar"


def held(settings: Settings) -> str:
    """The digest of the last build's archive, which `push` would send, or ""."""
    with contextlib.suppress(Problem):
        if len(settings.image_architectures) > 1:
            return index.read_digest(index_path(settings))
        with archive.open_image(archive_path(settings)) as image:
            return image.manifest_digest
    return ""


def references(settings: Settings, tags: Sequence[str] = ()) -> tuple[str, ...]:
    """`IMAGE:TAG` for each tag, or for the tags of the settings where there are none.

    Raises Problem for a malformed tag.
    """
    wanted = tags or settings.tags
    return tuple(dict.fromkeys(f"{settings.image}:{check_tag(tag)}" for tag in wanted))


def fresh(settings: Settings) -> str:
    """A name that no image has had, for a build to give: what has it, it has made."""
    return settings.reference(f"building-{secrets.token_hex(4)}")


def build_arguments(settings: Settings, compiler: str = "") -> dict[str, str]:
    """What the Dockerfile is told of the settings, by the names of its arguments.

    `compiler` is the image that compiles, if it is another than the one that is built.
    """
    # A label for what the builder leaves behind too, which --label does not reach.
    found = {"PROJECT": settings.image}
    if settings.base_image:
        found["BASE"] = bases.reference(settings)
    found["APP"] = settings.app
    if compiler:
        return found | {"COMPILER": compiler, "TREE": "/"}
    # Of another's image nothing is known but the directory that we put there.
    return found | ({"TREE": f"/{layers.APP}"} if settings.base_image else {})


def build_command(
    settings: Settings,
    kind: str,
    names: Sequence[str],
    *,
    cache: bool = True,
    compiler: str = "",
) -> list[str]:
    """The arguments with which an engine of that kind, docker or podman, builds.

    `compiler` is as `build_arguments` has it.
    """
    arguments, context = build_arguments(settings, compiler), context_path(settings)
    return _build_command(settings.root, kind, names, arguments, context, cache=cache)


def compiler_command(
    settings: Settings, kind: str, name: str, host: str, *, cache: bool = True
) -> list[str]:
    """The arguments that build what compiles a foreign image: the first stage of its
    like for the processor `host`, the engine's."""
    like = settings.for_architecture(host)
    arguments, context = build_arguments(like), compiler_path(settings)
    command = _build_command(
        settings.root, kind, [name], arguments, context, cache=cache
    )
    return [*command[:-1], "--target", "base", command[-1]]


def _build_command(
    root: Path,
    kind: str,
    names: Sequence[str],
    arguments: Mapping[str, str],
    context: Path,
    *,
    cache: bool,
) -> list[str]:
    command = ["build", "--network", "none"]
    # Podman's own image format has no HEALTHCHECK.
    command += ["--format", "docker"] if kind == "podman" else []
    command += [] if cache else ["--no-cache"]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    for name in names:
        command += ["--tag", name]
    return [*command, os.path.relpath(context, root)]


def context_path(settings: Settings) -> Path:
    """The context of a build."""
    return settings.build_dir / "context"


def compiler_path(settings: Settings) -> Path:
    """The context of the build of what compiles a foreign image."""
    return settings.build_dir / "compiler"


def save_command(kind: str, name: str, saved: Path) -> list[str]:
    """The arguments with which an engine saves the image that it has built."""
    form = ["--format", "docker-archive"] if kind == "podman" else []
    return ["save", *form, "--output", str(saved), name]


def load_command(kind: str, archive: Path) -> list[str]:
    """The arguments with which an engine loads the canonical image."""
    if kind == "podman":
        # It would load it as an OCI image, which has no HEALTHCHECK.
        return ["pull", "--quiet", f"docker-archive:{archive}"]
    return ["load", "--input", str(archive)]


def build(
    settings: Settings,
    engine: Engine,
    *,
    tags: Sequence[str] = (),
    cache: bool = True,
    output: Path | None = None,
    collected: inputs.Inputs | None = None,
    host: str = "",
    on_line: Callable[[str], None] = ignore,
) -> Image:
    """Pack the layers, build with `engine`, make the image canonical and load it.

    An image for another processor than `host`, the engine's unless it is given, is not
    loaded, and nothing of it runs: see `make`.
    `collected` are the inputs, which are read from the cache if they are not given.
    Builds of one checkout come one after the other, which `on_line` is told.
    The archive, `output` or the one in the dist directory, appears whole or not at
    all, and the tags end on the canonical image. Raises Problem where the Dockerfile,
    a lock or an input is missing or wrong or changes meanwhile, and where the engine
    fails or has no image after it.
    """
    host = host or host_of(settings, engine)
    own = settings.image_architecture == host
    with disk.turn(settings.build_top, lambda: on_line(WAITS)):
        names = references(settings, tags)
        archive = output or archive_path(settings)
        app = selection.app(settings)
        sources = record.inputs(settings, app)
        packed = pack(settings, collected, app, host=host)
        built = fresh(settings)
        try:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                ignored = pool.submit(selection.ignored, settings)
                # First: that nothing can be written there is told at once.
                with disk.scratch(archive.parent) as scratch:
                    make(settings, engine, [built], cache=cache, host=host)
                    saved = save(engine, built, scratch)
                    changes = pool.submit(record.changes, settings, {"inputs": sources})
                    digests = write(
                        settings, names, saved, archive,
                        time=packed.locked.time, sources=sources,
                        reuse=cache and output is None,
                    )  # fmt: skip
            if changed := changes.result():
                archive.unlink()
                raise Problem(
                    f"{some(changed)} changed during the build: build again, or name "
                    "in exclude what no image needs"
                )
            loaded = {}
            if own:
                load(engine, archive, digests, _held(settings, engine))
                held = _name_loaded(engine, digests, names)
                loaded[_engine_name(engine)] = held
        finally:
            # The builder's own form has done its work; its layers stay as build cache.
            engine.run("rmi", "--no-prune", built, check=False, echo=False)
        if output is None:
            record.write(
                settings,
                digests,
                sources=sources,
                names=names,
                loaded=loaded,
            )
        return Image(
            references=names if own else (),
            archive=archive,
            digests=digests,
            packed=packed,
            ignored=ignored.result(),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class All:
    """The images for all processors, and their index if there are several."""

    digests: tuple[ImageDigests, ...]
    """In the order of the setting `architectures`."""
    index: str = ""
    """The digest of the index."""
    archive: Path
    """The index's, or the one image's."""


def build_all(
    settings: Settings,
    engine: Engine,
    *,
    tags: Sequence[str] = (),
    cache: bool = True,
    on_image: Callable[[Settings, Image], None] = lambda _, image: None,
    on_line: Callable[[str], None] = ignore,
) -> All:
    """Build the image of every processor, and the archive of their index.

    All inputs must be in the cache. `on_image` is told each that is built. Raises
    Problem as `build` does; what the images cannot be is told before any is built.
    """
    each = settings.for_each()
    check_same_python(settings, locks.read_base(settings), settings.image_architectures)
    collected = [inputs.collect(one) for one in each]
    digests = []
    for one, given in zip(each, collected, strict=True):
        image = build(
            one, engine, tags=tags, cache=cache, collected=given, on_line=on_line
        )
        on_image(one, image)
        digests.append(image.digests)
    names = references(settings, tags)
    return _joined(settings, digests, names, collected[0].base.time)


def _joined(
    settings: Settings, digests: Sequence[ImageDigests], names: Sequence[str], time: int
) -> All:
    """What `build_all` returns, once the archive of the index is written."""
    each = settings.for_each()
    archives = [archive_path(one) for one in each]
    if len(each) == 1:
        return All(digests=tuple(digests), archive=archives[0])
    target = index_path(settings)
    made = index.write(archives, target, time=time, references=names)
    return All(digests=tuple(digests), index=made, archive=target)


def current_all(settings: Settings) -> All | None:
    """The digests of all archives, where these are of the files as they are."""
    each = settings.for_each()
    digests = [found for one in each if (found := current(one))]
    if len(digests) < len(each):
        return None
    archives = [archive_path(one) for one in each]
    if len(each) == 1:
        return All(digests=tuple(digests), archive=archives[0])
    target = index_path(settings)
    if not (made := index.of_all(archives, target)):
        return None
    return All(digests=tuple(digests), index=made, archive=target)


def host_of(settings: Settings, engine: Engine) -> str:
    """The engine's processor; the image's if the engine does not say."""
    return engine.native() or settings.image_architecture


def pack(
    settings: Settings,
    collected: inputs.Inputs | None = None,
    app: selection.App | None = None,
    *,
    host: str = "",
) -> layers.Packed:
    """Pack the layers. Raises Problem where an input or the Dockerfile is missing.

    And where another format of this tool made the Dockerfile, or the processor `host`,
    the image's own if it is not given, has no Python that compiles for the image's.
    `collected` and `app` are read here if they are not given.
    """
    check_pins()
    check_dockerfile(settings)
    if host in ("", settings.image_architecture):
        return layers.pack(settings, collected, app)
    like = settings.for_architecture(host)
    base = inputs.collect_base(like)
    check_same_python(settings, base.base, (settings.image_architecture, host))
    packed = layers.pack(settings, collected, app)
    layers.pack_base(like, base)
    return packed


def check_dockerfile(settings: Settings) -> None:
    """Raises Problem if it is missing, or another format of this tool made it."""
    name = settings.dockerfile
    if not (settings.root / name).is_file():
        raise Problem(
            f"there is no {name}: restore it (git checkout {name}), or let "
            "`containerize init` write it"
        )
    marks.check(settings.root / name, FORMAT)


def check_same_python(
    settings: Settings, locked: locks.BaseLock, architectures: Sequence[str]
) -> None:
    """A Problem if an architecture of base.lock has another Python than the others.

    Or none. Without packages there, as on a base image, there is nothing to compare.
    """
    if not locked.packages or settings.base_image:
        return
    found = {each: locked.python(settings, each) for each in architectures}
    for each, python in found.items():
        if not python:
            raise Problem(
                f"base.lock has no python{settings.python} for {each}: name {each} in "
                "the setting architectures, and run `invoke lock`"
            )
    if len(set(found.values())) > 1:
        said = ", ".join(f"{python} for {each}" for each, python in found.items())
        raise Problem(
            f"base.lock has different Pythons, {said}, and one compiles for the other: "
            "`invoke lock --upgrade` once Debian has the same for each"
        )


def check_pins() -> None:
    """A Problem if a package that decides bytes is not the one this tool is made with.

    What is installed says which: a checkout has its tools from a hash-locked file.
    """
    try:
        asked = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        return
    for one in asked:
        exact = [s.version for s in one.specifier if s.operator == "=="]
        if not exact or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            found = version(one.name)
        except PackageNotFoundError:
            found = "none"
        if found not in one.specifier:
            raise Problem(
                f"{one.name} {exact[0]} decides the image's bytes, and {found} is "
                f"installed: pipx reinstall {DISTRIBUTION}"
            )


def make(
    settings: Settings,
    engine: Engine,
    names: Sequence[str],
    *,
    cache: bool = True,
    host: str = "",
) -> str:
    """Build from the packed layers; returns the engine's ID of the builder's form.

    The modules of an image for another processor than `host`, the engine's unless it is
    given, are compiled by the first stage of an image like it for `host`: one version
    of Python makes the same bytes everywhere, and nothing of the image itself runs.
    The first name must be new, so that what has it afterwards is what was built.
    Raises Problem where nothing has it, as after a builder that keeps its result.
    """
    host = host or host_of(settings, engine)
    try:
        if settings.image_architecture == host:
            return _make(settings, engine, names, cache=cache)
        return _make_foreign(settings, engine, names, cache=cache, host=host)
    except Problem as problem:
        code = compile_modules.OTHER_PYTHON
        if re.search(rf"compile_modules.*\b(code|status):? {code}\b", str(problem)):
            raise Problem(
                f"the base image's Python for {settings.image_architecture} is not of "
                f"the version of that for {host}, which compiles its modules: take one "
                "whose Python is the same for each processor"
            ) from None
        if settings.base_image and "compile_modules" in str(problem):
            like = settings.for_architecture(host)
            raise Problem(
                f"the base image {bases.reference(like)} compiles no modules, as it "
                f"says above: it must be for {host}, the engine's processor, and have "
                f"Python {settings.python}"
            ) from None
        raise


def _make_foreign(
    settings: Settings, engine: Engine, names: Sequence[str], *, cache: bool, host: str
) -> str:
    compiler = f"{names[0]}-compiler"
    context = compiler_path(settings)
    like = settings.for_architecture(host)
    layers.stage_base(like, context)
    command = compiler_command(settings, engine.kind, compiler, host, cache=cache)
    try:
        _run(settings, engine, command, compiler, context, build_arguments(like))
        return _make(settings, engine, names, cache=cache, compiler=compiler)
    finally:
        engine.run("rmi", "--no-prune", compiler, check=False, echo=False)


def _make(
    settings: Settings,
    engine: Engine,
    names: Sequence[str],
    *,
    cache: bool,
    compiler: str = "",
) -> str:
    context = layers.stage(settings)
    command = build_command(
        settings, engine.kind, names, cache=cache, compiler=compiler
    )
    arguments = build_arguments(settings, compiler)
    return _run(settings, engine, command, names[0], context, arguments)


def _run(
    settings: Settings,
    engine: Engine,
    command: Sequence[str],
    name: str,
    context: Path,
    arguments: Mapping[str, str],
) -> str:
    """Run a build of a staged context; returns the engine's ID of what has `name`."""
    if engine.kind == "podman":
        _tell_apart(context / "Dockerfile", arguments)
    try:
        engine.stream(*command, cwd=settings.root)
    except Problem as problem:
        # An image of another's went while Podman looked through its cache.
        if engine.kind != "podman" or "cached image exists" not in str(problem):
            raise
        engine.stream(*command, cwd=settings.root)
    form = ("image", "inspect", "--format", "{{.Id}}", name)
    found = engine.run(*form, check=False, echo=False)
    if found.returncode:
        kept = "see what its `build` really runs"
        if engine.kind == "docker":
            kept = (
                "its builder keeps it: unset BUILDX_BUILDER, or "
                "`docker buildx use default`"
            )
        raise Problem(
            f"`{engine.kind} build` succeeded and left no image in the engine: {kept}"
        )
    return "sha256:" + found.stdout.strip().removeprefix("sha256:")


def _tell_apart(dockerfile: Path, arguments: Mapping[str, str]) -> None:
    """Have a staged Dockerfile's steps differ where the build's arguments do.

    Podman takes `ENV X=${ARG}` from its cache whatever the value is (buildah 1.28).
    """
    # What it builds from it does tell apart, and that one's name is always new.
    told = {name: value for name, value in arguments.items() if name != "COMPILER"}
    text = json.dumps(told, sort_keys=True)
    line = f"ARG values_{hashlib.sha256(text.encode()).hexdigest()[:32]}=1\n".encode()
    staged = re.sub(
        rb"(?im)^[ \t]*FROM[ \t].*\n", lambda m: m[0] + line, dockerfile.read_bytes()
    )
    dockerfile.write_bytes(staged)


def save(engine: Engine, name: str, directory: Path) -> Path:
    """The file in `directory` that an engine has saved its image to."""
    saved = directory / "saved.tar"
    engine.run(*save_command(engine.kind, name, saved))
    return saved


def write(
    settings: Settings,
    names: Sequence[str],
    saved: Path,
    archive: Path,
    *,
    time: int,
    sources: Mapping[str, str],
    reuse: bool = False,
) -> ImageDigests:
    """Write a saved image canonically to `archive`, which tells its `names`.

    With `reuse`, layers that the last build left there are not made again. `time`, in
    seconds since 1970, is the packed layers', `sources` what they came from
    (`record.inputs`).
    """
    return canonical.canonicalize(
        saved,
        archive,
        time=time,
        labels=labels(settings, sources),
        references=names,
        architecture=settings.image_architecture,
        reuse=reuse,
    )


def export(
    settings: Settings,
    engine: Engine,
    names: Sequence[str],
    archive: Path,
    *,
    time: int,
    sources: Mapping[str, str],
) -> ImageDigests:
    """Write the image that the engine has by the first name canonically to `archive`.

    See `write` for the rest. Nothing of an earlier build is used.
    """
    with disk.scratch(archive.parent) as scratch:
        saved = save(engine, names[0], scratch)
        return write(settings, names, saved, archive, time=time, sources=sources)


def load(
    engine: Engine, archive: Path, digests: ImageDigests, held: Sequence[str]
) -> None:
    """Load a canonical archive, without the layers that the engine holds already.

    `held` are the diff IDs of an image that it had. It says so if it has lost them,
    and gets the whole archive then.
    """
    pairs = zip(digests.layers, held, strict=False)
    same = itertools.takewhile(lambda pair: pair[0].diff_id == pair[1], pairs)
    lower = len(list(same))
    if lower:
        without = {layer.digest for layer in digests.layers[:lower]}
        needed = {layer.digest for layer in digests.layers[lower:]}
        with disk.scratch(archive.parent) as scratch:
            part = scratch / "new-layers.tar"
            canonical.write_part(archive, part, without - needed)
            if not engine.run(*load_command(engine.kind, part), check=False).returncode:
                return
    engine.run(*load_command(engine.kind, archive))


def _held(settings: Settings, engine: Engine) -> Sequence[str]:
    """The diff IDs of the last build's image, if the engine needs no others' blobs.

    Docker's classic store, whose ID of an image is the config's digest, looks whether
    it has a layer's chain before it opens the layer.
    """
    last = record.last(settings)
    loaded = last.get("loaded")
    known = loaded.get(_engine_name(engine)) if isinstance(loaded, dict) else None
    if engine.kind != "docker" or not known or known != last.get("config"):
        return ()
    found = last.get("diff_ids")
    return found if isinstance(found, list) else ()


def _name_loaded(engine: Engine, digests: ImageDigests, names: Sequence[str]) -> str:
    """Give the loaded image its names; returns the engine's ID of it.

    Not every image store takes the names that an archive has, and Podman takes them
    for those of a registry.
    """
    # A classic store's ID is the config's digest, a containerd store's the manifest's.
    for digest in (digests.config, digests.manifest):
        answer = engine.run(
            "image", "inspect", "--format", "{{.Id}} {{json .RepoTags}}", digest,
            check=False, echo=False,
        )  # fmt: skip
        if answer.returncode == 0:
            break
    else:
        raise Problem(f"the engine does not have the image {digests.config} it loaded")
    known, _, text = answer.stdout.strip().partition(" ")
    loaded = "sha256:" + known.removeprefix("sha256:")
    given = json.loads(text) or []
    for name in names:
        if name in given:
            continue
        engine.run("tag", digest, name)
        if engine.identifier(name) != loaded:
            raise Problem(f"something else moves the tag {name}: end it, build again")
        for foreign in given:
            if engine.kind == "podman" and foreign.endswith(f"/library/{name}"):
                engine.run("untag", digest, foreign, echo=False)
            if engine.kind == "docker" and foreign == f"localhost/{name}":
                # A containerd store takes the index's names (`canonical.names_of`).
                engine.run("rmi", "--no-prune", foreign, echo=False)
    return loaded


def labels(settings: Settings, sources: Mapping[str, str]) -> dict[str, str]:
    """The image's labels: its project, and the SHA-256 of the locks it comes from."""
    locks = record.locks(settings)
    return {PROJECT: settings.image} | {
        f"containerize.{lock}": sources[lock] for lock in locks
    }


def is_current(settings: Settings, engine: Engine, name: str) -> bool:
    """Whether `name` in the engine is what a build of the files as they are gave."""
    return _is_loaded(record.read(settings), engine, name)


def carries(settings: Settings, engine: Engine, name: str) -> bool:
    """As `is_current`, whatever the app's own files are now."""
    return _is_loaded(record.read_beneath(settings), engine, name)


def _is_loaded(found: Mapping[str, Any], engine: Engine, name: str) -> bool:
    try:
        return name in found["references"] and found["loaded"][
            _engine_name(engine)
        ] == engine.identifier(name)
    except (KeyError, Problem):
        return False


def wants_build(settings: Settings) -> dict[str, str]:
    """What has an image built anew if it changes, the app's files aside.

    By name the state of what the app stands on, and a line for each lock that is out
    of step with its inputs, which has no state.
    """
    stale = (line.partition(": ")[0] for line in locks.check_image(settings))
    return record.beneath(settings) | dict.fromkeys(stale, "")


def current(settings: Settings) -> ImageDigests | None:
    """The digests of the archive, where that is of the files as they are."""
    found = record.read(settings)
    path = archive_path(settings)
    if not found or not path.is_file():
        return None
    try:
        digests = canonical.read_digests(path)
    except Problem:  # Damaged since: build it again.
        return None
    return digests if digests.manifest == found.get("manifest") else None


def remove(
    settings: Settings, engine: Engine, on_line: Callable[[str], None] = ignore
) -> None:
    """Remove the project's containers and images, found by their label.

    Those that a Swarm or a pod runs stay. `on_line` is told which went, and which
    stay. Raises Problem where others stay, as those do that other images are built on.
    """
    for look, verb, noun in (
        (_containers, "rm", "container"),
        (_images, "rmi", "image"),
    ):
        named = look(settings, engine)
        left = [*named]
        while left:
            # By ID, not echoed: dozens of them say nothing to a reader.
            answer = engine.run(verb, "--force", *left, check=False, echo=False)
            before, left = left, [*look(settings, engine)]
            if len(left) >= len(before):  # else one was the base of another
                problem = engine.problem((verb,), answer.stderr)
                said = f"{_count(left, noun)} of {len(named)} cannot go"
                raise Problem(f"{said}: {problem}")
        if named:
            on_line(f"removed   {_told(named, noun)}")
    if kept := _images(settings, engine, kept=True):
        on_line(f"kept      {_told(kept, 'image')}, which a Swarm or a pod runs")


def _containers(settings: Settings, engine: Engine) -> dict[str, list[str]]:
    """The names of the project's containers by ID."""
    return _by_id(container.listed(settings, engine, form="{{.ID}}={{.Names}}"))


def _images(
    settings: Settings, engine: Engine, *, kept: bool = False
) -> dict[str, list[str]]:
    """The names of the project's images by ID: of those that nothing else runs, or, if
    `kept`, of the others."""
    form = "--format={{.ID}}={{.Repository}}:{{.Tag}}"
    label = f"--filter=label={settings.label}"
    found = _by_id(engine.listing("images", "--all", "--no-trunc", form, label))
    used = container.images_kept(settings, engine) if found else set()
    return {one: names for one, names in found.items() if (one in used) == kept}


def _by_id(lines: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        identity, _, name = line.partition("=")
        found.setdefault(identity, []).append(name)
    return found


def _told(found: Mapping[str, Sequence[str]], noun: str) -> str:
    names = [n for each in found.values() for n in each if "<none>" not in n]
    text = some(list(dict.fromkeys(names)))
    return f"{_count([*found], noun)}{text and ': '}{text}"


def _count(found: Sequence[str], noun: str) -> str:
    return f"{len(found)} {noun}{'s' if len(found) > 1 else ''}"


def clean(settings: Settings) -> None:
    """Remove the packed layers, the archives and their records; all else stays.

    Raises Problem where one cannot be removed, as what root has made.
    """
    for path in selection.outputs(settings):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise Problem(
                f"{error.filename or path} cannot be removed ({error.strerror}): "
                "see whose it is"
            ) from None
    top = settings.build_top
    of_each = [top / each for each in sorted({*ARCHITECTURES.values()})]
    for directory in (*of_each, top, settings.dist_dir):
        with contextlib.suppress(OSError):  # not empty, or not there
            directory.rmdir()


def _engine_name(engine: Engine) -> str:
    return " ".join(engine.command)
