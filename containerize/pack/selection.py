"""Which of a repository's files are the app: our rules, and `include` and `exclude`."""

from __future__ import annotations

import dataclasses
import functools
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from containerize import disk
from containerize.errors import Problem
from containerize.pack import LAYERS, sources
from containerize.pack.ignore import Rules
from containerize.pack.sources import File, parents, shown
from containerize.settings import ARCHITECTURES, Settings

# Left out in every directory: what no image needs, and what often is secret.
NEVER_PACKED = (
    ".*",
    "__pycache__/",
    "*.py[co]",
    "*~",
    "*.sw[op]",
    "*.env",
    "*.pem",
    "*.key",
    "*.p12",
    "id_rsa*",
    "id_ed25519*",
    "tests/",
)

# Left out at the repository's top: what people read there.
FOR_READERS = ("/README*", "/LICEN[CS]E*", "/COPYING*", "/CHANGE*", "/docs/")

# Left out at the repository's top: what this tool and others of its kind own.
FOR_TOOLS = (
    "/Dockerfile",
    "/containerize*",
    "/base.in",
    "/base.lock",
    "/*requirements*.in",
    "/*requirements*.lock",
    "/*requirements*.txt",
    "/tools.in",
    "/tools.txt",
    "/uv.lock",
    "/poetry.lock",
    "/noxfile.py",
    "/digests.json",
    "/pyproject.toml",
    "/setup.py",
    "/setup.cfg",
    "/MANIFEST.in",
    "/wheels/",
    "/build/",
    "/dist/",
    ".git*",
    ".dockerignore",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class App:
    """What there is to pack of a repository."""

    files: tuple[File, ...]
    """Sorted by path."""
    left_out: tuple[str, ...]
    """What git would take and our own rules leave out; directories end in a slash.

    What only tools read comes last."""
    notes: tuple[str, ...]
    """A line for each thing that is packed, or not, otherwise than one may think."""


def app(settings: Settings) -> App:
    """The app's files. Raises Problem if there are none or one cannot be packed."""
    choice = _Choice(settings)
    found = sources.read(settings.root, choice.takes, choice.extra())
    unfit = [*found.unfit, *_unfit(found.files)]
    if unfit:
        more = f" (and {len(unfit) - 1} more like it)" if unfit[1:] else ""
        raise Problem(unfit[0] + more)
    if not found.files:
        raise Problem(
            f"{settings.root} has nothing to pack: put the app there, or see the "
            "settings include and exclude"
        )
    return App(
        files=found.files,
        left_out=choice.left_out(),
        notes=(*choice.notes(), *_links(found.files), *_modules(found.files)),
    )


def ignored(settings: Settings) -> tuple[str, ...]:
    """What is not packed only because .gitignore names it; directories with a slash.

    Not what our rules would leave out anyway, nor what tools make.
    """
    choice = _Choice(settings)
    never = Rules(_lines((*NEVER_PACKED, "node_modules/", "*.egg-info/", "/env/")))
    return tuple(
        shown(path)
        for path in sorted(sources.ignored(settings.root))
        if not _left_out(never, path.rstrip(b"/"), path.endswith(b"/"))
        and not choice.excluded(path)
        and not choice.secret(path)
        and not choice.included(path)
        and not _left_out(choice.rules, path.rstrip(b"/"), path.endswith(b"/"))
        and not _environment(settings.root, path)
    )


def outputs(settings: Settings) -> list[Path]:
    """The files in the build and dist directories that this tool makes."""
    build, architectures = settings.build_top, sorted({*ARCHITECTURES.values()})
    names = [f"{name}.{kind}" for name in LAYERS for kind in ("tar", "json")]
    names += ["compile_modules.py", "backend.json", "context", "compiler"]
    images = [settings.image, *(f"{settings.image}-{a}" for a in architectures)]
    return [
        *(build / name for name in (*names, disk.TURN)),
        *(build / each / name for each in architectures for name in names),
        *(
            settings.dist_dir / f"{name}.{kind}"
            for name in images
            for kind in ("tar", "json", "layers", "cdx.json")
        ),
        settings.dist_dir / f"{settings.image}.push.json",
        settings.dist_dir / f"{settings.image}.provenance.json",
        settings.dist_dir / f"{settings.image}-bundle.tar",
    ]


@functools.cache
def _never() -> Rules:
    return Rules(_lines(NEVER_PACKED))


def is_secret(path: bytes) -> bool:
    """Whether a path is one that no image needs, and that often is secret."""
    return bool(_left_out(_never(), path))


def held_back(settings: Settings) -> Callable[[bytes], bool]:
    """Tells of a path whether it leads to what only containers get, never an image.

    That is `env_file` and `secrets`, by whatever name or link a file can be had; of a
    directory, which none of them should name, all that is in it.
    """
    named = [settings.env_file, *settings.secrets.values()]
    paths = [os.path.expanduser(name) for name in named if name]
    found = {_identity(path, settings.root) for path in paths} - {None}
    if not found:
        return lambda path: False
    inside = any(os.path.isdir(settings.root / path) for path in paths)

    def held(path: bytes) -> bool:
        every = (path, *parents(path)) if inside else (path,)
        return any(_identity(each, settings.root) in found for each in every)

    return held


def packs(settings: Settings, file: Path) -> bool:
    """Whether an image of these settings has a file, by whatever name or link."""
    choice = _Choice(settings)
    same = held_back(dataclasses.replace(settings, env_file=str(file)))

    def takes(path: bytes) -> bool:
        return same(path) and choice.takes(path)

    extra = filter(same, choice.extra())
    return bool(sources.read(settings.root, takes, list(extra)).files)


def _identity(path: str | bytes, root: Path) -> tuple[int, int] | None:
    """What tells a file from all others; None if there is none."""
    try:
        state = os.stat(os.path.join(os.fsencode(root), os.fsencode(path)))
    except (OSError, ValueError):
        return None
    return state.st_dev, state.st_ino


class _Choice:
    """The rules of one project, and what they have left out so far."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.root
        self._include = settings.include
        own = [
            settings.dockerfile,
            settings.requirements,
            settings.requirements_lock_name,
        ]
        tools = [*FOR_TOOLS, *(f"/{_escaped(name)}" for name in own)]
        self.secret = held_back(settings)
        if _is_ours(settings.root / "tasks.py"):
            tools.append("/tasks.py")
        self._tools = Rules(_lines(tools))
        self.rules = Rules(_lines((*NEVER_PACKED, *FOR_READERS, *tools)))
        self._never = _never()
        self._exclude = Rules(_lines(settings.exclude))
        # A pattern that ends in stars says nothing of a file that looks secret.
        no_name = [re.fullmatch(r"(.*/)?[*?]+", item) for item in self._include]
        pairs = list(zip(self._include, no_name, strict=True))
        negated = [item for item in self._include if item.startswith("!")]
        named = [item for item, sweeps in pairs if not sweeps]
        self._named = Rules(_lines(named))
        self._swept = Rules(_lines([i for i, sweeps in pairs if sweeps] + negated))
        self._outputs = {
            os.fsencode(path.relative_to(settings.root)) for path in outputs(settings)
        }
        self._left: set[bytes] = set()
        self._extra: list[bytes] = []

    def takes(self, path: bytes) -> bool:
        """Whether a file is packed; if our rules leave it out, that is kept."""
        if self.excluded(path):
            return False
        bare, directory = path.rstrip(b"/"), path.endswith(b"/")
        left = bare if self.secret(bare) else self._included(bare, directory)
        if left is None:
            left = _left_out(self.rules, bare, directory)
        if left:
            self._left.add(left)
        return not left

    def excluded(self, path: bytes) -> bool:
        """Whether the user, or what we have made ourselves, rules out a path."""
        whole = (path.rstrip(b"/"), *parents(path.rstrip(b"/")))
        if self._outputs.intersection(whole):
            return True
        return bool(_left_out(self._exclude, whole[0], path.endswith(b"/")))

    def included(self, path: bytes) -> bool:
        """Whether `include` names a path; a directory ends in a slash."""
        return self._included(path.rstrip(b"/"), path.endswith(b"/")) == b""

    def _included(self, path: bytes, directory: bool = False) -> bytes | None:
        """What is left out of what `include` names, or nothing; None: no word of it."""
        if (answer := self._named.ignores(path, directory)) is not None:
            return b"" if answer else None
        for parent in parents(path):
            for rules in (self._named, self._swept):
                if (answer := rules.ignores(parent, True)) is not None:
                    inner = path[len(parent) + 1 :]
                    left = _left_out(self._never, inner)
                    return (
                        parent + b"/" + left
                        if left and answer
                        else (b"" if answer else None)
                    )
        if self._swept.ignores(path, directory):
            head, slash, name = path.rpartition(b"/")
            left = _left_out(self._never, name, directory)
            return head + slash + left if left else b""
        return None

    def extra(self) -> list[bytes]:
        """The files that `include` names, whether or not git would take them."""
        if self._include and not self._extra:
            self._extra = [p for p in self._walk(b"") if self.included(p)]
        return self._extra

    def _walk(self, directory: bytes) -> Iterator[bytes]:
        try:
            with os.scandir(os.path.join(os.fsencode(self._root), directory)) as found:
                children = list(found)
        except OSError:
            return  # what the user cannot read, git could not either
        for child in children:
            path = os.path.join(directory, child.name)
            if not child.is_dir(follow_symlinks=False):
                yield path
            elif child.name != b".git" and self._enters(path):
                yield from self._walk(path)

    def _enters(self, path: bytes) -> bool:
        """Whether to look for included files in a directory.

        Not in what installers fill, whose files a plain `*.mo` would name too, unless
        a pattern begins there.
        """
        text = path.decode("utf-8", "surrogateescape") + "/"
        if any(item.lstrip("/").startswith(text) for item in self._include):
            return True
        if any(self._named.ignores(p, True) for p in (path, *parents(path))):
            return True
        name = posixpath.basename(path)
        return (
            not self._never.ignores(path, True)
            and name != b"node_modules"
            and not _environment(self._root, path)
        )

    def left_out(self) -> tuple[str, ...]:
        ours = [(bool(_left_out(self._tools, p.rstrip(b"/"), p.endswith(b"/"))), p)
                for p in self._left]  # fmt: skip
        return tuple(shown(path) for _, path in sorted(ours))

    def notes(self) -> Iterator[str]:
        """A line for each pattern of `include` that names nothing."""
        for item in self._include:
            rules = Rules(item.encode("utf-8", "surrogateescape"))
            if not item.startswith("!") and not any(
                _left_out(rules, path) for path in self.extra()
            ):
                yield f"include: nothing is named by {item!r}"


def _unfit(files: Iterable[File]) -> Iterator[str]:
    for file in files:
        name = posixpath.basename(file.path)
        if name.startswith(".wh."):  # OCI image specification, layers, "Whiteouts"
            yield f"{_printable(file.path)}: .wh. deletes files in an image: rename it"
        if file.target is None or file.target.startswith("/"):
            continue
        if _points(file).split("/")[0] == "..":
            yield (
                f"{_printable(file.path)} is a link out of the repository, to "
                f"{_printable(file.target)}: put a copy there"
            )


def _links(files: tuple[File, ...]) -> Iterator[str]:
    """A line for each link to what the image does not have."""
    there = {parent for file in files for parent in (file.path, *_above(file.path))}
    for file in files:
        if file.target is None:
            continue
        points = _points(file)
        away = points.startswith("/") and not points.startswith("/srv/")
        missing = points.removeprefix("/srv/") not in {*there, "."}
        if missing and not any(above in _link_paths(files) for above in _above(points)):
            yield (
                f"{_printable(file.path)} is a link to {_printable(file.target)}, "
                f"{'which only the image can have' if away else 'which is not packed'}"
            )


def _link_paths(files: Iterable[File]) -> set[str]:
    return {file.path for file in files if file.target is not None}


def _points(file: File) -> str:
    """The path that a link names, from the top, or absolute."""
    return posixpath.normpath(
        posixpath.join(posixpath.dirname(file.path), file.target or "")
    )


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _modules(files: Iterable[File]) -> Iterator[str]:
    size = sum(len(f.content) for f in files if "node_modules" in f.path.split("/"))
    if size:
        yield (
            f"node_modules is packed, {size / 1e6:.1f} MB: name it in .gitignore or in "
            "the setting exclude if only the build of assets needs it"
        )


def _left_out(rules: Rules, path: bytes, directory: bool = False) -> bytes:
    """What of `path` the rules name, a directory with a slash; empty if nothing."""
    for parent in reversed(parents(path)):
        if rules.ignores(parent, True):
            return parent + b"/"
    if not rules.ignores(path, directory):
        return b""
    return path + b"/" if directory else path


def _environment(root: Path, path: bytes) -> bool:
    """Whether a directory is a virtual environment."""
    return os.path.exists(os.path.join(os.fsencode(root), path, b"pyvenv.cfg"))


def _is_ours(file: Path) -> bool:
    """Whether a tasks.py is this tool's; a queue of the app's has that name too."""
    try:
        return b"containerize" in file.read_bytes()
    except OSError:
        return False


def _lines(patterns: Iterable[str]) -> bytes:
    return "\n".join(patterns).encode("utf-8", "surrogateescape")


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[\\])", r"\\\1", name)


def _printable(text: str) -> str:
    return shown(text.encode("utf-8", "surrogateescape"))
