"""`python -m bench [NAME …]`: print figures, those of the goals if none is named."""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import signal
import sys
from pathlib import Path

from bench import copy
from bench.measure import HEADER, attempt, table
from containerize.errors import Problem
from containerize.fetch import inputs
from containerize.settings import find_root, load
from tests.conftest import Quiet

NAMES = ("loop", "verify", "push", "bundle", "cold", "image", "evidence", "service")
MORE = ("sizing", "scale")
"""What is printed only if it is named."""


def main() -> None:
    # Jobs in the background of a shell are made to ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    names = sys.argv[1:] or NAMES
    for name in names:
        if name not in (*NAMES, *MORE):
            known = ", ".join((*NAMES, *MORE))
            sys.exit(f"bench: there is no {name}: name some of {known}")
    machine()
    rows, failed = [], False
    for name in names:
        module = importlib.import_module(f"bench.{name}")
        for row in attempt(name, module.main):
            rows.append(row)
            print("bench:", *filter(None, row.cells()), sep="  ", file=sys.stderr)
            failed |= row.failed
    table("Goals, and what was measured", HEADER, [row.cells() for row in rows])
    print("\nThe time of `.ci/run` is what nox says at the end of each session.")
    sys.exit(1 if failed else 0)


def machine() -> None:
    """Say what measures: the processor, the engines, the load."""
    try:
        inputs.fetch(load(find_root(Path(__file__).parent)), progress=Quiet())
        found = copy.builders()
    except Problem as problem:
        sys.exit(f"bench: {problem}")
    day = datetime.datetime.now(datetime.UTC).date()
    load_now, cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    print(f"{day}, {platform.machine()}, {cpus} CPUs, load {load_now:.1f} before")
    for builder in found:
        about = builder.engine.describe()
        print(f"{builder.name}: {about.kind} {about.server}, {about.store}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("bench: ended before its end; what it made is removed")
