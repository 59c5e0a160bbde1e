"""`python -m bench.profile BEGAN FILE VERB …`: run a verb and see where its time goes.

A thread looks at the main thread's stack every few milliseconds, so that no product
code has timers. Time goes to the engine's command that is waited for, or else to the
innermost module of the tool on the stack.
"""

from __future__ import annotations

import collections
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from bench.measure import table

EVERY = 0.002
"""Seconds between two looks."""
TOOL = "containerize"
COMMANDS = {"run", "call", "stream", "pipe"}
"""The methods of Engine that wait for a command, which they have as `arguments`."""


def where(frame: FrameType | None) -> str:
    """What a stack is at: an engine's command, or a module of the tool."""
    innermost = ""
    while frame:
        if "importlib" in frame.f_code.co_filename:
            innermost = innermost or "imports"
        path = Path(frame.f_code.co_filename)
        if TOOL in path.parts:
            inner = "/".join(path.parts[path.parts.index(TOOL) + 1 :])
            if path.name == "engine.py" and frame.f_code.co_name in COMMANDS:
                using, arguments = (
                    frame.f_locals.get(n) for n in ("self", "arguments")
                )
                if using and arguments:
                    return f"{using.kind} {' '.join(arguments[: _words(arguments)])}"
            innermost = innermost or inner
        frame = frame.f_back
    return innermost or "other packages"


def _words(arguments: tuple[str, ...]) -> int:
    return 2 if arguments[0] in ("image", "container", "volume", "network") else 1


@contextlib.contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Seconds by where this thread is, which are complete on leaving."""
    found: dict[str, float] = collections.defaultdict(float)
    thread, ended = threading.get_ident(), threading.Event()

    def watch() -> None:
        last = time.perf_counter()
        while not ended.wait(EVERY):
            at = where(sys._current_frames().get(thread))
            now = time.perf_counter()
            found[at] += now - last
            last = now

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


def show(title: str, found: Mapping[str, float]) -> None:
    """Print the steps of a profile, what takes longest first."""
    whole = sum(found.values())
    rows = [
        (name, f"{spent:.2f}", f"{spent / whole:.0%}")
        for name, spent in sorted(found.items(), key=lambda item: -item[1])
        if spent >= whole / 100
    ]
    table(f"Where {whole:.2f} s of {title} go", ("step", "s", "of all"), rows)


def main() -> None:
    began, file, *verb = sys.argv[1:]
    start = time.time() - float(began)
    try:
        with watched() as found:
            from containerize.__main__ import main as run

            sys.argv = [TOOL, *verb]
            run()
    finally:
        Path(file).write_text(json.dumps({"Python's start": start, **found}))


if __name__ == "__main__":
    main()
