"""The command `containerize`: Invoke's own program over the verbs of `tasks`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import invoke

from containerize import DISTRIBUTION


def main() -> None:
    """Run the verbs that the command line names."""
    from containerize.tasks import namespace

    try:
        number = version(DISTRIBUTION)
    except PackageNotFoundError:  # a checkout that nobody installed
        number = "of this checkout"
    invoke.Program(version=number, namespace=namespace, name="containerize").run()


if __name__ == "__main__":
    main()
