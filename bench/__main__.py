"""`python -m bench [NAME …]`: print the figures, all of them where none is named."""

import importlib
import pkgutil
import sys

import bench

NAMES = [
    module.name
    for module in pkgutil.iter_modules(bench.__path__)
    if module.name not in ("__main__", "measure")
]


def main() -> None:
    names = sys.argv[1:] or NAMES
    for name in names:
        if name not in NAMES:
            sys.exit(f"bench: there is no {name}: name some of {', '.join(NAMES)}")
    for name in names:
        importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
