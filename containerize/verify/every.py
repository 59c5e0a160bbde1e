"""The images of all processors that are wanted, built again, and the index of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from containerize.engines.engine import Engine
from containerize.image import index
from containerize.settings import Settings
from containerize.verify import rebuild
from containerize.verify.expected import Target
from containerize.verify.rebuild import Rebuild, Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    """Whether a checkout rebuilds a target, image by image and the index of them."""

    target: Target
    verdicts: tuple[Verdict, ...]
    index: str
    """The digest of the index of what was rebuilt; empty if there is one image."""

    @property
    def unlike(self) -> tuple[str, ...]:
        """What is not equal, the bytes of images aside, a line each."""
        lines = [line for verdict in self.verdicts for line in verdict.besides]
        lines = [*dict.fromkeys(lines), *self.target.unlike]
        alike = not lines and all(verdict.equal for verdict in self.verdicts)
        if alike and self.target.index not in ("", self.index):
            lines.append(
                f"its index is not {self.index or 'one of ours'}, and its images are "
                "equal: another program may have written it"
            )
        return tuple(lines)

    @property
    def equal(self) -> bool:
        if self.target.either:
            alike = any(verdict.equal for verdict in self.verdicts)
            return alike or self.target.index == self.index
        return not self.unlike and all(verdict.equal for verdict in self.verdicts)

    @property
    def words(self) -> str:
        """What is equal, of what, by which digest; or what is not."""
        name, first = self.target.name, self.verdicts[0]
        if first.expected == rebuild.FIRST:
            name = rebuild.FIRST
        if self.equal:
            found = self.verdicts[-1:] if self.target.either else self.verdicts
            parts = [
                f"linux/{one.architecture}, {one.by}" for one in found if one.equal
            ]
            if self.index and self.target.index == self.index:
                parts.append(f"index {self.index}")
            return f"Equal to {name}: {'; '.join(parts)}"
        others = [verdict for verdict in self.verdicts if not verdict.equal]
        if self.target.either:
            return f"no image of this checkout is {name}, and their index is not"
        if not others:
            return f"the image is that of {name}, which is not that alone: see above"
        if len(self.verdicts) == 1:
            said = f"the image is not that of {name}, {first.digest}"
            return f"the image is not {name}" if name == first.digest else said
        named = [f"linux/{one.architecture} is not {one.digest}" for one in others]
        return f"the images are not those of {name}: {'; '.join(named)}"


def verify(
    settings: Settings,
    engines: Sequence[Engine],
    target: Target,
    *,
    varied: bool = False,
    verbose: bool = False,
    on_rebuild: Callable[[Rebuild], None] = lambda _: None,
) -> Whole:
    """Rebuild each image of the target as `rebuild.verify` does, and compare all.

    With `varied`, as it does without anything to compare with: more than once, under
    other conditions. Raises Problem as `rebuild.verify` does.
    """
    verdicts, manifests = [], []
    for wanted in target.images:
        made: list[Rebuild] = []

        def tell(one: Rebuild, made: list[Rebuild] = made) -> None:
            if not made:  # its archive goes with the verdict
                manifests.append(index.describe(one.archive))
            made.append(one)
            on_rebuild(one)

        verdicts.append(
            rebuild.verify(
                settings.for_architecture(wanted.architecture),
                engines,
                against=None if varied else wanted,
                verbose=verbose,
                on_rebuild=tell,
                besides=target.besides,
            )
        )
        if target.either and verdicts[-1].equal:
            break
    whole = len(manifests) == len(target.images) > 1
    return Whole(
        target=target,
        verdicts=tuple(verdicts),
        index=index.digest(manifests) if whole else "",
    )
