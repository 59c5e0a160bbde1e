"""Compiles the modules of layers, inside an image: a step of the Dockerfile.

    python3 -s -S -P compile_modules.py TREE OUT [TREE OUT]...

TREE is an unpacked layer, which is data here: it lies where Python looks for nothing.
`/` is what the image's interpreter stands on: it is `IMAGE` if that is there whole,
since another processor's image is compiled by an interpreter of the engine's, of which
the same version makes the same bytes. OUT becomes a directory of what is compiled, with
the paths that Python looks for in the image.

Each directory has a process of its own, for a module's bytes may depend on what the
same process compiled before (cpython #129724): so they depend on their neighbours at
most, and on no number of CPUs. Each module holds the hash of its source, so that a
source which is mounted or copied over the image's is what runs.
"""

import contextlib
import os
import py_compile
import re
import site
import sys
from importlib.util import cache_from_source

IMAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "image")
"""Where the image's file system lies if it is another processor's: beside this file."""

OTHER_PYTHON = 3
"""The exit code if the image's Python is not of the version of the one that runs."""

PATHS = ("/usr/local/lib/served", "/srv")
"""Where an image has modules besides Python's own directories: its PYTHONPATH."""


def real(root: str, path: str) -> str:
    """Where an absolute path of the file system at `root` leads, as a path there."""
    todo, found = path.split("/")[::-1], "/"
    for _ in range(1000):  # links may lead in a circle
        if not todo:
            break
        part = todo.pop()
        inner = os.path.normpath(os.path.join(found, part))
        if os.path.islink(root + inner):
            target = os.readlink(root + inner)
            found = "/" if target.startswith("/") else found
            todo += target.split("/")[::-1]
        else:
            found = inner
    return found


def modules(tree: str, root: str = "") -> dict[str, str]:
    """The modules of a layer: by path in the image, where they lie.

    `root` is the image's file system; nothing if it is the one that this runs on.
    """
    found = {}
    for top in (*sys.path, *site.getsitepackages(), *PATHS):
        # Debian's site-packages has a second name, by which Python looks for it.
        lies = tree.rstrip("/") + real(root, top)
        for directory, inner, names in os.walk(lies):
            inner[:] = [name for name in inner if name != "__pycache__"]
            for name in names:
                file = path = os.path.join(directory, name)
                if root and tree == root:
                    file = root + real(root, path.removeprefix(root))
                if name.endswith(".py") and os.path.isfile(file):
                    found[top + path.removeprefix(lies)] = file
    return found


def check_version(root: str) -> None:
    """Exit with `OTHER_PYTHON` if the image's Python is of another version than this.

    An interpreter, or the library that it loads, has its version in it (PY_VERSION).
    """
    running = sys.version.split()[0]
    program = real(root, sys.executable)
    library = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
    lies = os.path.join(os.path.dirname(os.path.dirname(program)), "lib", library)
    found: set[str] = set()
    for file in (program, real(root, lies)):
        with contextlib.suppress(OSError), open(root + file, "rb") as binary:
            versions = re.findall(rb"(?<![\w.])(3\.\d+\.\d+\w*\+?)\0", binary.read())
            found |= {version.decode() for version in versions}
    if running not in found:
        named = " or ".join(sorted(found)) or "of no version that can be found"
        print(
            f"the image's Python is {named}, and the one that compiles is {running}",
            file=sys.stderr,
        )
        sys.exit(OTHER_PYTHON)


def compile_one(path: str, file: str) -> None:
    """Compile a module for its path in the image."""
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    # Templates and other Pythons' modules stay: whoever imports one is told.
    with contextlib.suppress(py_compile.PyCompileError):
        py_compile.compile(
            file, cache_from_source(path), path, doraise=True, invalidation_mode=mode
        )


def compile_all(found: dict[str, str]) -> None:
    """Compile modules, as many directories at once as there are CPUs.

    Exits with 1 if one cannot be read or its compiled form cannot be written.
    """
    running = failed = 0
    directories: dict[str, list[str]] = {}
    for path in sorted(found):
        directories.setdefault(os.path.dirname(path), []).append(path)
    for paths in directories.values():
        if running == os.cpu_count():
            failed |= os.wait()[1]
            running -= 1
        if not os.fork():
            try:
                for path in paths:
                    compile_one(path, found[path])
            except BaseException as error:  # this process must end here
                print(f"{path}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        running += 1
    for _ in range(running):
        failed |= os.wait()[1]
    if failed:
        sys.exit(1)


def date(out: str, time: float) -> None:
    """Give everything in a directory the packed layers' time."""
    for path, _, names in os.walk(out, topdown=False):
        for name in (*names, ""):
            os.utime(os.path.join(path, name), (time, time))


if __name__ == "__main__":
    os.umask(0o022)
    pycache = sys.pycache_prefix or "/"
    trees, outs = sys.argv[1::2], sys.argv[2::2]
    # One directory of it alone is there if it is what this runs on.
    image = IMAGE if os.path.isdir(IMAGE) and len(os.listdir(IMAGE)) > 1 else ""
    if image:
        check_version(image)
    for tree, out in zip(trees, outs, strict=True):
        sys.pycache_prefix = out + pycache
        os.makedirs(sys.pycache_prefix, exist_ok=True)
        compile_all(modules(image if tree == "/" and image else tree, image))
    [packed, *_] = os.scandir(trees[-1])
    for out in outs:
        date(out, packed.stat().st_mtime)
