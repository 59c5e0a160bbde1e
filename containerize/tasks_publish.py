"""The verbs that give an image to others and keep it patched."""

from __future__ import annotations

import contextlib
import sys

from containerize.terminal import Meter, say
from containerize.verbs import Session, verb


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
