"""Variables for containers: read from dotenv files and flags, passed without a trace.

A value never stands on a command line, which anyone on the machine can read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from containerize.errors import Problem
from containerize.settings import Settings

FILE = "VARIABLES"
"""Stands for the path of a file of variables in a command that is only shown."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

# What an engine's client, or what it starts, reads for itself: the container's value
# of such a variable must not be the client's. PATH and HOME always are there already.
_CLIENTS = re.compile(
    r"(DOCKER|BUILDKIT|CONTAINERS?|PODMAN|STORAGE|REGISTRY|LD|GO|SSL|SSH|XDG|DBUS)_.*"
    r"|.*_PROXY|TMPDIR|GO[A-Z]+|SOURCE_DATE_EPOCH|NOTIFY_SOCKET",
    re.IGNORECASE,
)
_LONGEST = 128 * 1024 - 1
"""Bytes of `NAME=value` that Linux passes to a program (MAX_ARG_STRLEN, execve(2))."""


def read(
    settings: Settings,
    flags: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The variables of the file `env-file`, and over them those of `--env` flags.

    A flag is NAME=VALUE, or NAME for the caller's own value. Raises Problem, without
    any value, if the file or a flag cannot be read or a container cannot have it.
    """
    found = read_file(settings.root / settings.env_file) if settings.env_file else {}
    for flag in flags:
        name, given, value = flag.partition("=")
        if not given:
            if name not in environ:
                raise Problem(
                    f"--env {_shown(name)}: there is no such variable here: set it, or "
                    "give NAME=VALUE"
                )
            value = environ[name]
        found[name] = value
        _check(name, value, "--env")
    return found


def read_file(path: Path) -> dict[str, str]:
    """The variables of a dotenv file, read as Flask reads `.env`.

    That is python-dotenv's syntax: quotes, `export`, comments, values of several
    lines, and `${NAME}` for a variable above it or of the caller. Raises Problem for
    a file or a line that cannot be read.
    """
    import dotenv
    import dotenv.parser

    path = Path(os.path.expanduser(path))
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise Problem(f"{path} is not UTF-8: save it as that") from None
    except FileNotFoundError:
        raise Problem(
            f"there is no file {path}: write it, or mend env-file (--env-file)"
        ) from None
    except OSError as error:
        raise Problem(f"{path} cannot be read: {error.strerror}") from None
    for binding in dotenv.parser.parse_stream(io.StringIO(text)):
        if binding.error or (binding.key and binding.value is None):
            raise Problem(
                f"{path}: line {binding.original.line} is not NAME=VALUE: mend it"
            )
    found = dotenv.dotenv_values(stream=io.StringIO(text))
    for name, value in found.items():
        _check(name, value or "", str(path))
    return {name: value or "" for name, value in found.items()}


def _shown(name: str) -> str:
    """A name to show, unless it may be more than a name."""
    return name if _NAME.fullmatch(name) else "(not a name)"


def _check(name: str, value: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise Problem(
            f"{where}: a variable's name must be letters, digits, '_', '.' and '-', "
            "the first a letter or '_'"
        )
    if "\0" in value:
        raise Problem(f"{where}: {name} has a NUL, which no variable can hold")
    if len(os.fsencode(f"{name}={value}")) > _LONGEST:
        raise Problem(
            f"{where}: {name} is longer than the 128 KiB that a variable can be: put "
            "it into a file of a volume"
        )


def options(variables: Mapping[str, str], file: str = FILE) -> list[str]:
    """The engine's options that pass the variables: their names alone.

    Their values are in the client's environment, but for those that it would heed
    itself, which are in `file`.
    """
    own = _clients_own(variables)
    in_file = [f"--env-file={file}"] if own else []
    return in_file + [f"--env={name}" for name in sorted(variables) if name not in own]


@contextlib.contextmanager
def handed(
    variables: Mapping[str, str],
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """`options`, and the environment that the client needs for them.

    Inside, the file is there, for its owner alone.
    """
    own = _clients_own(variables)
    rest = {name: value for name, value in variables.items() if name not in own}
    for name, value in own.items():
        if re.search(r"[\r\n]|^\s", value) or len(value) > 60_000:
            raise Problem(
                f"{name} is a variable that engines read themselves, and these can "
                "have one line only: give it another name or value"
            )
    with contextlib.ExitStack() as stack:
        file = FILE
        if own:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            path = Path(directory, "variables")
            path.touch(mode=0o600)
            path.write_text("".join(f"{k}={v}\n" for k, v in own.items()), "utf-8")
            file = str(path)
        yield options(variables, file), rest


def heeded(name: str) -> bool:
    """Whether a client always has a variable of that name, or reads it for itself."""
    return name in ("PATH", "HOME") or bool(_CLIENTS.fullmatch(name))


def _clients_own(variables: Mapping[str, str]) -> dict[str, str]:
    """Those that the client reads itself, with another value than it has already."""
    return {
        name: value
        for name, value in variables.items()
        if os.environ.get(name, None if _CLIENTS.fullmatch(name) else value) != value
    }


def mark(command: Sequence[str], variables: Mapping[str, str], salt: str = "") -> str:
    """A mark of a command and its variables, by which a change of either is seen.

    Salted, and made slowly if there are values, so that a mark that is shown to others
    does not tell a short one; with the salt of an earlier mark it is comparable to it.
    """
    salt = salt.partition(".")[0] or secrets.token_hex(16)
    text = json.dumps([list(command), sorted(variables.items())])
    made = hashlib.scrypt(
        text.encode(),
        salt=salt.encode(),
        n=2**14 if variables else 2,
        r=8,
        p=1,
        dklen=16,
    )
    return f"{salt}.{made.hex()}"
