"""What of the caller's environment reaches the tools that are run, decided here.

What is a user's to set passes: where the engine, the index and the proxies are, what
to trust, where files go. What would change the image or break a call does not. `dev`
runs this file as a program to install the tools, so it needs nothing but Python:

    python environ.py PYTHON ARGUMENT …

is `PYTHON -m pip ARGUMENT …` under the settings of `pip`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ENGINE = frozenset(
    {
        # https://docs.docker.com/reference/cli/docker/, "Environment variables"
        "DOCKER_API_VERSION",
        "DOCKER_CERT_PATH",
        "DOCKER_CONFIG",
        "DOCKER_CONTEXT",
        "DOCKER_HOST",
        "DOCKER_TLS",
        "DOCKER_TLS_VERIFY",
        "DOCKER_AUTH_CONFIG",
        "DOCKER_BUILDKIT",
        # https://docs.docker.com/reference/cli/dockerd/, "Environment variables"
        "DOCKER_TMPDIR",
        # https://docs.docker.com/build/building/variables/
        "BUILDKIT_COLORS",
        "BUILDKIT_PROGRESS",
        "BUILDKIT_TTY_LOG_LINES",
        "BUILDX_BUILDER",
        "BUILDX_CONFIG",
        # podman(1), containers.conf(5), buildah-build(1); the isolation is a fact of
        # the host: inside of a container only `chroot` may work.
        "BUILDAH_ISOLATION",
        "CONTAINERS_CONF",
        "CONTAINERS_CONF_OVERRIDE",
        "CONTAINERS_HELPER_BINARY_DIR",
        "CONTAINERS_REGISTRIES_CONF",
        "CONTAINERS_STORAGE_CONF",
        "CONTAINER_CONNECTION",
        "CONTAINER_HOST",
        "CONTAINER_SSHKEY",
        "CONTAINER_TLS_CA",
        "CONTAINER_TLS_CERT",
        "CONTAINER_TLS_KEY",
        "PODMAN_CONNECTIONS_CONF",
    }
)
"""What passes to an engine of the names that engines read."""

PIP = frozenset(
    {
        # `pip help install`: "Package Index Options" and "General Options"
        "index-url",
        "pypi-url",
        "extra-index-url",
        "no-index",
        "find-links",
        "proxy",
        "no-proxy-env",
        "cert",
        "client-cert",
        "trusted-host",
        "keyring-provider",
        "retries",
        "resume-retries",
        "timeout",
        "default-timeout",
        "cache-dir",
        "no-cache-dir",
        "use-feature",  # truststore, say
        "use-deprecated",  # legacy-certs, say
    }
)
"""What passes of pip's settings, from a variable or a file: how to get at packages."""

# Names that the tools read, by how they begin.
_ENGINES = (
    *("DOCKER_", "BUILDKIT_", "BUILDX_", "EXPERIMENTAL_BUILDKIT_"),
    *("BUILDAH_", "PODMAN_", "CONTAINER_", "CONTAINERS_"),
)
# https://reproducible-builds.org/specs/source-date-epoch/
_STAMP = "SOURCE_DATE_EPOCH"
_LISTING = """
import json
from pip._internal.configuration import Configuration
from pip._internal.exceptions import PipError
found = Configuration(isolated=False)
try:
    found.load()
except PipError as error:
    raise SystemExit(" ".join(str(error).split()))
pairs = []
for key, value in found.items():  # newer releases have a dictionary for each file
    pairs += value.items() if isinstance(value, dict) else [(key, value)]
print(json.dumps(pairs))
"""


def engine(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of docker, podman and dockerd."""
    return {
        name: value
        for name, value in environ.items()
        if name in ENGINE or not (name.startswith(_ENGINES) or name == _STAMP)
    }


def system(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of apt and the like, which then speak English.

    APT_CONFIG passes; what leads dpkg to another root or database does not (dpkg(1)).
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("DPKG_") and name != "LANGUAGE"
    }
    return kept | {"LC_ALL": "C.UTF-8"}


def python(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a Python of ours, which reads and writes UTF-8."""
    kept = {k: v for k, v in environ.items() if not k.startswith("PYTHON")}
    return kept | {"PYTHONUTF8": "1"}


def heard(
    command: Sequence[str], variables: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A finished command that asks nothing, and what it wrote as text."""
    return subprocess.run(
        command,
        env=variables,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def pip(environ: Mapping[str, str], executable: str = sys.executable) -> dict[str, str]:
    """The environment of an interpreter's pip, or of what uses pip.

    Settings in files reach it as variables, those of `PIP` alone: a `user = true` or
    a `constraint` would break the call, and an empty variable undoes neither. Raises
    ValueError, in one line, where pip cannot read them.
    """
    clean = python(environ)
    done = heard([executable, "-P", "-c", _LISTING], clean)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        raise ValueError(f"pip cannot read its settings: {lines[-1]}")
    found = dict(json.loads(done.stdout))
    # What is later in this order goes before what is earlier.
    settings = {
        name: str(found[f"{section}.{name}"])
        for section in ("global", "install", "download", ":env:")
        for name in PIP
        if found.get(f"{section}.{name}")
    }
    kept = {k: v for k, v in clean.items() if not k.startswith(("PIP_", "_PIP_"))}
    variables = {
        f"PIP_{name.upper().replace('-', '_')}": value
        for name, value in settings.items()
    }
    return kept | variables | {"PIP_CONFIG_FILE": os.devnull}


def main(executable: str, *arguments: str) -> None:
    """Become an interpreter's pip."""
    try:
        environ = pip(os.environ, executable)
    except ValueError as error:
        sys.exit(f"dev: {error}")
    os.execve(executable, [executable, "-m", "pip", *arguments], environ)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
