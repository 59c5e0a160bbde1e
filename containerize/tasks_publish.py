"""The verbs that give an image to others, beside those of `tasks`."""

from __future__ import annotations

from collections.abc import Sequence

from containerize.terminal import Meter, megabytes, say
from containerize.verbs import ENGINE, Session, verb


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
