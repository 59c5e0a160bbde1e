"""The verbs that give an image to others, beside those of `tasks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from containerize.terminal import Meter, megabytes, say
from containerize.verbs import ENGINE, Session, verb

if TYPE_CHECKING:
    from containerize.publish.subjects import Subject


def _dry_push(
    s: Session, target: str, tag: Sequence[str] = (), engine: str = ""
) -> str:
    from containerize import build
    from containerize.publish import push as pushing

    wanted = pushing.targets(s.settings, target, tag)
    archive = build.archive_path(s.settings)
    return f"Would push {archive} to {', '.join(map(str, wanted))}."


@verb(
    _dry_push,
    positional=["target"],
    iterable=["tag"],
    help={
        "target": "REGISTRY[:PORT]/NAME to push to",
        "tag": "tag to give; can be repeated; by default those of the settings",
        "engine": ENGINE,
    },
)
def push(s: Session, target: str, tag: list[str], engine: str = "") -> None:
    """Push the image, unchanged, to a registry: push REGISTRY/NAME --tag T."""
    from containerize import build
    from containerize.fetch import inputs
    from containerize.publish import push as pushing

    wanted = pushing.targets(s.settings, target, tag)
    found = build.current(s.settings)
    if not found:
        using = s.engine
        fetched = inputs.fetch(s.settings, progress=Meter())
        found = build.build(s.settings, using, collected=fetched, on_line=say).digests
    done = pushing.push(
        s.settings,
        build.archive_path(s.settings),
        wanted,
        progress=Meter(),
        expected=found.manifest,
    )
    say(f"digest    {done.reference.digest}")
    say(f"sent      {megabytes(done.sent)}")
    say(f"pull      {done.reference}")


def subjects(s: Session) -> list[Subject]:
    """The image of each architecture, built first where files have changed."""
    from containerize import build as building
    from containerize.errors import Problem
    from containerize.fetch import inputs
    from containerize.publish import subjects as held

    found = []
    for architecture in s.settings.image_architectures:
        settings = s.settings.for_architecture(architecture)
        archive = building.archive_path(settings)
        subject = held.subject(settings, archive)
        if not subject:
            using = s.engine
            fetched = inputs.fetch(settings, progress=Meter())
            building.build(settings, using, collected=fetched, on_line=say)
            subject = held.subject(settings, archive)
        if not subject:
            raise Problem("files changed since the build: repeat it")
        found.append(subject)
    return found


def _dry_sbom(s: Session, **_: str) -> str:
    from containerize.publish import evidence

    names = [
        evidence.sbom_path(s.settings.for_architecture(each)).name
        for each in s.settings.image_architectures
    ]
    return f"Would write {', '.join(names)} to {s.settings.dist_dir}."


@verb(_dry_sbom, help={"engine": ENGINE})
def sbom(s: Session, engine: str = "") -> None:
    """Write to dist/ what each image holds, as CycloneDX, building it first."""
    from containerize import disk
    from containerize.publish import evidence
    from containerize.publish import sbom as bills

    for subject in subjects(s):
        made = bills.make(subject)
        path = evidence.sbom_path(subject.settings)
        with disk.atomic(path) as file:
            file.write(made.content)
        say(f"sbom      {path}")
        for note in made.notes:
            say(f"note      {note}")


@verb(
    lambda s, **_: (
        f"Would write {s.settings.image}.provenance.json to {s.settings.dist_dir}."
    ),
    help={"engine": ENGINE},
)
def provenance(s: Session, engine: str = "") -> None:
    """Write to dist/ what the images come from, as SLSA says it; it is not signed."""
    from containerize import disk
    from containerize.publish import evidence
    from containerize.publish import provenance as statements

    found = subjects(s)
    source = statements.source(s.settings, found[0].inputs)
    path = evidence.provenance_path(s.settings)
    with disk.atomic(path) as file:
        file.write(statements.make(found, source))
    say(f"statement {path}")
    if not source.commit:
        say(f"note      it names no commit: {source.state}")
