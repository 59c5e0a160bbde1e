"""What runs: the image of a container or a Swarm service, and what else decides it.

An image is not all of it. Files changed in the container, what is mounted over the
image's, another command and variables that lead Python elsewhere are told, too.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import posixpath
import re
import shlex
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from containerize import build
from containerize.engines.engine import Engine
from containerize.errors import Problem, some
from containerize.image import archive, canonical, layout
from containerize.image.archive import Entry, printable
from containerize.settings import Settings, check_volume
from containerize.verify.expected import (
    Built,
    Expected,
    Target,
    check_project,
    unfit,
)

MOVING = frozenset(
    {
        # Python, "Environment variables"
        *("PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONPLATLIBDIR"),
        *("PYTHONPYCACHEPREFIX", "PYTHONUSERBASE", "PYTHONWARNINGS"),
        *("PYTHONBREAKPOINT", "PYTHONSTARTUP", "PYTHONINSPECT"),
        # ld.so(8)
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"),
        # what is served, and what finds its programs
        *("FLASK_APP", "PATH"),
    }
)
"""Variables by which other code runs than the image's."""

PASSING = ("tmp", "var/tmp", "run")
"""Where programs keep what no other run of theirs needs (FHS 3.0)."""

_ALIVE = ("running", "paused", "restarting")
_LINKS = 40  # symbolic links that a path leads through, as Linux has it
_CODE = re.compile(rb"\.(py|pyc|pth|so)$|\.so\.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """What is set of a container, beside its image, that decides what runs."""

    words: tuple[str, ...]
    """The command, its entrypoint first."""
    directory: str
    environment: Mapping[str, str]
    mounts: Mapping[str, str]
    """What is mounted, by where."""


def find(settings: Settings, engines: Sequence[Engine], name: str) -> Target | None:
    """What the container of that name, or ID, runs; None without one.

    The first engine that has one is asked. Raises Problem where it does not run, and
    where its image is not one of this project.
    """
    for engine in engines:
        if found := inspect(engine, "container", name):
            return _container(settings, engine, name, found)
    return None


def inspect(engine: Engine, kind: str, name: str) -> dict[str, Any] | None:
    """What an engine says of a thing of its; None if there is none."""
    answer = engine.run(kind, "inspect", name, check=False, echo=False)
    if answer.returncode == 0:
        return dict(json.loads(answer.stdout)[0])
    # What manages no Swarm has no services.
    if re.search(
        r"no such|not known|not a swarm manager", answer.stderr, re.IGNORECASE
    ):
        return None
    raise engine.problem(("inspect",), answer.stderr)


# --- A container -----------------------------------------------------------------


def _container(
    settings: Settings, engine: Engine, name: str, found: dict[str, Any]
) -> Target:
    status = found["State"]["Status"]
    if status not in _ALIVE:
        raise Problem(
            f"container {name} does not run ({status}): start it, or name its image"
        )
    title = f"container {name}"
    expected, config = image(settings, engine, title, found)

    def besides(made: Path) -> list[str]:
        tree = read_tree(made)
        launch = launched(found)
        lines = differences(settings, launch, config, tree)
        return lines + changes(engine, found, launch, tree)

    return Target(name=title, images=(expected,), besides=besides)


def image(
    settings: Settings, engine: Engine, title: str, found: Mapping[str, Any]
) -> tuple[Expected, Mapping[str, Any]]:
    """The image of a container that was inspected, and what it says of its containers.

    Raises Problem where it is not one of this project's.
    """
    identity = "sha256:" + str(found["Image"]).removeprefix("sha256:")
    held = inspect(engine, "image", identity)
    if held is None:
        raise Problem(f"{title}: its image {identity} is gone from {engine.kind}")
    config = held["Config"] or {}
    check_project(settings, config.get("Labels") or {}, title)
    architecture = str(held["Architecture"])
    platform = f"{held['Os']}/{architecture}"
    if problem := unfit(settings, platform):
        raise Problem(f"{title}: {problem}")
    # A containerd store's ID may be that of an index; since Docker 28 it says more.
    manifest = (found.get("ImageManifestDescriptor") or {}).get("digest")

    def look(expected: Expected, built: Built) -> Expected:
        return saved(engine, identity, expected, built)

    expected = Expected(
        name=title,
        architecture=architecture,
        digest=manifest or identity,
        look=look,
    )
    return expected, config


def saved(engine: Engine, identity: str, expected: Expected, built: Built) -> Expected:
    """The image as its engine saves it, by its config's digest, and in canonical form.

    An image of this tool is its own canonical form. Where that is the rebuild's, but
    the image is not, it is compared as it is.
    """
    raw, target = built.scratch / "running.tar", built.scratch / "canonical.tar"
    engine.run(*build.save_command(engine.kind, identity, raw), echo=False)
    # A containerd store saves what it has of the index that an image was pulled by.
    several = layout.read_archive(raw)
    for entry in several.images if several else ():
        if entry.architecture == expected.architecture:
            raw = built.scratch / "one.tar"
            layout.take(built.scratch / "running.tar", entry.digest, raw)
    with archive.open_image(raw) as found, archive.open_image(built.archive) as ours:
        digest = found.config_digest
        time = _time(found.config) or _time(ours.config) or 0
    same = dataclasses.replace(expected, digest=digest, archive=raw)
    if digest == built.digests.config:
        return same
    made = canonical.canonicalize(raw, target, time=time, labels={}, references=())
    if made.config == built.digests.config:
        return same
    return dataclasses.replace(same, archive=target)


def _time(config: Mapping[str, Any]) -> int | None:
    """The time of all files of a canonical image; builders write fractions of it."""
    try:
        found = datetime.datetime.strptime(config["created"], "%Y-%m-%dT%H:%M:%S%z")
        return max(0, int(found.timestamp()))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def launched(found: Mapping[str, Any]) -> Launch:
    """How a container that was inspected was launched."""
    words = [found["Path"], *(found["Args"] or ())]
    config = found["Config"]
    mounts = {
        mount["Destination"]: str(mount.get("Name") or mount.get("Source") or "")
        for mount in found.get("Mounts") or ()
    }
    temporary = found["HostConfig"].get("Tmpfs") or {}
    return Launch(
        words=tuple(words),
        directory=config.get("WorkingDir") or "/",
        environment=variables(config.get("Env")),
        mounts={**dict.fromkeys(temporary, "tmpfs"), **mounts},
    )


def variables(pairs: Sequence[str] | None) -> dict[str, str]:
    """Variables by name, of `NAME=VALUE` each."""
    return dict(pair.partition("=")[::2] for pair in pairs or ())


# --- What else decides what runs -------------------------------------------------


def differences(
    settings: Settings,
    launch: Launch,
    config: Mapping[str, Any],
    tree: Mapping[bytes, Entry],
) -> list[str]:
    """What a launch sets otherwise than the image, that decides which code runs.

    `config` is what the image says, `tree` are its files. The settings' own commands
    and volumes are as they must be.
    """
    lines = []
    own = (*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ()))
    commands = [tuple(shlex.split(each)) for each in settings.commands.values()]
    if launch.words not in (own, *commands):
        lines.append(f"it runs `{_line(launch.words)}`, its image `{_line(own)}`")
    place = config.get("WorkingDir") or "/"
    if launch.directory != place:
        there = printable(launch.directory)
        lines.append(f"it runs in {there}, its image in {printable(place)}")
    image = variables(config.get("Env"))
    for name in sorted(MOVING):
        given, before = launch.environment.get(name), image.get(name)
        if given != before:
            lines.append(
                f"it has {_shown(name, given)}, its image {_shown('', before)}"
            )
    data = {check_volume(text)[1].rstrip("/") for text in settings.volumes}
    for place, source in sorted(launch.mounts.items()):
        lines += _mounted(place, source, data, tree)
    return lines


def _line(words: Sequence[str]) -> str:
    text = printable(shlex.join(words))
    return text if len(text) <= 120 else f"{text[:119]}…"


def _shown(name: str, value: str | None) -> str:
    if value is None:
        return f"no {name}" if name else "none"
    return f"{name}={printable(value)}" if name else printable(value) or "an empty one"


def _mounted(
    place: str, source: str, data: set[str], tree: Mapping[bytes, Entry]
) -> list[str]:
    """That a mount changes which code runs, if it does."""
    path = _resolved(place, tree)
    what = f"{printable(source)} is mounted at {printable(place)}"
    hidden = sorted(
        each
        for each, entry in tree.items()
        if _within(each, path) and entry.kind != tarfile.DIRTYPE
    )
    if hidden:
        more = f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
        return [f"{what}, over {archive.show(hidden[0])}{more} of its image"]
    parent = path.rpartition(b"/")[0]
    if parent in _modules(tree) and place.rstrip("/") not in data:
        return [
            f"{what}, among its image's modules: if it holds data alone, name it in "
            "the setting volumes"
        ]
    return []


def _within(path: bytes, top: bytes) -> bool:
    return not top or path == top or path.startswith(top + b"/")


def _modules(tree: Mapping[bytes, Entry]) -> set[bytes]:
    """The directories that modules are imported from."""
    found = {path.rpartition(b"/")[0] for path in tree if _CODE.search(path)}
    packages = (p for p in tree if p.endswith(b"/__init__.py"))
    return found | {
        path.rsplit(b"/", 2)[0] for path in packages if path.count(b"/") > 1
    }


def _resolved(place: str, tree: Mapping[bytes, Entry]) -> bytes:
    """The path in an image that a mount's place leads to."""
    left = posixpath.normpath(place).encode(errors="surrogateescape").split(b"/")
    path: list[bytes] = []
    links = 0
    while left:
        part = left.pop(0)
        if part in (b"", b"."):
            continue
        if part == b"..":
            del path[-1:]
            continue
        entry = tree.get(b"/".join([*path, part]))
        if entry and entry.kind == tarfile.SYMTYPE and links < _LINKS:
            links += 1
            if entry.link.startswith(b"/"):
                path = []
            left = [*entry.link.split(b"/"), *left]
        else:
            path.append(part)
    return b"/".join(path)


def read_tree(made: Path) -> dict[bytes, Entry]:
    """The files of the image in a canonical archive, by path."""
    found: dict[bytes, Entry] = {}
    with (
        archive.open_image(made) as image,
        tempfile.TemporaryDirectory(dir=made.parent) as scratch,
    ):
        for blob in image.layers:
            with blob.unpacked(Path(scratch), image.limit) as region:
                found |= {e.path: e for e in archive.read_tar(region, blob.name)}
    return found


def changes(
    engine: Engine,
    found: Mapping[str, Any],
    launch: Launch,
    tree: Mapping[bytes, Entry],
) -> list[str]:
    """That files are changed in a container itself, if they are.

    Where `launch` has something mounted, engines leave a place for it.
    """
    # Podman 4.3 shows an image's last layer here, and nothing can be written there.
    if found["HostConfig"].get("ReadonlyRootfs"):
        return []
    answer = engine.run("diff", found["Id"], echo=False)
    lines = [line.partition(" ") for line in answer.stdout.splitlines()]
    mounts = [_resolved(place, tree) for place in launch.mounts]
    paths = sorted(
        path
        for kind, _, text in lines
        if _counts(kind, path := _bytes(text), tree, mounts)
    )
    if not paths:
        return []
    names = some([archive.show(path) for path in paths])
    return [f"files are changed in the container, not in its image: {names}"]


def _bytes(path: str) -> bytes:
    return path.strip("/").encode(errors="surrogateescape")


def _counts(
    kind: str, path: bytes, tree: Mapping[bytes, Entry], mounts: Sequence[bytes]
) -> bool:
    """Whether a line of `diff` is no more than an engine's own doing."""
    if path in canonical.STUBS or any(_within(path, t.encode()) for t in PASSING):
        return False
    if any(_within(path, mount) for mount in mounts):
        return False
    if kind == "A":  # an engine makes the place of a mount
        return not any(_within(mount, path) for mount in mounts)
    # What has changed in a directory has a line of its own.
    entry = tree.get(path)
    return kind == "D" or not (entry and entry.kind == tarfile.DIRTYPE)
