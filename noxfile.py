"""The project's proofs. Each session runs with the tools that `./dev` installed."""

import os
import sys

import nox

nox.needs_version = ">=2026.10"
nox.options.sessions = [
    *("lint", "types", "unit"),
    *("engine", "engines", "smoke", "service"),
]
# One hash-locked set of tools, in the environment that ./dev made, serves them all.
nox.options.default_venv_backend = "none"


@nox.session
def lint(session: nox.Session) -> None:
    """Check the Python files, the Dockerfile and the workflow."""
    session.run("ruff", "format", "--diff", ".")
    session.run("ruff", "check", ".")
    session.run("invoke", "lint")
    session.run("invoke", "lock", "--check")
    workflow = ".github/workflows/ci.yml"
    session.run("zizmor", "--offline", "--no-progress", "--quiet", workflow)
    session.run(
        "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow
    )


@nox.session
def types(session: nox.Session) -> None:
    """Check the types strictly."""
    session.run("mypy")


@nox.session
def unit(session: nox.Session) -> None:
    """Run the unit tests: no engine, no network beyond loopback."""
    session.run("pytest", "tests/unit", *session.posargs)


@nox.session
def engine(session: nox.Session) -> None:
    """Run the tests on real engines, installing and starting what is missing."""
    session.run("pytest", "tests/engine", *session.posargs)


@nox.session
def engines(session: nox.Session) -> None:
    """Build on engines of three Debian releases, which only root can start."""
    root = [] if os.geteuid() == 0 else ["sudo", "--preserve-env"]
    pytest = [sys.executable, "-Bm", "pytest", "-p", "no:cacheprovider"]
    session.run(*root, *pytest, "tests/engines", *session.posargs, external=True)


@nox.session
def smoke(session: nox.Session) -> None:
    """Test a live container over HTTP: a new one, or the one at SMOKE_URL."""
    session.run("pytest", "tests/smoke", *session.posargs)


@nox.session
def service(session: nox.Session) -> None:
    """Try to break live containers: stops, health, limits, proxies, logs."""
    session.run("pytest", "tests/service", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Print the figures, as ratios measured in one run."""
    session.run("python", "-m", "bench", *session.posargs)
