"""An image in a registry, as what a checkout must rebuild, and what is beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from containerize.errors import Problem
from containerize.image import archive, layout, record
from containerize.image.archive import DIGEST, MAX_JSON, MAX_LAYERS, Region, printable
from containerize.image.known import blobs
from containerize.pack import sources
from containerize.progress import Progress, step
from containerize.publish import provenance, reference
from containerize.publish.provenance import Source
from containerize.publish.registry import Manifest, Repository
from containerize.settings import Settings
from containerize.verify import expected as naming
from containerize.verify.expected import Built, Expected, Target

CONFIGS = (
    archive.CONFIG,
    "application/vnd.docker.container.image.v1+json",
)
"""The media types of an image's config: what has another one is no image."""

LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    archive.LAYER,
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
)
"""The media types of layers that can be read."""

STATEMENTS = 20
"""Of how many statements one is looked for: each push from a new commit adds one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blob:
    """A config or a layer, as a manifest names it."""

    media_type: str
    digest: str
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """An image of a repository, its layers left where they are."""

    name: str
    repository: Repository
    manifest: Manifest
    config: Blob
    layers: tuple[Blob, ...]
    about: Mapping[str, Any]
    """What the config holds."""
    content: bytes
    """The bytes of the config."""

    @property
    def platform(self) -> str:
        return f"{self.about.get('os')}/{self.about.get('architecture')}"

    @property
    def launch(self) -> Mapping[str, Any]:
        """What it says of its containers."""
        found = self.about.get("config")
        return found if isinstance(found, dict) else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a name leads to in a registry."""

    target: Target
    images: Mapping[str, Image]
    """By architecture."""


def find(settings: Settings, text: str, *, progress: Progress) -> Pushed:
    """As `read`, and what the provenance says that was pushed beside it.

    Raises Problem also if that says that another format of this tool made it, so that
    no checkout with this one can rebuild it.
    """
    return _with_provenance(settings, read(settings, text, progress=progress))


def read(settings: Settings, text: str, *, progress: Progress) -> Pushed:
    """The image or the images that `REGISTRY/NAME:TAG` or `…@sha256:…` names.

    A digest goes before a tag, as with the engines. Raises Problem where there is
    none, where the registry does not let it be read, and where it is no image of this
    project's.
    """
    if Path(text).is_dir():
        raise Problem(f"{text} is a directory: name an archive in it")
    file = Path(text).suffix in (".tar", ".json") and ":" not in text
    if file or text.startswith(("/", "./", "../", "~")):
        raise Problem(f"there is no file {text}: see its path")
    named = reference.parse(text)
    if not (named.tag or named.digest):
        raise Problem(f"{text} names no image: add :TAG or @sha256:…")
    repository = Repository.at(named, settings.insecure_registries)
    top = repository.read_manifest(named.digest or named.tag)
    several = layout.read(_read(top, text), top.digest, text)
    if several is None:
        image = _image(repository, top, text)
        if problem := naming.unfit(settings, image.platform):
            raise Problem(f"{text}: {problem}")
        one = _expected(settings, image, progress)
        images = {one.architecture: image}
        notes = _alone(settings, image) + _odd(image)
        target = Target(name=text, images=(one,), notes=notes)
    else:
        images = {}

        def make(entry: layout.Entry) -> Expected:
            manifest = repository.read_manifest(entry.digest)
            image = _image(repository, manifest, f"{text}, {entry.platform}")
            images[entry.architecture] = image
            expected = _expected(settings, image, progress)
            return dataclasses.replace(expected, name=text)

        target = naming.of_index(settings, text, several, make)
        odd = [line for image in images.values() for line in _odd(image)]
        target = dataclasses.replace(target, notes=(*target.notes, *odd))
    return Pushed(target=target, images=images)


def _read(manifest: Manifest, name: str) -> dict[str, Any]:
    """What a manifest or an index says. Raises Problem for the first schema."""
    content = manifest.json()
    if content.get("schemaVersion") != 2:
        raise Problem(
            f"{name} is of Docker's first manifest schema, which has no config to "
            "compare: push it again with `invoke push`"
        )
    return content


def _image(repository: Repository, manifest: Manifest, name: str) -> Image:
    """What an image's manifest and config say. Raises Problem where it is none."""
    content = _read(manifest, name)
    if "manifests" in content:
        raise Problem(f"{name} is an index within an index, which no engine runs")
    config = _blob(content.get("config"), name)
    kind = printable(str(content.get("artifactType") or config.media_type))
    if config.media_type not in CONFIGS:
        chart = "a Helm chart" if "helm" in kind else "an artifact"
        raise Problem(f"{name} is no image, but {chart} of the type {kind}")
    layers = content.get("layers")
    if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        raise Problem(f"{name}: its manifest has no layers, or too many to be an image")
    named = [_blob(each, name) for each in layers]
    for number, blob in enumerate(named, 1):
        if blob.media_type not in LAYERS:
            raise Problem(
                f"{name}: layer {number} is of the type {printable(blob.media_type)}, "
                "which this tool does not read: it is not of its making"
            )
    if config.size > MAX_JSON:
        raise Problem(f"{name}: its config has {config.size} bytes: it is no image")
    data = b"".join(repository.read_blob(config.digest, config.size))
    try:
        about = json.loads(data)
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise Problem(f"{name}: its config is no JSON object: it is no image")
    return Image(
        name=name,
        repository=repository,
        manifest=manifest,
        config=config,
        layers=tuple(named),
        about=about,
        content=data,
    )


def _blob(descriptor: Any, name: str) -> Blob:
    try:
        kind = str(descriptor.get("mediaType", ""))
        digest, size = str(descriptor["digest"]), descriptor["size"]
        if not DIGEST.fullmatch(digest) or isinstance(size, bool) or size < 0:
            raise ValueError
        return Blob(media_type=kind, digest=digest, size=int(size))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Problem(
            f"{name}: its manifest names a part by no digest or no size: it is no image"
        ) from None


def _alone(settings: Settings, image: Image) -> tuple[str, ...]:
    """That it is one image, where this project has several."""
    others = [a for a in settings.architectures if a != image.about["architecture"]]
    if not others:
        return ()
    return (
        f"{image.name} is one image, for {image.platform}: nothing is compared for "
        f"{', '.join(others)}",
    )


def _odd(image: Image) -> tuple[str, ...]:
    """That layers are compressed by another tool, if they are."""
    kinds = {blob.media_type for blob in image.layers} - {archive.LAYER}
    if not kinds:
        return ()
    return (
        f"{image.name} has layers of the type {', '.join(sorted(kinds))}, which this "
        "tool does not write: another one has pushed it",
    )


def _expected(settings: Settings, image: Image, progress: Progress) -> Expected:
    naming.check_project(settings, image.launch.get("Labels") or {}, image.name)

    def look(expected: Expected, built: Built) -> Expected:
        return dataclasses.replace(expected, archive=_pull(image, built, progress))

    return Expected(
        name=image.name,
        architecture=str(image.about["architecture"]),
        digest=image.manifest.digest,
        look=look,
    )


def _pull(image: Image, built: Built, progress: Progress) -> Path:
    """An archive of the image: what the rebuild has too is taken from there.

    Raises Problem where it is too large to be looked into, or is not to be had.
    """
    target = built.scratch / "expected.tar"
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(blobs(built.archive))
        wanted = {blob.digest: blob for blob in (image.config, *image.layers)}
        lacking = [blob for digest, blob in wanted.items() if digest not in held]
        total = sum(blob.size for blob in lacking)
        own = sum(layer.compressed_size for layer in built.digests.layers)
        if total > max(archive.GENEROUS, 4 * own):
            raise Problem(
                f"{image.name} differs in {total} bytes of layers, too many to look "
                f"into: the image built here has {own}"
            )
        regions = {digest: held[digest] for digest in wanted if digest in held}
        with step(progress, f"what differs in {image.name}", total):
            for blob in lacking:
                regions[blob.digest] = _fetched(image, blob, built, progress, stack)
        layout.write(target, image.manifest.content, regions)
    return target


def _fetched(
    image: Image,
    blob: Blob,
    built: Built,
    progress: Progress,
    stack: contextlib.ExitStack,
) -> Region:
    file = stack.enter_context((built.scratch / blob.digest[7:]).open("w+b"))
    try:
        for chunk in image.repository.read_blob(blob.digest, blob.size):
            file.write(chunk)
            progress.advance(len(chunk))
        file.flush()
    except OSError as error:
        raise Problem(
            f"cannot write to {built.scratch}: {error.strerror}: make room, then repeat"
        ) from None
    return Region(file, 0, blob.size)


# --- What was pushed beside it ---------------------------------------------------


def _with_provenance(settings: Settings, pushed: Pushed) -> Pushed:
    """What the provenance says that was pushed with an image, if there is one.

    It is not signed: it explains, and is no reason to take an image for equal. Raises
    Problem where it says that another format of this tool made the image.
    """
    name = pushed.target.name
    first = next(iter(pushed.images.values()))
    digest, repository = pushed.target.index or first.manifest.digest, first.repository
    try:
        statements = _statements(repository, digest)
    except Problem as problem:
        said = f"the provenance of {name} cannot be read ({problem})"
        return _noted(pushed, f"{said}: what it was built from is not known")
    line = (
        f"no provenance of this tool was pushed with {name}: what it was built from is "
        "not known"
    )
    here = None
    if statements:
        here = provenance.source(settings, record.inputs(settings))
    wanted = []
    for each in pushed.target.images:
        one, manifest = each, pushed.images[each.architecture].manifest.digest
        if here and (facts := _facts(statements, manifest, here)):
            made_by = facts.inputs.get("containerize format")
            naming.check_format(name, made_by, "build and push it with this one")
            line = _commits(settings, name, facts.source, here)
            mine = settings.for_architecture(one.architecture)
            changed = record.changes(mine, {"inputs": facts.inputs})
            one = dataclasses.replace(one, changed=tuple(changed))
        wanted.append(one)
    target = dataclasses.replace(pushed.target, images=tuple(wanted))
    return _noted(dataclasses.replace(pushed, target=target), line)


def _noted(pushed: Pushed, line: str) -> Pushed:
    notes = (*pushed.target.notes, line)
    return dataclasses.replace(
        pushed, target=dataclasses.replace(pushed.target, notes=notes)
    )


def _statements(repository: Repository, digest: str) -> list[bytes]:
    """The in-toto statements among the referrers of a manifest or an index."""
    found: list[bytes] = []
    for each in repository.referrers(digest):
        if each.get("artifactType") == provenance.MEDIA_TYPE:
            content = repository.read_manifest(str(each.get("digest"))).json()
            for layer in content.get("layers") or ():
                blob = _blob(layer, "its provenance")
                if blob.size <= MAX_JSON and len(found) < STATEMENTS:
                    found.append(b"".join(repository.read_blob(blob.digest, blob.size)))
    return found


def _facts(
    statements: Sequence[bytes], manifest: str, here: Source
) -> provenance.Facts | None:
    """What is said of an image: by the statement of this commit, or the last one."""
    found: list[provenance.Facts] = []
    for each in statements:
        with contextlib.suppress(Problem):  # another tool's, or of other images
            found.append(provenance.read(each, manifest))
    ours = [facts for facts in found if facts.source == here]
    return next(reversed(ours or found), None)


def _commits(settings: Settings, name: str, source: Source, here: Source) -> str:
    """Which commit an image says that it is of, and which one this checkout is at."""
    built = f"commit {source.commit[:12]}" if source.commit else source.state
    said = f"{name} was built from {built}, as its provenance says, which is not signed"
    if here == source and here.commit:
        return f"{said}: this checkout is at it"
    answer = sources.git(settings.root, "rev-parse", "--short=12", "HEAD")
    head = answer.stdout.decode().strip() if answer and not answer.returncode else ""
    at = f"at commit {head}" if head else "of no commit"
    also = f", with {here.state}" if here.state == provenance.DIRTY else ""
    return f"{said}: this checkout is {at}{also}"
