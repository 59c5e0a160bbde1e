"""The project's proofs. Each session runs with the tools that stand beside nox."""

import os
import shutil
import sys
from pathlib import Path

import nox

# Forced, since NOX_DEFAULT_VENV_BACKEND goes before a default of ours.
nox.options.force_venv_backend = "none"
BESIDE = (sys.executable, "-m")
# The app's own tests may set what its environment has and this one has not.
ALONE = (f"--config-file={os.devnull}", "--rootdir=.", "--confcutdir=tests/smoke")
# Seconds, after Ctrl-C, in which tests remove what they have started.
PATIENCE = 60


@nox.session
def lint(session: nox.Session) -> None:
    """Check the Dockerfile, and that the locks are in step with their inputs."""
    session.run(*BESIDE, "containerize", "lint", external=True)
    session.run(*BESIDE, "containerize", "lock", "--check", external=True)


@nox.session
def smoke(session: nox.Session) -> None:
    """Test a live container over HTTP: a new one, or the one at SMOKE_URL."""
    command = (*BESIDE, "pytest", *ALONE, "tests/smoke", *session.posargs)
    session.run(*command, external=True, interrupt_timeout=PATIENCE)


# So that nox finds them without an activated .venv too.
os.environ["PATH"] = os.pathsep.join(
    [str(Path(sys.executable).parent), *os.get_exec_path()]
)
# A test that hangs fails after so many seconds, and shows where it was.
os.environ.setdefault("PYTEST_TIMEOUT", "1200")
AS_ROOT = (
    *(() if os.geteuid() == 0 else ("sudo", "--preserve-env")),
    *(sys.executable, "-Bm", "pytest", "-p", "no:cacheprovider"),
)


def _run(session: nox.Session, *command: str) -> None:
    """Run pytest in two processes: a conftest.py says which tests are whose."""
    side_by_side = ("--numprocesses=2", "--dist=loadscope")
    session.run(
        *(*command, *side_by_side, *session.posargs),
        external=True,
        interrupt_timeout=PATIENCE,
    )


@nox.session
def style(session: nox.Session) -> None:
    """Check the Python files and the workflows."""
    session.run("ruff", "format", "--diff", ".")
    session.run("ruff", "check", ".")
    workflows = sorted(map(str, Path(".github/workflows").glob("*.yml")))
    session.run("zizmor", "--offline", "--no-progress", "--quiet", *workflows)
    session.run(
        "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows
    )


@nox.session
def unit(session: nox.Session) -> None:
    """Run the tests that need no container."""
    _run(session, "pytest", "tests/unit")


@nox.session
def registry(session: nox.Session) -> None:
    """Push to a real registry, with its faults and those of the way there."""
    _run(session, "pytest", "tests/registry")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types strictly."""
    session.run("mypy")


@nox.session
def builds(session: nox.Session) -> None:
    """Build and run on this host's engines, installing and starting what is missing."""
    _run(session, "pytest", "tests/builds")


@nox.session
def matrix(session: nox.Session) -> None:
    """Build on engines of three Debian releases, which only root can start."""
    _run(session, *AS_ROOT, "tests/matrix")


@nox.session
def service(session: nox.Session) -> None:
    """Try to break live containers: stops, health, limits, proxies, logs."""
    _run(session, "pytest", "tests/service")


@nox.session
def adopters(session: nox.Session) -> None:
    """Adopt apps of many shapes with the installed wheel, from init to answering."""
    _run(session, "pytest", "tests/adopters")


@nox.session(default=False)
def scale(session: nox.Session) -> None:
    """Update and break a Swarm of three nodes under load, which only root can start."""
    # One process: there is one cluster, and what is told of it is shown.
    session.run(
        *(*AS_ROOT, "--capture=no", "tests/scale", *session.posargs),
        external=True,
        interrupt_timeout=PATIENCE,
    )


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Print the figures, as ratios measured in one run."""
    session.run("python", "-m", "bench", *session.posargs)


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """Build the tool's wheel into dist/, or a directory that is named."""
    target = Path(session.posargs[0] if session.posargs else "dist").resolve()
    # From a copy with plain modes and one time, so that the same files give one wheel.
    os.umask(0o022)
    copy = Path(session.create_tmp(), "copy")
    shutil.rmtree(copy, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("containerize", "served"):
        shutil.copytree(name, copy / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(name, copy)
    for path in copy.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    options = ("--quiet", "--no-build-isolation", "--no-deps", "--no-index")
    session.run(
        *(sys.executable, "-m", "pip", "wheel", *options),
        *(f"--wheel-dir={target}", str(copy)),
        env={"SOURCE_DATE_EPOCH": "1763856000"},
    )
