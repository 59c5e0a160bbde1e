"""From packed layers to one canonical image: built, exported, loaded, recorded."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from containerize import canonical, layers, locks, record, tree
from containerize.canonical import ImageDigests
from containerize.engine import Engine
from containerize.errors import Problem
from containerize.settings import Settings, check_tag

LABEL = "containerize"
"""Prefix of the labels that an image carries."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """A built image: its names, its archive and what the archive holds."""

    references: tuple[str, ...]
    archive: Path
    digests: ImageDigests
    packed: tuple[layers.Layer, ...]


def archive_path(settings: Settings) -> Path:
    """The OCI archive of the last build."""
    return settings.dist_dir / f"{settings.image}.tar"


def references(settings: Settings, tags: Sequence[str] = ()) -> tuple[str, ...]:
    """`IMAGE:TAG` for each tag, or for the tags of the settings where there are none.

    Raises Problem for a malformed tag.
    """
    wanted = tags or settings.tags
    return tuple(dict.fromkeys(f"{settings.image}:{check_tag(tag)}" for tag in wanted))


def commands(
    settings: Settings,
    names: Sequence[str],
    *,
    kind: str = "docker",
    cache: bool = True,
    saved: Path = Path("saved.tar"),
    archive: Path | None = None,
) -> tuple[list[str], list[str], list[str]]:
    """The engine's arguments that build the image, save it, and load the canonical one.

    `kind` is the engine's, docker or podman.
    """
    form = ["--format", "docker-archive"] if kind == "podman" else []
    target = archive or archive_path(settings)
    return (
        _build_command(settings, kind, names, cache),
        ["save", *form, "--output", str(saved), names[0]],
        # Podman would load it as an OCI image, which has no HEALTHCHECK.
        ["pull", "--quiet", f"docker-archive:{target}"]
        if kind == "podman"
        else ["load", "--input", str(target)],
    )


def _build_command(
    settings: Settings, kind: str, names: Sequence[str], cache: bool
) -> list[str]:
    # A label for what the builder leaves behind too, which --label does not reach.
    command = ["build", "--network", "none", "--build-arg", f"PROJECT={settings.image}"]
    # Podman's own image format has no HEALTHCHECK.
    command += ["--format", "docker"] if kind == "podman" else []
    command += [] if cache else ["--no-cache"]
    if settings.base_image:
        command += ["--build-arg", f"BASE={settings.base_image}"]
    if settings.app != Settings.app:
        command += ["--build-arg", f"APP={settings.app}"]
    if settings.architecture:
        command += ["--platform", f"linux/{settings.architecture}"]
    for name in names:
        command += ["--tag", name]
    return [*command, "."]


def build(
    settings: Settings,
    engine: Engine,
    *,
    tags: Sequence[str] = (),
    cache: bool = True,
    output: Path | None = None,
) -> Image:
    """Pack the layers, build with `engine`, make the image canonical and load it.

    The archive, `output` or the one in the dist directory, appears whole or not at
    all, and the tags end on the canonical image. Raises Problem where the Dockerfile,
    a lock or an input is missing or wrong, and where the engine fails.
    """
    names = references(settings, tags)
    archive = output or archive_path(settings)
    packed = pack(settings)
    built = make(settings, engine, names, cache=cache)
    digests = export(settings, engine, names, archive)
    *_, load = commands(settings, names, kind=engine.kind, archive=archive)
    engine.run(*load)
    loaded = _name_loaded(engine, digests, names)
    if built != loaded:
        # The builder's own form has done its work; its layers stay as build cache.
        engine.run("rmi", "--no-prune", built, check=False)
    if output is None:
        record.write(
            settings, digests, names=names, loaded={_engine_name(engine): loaded}
        )
    return Image(references=names, archive=archive, digests=digests, packed=packed)


def pack(settings: Settings) -> tuple[layers.Layer, ...]:
    """Pack the layers. Raises Problem where an input or the Dockerfile is missing."""
    if not (settings.root / "Dockerfile").is_file():
        raise Problem("there is no Dockerfile: restore it (git checkout Dockerfile)")
    return layers.pack(settings)


def make(
    settings: Settings, engine: Engine, names: Sequence[str], *, cache: bool = True
) -> str:
    """Build from the packed layers; returns the engine's ID of the builder's form."""
    command, *_ = commands(settings, names, kind=engine.kind, cache=cache)
    engine.stream(*command, cwd=settings.root)
    return identifier(engine, names[0])


def export(
    settings: Settings, engine: Engine, names: Sequence[str], archive: Path
) -> ImageDigests:
    """Write the engine's image canonically to `archive`."""
    with tree.scratch(archive.parent) as scratch:
        saved = scratch / "saved.tar"
        _, save, _ = commands(settings, names, kind=engine.kind, saved=saved)
        engine.run(*save)
        return canonical.canonicalize(
            saved,
            archive,
            time=locks.read_base(settings).time,
            labels=labels(settings),
            references=names,
        )


def _name_loaded(engine: Engine, digests: ImageDigests, names: Sequence[str]) -> str:
    """Give the loaded image its names; returns the engine's ID of it.

    Not every image store takes the names that an archive has, and Podman takes them
    for those of a registry.
    """
    # A classic store's ID is the config's digest, a containerd store's the manifest's.
    for digest in (digests.config, digests.manifest):
        answer = engine.run(
            "image", "inspect", "--format", "{{json .RepoTags}}", digest,
            check=False, echo=False,
        )  # fmt: skip
        if answer.returncode == 0:
            break
    else:
        raise Problem(f"the engine does not have the image {digests.config} it loaded")
    for name in names:
        engine.run("tag", digest, name, echo=False)
        for foreign in json.loads(answer.stdout) or []:
            if engine.kind == "podman" and foreign.endswith(f"/library/{name}"):
                engine.run("untag", digest, foreign, echo=False)
    return identifier(engine, names[0])


def labels(settings: Settings) -> dict[str, str]:
    """The image's labels: its project, and the SHA-256 of the locks it comes from."""
    name, _, value = settings.label.partition("=")
    found = {name: value}
    for lock in record.LOCKS:
        found[f"{LABEL}.{lock}"] = f"sha256:{tree.sha256(settings.root / lock)}"
    return found


def identifier(engine: Engine, reference: str) -> str:
    """The engine's own ID of an image; a Problem where it has none of that name."""
    answer = engine.run(
        "image", "inspect", "--format", "{{.Id}}", reference, echo=False
    )
    return "sha256:" + answer.stdout.strip().removeprefix("sha256:")


def is_current(settings: Settings, engine: Engine, name: str) -> bool:
    """Whether `name` in the engine is what a build of the files as they are gave."""
    found = record.read(settings)
    try:
        return name in found["references"] and found["loaded"][
            _engine_name(engine)
        ] == identifier(engine, name)
    except (KeyError, Problem):
        return False


def current(settings: Settings) -> ImageDigests | None:
    """The digests of the archive, where that is of the files as they are."""
    found = record.read(settings)
    path = archive_path(settings)
    if not found or not path.is_file():
        return None
    digests = canonical.read_digests(path)
    return digests if digests.manifest == found["manifest"] else None


def remove(settings: Settings, engine: Engine) -> None:
    """Remove the project's containers and images, found by their label.

    Raises Problem where some stay, as those do that other images are built on.
    """
    for kind, verb in (("ps", "rm"), ("images", "rmi")):
        found = _labelled(settings, engine, kind)
        if found:
            answer = engine.run(verb, "--force", *found, check=False)
            if _labelled(settings, engine, kind):
                raise engine.problem((verb,), answer.stderr)


def _labelled(settings: Settings, engine: Engine, kind: str) -> list[str]:
    label = f"--filter=label={settings.label}"
    listing = engine.run(kind, "--all", "--quiet", "--no-trunc", label, echo=False)
    return list(dict.fromkeys(listing.stdout.split()))


def clean(settings: Settings) -> None:
    """Remove the packed layers, the archives and their records."""
    for directory in (settings.build_dir, settings.dist_dir):
        shutil.rmtree(directory, ignore_errors=True)


def _engine_name(engine: Engine) -> str:
    return " ".join(engine.command)
