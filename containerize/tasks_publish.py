"""The verbs that give an image to others, beside those of `tasks`."""

from __future__ import annotations

from pathlib import Path

from containerize.terminal import Meter, megabytes, say
from containerize.verbs import Session, verb


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
    say(f"holds     {len(made.items)} files, {megabytes(made.size)}")
    say(f"images    {', '.join(s.settings.image_architectures)}")
    say(f"tools     {', '.join(made.hosts) or 'none'}")
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
