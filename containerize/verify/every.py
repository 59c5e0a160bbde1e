"""The images of all processors built again, and the index that they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.image import index, record
from containerize.settings import Settings
from containerize.verify import rebuild
from containerize.verify.rebuild import Rebuild, Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    """Whether the image of each processor is the expected one, and the index of all."""

    verdicts: tuple[Verdict, ...]
    """In the order of the setting `architectures`."""
    index: str
    """The digest of the index of what was rebuilt; nothing if there is one image."""
    expected: str
    """The digest that it is to have; nothing if none is known."""

    @property
    def equal(self) -> bool:
        return self.expected in ("", self.index)


def verify(
    settings: Settings,
    engines: Sequence[Engine],
    *,
    against: str = "",
    verbose: bool = False,
    on_rebuild: Callable[[Rebuild], None] = lambda _: None,
) -> Whole:
    """Rebuild the image of each processor as `rebuild.verify` does, and compare all.

    `against` is a file like digests.json, and that one if it is not given. Raises
    Problem for any other thing, and as `rebuild.verify` does.
    """
    if against and not Path(against).is_file():
        raise Problem(
            f"{against} is no file like digests.json, which is what --all compares "
            "with: leave out --all, or name one"
        )
    golden = Path(against) if against else record.golden_path(settings)
    expected = record.read_golden_index(golden) if golden.exists() else ""
    verdicts, manifests = [], []
    for architecture in settings.image_architectures:
        made: list[Rebuild] = []

        def tell(one: Rebuild, made: list[Rebuild] = made) -> None:
            if not made:  # its archive goes with the verdict
                manifests.append(index.describe(one.archive))
            made.append(one)
            on_rebuild(one)

        verdicts.append(
            rebuild.verify(
                settings.for_architecture(architecture),
                engines,
                against=against,
                verbose=verbose,
                on_rebuild=tell,
            )
        )
        if not verdicts[-1].equal:
            break
    several = len(settings.image_architectures) > 1
    whole = len(manifests) == len(settings.image_architectures)
    return Whole(
        verdicts=tuple(verdicts),
        index=index.digest(manifests) if several and whole else "",
        expected=expected if several and whole else "",
    )
