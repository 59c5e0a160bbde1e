"""What a person reads and answers: lines, commands, questions, progress."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def prepare_streams() -> None:
    """Make the standard streams take whatever is written, wherever they lead.

    A stream that the caller closed leads nowhere, so that no file that is opened later
    takes its number; what an encoding lacks is written as a backslash and digits.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def worded(text: str) -> str:
    """A text that names verbs, for the program that runs them: invoke or ours."""
    file = Path(sys.argv[0])
    program = file.parent.name if file.stem == "__main__" else file.stem
    if program != "containerize":
        return text
    return re.sub(r"(?<!dev )(?<![/\w-])invoke (?=[a-z]+)", f"{program} ", text)


def put(text: str, *, end: str = "\n") -> None:
    """Write to stdout at once. Raises Problem if it takes no more, as a full disk."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:  # whoever reads has had enough
        raise
    except OSError as error:
        from containerize.errors import Problem

        mute()  # else Python tries once more when it ends
        raise Problem(f"cannot write to stdout: {error.strerror}") from None


def mute() -> None:
    """Have stdout lead nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    put(worded(text))


def echo(command: Sequence[str]) -> None:
    """Show a command as a shell would take it."""
    put(f"$ {shlex.join(command)}")


def aside(text: str) -> None:
    """Say a line where stdout is another program's."""
    print(text, file=sys.stderr, flush=True)


def agreed(question: str) -> bool:
    """Ask on a terminal; without one, go ahead."""
    if not sys.stdin.isatty():
        return True
    try:
        return input(f"{question} [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def consented(question: str, remedy: str) -> None:
    """Ask on a terminal for what cannot be undone; Problem unless a yes is typed."""
    from containerize.errors import Problem

    if not sys.stdin.isatty():
        raise Problem(f"{question} No terminal is here to ask: {remedy}")
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise Problem("nothing is removed")


def amount(size: int) -> str:
    """Bytes in words."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


class Meter:
    """Download progress: a line that counts on a terminal, a line a file when piped."""

    def __init__(self) -> None:
        self.moving = sys.stdout.isatty()

    def start(self, name: str, total: int | None) -> None:
        self.name, self.total, self.size = name, total, 0
        if self.moving:
            put(name, end="")

    def advance(self, size: int) -> None:
        self.size += size
        if self.moving:
            of = f" of {amount(self.total)}" if self.total else ""
            put(f"\r{self.name}  {amount(self.size)}{of}\033[K", end="")

    def done(self) -> None:
        start = "\r\033[K" if self.moving else ""
        size = f"  {amount(self.size)}" if self.size else ""
        say(f"{start}{self.name}{size}")

    def note(self, text: str) -> None:
        say(f"\r\033[K{text}" if self.moving else text)
