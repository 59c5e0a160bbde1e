"""What a rebuild must equal: digests, an archive, a file like digests.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from containerize import FORMAT
from containerize.errors import Problem
from containerize.image import archive as images
from containerize.image import canonical, layout, record
from containerize.image.archive import printable
from containerize.image.canonical import ImageDigests
from containerize.settings import ARCHITECTURES, PROJECT, Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """The first image of a rebuild, for whoever looks closer at another one."""

    digests: ImageDigests
    archive: Path
    scratch: Path
    """A directory that goes when the comparison is done."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """An image that rebuilds must equal."""

    name: str
    """What it is of, in words."""
    architecture: str
    digest: str = ""
    """Of its manifest or its config; empty if none is known."""
    archive: Path | None = None
    """An archive of it, if there is one."""
    look: Callable[[Expected, Built], Expected] | None = None
    """Gets such an archive; asked only if the rebuild is another image."""
    changed: tuple[str, ...] = ()
    """Inputs that are others than those it comes from, as far as these are known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What a checkout must rebuild: an image, or one for each of several processors."""

    name: str
    images: tuple[Expected, ...]
    index: str = ""
    """The digest of the index that names them; empty if none does."""
    either: bool = False
    """Whether it is one of the images or the index, and not known which."""
    notes: tuple[str, ...] = ()
    """What is known before anything is built, a line each."""
    unlike: tuple[str, ...] = ()
    """Why it cannot be equal, whatever the rebuilds are, a line each."""
    besides: Callable[[Path], Sequence[str]] = lambda _: ()
    """What else decides what runs, a line each; is given an archive of the image."""


def golden(settings: Settings, file: str = "", *, every: bool = False) -> Target:
    """The digests in digests.json, or in a `file` like it; none where it is not there.

    With `every`, those of all processors and of their index. Raises Problem where the
    file has none for a processor, or another format of this tool made them.
    """
    name, path = file or record.GOLDEN, Path(file or record.golden_path(settings))
    own = (settings.image_architecture,)
    wanted = settings.image_architectures if every else own
    known = record.read_golden(path) if file or path.is_file() else {}
    images = []
    for architecture in wanted:
        facts = known.get(architecture, {})
        changed: tuple[str, ...] = ()
        if facts:
            check_format(name, facts.get("format", 0), "`invoke digest --save`")
            one = settings.for_architecture(architecture)
            changed = tuple(record.changes(one, facts))
        elif file:
            raise Problem(
                f"{file} has no digest for {architecture}: "
                "add one with `invoke digest --save`"
            )
        digest = facts.get("manifest", "")
        images.append(
            Expected(
                name=name, architecture=architecture, digest=digest, changed=changed
            )
        )
    several = every and len(wanted) > 1 and known
    whole = record.read_golden_index(path) if several else ""
    return Target(name=name, images=tuple(images), index=whole)


def digest(settings: Settings, text: str) -> Target:
    """The image with that digest, of whichever processor's, or the index of all."""
    own = settings.image_architecture
    others = [each for each in settings.image_architectures if each != own]
    images = [
        Expected(name=text, architecture=each, digest=text) for each in (own, *others)
    ]
    several = len(images) > 1
    return Target(
        name=text, images=tuple(images), index=text if several else "", either=several
    )


def archive(settings: Settings, file: str) -> Target:
    """The image in an archive, or the images of the index in one.

    Raises Problem where it is damaged, or has no image that this project has too.
    """
    path = Path(file)
    found = layout.read_archive(path)
    if found is None:
        made = canonical.read_digests(path).manifest
        with images.open_image(path) as image:
            named = str(image.config.get("architecture"))
        own = settings.image_architecture
        # What it is for is compared with all else: it need not be one of ours.
        known = named if named in settings.image_architectures else own
        one = Expected(name=file, architecture=known, digest=made, archive=path)
        return Target(name=file, images=(one,))

    def make(entry: layout.Entry) -> Expected:
        def look(expected: Expected, built: Built) -> Expected:
            target = built.scratch / "expected.tar"
            layout.take(path, entry.digest, target)
            return dataclasses.replace(expected, archive=target)

        return Expected(
            name=file,
            architecture=entry.architecture,
            digest=entry.digest,
            look=look,
        )

    return of_index(settings, file, found, make)


def of_index(
    settings: Settings,
    name: str,
    found: layout.Index,
    make: Callable[[layout.Entry], Expected],
) -> Target:
    """The images that an index names, each as `make` gives it.

    What only the index or only this project has is told. Raises Problem where they
    have none in common.
    """
    wanted, unlike = {}, []
    for entry in found.images:
        problem = unfit(settings, entry.platform)
        if problem or entry.architecture in wanted:
            problem = problem or f"the index has two images for {entry.platform}"
            unlike.append(problem)
        else:
            wanted[entry.architecture] = make(entry)
    for architecture in settings.architectures:
        if architecture not in wanted:
            unlike.append(
                f"{name} has no image for {architecture}, and this checkout has one"
            )
    if not wanted:
        raise Problem("; ".join(unlike) or f"{name} is an index that names no image")
    beside = f"{name} has {found.others} attestations beside it, which are not compared"
    return Target(
        name=name,
        images=tuple(wanted.values()),
        index=found.digest,
        notes=(beside,) if found.others else (),
        unlike=tuple(unlike),
    )


def unfit(settings: Settings, platform: str) -> str:
    """Why this project has no image for a platform, as `linux/arm64`; or nothing."""
    system, _, architecture = platform.partition("/")
    if system == "linux" and architecture in (
        settings.architectures or ARCHITECTURES.values()
    ):
        return ""
    return (
        f"it has an image for {platform}, and this checkout makes none (setting "
        "architectures)"
    )


def check_project(settings: Settings, labels: Mapping[str, object], name: str) -> None:
    """A Problem if labels are not those of an image of this project."""
    found, own = labels.get(PROJECT), settings.image
    if found is None:
        raise Problem(
            f"{name} is of an image that this tool has not made: no {PROJECT}"
        )
    if found != own:
        raise Problem(
            f"{name} is of the project {printable(str(found))}, and this checkout is "
            f"of {own}: compare with its own"
        )


def check_format(name: str, number: object, remedy: str) -> None:
    """A Problem if another format of this tool made something, so digests differ."""
    if str(number) != str(FORMAT):
        raise Problem(
            f"{name} is of format {number} of this tool, and this is format {FORMAT}, "
            f"whose digests differ: {remedy}, or install the tool of that format"
        )
