"""pip-compile for another Python and platform than the one it runs on.

pip-compile resolves for the interpreter that runs it
(https://github.com/jazzband/pip-tools/issues/585). This program, which `locks` runs
in a process of its own,

    python pipcompile.py TARGET [OPTION …]

hands the options to pip-compile after it has put the target, a JSON text, in the
interpreter's place. It reaches into pip and pip-tools for that, so the tool lock
pins both. What stands in the way is in the JSON file `report` afterwards:

    missing   projects that no wheel of theirs fits, or that are not there at all
    error     what else is wrong, one line
    unfit     projects of `target["preferred"]` that have no wheel of that version
"""

import contextlib
import functools
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pip._internal.exceptions import DistributionNotFound, PipError
from pip._internal.index import collector
from pip._internal.models.target_python import TargetPython
from pip._internal.resolution.resolvelib.factory import Factory
from pip._internal.utils.hashes import Hashes
from pip._internal.utils.misc import redact_auth_from_url
from pip._internal.utils.urls import path_to_url
from pip._vendor.packaging import markers
from pip._vendor.packaging.utils import canonicalize_name
from piptools.repositories.pypi import PyPIRepository
from piptools.scripts import compile as pip_compile


class Repository(PyPIRepository):
    """The index as the target sees it.

    `target` has `environment` (the values of PEP 508's markers), `platforms` (wheel
    tags, best first), `hashes` (of the wheels now locked, by project), `every_wheel`
    (whether a pin allows all wheels of its release), `wheels` (the project's own
    directory of wheels, if it has one) and `preferred` (a version by project).
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
        found_all = self._finder.find_all_candidates
        own = self.target["wheels"] and path_to_url(self.target["wheels"]) + "/"

        def find_all_candidates(name: str) -> Any:
            # A project in the own directory comes from there alone: an index may
            # have another of that name.
            found = found_all(name)
            mine = [c for c in found if own and c.link.url.startswith(own)]
            return mine or found

        setattr(self._finder, "find_all_candidates", find_all_candidates)  # noqa: B010
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


def _note_failures() -> dict[str, str]:
    """Why pages of the index are not to be had, by project, as it comes about.

    pip takes such pages for empty ones.
    """
    failures: dict[str, str] = {}
    handle = collector._handle_get_simple_fail

    def note(link: Any, reason: Any, meth: Any = None) -> None:
        response = getattr(reason, "response", None)
        if response is None:
            cause = (getattr(reason, "args", ()) or [reason])[0]
            # urllib3's MaxRetryError has what went wrong the last time.
            why = f"cannot be reached: {getattr(cause, 'reason', cause)}"
        else:
            url = redact_auth_from_url(link.url)
            why = f"answers {response.status_code} {response.reason} for {url}"
        if response is None or response.status_code not in (404, 410):
            project = canonicalize_name(link.path.rstrip("/").rpartition("/")[2])
            failures.setdefault(project, f"the package index {why}")
        handle(link, reason, meth)

    setattr(collector, "_handle_get_simple_fail", note)  # noqa: B010 (mypy)
    return failures


def main(target: str, *options: str) -> None:
    Repository.target = json.loads(target)
    environment = Repository.target["environment"]
    setattr(markers, "default_environment", environment.copy)  # noqa: B010 (mypy)
    setattr(pip_compile, "PyPIRepository", Repository)  # noqa: B010 (mypy)
    arguments = ["--only-binary", ":all:"]
    if Repository.target["wheels"]:
        arguments += ["--find-links", Repository.target["wheels"]]
    missing, error = _compile([*options, f"--pip-args={shlex.join(arguments)}"])
    report: dict[str, Any] = {"missing": [], "error": error, "unfit": []}
    if not error:
        report["missing"] = [_describe(ireq, arguments) for ireq in missing]
        report["unfit"] = _unfit(arguments)
    Path("report").write_text(json.dumps(report), "utf-8")


def _compile(options: list[str]) -> tuple[list[Any], str]:
    """Run pip-compile, without what is missing, so that all of it is found at once."""
    missing: dict[str, Any] = {}
    make = Factory._make_requirements_from_install_req

    def make_others(self: Any, ireq: Any, requested_extras: Any) -> Iterator[Any]:
        if canonicalize_name(ireq.name) not in missing:
            yield from make(self, ireq, requested_extras)

    setattr(Factory, "_make_requirements_from_install_req", make_others)  # noqa: B010
    failures = _note_failures()
    pins = Path("pins")
    while True:
        try:
            pip_compile.cli(options, standalone_mode=False)
            return list(missing.values()), ""
        except PipError as error:
            names = sorted(canonicalize_name(ireq.name) for ireq in _asked(error))
            if failed := [failures[name] for name in names if name in failures]:
                return [], failed[0]
            ireq = _missing(error)
            if ireq and canonicalize_name(ireq.name) not in missing:
                missing[canonicalize_name(ireq.name)] = ireq
            elif pins.read_text("utf-8"):  # what was pinned may stand in the way
                pins.write_text("", "utf-8")
            else:
                return [], _explain(error)


def _asked(error: PipError) -> dict[Any, Any]:
    """What the error is about: the requirements, with what caused them."""
    causes = getattr(error.__cause__, "causes", ())
    return {cause.requirement.get_candidate_lookup()[1]: cause for cause in causes}


def _missing(error: PipError) -> Any:
    """The one requirement that nothing meets, if the error is about one alone."""
    asked = _asked(error)
    if isinstance(error, DistributionNotFound) and len(asked) == 1:
        return next(iter(asked))
    return None


def _describe(ireq: Any, arguments: list[str]) -> dict[str, Any]:
    parent = getattr(ireq.comes_from, "name", None)
    candidates = Repository(arguments, "").find_all_candidates(ireq.name)
    fit = [candidate for candidate in candidates if not candidate.link.is_yanked]
    return {
        "asked": f"{ireq.req}, which {parent} needs," if parent else f"{ireq.req}",
        "exists": EverywhereRepository().has(ireq),
        "newest": str(max((c.version for c in fit), default="")),
        "yanked": bool(candidates) and not fit,
    }


def _unfit(arguments: list[str]) -> list[str]:
    pins = Path("pins").read_text("utf-8")
    repository = Repository(arguments, "")
    unfit = []
    for name, version in Repository.target["preferred"].items():
        pinned = re.search(rf"^{re.escape(name)}==(\S+)", pins, re.MULTILINE)
        if pinned and pinned[1] != version:
            found = {str(c.version) for c in repository.find_all_candidates(name)}
            if version not in found:
                unfit.append(name)
    return unfit


def _explain(error: PipError) -> str:
    asked = _asked(error)
    if not isinstance(error, DistributionNotFound) or not asked:
        return f"{error}"
    lines = set()
    for ireq, cause in asked.items():
        wanted = cause.requirement
        if cause.parent:
            lines.add(f"{cause.parent.name} {cause.parent.version} needs {wanted}")
        elif str(ireq.comes_from).startswith("-r served.in"):
            lines.add(f"what serves the app needs {wanted}")
        else:
            lines.add(f"{wanted} is asked for")
    return f"no release meets all of this: {', '.join(sorted(lines))}"


if __name__ == "__main__":
    main(*sys.argv[1:])
