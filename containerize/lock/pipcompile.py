"""pip-compile for another Python and platform than the one it runs on.

pip-compile resolves for the interpreter that runs it
(https://github.com/jazzband/pip-tools/issues/585). This program, which `locks` runs
in a process of its own,

    python pipcompile.py TARGET [OPTION …]

hands the options to pip-compile after it has put the target, a JSON text, in the
interpreter's place. It reaches into pip and pip-tools for that, so the tool lock
pins both. It exits with one line where a requirement cannot be met.
"""

import contextlib
import functools
import json
import sys
from collections.abc import Iterator
from typing import Any

from pip._internal.exceptions import DistributionNotFound, PipError
from pip._internal.models.target_python import TargetPython
from pip._internal.utils.hashes import Hashes
from pip._vendor.packaging import markers
from piptools.repositories.pypi import PyPIRepository
from piptools.scripts import compile as pip_compile


class Repository(PyPIRepository):
    """The index as the target sees it.

    `target` has `environment` (the values of PEP 508's markers), `platforms` (wheel
    tags, best first), `hashes` (of the wheels now locked, by project), `every_wheel`
    (whether a pin allows all wheels of its release) and `name` for messages.
    """

    target: dict[str, Any]

    def __init__(self, pip_args: list[str], cache_dir: str) -> None:
        super().__init__(pip_args, cache_dir)
        version = self.target["environment"]["python_full_version"]
        python = TargetPython(
            self.target["platforms"],
            tuple(map(int, version.split("."))),
            implementation="cp",
        )
        self._finder = self.command._build_package_finder(
            options=self.options, session=self.session, target_python=python
        )
        make_resolver = functools.partial(
            self.command.make_resolver, py_version_info=python.py_version_info
        )
        setattr(self.command, "make_resolver", make_resolver)  # noqa: B010 (mypy)

    @contextlib.contextmanager
    def allow_all_wheels(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self.target["every_wheel"]:
                stack.enter_context(super().allow_all_wheels())
            yield

    def _get_req_hashes(self, ireq: Any) -> set[str]:
        candidates = list(self._get_matching_candidates(ireq))
        if not self.target["every_wheel"]:
            # Exactly the wheel to install, so that nothing the index serves later
            # takes its place.
            known = Hashes({"sha256": self.target["hashes"].get(ireq.name, [])})
            evaluator = self.finder.make_candidate_evaluator(ireq.name, hashes=known)
            best = evaluator.compute_best_candidate(candidates).best_candidate
            candidates = [best] if best else []
        return {
            f"sha256:{candidate.link.hash}"
            if candidate.link.hash_name == "sha256"
            else self._get_file_hash(candidate.link)
            for candidate in candidates
        }


class EverywhereRepository(PyPIRepository):
    """The index as all platforms and Pythons together see it, source releases too."""

    def __init__(self) -> None:
        super().__init__([], "")
        self._finder = self.command._build_package_finder(
            options=self.options, session=self.session, ignore_requires_python=True
        )

    def has(self, ireq: Any) -> bool:
        with self.allow_all_wheels():
            versions = [c.version for c in self.find_all_candidates(ireq.name)]
        return any(ireq.specifier.filter(versions))


def main(target: str, *options: str) -> None:
    Repository.target = json.loads(target)
    environment = Repository.target["environment"]
    setattr(markers, "default_environment", environment.copy)  # noqa: B010 (mypy)
    setattr(pip_compile, "PyPIRepository", Repository)  # noqa: B010 (mypy)
    try:
        pip_compile.cli(list(options), standalone_mode=False)
    except PipError as error:
        sys.exit(_explain(error))


def _explain(error: PipError) -> str:
    causes = getattr(error.__cause__, "causes", ())
    missing = {cause.requirement.get_candidate_lookup()[1] for cause in causes}
    if not isinstance(error, DistributionNotFound) or not missing:
        return f"{error}"
    if len(missing) > 1:
        asked = {
            f"{cause.parent.name} {cause.parent.version} needs {cause.requirement}"
            if cause.parent
            else f"{cause.requirement} is asked for"
            for cause in causes
        }
        return f"no release meets all of this: {', '.join(sorted(asked))}"
    [ireq] = missing
    parent = getattr(ireq.comes_from, "name", None)
    wanted = f"{ireq.req}, which {parent} needs," if parent else f"{ireq.req}"
    if EverywhereRepository().has(ireq):
        return f"{wanted} has no wheel for {Repository.target['name']}"
    return f"{wanted} is not on the package index"


if __name__ == "__main__":
    main(*sys.argv[1:])
