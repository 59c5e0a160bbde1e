"""Where images come from: an in-toto statement with SLSA's provenance, version 1.

https://slsa.dev/spec/v1.0/provenance. Nothing of it is signed. The same inputs and
commit give the same bytes: it has no time, and nothing of the machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from packageurl import PackageURL

from containerize import DISTRIBUTION
from containerize.errors import Problem
from containerize.lock import locks
from containerize.lock.base import Package
from containerize.lock.pins import Pin
from containerize.pack import selection, sources
from containerize.publish.subjects import Subject, locked
from containerize.settings import Settings

MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v1"
STATEMENT = "https://in-toto.io/Statement/v1"

BUILDER = f"pkg:pypi/{DISTRIBUTION}"
"""The tool, as a package URL: what builds the same elsewhere is the same builder."""
BUILD_TYPE = f"{BUILDER}#docs/evidence.md"
"""What the parameters mean; the page within the tool's repository."""

COMMITTED = "committed"
DIRTY = "changes that are not committed"
NO_REPOSITORY = "no repository that git reads"
STATES = (COMMITTED, DIRTY, NO_REPOSITORY)
"""What is known of the files: whether a commit has them."""

# As `record.inputs` names what is no file.
_SETTING, _FORMAT, _SERVICE = "setting ", "containerize format", "package served"
_ARCHITECTURE = "image-architecture"


@dataclasses.dataclass(frozen=True)
class Source:
    """What git says of the files of a build."""

    state: str
    """One of `STATES`."""
    commit: str = ""
    """The commit that has them, in hex; empty if none has."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a statement says of one architecture's image."""

    source: Source
    inputs: Mapping[str, str]
    """As `record.inputs` gives them."""


def source(settings: Settings, inputs: Iterable[str]) -> Source:
    """The commit that has the project's files, if one has them all as they are.

    `inputs` names what decides the image (`record.inputs`): a file that git ignores
    may be among it. A secret of the settings is not.
    """

    def git(*arguments: str) -> bytes | None:
        answer = sources.git(settings.root, *arguments)
        return answer.stdout if answer and not answer.returncode else None

    commit = git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    changed = sources.changed(settings.root)
    if changed is None:
        return Source(NO_REPOSITORY)
    held_back = selection.held_back(settings)
    changed = [path for path in changed if not held_back(path)]
    listed = git("ls-files", "-z", "--recurse-submodules") or b""
    known = set(os.fsdecode(listed).split("\0"))
    if changed or commit is None or not set(filter(_is_file, inputs)) <= known:
        return Source(DIRTY)
    return Source(COMMITTED, commit.decode("ascii").strip())


def _is_file(name: str) -> bool:
    return not name.startswith((_SETTING, _FORMAT, _SERVICE))


def make(subjects: Sequence[Subject], source: Source, index: str = "") -> bytes:
    """The statement on the images of all architectures, and on their index.

    `index` is its digest, empty if there is none. Raises Problem where a lock is not
    in step.
    """
    name = subjects[0].settings.image
    named = [(f"{name} ({one.architecture})", one.manifest) for one in subjects]
    named += [(name, index)] if index else []
    statement = {
        "_type": STATEMENT,
        "subject": [
            {"name": label, "digest": _digest(digest)} for label, digest in named
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _parameters(subjects),
                "internalParameters": {"source": source.state},
                "resolvedDependencies": [
                    *_commit(source),
                    *_files(subjects),
                    *_locked(subjects),
                ],
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": {"format": subjects[0].inputs[_FORMAT]},
                }
            },
        },
    }
    return json.dumps(statement, indent=2, sort_keys=True).encode() + b"\n"


def read(statement: bytes, manifest: str) -> Facts:
    """What a statement says of the image with that manifest's digest.

    Raises Problem where it is no statement of this tool's, or is on other images.
    """
    try:
        found = json.loads(statement)
        if (found["_type"], found["predicateType"]) != (STATEMENT, PREDICATE):
            raise ValueError
        built = found["predicate"]["buildDefinition"]
        if built["buildType"] != BUILD_TYPE:
            raise ValueError
        details = found["predicate"]["runDetails"]
        inputs = {_FORMAT: str(details["builder"]["version"]["format"])}
        named = {one["digest"]["sha256"]: one["name"] for one in found["subject"]}
        label = str(named.get(manifest.removeprefix("sha256:")))
        parameters = dict(built["externalParameters"])
        architectures = map(str, parameters.pop("architectures"))
        mine = [each for each in architectures if label.endswith(f" ({each})")]
        commit = ""
        for one in built["resolvedDependencies"]:
            if "gitCommit" in one["digest"]:
                commit = str(one["digest"]["gitCommit"])
            elif "uri" not in one:
                inputs[str(one["name"])] = _state(one)
        state = str(built["internalParameters"]["source"])
        if state not in STATES or not re.fullmatch(r"(?:[0-9a-f]{40,64})?", commit):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Problem("the provenance is none that this tool writes") from None
    if not mine:
        raise Problem(f"the provenance is not that of {manifest}")
    inputs[f"{_SETTING}{_ARCHITECTURE}"] = mine[0]
    for key, value in parameters.items():
        own = value.get(mine[0], "") if isinstance(value, dict) else value
        inputs[f"{_SETTING}{key}"] = str(own)
    return Facts(Source(state, commit), inputs)


def _digest(text: str) -> dict[str, str]:
    algorithm, _, digest = text.partition(":")
    return {algorithm: digest}


def _parameters(subjects: Sequence[Subject]) -> dict[str, Any]:
    """The settings that decide the images; by architecture where they differ."""
    found: dict[str, Any] = {"architectures": [one.architecture for one in subjects]}
    for key in subjects[0].inputs:
        name = key.removeprefix(_SETTING)
        if name in (key, _ARCHITECTURE):
            continue
        values = {one.architecture: one.inputs[key] for one in subjects}
        same = len(set(values.values())) == 1
        found[name] = subjects[0].inputs[key] if same else values
    return found


def _commit(source: Source) -> list[dict[str, Any]]:
    if not source.commit:
        return []
    return [{"name": "source", "digest": {"gitCommit": source.commit}}]


def _files(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """The files that decide the images, and the package that serves the app."""
    found: dict[str, str] = {}
    for one in subjects:
        found |= {
            name: state
            for name, state in one.inputs.items()
            if not name.startswith(_SETTING) and name != _FORMAT
        }
    return [_file(name, state) for name, state in sorted(found.items())]


def _file(name: str, state: str) -> dict[str, Any]:
    """A file as `record.inputs` states it; `_state` is the way back."""
    if state.startswith("sha256:"):
        digest, _, mode = state.partition(" ")
        notes: dict[str, Any] = {mode: True} if mode else {}
    else:  # a symbolic link
        digest = f"sha256:{hashlib.sha256(os.fsencode(state)).hexdigest()}"
        notes = {"state": state}
    found = {"name": name, "digest": _digest(digest)}
    return found | ({"annotations": notes} if notes else {})


def _state(described: Mapping[str, Any]) -> str:
    annotations = described.get("annotations", {})
    if "state" in annotations:
        return str(annotations["state"])
    executable = " executable" if annotations.get("executable") else ""
    return f"sha256:{described['digest']['sha256']}{executable}"


def _locked(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """The packages and wheels that the locks name, and the base image."""
    found: dict[str, dict[str, Any]] = {}
    for one in subjects:
        named = locked(one.settings)
        backend = locks.read_backend(one.settings)
        items: Iterable[Package | Pin] = (*named.packages, *named.pins, *backend)
        described = [each for item in items for each in _input(item)]
        if below := named.below:
            url, digest = str(below.url), {"sha256": below.sha256}
            described.append({"name": below.name, "uri": url, "digest": digest})
        found |= {f"{each['uri']} {each['digest']}": each for each in described}
    return [found[key] for key in sorted(found)]


def _input(item: Package | Pin) -> list[dict[str, Any]]:
    """A package, or a pin's wheels, of which a host may take one of several."""
    if isinstance(item, Package):
        fits = "all" if item.path.endswith("_all.deb") else item.architecture
        qualifiers = {"arch": fits}
        uri = PackageURL("deb", "debian", item.name, item.version, qualifiers)
        name, hashes = item.path.rpartition("/")[2], frozenset([item.sha256])
    else:
        uri = PackageURL("pypi", name=item.name, version=item.version)
        name, hashes = f"{item.name} {item.version}", item.hashes
    return [
        {"name": name, "uri": str(uri), "digest": {"sha256": digest}}
        for digest in sorted(hashes)
    ]
