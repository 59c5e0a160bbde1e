"""Credentials for registries, where `docker login` and `podman login` leave them.

Files and their order: containers-auth.json(5), and Docker's config.json. The programs
that keep them elsewhere speak the protocol of docker-credential-helpers.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from containerize import environ
from containerize.errors import Problem
from containerize.image.archive import printable

_VARIABLE = "DOCKER_AUTH_CONFIG"
_NOT_FOUND = "credentials not found"  # docker-credential-helpers, credentials/error.go


@dataclasses.dataclass(frozen=True)
class Credentials:
    """What a registry, or its token server, is told of who asks."""

    user: str
    secret: str = dataclasses.field(repr=False)
    """A password, or else an identity token."""
    source: str
    """The file, variable or helper that they come from."""
    is_token: bool = False
    """Whether the secret is an identity token, for the token server alone."""


def find(
    registry: str, name: str, variables: Mapping[str, str] = os.environ
) -> Credentials | None:
    """The credentials for `registry/name`, None where nobody has logged in.

    In the first file that has some, those of the longest part of the name. Raises
    Problem for a file that cannot be read, and a helper that is missing or fails.
    """
    for source, config in _configs(variables):
        found = _of(source, config, registry, name, variables)
        if found:
            return found
    return None


def files(variables: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The files that `find` looks into, whether they are there or not."""
    return tuple(str(path) for path in _paths(variables))


def _paths(variables: Mapping[str, str]) -> list[Path]:
    if named := variables.get("REGISTRY_AUTH_FILE"):
        return [Path(named)]
    home = Path(os.path.expanduser("~"))
    docker = variables.get("DOCKER_CONFIG") or home / ".docker"
    runtime = variables.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    own = variables.get("XDG_CONFIG_HOME") or home / ".config"
    podman = [Path(base, "containers", "auth.json") for base in (runtime, own)]
    if not variables.get("XDG_RUNTIME_DIR"):
        podman[0] = Path(runtime, "auth.json")
    return [Path(docker, "config.json"), *podman]


def _configs(variables: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if text := variables.get(_VARIABLE):
        yield _VARIABLE, _read(_VARIABLE, text)
    for path in _paths(variables):
        try:
            text = path.read_text("utf-8")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise Problem(f"cannot read {path}: {error.strerror}: mend that") from None
        except UnicodeDecodeError:
            text = ""
        yield str(path), _read(str(path), text)


def _read(source: str, text: str) -> dict[str, Any]:
    """The object in a file. What is wrong in it is not shown: it may be a secret."""
    try:
        config = json.loads(text)
        tables = (config.get(key) for key in ("auths", "credHelpers"))
        if all(table is None or isinstance(table, dict) for table in tables):
            return dict(config)
    except (ValueError, RecursionError, AttributeError):
        pass
    raise Problem(
        f"{source} has no credentials as `docker login` writes them: mend it, or move "
        "it away and log in again"
    )


def _of(
    source: str,
    config: dict[str, Any],
    registry: str,
    name: str,
    variables: Mapping[str, str],
) -> Credentials | None:
    helpers, auths = config.get("credHelpers") or {}, config.get("auths") or {}
    key = _longest(helpers, registry, name)
    helper = helpers[key] if key is not None else config.get("credsStore")
    if helper:
        # Who logged in to a part of a registry is asked for by that part's name.
        asked = key or _longest(auths, registry, name) or registry
        if found := _ask(source, str(helper), asked, registry, variables):
            return found
    key = _longest(auths, registry, name)
    return _entry(source, auths[key], registry) if key is not None else None


def _longest(keys: Mapping[str, Any], registry: str, name: str) -> str | None:
    """The key of the longest part of `registry/name` that has one."""
    wanted = f"{registry}/{name}/"
    fitting = {key: _plain(key) for key in keys if wanted.startswith(f"{_plain(key)}/")}
    return max(fitting, key=lambda key: len(fitting[key]), default=None)


def _plain(key: str) -> str:
    """`https://HOST/v1/`, as old logins wrote it, is HOST."""
    return re.sub(r"(?<=.)/v[12]/?$|/$", "", re.sub(r"^https?://", "", key))


def _entry(source: str, entry: Any, registry: str) -> Credentials | None:
    """What stands in the file itself, if anything does."""
    if not isinstance(entry, dict):
        return None
    user, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if auth := entry.get("auth"):
        try:
            decoded = base64.b64decode(str(auth), validate=True).decode()
        except (binascii.Error, ValueError):
            decoded = ""
        user, colon, password = decoded.partition(":")
        if not colon:
            raise Problem(
                f"{source}: what stands there for {registry} cannot be read: run "
                f"`docker login {registry}`"
            )
        password = password.rstrip("\0")
    if token := entry.get("identitytoken"):
        return Credentials(user, str(token), source, is_token=True)
    return Credentials(user, password, source) if user else None


def _ask(
    source: str, helper: str, key: str, registry: str, variables: Mapping[str, str]
) -> Credentials | None:
    """What a helper keeps; None where it has nothing for that registry."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=key,
            env=environ.engine(variables),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise Problem(
            f"{source} names the credential helper {program}, which cannot be run "
            f"({error.strerror}): install it, or take it out of that file and run "
            f"`docker login {registry}`"
        ) from None
    if done.returncode:
        said = (done.stdout.strip() or done.stderr.strip()).splitlines() or [""]
        if said[0].startswith(_NOT_FOUND):
            return None
        # A line that is no sentence may be half of a secret.
        whole = said[0] and not set('{"') & set(said[0])
        shown = f"{printable(said[0])}: " if whole else ""
        raise Problem(
            f"the credential helper {program} of {source} fails: {shown}mend that, or "
            f"run `docker login {registry}`"
        )
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise Problem(
            f"the credential helper {program} of {source} answers no credentials: mend "
            f"it, or run `docker login {registry}`"
        ) from None
    if not secret:
        return None
    return Credentials(user, secret, f"{program} ({source})", user == "<token>")
