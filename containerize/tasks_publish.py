"""The verbs that give an image to others and keep it patched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from containerize.terminal import Meter, amount, say
from containerize.verbs import ENGINE, Session, verb

if TYPE_CHECKING:
    from containerize.publish.evidence import Attachment
    from containerize.publish.reference import Reference
    from containerize.publish.subjects import Images


def built(s: Session) -> Images:
    """The images of all architectures, built first where files have changed."""
    from containerize import build as building
    from containerize import tasks
    from containerize.errors import Problem
    from containerize.publish import subjects

    given = [(one, building.archive_path(one)) for one in s.each()]
    joined = building.index_path(s.settings)
    found = subjects.current(given, joined)
    if not found:
        tasks.build_all(s, s.engine)
        found = subjects.current(given, joined)
    if not found:
        raise Problem("files changed since the build: repeat it")
    return found


def _dry_push(
    s: Session,
    target: str,
    tag: Sequence[str] = (),
    no_evidence: bool = False,
    **_: Any,
) -> str:
    from containerize import build
    from containerize.publish import push as pushing

    wanted = pushing.targets(s.settings, target, tag)
    several = len(s.settings.image_architectures) > 1
    path = build.index_path if several else build.archive_path
    beside = "" if no_evidence else ", SBOM and provenance beside it"
    names = ", ".join(map(str, wanted))
    return f"Would push {path(s.settings)} to {names}{beside}."


@verb(
    _dry_push,
    positional=["target"],
    iterable=["tag"],
    help={
        "target": "REGISTRY[:PORT]/NAME to push to",
        "tag": "tag to give; can be repeated; by default those of the settings",
        "no-evidence": "push neither SBOM nor provenance, which go beside the image",
        "engine": ENGINE,
    },
)
def push(
    s: Session,
    tag: list[str],  # first: it gets -t
    target: str,
    no_evidence: bool = False,
    engine: str = "",
) -> None:
    """Push the image, unchanged, to a registry: push REGISTRY/NAME --tag T."""
    from containerize.publish import push as pushing

    wanted = pushing.targets(s.settings, target, tag)
    send(s, built(s), wanted, evidence=not no_evidence)


def send(
    s: Session, found: Images, wanted: Sequence[Reference], *, evidence: bool
) -> None:
    """Push the images, with SBOM and provenance if wanted, and say what came of it."""
    from containerize.publish import push as pushing

    beside: list[Attachment] = []
    notes = []
    if evidence:
        from containerize.publish import evidence as kept
        from containerize.publish import provenance

        source = provenance.source(s.settings, found.subjects[0].inputs)
        beside = kept.attachments(found.subjects, source, found.index)
        if not source.commit:
            notes.append(f"the provenance names no commit: {source.state}")
    done = pushing.push(
        s.settings,
        found.archive,
        wanted,
        progress=Meter(),
        expected=found.digest,
        beside=beside,
    )
    for note in notes:
        say(f"note      {note}")
    say(f"digest    {done.reference.digest}")
    say(f"sent      {amount(done.sent)}")
    say(f"beside    {'SBOM and provenance' if beside else 'nothing'}")
    say(f"pull      {done.reference}")


def _dry_sbom(s: Session, **_: str) -> str:
    from containerize.publish import subjects as images

    names = [
        images.sbom_path(s.settings.for_architecture(each)).name
        for each in s.settings.image_architectures
    ]
    return f"Would write {', '.join(names)} to {s.settings.dist_dir}."


@verb(_dry_sbom, help={"engine": ENGINE})
def sbom(s: Session, engine: str = "") -> None:
    """Write to dist/ what each image holds, as CycloneDX, building it first."""
    import concurrent.futures

    from containerize import disk
    from containerize.publish import sbom as bills
    from containerize.publish import subjects as images

    found = built(s).subjects
    with concurrent.futures.ThreadPoolExecutor() as pool:  # to unpack takes no lock
        bill = list(pool.map(bills.make, found))
    for subject, made in zip(found, bill, strict=True):
        path = images.sbom_path(subject.settings)
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
    from containerize.publish import provenance as statements
    from containerize.publish import subjects as images

    found = built(s)
    source = statements.source(s.settings, found.subjects[0].inputs)
    path = images.provenance_path(s.settings)
    with disk.atomic(path) as file:
        file.write(statements.make(found.subjects, source, found.index))
    say(f"statement {path}")
    if not source.commit:
        say(f"note      it names no commit: {source.state}")


def _dry_bundle(s: Session, output: str = "") -> str:
    from containerize.publish import bundle

    path = Path(output).expanduser() if output else bundle.default_path(s.settings)
    return f"Would write what the commit's images are made of to {path}."


@verb(
    _dry_bundle,
    help={"output": "file to write; by default dist/IMAGE-bundle.tar"},
)
def bundle(s: Session, output: str = "") -> None:
    """Write all that the commit's images are made of to one file, to build offline."""
    from containerize.errors import some
    from containerize.publish import bundle as bundles

    path = Path(output).expanduser() if output else None
    made = bundles.write(s.settings, path, progress=Meter())
    say(f"bundle    {made.path}")
    say(f"digest    {made.digest}")
    say(f"commit    {made.commit}")
    say(f"holds     {len(made.items)} files, {amount(made.size)}")
    say(f"images    {', '.join(s.settings.image_architectures)}")
    say(f"tools     {', '.join(made.hosts) or 'none'}")
    if made.held_back:
        say(f"left out  {some(made.held_back)}: env-file and secrets are in no bundle")
    if made.ignored:
        say(
            f"warning   a .gitignore names {some(made.ignored)}: before you build in "
            "what source.tar holds, `git init` there and `git add --all --force`"
        )
    if not made.has_tool:
        say(
            "warning   this tool is not in it: name flask-containerize in tools.in, "
            "put its wheel into wheels/ if no index has it, and lock"
        )
