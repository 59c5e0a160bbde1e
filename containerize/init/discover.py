"""Where a repository's Flask app is and what asks for its requirements.

Nothing of the repository is imported: Python files are parsed, others read. The order
is that of Flask's own loader (flask.cli, `ScriptInfo.load_app`, `find_best_app`).
"""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import tokenize
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from containerize.errors import Problem
from containerize.lock.pins import strings, subtable

# Directories and modules that hold no app, or not the one that is deployed.
_NOT_DIRECTORIES = frozenset(
    [
        "bench",
        "benchmarks",
        "build",
        "dist",
        "docs",
        "doc",
        "env",
        "example",
        "examples",
        "migrations",
        "node_modules",
        "site-packages",
        "scripts",
        "static",
        "templates",
        "test",
        "testing",
        "tests",
        "tools",
        "venv",
    ]
)
_NOT_MODULES = frozenset(
    ["conftest", "noxfile", "setup", "tasks", "fabfile", "gunicorn_conf"]
)
# A module's names that are worth a look within a package, in this order.
_LIKELY = ("wsgi", "app", "application", "main", "factory", "server", "web", "api")
# Classes of other packages that are Flask's, by names that do not tell.
_LIKE_FLASK = ("OpenAPI", "Eve")
NO_APP = "no Flask app was found: name it as FLASK_APP does, with the setting app"
_MOST_FILES = 400
_MOST_BYTES = 1 << 20
_OURS = re.compile(r"^# Made by `", re.M)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What was found in a repository; all paths are relative to its top."""

    app: str
    """As FLASK_APP says it; empty if there is none."""
    said_by: str
    """What decided for `app`: a file, or a variable and where it is set."""
    requirements: str
    """The file that asks for the app's requirements; empty if there is none."""
    requirements_lock: str
    """Where the lock goes: requirements.lock if requirements.txt is the user's."""
    image: str
    """A valid name for the image."""
    locked: tuple[str, ...]
    """Files that hold versions already."""
    undecided: tuple[str, ...]
    """A line for each thing that could not be decided, with the setting that does."""


@dataclasses.dataclass(frozen=True)
class _Bound:
    """What a name of a module stands for."""

    kind: str  # app, factory, needs (a factory with required arguments)
    origin: tuple[str, str]  # the file and name that it was first made under


@dataclasses.dataclass(frozen=True)
class _Candidate:
    value: str  # empty if it cannot be called as it is
    origin: tuple[str, str]
    file: Path
    note: str = ""  # what is undecided if this one is taken


def discover(root: Path, environ: Mapping[str, str] | None = None) -> Found:
    """Find the app and its requirements below `root`.

    What the settings say already holds. Then a FLASK_APP of the shell goes first, then
    one in .env and .flaskenv, as in Flask.
    Raises Problem if pyproject.toml cannot be read.
    """
    environ = os.environ if environ is None else environ
    root = root.resolve()
    table = read_table(root / "pyproject.toml")
    ours = subtable(table, "tool", "containerize")
    undecided: list[str] = []
    code = _Code(root, _places(root, table))
    if app := "".join(strings(ours.get("app"))):
        said_by = "the setting app"
    else:
        app, said_by = _find_app(root, table, code, environ, undecided)
        undecided += code.broken
    if requirements := "".join(strings(ours.get("requirements"))):
        lock = "".join(strings(ours.get("requirements-lock")))
    else:
        requirements, lock = _requirements(root, table, app, undecided)
    locked = [name for name in ("uv.lock", "poetry.lock") if (root / name).is_file()]
    text = _read(root / "requirements.txt")
    if re.search(r"^[A-Za-z0-9][^#\n]*==", text, re.M):
        locked.append("requirements.txt")
    return Found(
        app=app,
        said_by=said_by,
        requirements=requirements,
        requirements_lock=lock,
        image="".join(strings(ours.get("image")))
        or image_name(str(table.get("project", {}).get("name") or root.name)),
        locked=tuple(locked),
        undecided=tuple(undecided),
    )


def read_table(file: Path) -> dict[str, Any]:
    """The tables of a TOML file, none if it is missing; Problem if it is broken."""
    try:
        table = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Problem(f"{file.name} cannot be read: {reason}: mend it first") from None
    for path in ("project", "tool"):
        if not isinstance(table.get(path, {}), dict):
            raise Problem(f"{file.name}: {path} is no table: mend it first")
    return table


def image_name(name: str) -> str:
    """`name` as an image reference allows it (OCI distribution spec, "Pull")."""
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    # Engines take no container's name of one letter.
    return found if found[1:] else "-".join(filter(None, [found, "app"]))


# --- The app


def _find_app(
    root: Path,
    table: dict[str, Any],
    code: _Code,
    environ: Mapping[str, str],
    undecided: list[str],
) -> tuple[str, str]:
    if said := environ.get("FLASK_APP"):
        return _as_module(root, table, said), "FLASK_APP of this shell"
    for name in (".env", ".flaskenv"):
        if said := _dotenv(root / name, "FLASK_APP"):
            return _as_module(root, table, said), f"FLASK_APP in {name}"
    for name in ("wsgi", "app"):  # Flask looks for these without being told
        file = _module(root, [name])
        if file:
            for candidate in _candidates(root, table, code, file):
                if candidate.value:
                    undecided += filter(None, [candidate.note])
                    return candidate.value, str(file.relative_to(root))
    found: dict[tuple[str, str], _Candidate] = {}
    incomplete: dict[str, None] = {}
    for file in _modules(root, code):
        for candidate in _candidates(root, table, code, file):
            if candidate.value:
                found.setdefault(candidate.origin, candidate)
            else:
                incomplete[candidate.note] = None
    if not found:
        undecided += incomplete or [NO_APP]
        return "", ""
    ours = [c for c in found.values() if project_holds(root, table, c.value)]
    first = (ours or list(found.values()))[0]
    undecided += filter(None, [first.note])
    if len(ours or found) > 1:
        names = ", ".join(candidate.value for candidate in found.values())
        undecided.append(
            f"several apps were found ({names}): {first.value} is taken, "
            "the setting app decides"
        )
    return first.value, str(first.file.relative_to(root))


def _candidates(
    root: Path, table: dict[str, Any], code: _Code, file: Path
) -> Iterator[_Candidate]:
    """The app of a module, if it has one, as `find_best_app` of Flask chooses it.

    A factory that needs arguments comes before it, with no value.
    """
    names = code.names(file)
    module = _value(root, table, file)
    apps = [name for name, bound in names.items() if bound.kind == "app"]
    for name in ("app", "application"):
        if name in apps:
            yield _Candidate(module, names[name].origin, file)
            return
    if len(apps) > 1:
        note = (
            f"{module} has several apps ({', '.join(apps)}): {module}:{apps[0]} is "
            "taken, the setting app decides"
        )
        origin = names[apps[0]].origin
        yield _Candidate(f"{module}:{apps[0]}", origin, file, note)
        return
    if apps:
        yield _Candidate(module, names[apps[0]].origin, file)
        return
    factories = [name for name in ("create_app", "make_app") if name in names]
    # Flask looks for these two only; another factory must be named.
    others = [n for n, b in names.items() if b.kind == "factory" and n not in factories]
    for name in (*factories, *others[:1]):
        bound = names[name]
        if bound.kind == "needs":
            note = (
                f"{module}:{name} needs arguments: give them in the setting app, "
                f"like \"{module}:{name}('…')\""
            )
            yield _Candidate("", bound.origin, file, note)
            continue
        plain = factories and name == factories[0]
        value = module if plain else f"{module}:{name}"
        yield _Candidate(value, bound.origin, file)
        return


def _modules(root: Path, code: _Code) -> Iterator[Path]:
    """Files that may hold the app, most likely first, each once."""
    count = 0
    for place in code.places:
        tops = _listed(place)
        packages = [d for d in tops if d.is_dir() and (d / "__init__.py").is_file()]
        files = [f for f in tops if f.suffix == ".py" and f.is_file()]
        spaces = [d for d in tops if d.is_dir() and d not in (*packages, root / "src")]
        inner = [
            directory / f"{name}.py"
            for directory in (*packages, *spaces)
            for name in _LIKELY
        ]
        for directory in spaces:  # a namespace package, or the app's own directory
            below = [d for d in _listed(directory) if (d / "__init__.py").is_file()]
            inner += [d / "__init__.py" for d in below]
        for file in (*(d / "__init__.py" for d in packages), *files, *inner):
            if count < _MOST_FILES and file.is_file():
                count += 1
                yield file


def _listed(directory: Path) -> list[Path]:
    """What a directory holds, sorted, without what is no app's."""
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return []
    return [
        entry
        for entry in entries
        if not entry.name.startswith((".", "test_"))
        and entry.name not in _NOT_DIRECTORIES
        and entry.stem not in _NOT_MODULES
        and not (entry / "pyvenv.cfg").exists()
        and not (entry.is_symlink() and entry.is_dir())
    ]


def _value(root: Path, table: dict[str, Any], file: Path) -> str:
    """A file as FLASK_APP names it: the module's name if Python finds it so.

    Only the repository's top and the places of an installed [project] are on the
    image's path; Flask itself puts the directory of `src/shop` there.
    """
    path = file.parent if file.name == "__init__.py" else file.with_suffix("")
    top = path.parent
    while (top / "__init__.py").is_file() and top != root:
        top = top.parent
    module = ".".join(path.relative_to(top).parts)
    if top == root or project_holds(root, table, module):
        return module
    # A namespace package imports its neighbours by a dot, which needs the full name.
    if "from ." in _read(file) and file.name != "__init__.py" and top == path.parent:
        return ".".join(path.relative_to(root).parts)
    return path.relative_to(root).as_posix()


def _as_module(root: Path, table: dict[str, Any], said: str) -> str:
    """A FLASK_APP that names a file, as a module: `hello.py` is `hello`."""
    path, *name = re.split(r":(?![\\/])", said.strip(), maxsplit=1)
    file = root / path
    if file.is_dir():
        file /= "__init__.py"
    elif not file.suffix:
        file = file.with_suffix(".py")
    if file.is_file() and file.resolve().is_relative_to(root):
        path = _value(root, table, file.resolve())
    return ":".join((path, *name))


class _Code:
    """The modules of a repository, each parsed once, none imported."""

    def __init__(self, root: Path, places: tuple[Path, ...]) -> None:
        self.root = root
        self.places = places
        self.broken: list[str] = []
        self._known: dict[Path, dict[str, _Bound]] = {}

    def file(self, module: str) -> Path | None:
        """The file of a module that is named in full; a package goes first."""
        parts = module.split(".")
        return next((f for place in self.places if (f := _module(place, parts))), None)

    def names(self, file: Path) -> dict[str, _Bound]:
        """What the names of a module stand for; the others are left out."""
        if file not in self._known:
            self._known[file] = {}  # for modules that import each other
            names: dict[str, _Bound] = {}
            flasks = {"Flask"}
            for node in _statements(self._tree(file).body):
                self._bind(file, node, names, flasks)
            self._known[file] = names
        return self._known[file]

    def _tree(self, file: Path) -> ast.Module:
        try:
            if file.stat().st_size > _MOST_BYTES:
                return ast.Module([], [])
            with tokenize.open(file) as source, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(source.read())
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or type(error).__name__
            name = file.relative_to(self.root)
            self.broken.append(f"{name} cannot be read as Python: {reason}")
            return ast.Module([], [])

    def _bind(
        self, file: Path, node: ast.stmt, names: dict[str, _Bound], flasks: set[str]
    ) -> None:
        here = str(file)
        if isinstance(node, ast.ImportFrom):
            self._import(file, node, names, flasks)
        elif isinstance(node, ast.ClassDef):
            if any(_last(base) in flasks for base in node.bases):
                flasks.add(node.name)
        elif isinstance(node, ast.FunctionDef):
            if _makes_app(node, flasks, names):
                kind = "needs" if _required(node.args) else "factory"
                names[node.name] = _Bound(kind, (here, node.name))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            said = isinstance(node, ast.AnnAssign) and _last(node.annotation) == "Flask"
            for target in targets:
                if isinstance(target, ast.Name):
                    names.pop(target.id, None)
                    bound = self._value(node.value, names, flasks, (here, target.id))
                    if bound is None and said and node.value is not None:
                        bound = _Bound("app", (here, target.id))
                    if bound is not None:
                        names[target.id] = bound

    def _value(
        self,
        value: ast.expr | None,
        names: dict[str, _Bound],
        flasks: set[str],
        origin: tuple[str, str],
    ) -> _Bound | None:
        if isinstance(value, ast.Name):
            return names.get(value.id)
        if isinstance(value, ast.Call):
            called = _last(value.func)
            if called in flasks:
                return _Bound("app", origin)
            made = names.get(called)
            if made is not None and made.kind != "app":
                return _Bound("app", made.origin)
            if called in ("create_app", "make_app"):
                return _Bound("app", origin)
            # A class of Flask's kind from elsewhere, such as APIFlask(__name__).
            named = bool(value.args) and ast.unparse(value.args[0]) == "__name__"
            if named and (called.endswith("Flask") or called in _LIKE_FLASK):
                return _Bound("app", origin)
        return None

    def _import(
        self,
        file: Path,
        node: ast.ImportFrom,
        names: dict[str, _Bound],
        flasks: set[str],
    ) -> None:
        if node.module == "flask" and not node.level:
            flasks |= {a.asname or a.name for a in node.names if a.name == "Flask"}
            return
        parts = node.module.split(".") if node.module else []
        if node.level:
            above = file.parents[node.level - 1]
            source = _module(above, parts) if above.is_relative_to(self.root) else None
        else:
            source = self.file(node.module or "")
            beside = _module(file.parent, parts)
            source = source or beside
        if source is None or source == file:
            return
        known = self.names(source)
        for alias in node.names:
            if alias.name == "*":
                names |= {n: b for n, b in known.items() if not n.startswith("_")}
            elif alias.name in known:
                names[alias.asname or alias.name] = known[alias.name]


def _module(place: Path, parts: list[str]) -> Path | None:
    path = place.joinpath(*parts)
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    file = path.with_name(f"{path.name}.py") if parts else path
    return file if parts and file.is_file() else None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, `if` and `try` opened."""
    for node in body:
        if isinstance(node, ast.If):
            test = ast.unparse(node.test)
            if "TYPE_CHECKING" not in test and "__main__" not in test:
                yield from _statements(node.body)
            yield from _statements(node.orelse)
        elif isinstance(node, ast.Try | ast.With):
            yield from _statements(node.body)
            for handler in getattr(node, "handlers", ()):
                yield from _statements(handler.body)
            yield from _statements(getattr(node, "orelse", []))
            yield from _statements(getattr(node, "finalbody", []))
        else:
            yield node


def _makes_app(
    node: ast.FunctionDef, flasks: set[str], names: dict[str, _Bound]
) -> bool:
    if node.name in ("create_app", "make_app"):
        return True
    if node.returns is not None:
        return _last(node.returns) == "Flask"
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
    returns = any(isinstance(n, ast.Return) and n.value for n in ast.walk(node))
    return returns and any(_last(call.func) in flasks for call in calls)


def _required(args: ast.arguments) -> bool:
    plain = len(args.posonlyargs) + len(args.args)
    return plain > len(args.defaults) or None in args.kw_defaults


def _last(node: ast.expr) -> str:
    """`Flask` of `flask.Flask`, of `Flask` and of the annotation `"Flask"`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.rpartition(".")[2]
    return node.id if isinstance(node, ast.Name) else ""


# --- [project]


def project_holds(root: Path, table: dict[str, Any], app: str) -> bool:
    """Whether the packages of [project] hold the module of `app`."""
    if "project" not in table:
        return False
    return app.partition(":")[0].partition(".")[0] in _packages(root, table)


def _is_package(table: dict[str, Any]) -> bool:
    """Whether [project] is to be installed, and no mere list of requirements."""
    if subtable(table, "tool", "uv").get("package") is False:
        return False
    if subtable(table, "tool", "poetry").get("package-mode") is False:
        return False
    return "build-system" in table or "setuptools" in table.get("tool", {})


def _packages(root: Path, table: dict[str, Any]) -> set[str]:
    """The top packages and modules that the build backend would install."""
    tool = table.get("tool", {})
    setuptools = subtable(tool, "setuptools")
    named = [
        *strings(setuptools.get("packages")),
        *strings(setuptools.get("py-modules")),
    ]
    named += [n for n in subtable(setuptools, "package-dir") if n]
    wheel = subtable(tool, "hatch", "build", "targets", "wheel")
    for key in ("packages", "only-include"):
        named += [Path(path).name for path in strings(wheel.get(key))]
    named += strings([subtable(tool, "flit", "module").get("name")])
    named += strings([subtable(tool, "pdm", "build").get("name")])
    listed = subtable(tool, "poetry").get("packages")
    for package in listed if isinstance(listed, list) else []:
        named += strings([subtable({"p": package}, "p").get("include")])
    if named:
        return {name.partition(".")[0].partition("/")[0] for name in named}
    name = str(table["project"].get("name", ""))
    own = re.sub(r"[-_.]+", "_", name).lower()
    found = {own}
    found |= {entry.stem for entry in _listed(root / "src")}
    backend = str(subtable(table, "build-system").get("build-backend", "setuptools"))
    tops = [d for d in _listed(root) if (d / "__init__.py").is_file()]
    # setuptools finds the one package of a flat layout ("Automatic discovery").
    if backend.startswith("setuptools") and not (root / "src").is_dir():
        found |= {d.name for d in tops} if len(tops) == 1 else set()
        files = [f for f in _listed(root) if f.suffix == ".py"]
        found |= {f.stem for f in files} if len(files) == 1 and not tops else set()
        where = strings(subtable(setuptools, "packages", "find").get("include"))
        found |= {n.rstrip("*").partition(".")[0] for n in where}
    return found


def _places(root: Path, table: dict[str, Any]) -> tuple[Path, ...]:
    """Directories whose modules are imported by their own name."""
    setuptools = subtable(table, "tool", "setuptools")
    dirs = subtable(setuptools, "package-dir").values()
    where = subtable(setuptools, "packages", "find").get("where")
    named = ["src", *strings(list(dirs)), *strings(where)]
    places = (root, *(root / name for name in named))
    inside = [p for p in places if p.is_dir() and p.resolve().is_relative_to(root)]
    return tuple(dict.fromkeys(inside))


# --- The requirements


def _requirements(
    root: Path, table: dict[str, Any], app: str, undecided: list[str]
) -> tuple[str, str]:
    """The file that asks for the requirements, and the lock made of it."""
    text = _read(root / "requirements.txt")
    theirs = (root / "requirements.txt").exists() and not _OURS.search(text)
    if (root / "requirements.in").is_file():
        return "requirements.in", "requirements.lock" if theirs else "requirements.txt"
    if app and project_holds(root, table, app):
        project = table["project"]
        if "dependencies" not in strings(project.get("dynamic")):
            lock = "requirements.lock" if theirs else "requirements.txt"
            return "pyproject.toml", lock
        dynamic = subtable(table, "tool", "setuptools", "dynamic", "dependencies")
        files = strings(dynamic.get("file"))
        if len(files) == 1 and (root / files[0]).is_file():
            return files[0], "requirements.lock"
        if "poetry" not in table.get("tool", {}):
            undecided.append(
                "[project] takes its dependencies from elsewhere (dynamic): name one "
                "file that lists them in the setting requirements"
            )
            return "", "requirements.txt"
    if (root / "requirements.txt").is_file():
        return "requirements.txt", "requirements.lock"
    if subtable(table, "project").get("dependencies") and not _is_package(table):
        return "pyproject.toml", "requirements.txt"
    ways = {
        "[tool.poetry.dependencies]": bool(
            subtable(table, "tool", "poetry", "dependencies")
        ),
        **{
            name: (root / name).is_file()
            for name in ("Pipfile", "environment.yml", "setup.cfg", "setup.py")
        },
    }
    there = next((name for name, is_there in ways.items() if is_there), "")
    if there:
        undecided.append(
            f"{there} is not read: list the app's requirements in requirements.in, "
            "or name another file in the setting requirements"
        )
    else:
        undecided.append(
            "no requirements were found: list them in requirements.in, flask for one, "
            "or name their file in the setting requirements"
        )
    return "", "requirements.txt"


def _dotenv(file: Path, name: str) -> str:
    """The value of one variable of a dotenv file; empty if it is not set there."""
    pattern = (
        rf"^\s*(?:export\s+)?{name}\s*=\s*(?:'([^'\n]*)'|\"([^\"\n]*)\"|([^#\n]*))"
    )
    found = re.findall(pattern, _read(file), re.M)
    return "".join(found[-1]).strip() if found else ""


def _read(file: Path) -> str:
    try:
        return file.read_bytes()[:_MOST_BYTES].decode("utf-8-sig", "replace")
    except OSError:
        return ""
