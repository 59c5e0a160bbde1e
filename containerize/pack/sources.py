"""The files that an image is made of, read as git would store them.

In a checkout git says which files there are; contents are those of the working tree,
with the line ends that git would store. Without git, or outside a checkout, the same
.gitignore files are read here.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from containerize.errors import Problem
from containerize.pack.ignore import Rules

_LFS_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/.*\noid sha256:[0-9a-f]{64}\n.*",
    re.DOTALL,
)

LINK, SUBMODULE, EXECUTABLE = "120000", "160000", "100755"
"""Modes in git's index."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """A file or a symbolic link."""

    path: str
    """Below the repository's top; bytes that are not UTF-8 as surrogate escapes."""
    content: bytes = b""
    executable: bool = False
    target: str | None = None
    """What a link names; None for a file."""

    def write(self, top: Path, *, mask: int = 0o022) -> Path:
        """Write it below `top`, its mode without the bits of `mask`."""
        path = top / _decoded_for_system(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.target is not None:
            path.symlink_to(_decoded_for_system(self.target))
        else:
            path.write_bytes(self.content)
            path.chmod((0o777 if self.executable else 0o666) & ~mask)
        return path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What was read."""

    files: tuple[File, ...]
    """Sorted by path."""
    unfit: tuple[str, ...]
    """A line for each that git names and that is not there to be read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Name:
    """A path below the repository's top, and what git knows of it."""

    path: bytes
    kind: str = ""
    """Its mode in git's terms, where the file system cannot tell it."""
    tracked: bool = False
    line_ends: bool = False
    """Whether git would store CRLF as LF."""


def read(
    root: Path,
    takes: Callable[[bytes], bool] = lambda path: True,
    extra: Iterable[bytes] = (),
) -> Found:
    """The files and links of a repository that git would take, and the `extra` ones.

    `takes` is asked for each path below the top. Raises Problem where git refuses the
    repository, and where neither git nor the file system knows which files are
    executable.
    """
    unfit: dict[bytes, str] = {}
    names = _in_checkout(root, unfit)
    from_git = names is not None
    if names is None:
        names = list(_in_directory(root, []))
    known = {name.path: name for name in names}
    names = [*names, *(_Name(path=path) for path in extra if path not in known)]
    files: list[File] = []
    links: set[bytes] = set()
    for name in sorted(names, key=lambda name: name.path):
        path = name.path
        if not takes(path + b"/" if name.kind == SUBMODULE else path):
            continue
        if links.intersection(parents(path)):
            continue  # tracked, and now behind a link: git takes it for deleted
        if name.kind == SUBMODULE:
            unfit[path] = (
                f"{shown(path)} is a repository of its own (a submodule?): git lists "
                "none of its files here: copy them in without their .git, or install "
                "them as a wheel"
            )
            continue
        file = _file(root, name, unfit)
        if file and file.target is not None:
            links.add(path)
        if file:
            files.append(file)
    if not from_git:
        _check_modes(root, files)
    return Found(
        files=tuple(files),
        unfit=tuple(line for path, line in sorted(unfit.items()) if takes(path)),
    )


def ignored(root: Path) -> list[bytes]:
    """What the .gitignore files keep from git; whole directories end in a slash."""
    found: list[bytes] = []
    if _in_checkout(root, {}) is None:
        list(_in_directory(root, found))
        return found
    ours = ("-oi", "--exclude-per-directory=.gitignore", "--directory", "-z")
    listed = git(root, "ls-files", *ours)
    paths = listed.stdout.split(b"\0")[:-1] if listed else []
    # A directory that has nothing else is listed too, and is not ignored itself.
    inner = {parent for path in paths for parent in parents(path.rstrip(b"/"))}
    return [path for path in paths if path.rstrip(b"/") not in inner]


def git(
    root: Path,
    *arguments: str,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
) -> subprocess.CompletedProcess[bytes] | None:
    """What git answers in `root`, whatever GIT_* variables say; None without git."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        return subprocess.run(
            # What a hook of the user's says of changed files is not asked.
            ["git", "-c", "core.fsmonitor=false", "--literal-pathspecs", *arguments],
            cwd=root,
            env=environ | {"LC_ALL": "C"},
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
        )
    except OSError:
        return None


def changed(root: Path) -> list[bytes] | None:
    """The files below `root` that are not as git's commit has them, new ones too.

    None where git has no answer.
    """
    every = ("--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", ".")
    answer, top = git(root, "status", *every), git(root, "rev-parse", "--show-prefix")
    if answer is None or top is None or answer.returncode:
        return None
    prefix = top.stdout.removesuffix(b"\n")
    found = answer.stdout.split(b"\0")[:-1]
    return [item[3:].removeprefix(prefix) for item in found]


def _file(root: Path, name: _Name, unfit: dict[bytes, str]) -> File | None:
    path = os.path.join(os.fsencode(root), name.path)
    text, label = _text(name.path), shown(name.path)
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return File(path=text, target=_text(os.readlink(path)))
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as stream:
                content = stream.read()
        elif name.tracked:
            return None  # what was a file is a directory now
        else:
            unfit[name.path] = (
                f"{label} is no file, directory or link: move it elsewhere"
            )
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None  # deleted: the working tree is what counts
    except OSError as error:
        raise Problem(f"cannot read {label}: {error.strerror}") from None
    if name.kind == LINK:
        return File(path=text, target=_text(content))
    if len(content) < 1024 and _LFS_POINTER.fullmatch(content):
        unfit[name.path] = (
            f"{label} is a pointer of Git LFS: fetch the file (git lfs pull)"
        )
    if name.line_ends:
        content = content.replace(b"\r\n", b"\n")
    executable = bool(status.st_mode & stat.S_IXUSR)
    if name.kind:
        executable = name.kind == EXECUTABLE
    return File(path=text, content=content, executable=executable)


# --- With git --------------------------------------------------------------------


def _in_checkout(root: Path, unfit: dict[bytes, str]) -> list[_Name] | None:
    """The names as git has them; None where `root` is in no checkout of git's."""
    if not _repository(root):
        return None
    # Not --exclude-standard, which reads what the user's own account ignores.
    ours = ("ls-files", "-co", "--exclude-per-directory=.gitignore", "-z")
    listed = git(root, *ours, "-t", "-s", "--eol", "--", ".")
    if listed is None or _is_none(listed):
        return None
    if listed.returncode:
        raise _refused(listed, root)
    if not listed.stdout:
        return None  # a repository around this directory, which it ignores
    config = _config(root)
    names: dict[bytes, _Name] = {}
    for record in listed.stdout.split(b"\0")[:-1]:
        name = _listed(record, config, root, unfit)
        if name:
            names[name.path] = name
    return list(names.values())


def _is_none(answer: subprocess.CompletedProcess[bytes]) -> bool:
    """Whether git sees no repository; one that is broken is named with a colon."""
    return b"not a git repository (or any" in answer.stderr


def _refused(answer: subprocess.CompletedProcess[bytes], root: Path) -> Problem:
    said = answer.stderr.decode(errors="replace")
    if owned := re.search(r"(?:dubious|unsafe).*?'(.*)'", said):
        return Problem(
            f"{owned[1]} belongs to another user, so git does not read it: become that "
            f"user, or `git config --global --add safe.directory {owned[1]}`"
        )
    lines = [line for line in said.splitlines() if line] or ["no word why"]
    return Problem(f"git cannot read the checkout {root}: {lines[0]}: mend that first")


def _config(root: Path) -> dict[str, bool]:
    """git's settings of line ends, modes and links; all are true where not set."""
    answer = git(
        root, "config", "-z", "--get-regexp", r"^core\.(autocrlf|filemode|symlinks)$"
    )
    found = {"core.autocrlf": False, "core.filemode": True, "core.symlinks": True}
    for item in (answer.stdout if answer else b"").decode().split("\0")[:-1]:
        key, has_value, value = item.partition("\n")
        no = value.lower() in ("false", "no", "off", "0", "")
        found[key] = not (has_value and no)
    return found


def _listed(
    record: bytes, config: dict[str, bool], root: Path, unfit: dict[bytes, str]
) -> _Name | None:
    """One record of ls-files: `TAG [MODE ID STAGE<tab>]i/… w/… attr/…<tab>PATH`."""
    tag, rest = record[:1].decode(), record[2:]
    if tag == "?":
        mode, (ends, path) = "", rest.split(b"\t", 1)
    else:
        entry, ends, path = rest.split(b"\t", 2)
        mode = entry[:6].decode()
    if tag == "M":
        unfit[path] = (
            f"{shown(path)} has a merge conflict: resolve it, then `git add` it"
        )
        return None
    if tag == "S" and not os.path.lexists(os.path.join(os.fsencode(root), path)):
        unfit[path] = (
            f"{shown(path)} is not in this sparse checkout: "
            "`git sparse-checkout disable` brings it"
        )
        return None
    if path.endswith(b"/"):  # a repository that is not tracked
        return _Name(path=path[:-1], kind=SUBMODULE)
    kind = mode if mode == SUBMODULE else ""
    if mode == LINK and not config["core.symlinks"]:
        kind = LINK
    elif not config["core.filemode"] and mode != LINK:
        kind = mode or "100644"
    return _Name(
        path=path,
        kind=kind,
        tracked=bool(mode),
        line_ends=_normalized(ends.decode(), config["core.autocrlf"]),
    )


def _normalized(ends: str, autocrlf: bool) -> bool:
    """Whether git would store a file's CRLF as LF (gitattributes(5), "text").

    `ends` is what `ls-files --eol` says: line ends in the index and in the working
    tree, and the attributes.
    """
    index, tree, attributes = (part.split("/", 1)[1] for part in _columns(ends))
    if attributes.startswith("text") and not attributes.startswith("text=auto"):
        return True
    if attributes == "-text" or not (attributes or autocrlf):
        return False
    # What git decides by itself: no binary file, nor one that it has with CRLF.
    return tree != "-text" and index not in ("crlf", "mixed")


def _columns(ends: str) -> Sequence[str]:
    found = re.fullmatch(r"(i/\S*) +(w/\S*) +(attr/.*?) *", ends)
    if not found:
        raise Problem(f"git answers {ends!r} where line ends were asked: update git")
    return found.groups()


# --- Without git -----------------------------------------------------------------


def _in_directory(root: Path, ignored: list[bytes]) -> Iterator[_Name]:
    """The names without git; `ignored` gets what the .gitignore files name."""
    top = _repository(root) or root
    if git(root, "--version"):
        top = root  # git is there and does not take `root` for its own
    base = os.fsencode(top)
    rules = []
    path = os.path.relpath(os.fsencode(root), base)
    for parent in (b"", *reversed(parents(path))):
        rules += _rules(base, parent)
    inside = b"" if path == b"." else path
    skip = len(inside) + 1 if inside else 0
    named: list[bytes] = []
    for name in _walk(base, inside, rules, named):
        yield dataclasses.replace(name, path=name.path[skip:])
    ignored += [path[skip:] for path in named]


def _walk(
    base: bytes,
    directory: bytes,
    rules: Sequence[tuple[bytes, Rules]],
    ignored: list[bytes],
) -> Iterator[_Name]:
    if directory:
        rules = [*rules, *_rules(base, directory)]
    try:
        with os.scandir(os.path.join(base, directory)) as entries:
            children = list(entries)
    except OSError as error:
        raise Problem(f"cannot read {shown(directory)}: {error.strerror}") from None
    for child in children:
        path = os.path.join(directory, child.name)
        folder = child.is_dir(follow_symlinks=False)
        if child.name == b".git":
            continue
        if _ignored(path, folder, rules):
            ignored.append(path + b"/" if folder else path)
        elif not folder:
            yield _Name(path=path)
        elif _is_repository(child.path):
            yield _Name(path=path, kind=SUBMODULE)
        else:
            yield from _walk(base, path, rules, ignored)


def _ignored(
    path: bytes, folder: bool, rules: Sequence[tuple[bytes, Rules]]
) -> bool | None:
    for directory, patterns in reversed(rules):
        below = path[len(directory) + 1 :] if directory else path
        if (answer := patterns.ignores(below, folder)) is not None:
            return answer
    return None


def _rules(base: bytes, directory: bytes) -> list[tuple[bytes, Rules]]:
    file = os.path.join(base, directory, b".gitignore")
    if os.path.islink(file) or not os.path.isfile(file):
        return []  # git follows no link there
    try:
        with open(file, "rb") as stream:
            return [(directory, Rules(stream.read()))]
    except OSError as error:
        raise Problem(f"cannot read {shown(file)}: {error.strerror}") from None


def _check_modes(root: Path, files: Iterable[File]) -> None:
    """A Problem where the file system does not know which files are executable."""
    if len({file.executable for file in files if file.target is None}) > 1:
        return
    try:
        with tempfile.TemporaryFile(dir=root) as probe:
            kept = []
            for mode in (0o700, 0o600):
                os.fchmod(probe.fileno(), mode)
                kept.append(os.fstat(probe.fileno()).st_mode & 0o700)
    except OSError:
        return  # nothing may be written here
    if kept != [0o700, 0o600]:
        raise Problem(
            f"the file system of {root} keeps no modes, and there is no git to say "
            "which files are executable: use a clone, with git installed, or move it"
        )


# --- Both ------------------------------------------------------------------------


def _repository(root: Path) -> Path | None:
    """The nearest directory at or above `root` that has a .git."""
    for directory in (root, *root.parents):
        if os.path.lexists(directory / ".git"):
            return directory
    return None


def _is_repository(directory: bytes) -> bool:
    entry = os.path.join(directory, b".git")
    return os.path.isfile(entry) or os.path.isfile(os.path.join(entry, b"HEAD"))


def parents(path: bytes) -> list[bytes]:
    """The directories of a path, the nearest first."""
    return [path[:at] for at in range(len(path) - 1, 0, -1) if path[at] == ord("/")]


def _text(path: bytes) -> str:
    # Not os.fsdecode: the tar's names do not depend on the locale.
    return path.decode("utf-8", "surrogateescape")


def shown(path: bytes) -> str:
    """A name for people, whatever terminal they have."""
    text = _text(path)
    return text if text.isprintable() else repr(text)[1:-1]


def _decoded_for_system(path: str) -> str:
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))
