"""The command `containerize`: Invoke's own program over the verbs of `tasks`."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import PackageNotFoundError, version

import invoke

from containerize import DISTRIBUTION


def main() -> None:
    """Run the verbs that the command line names, and end with an exit code."""
    from containerize.tasks import namespace
    from containerize.terminal import mute

    try:
        number = version(DISTRIBUTION)
    except PackageNotFoundError:  # a checkout that nobody installed
        number = "of this checkout"
    program = invoke.Program(version=number, namespace=namespace, name="containerize")
    try:
        try:
            program.run()
        finally:  # lists and help texts, which Invoke prints
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:
            raise
        mute()
        if isinstance(error, BrokenPipeError):  # whoever reads has had enough
            sys.exit(128 + signal.SIGPIPE)
        sys.exit(f"containerize: cannot write to stdout: {error.strerror}")


if __name__ == "__main__":
    main()
