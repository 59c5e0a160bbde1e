"""What containers mount, made and seen to be of use: volumes, directories, secrets."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from containerize.engines.engine import Engine, ignore
from containerize.errors import Problem
from containerize.settings import PROJECT, Settings, check_volume

_ALONE = (
    "--network=none",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--no-healthcheck",
    "--entrypoint=python3",
)
"""What a container that only looks at mounts runs under."""

_LOOK = """
import json, os, sys
def empty(path):
    try:
        return not os.listdir(path)
    except OSError:
        return False
def look(path):
    can = [os.access(path, way) for way in (os.R_OK, os.W_OK)]
    return [*can, os.stat(path).st_uid, empty(path)]
found = {path: look(path) for path in sys.argv[1:]}
print(json.dumps([os.getuid(), os.getgid(), found]))
"""
_GIVE = "import os, sys; os.chown(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))"


@dataclasses.dataclass(frozen=True)
class Mount:
    """A volume or a directory of the host, at a path of the container."""

    source: str
    """A volume's name, or an absolute path of the host."""
    path: str
    options: str

    @property
    def named(self) -> bool:
        return not os.path.isabs(self.source)

    @property
    def option(self) -> str:
        parts = (self.source, self.path, self.options)
        return f"--volume={':'.join(filter(None, parts))}"


@dataclasses.dataclass(frozen=True)
class Secret:
    """A file of the host's that a container finds by its name in /run/secrets."""

    name: str
    file: Path

    @property
    def path(self) -> str:
        """Where the container has it, as a Swarm's tasks and Compose's do too."""
        return f"/run/secrets/{self.name}"

    @property
    def option(self) -> str:
        return bound(self.file, self.path)

    def see(self) -> None:
        """A Problem if no file is there; a pipe, which waits for a writer, is none."""
        if not os.path.isfile(self.file):
            raise Problem(
                f"there is no file {self.file} for the secret {self.name}, or not to "
                "be seen by this user: write it, or mend secrets"
            )


def bound(source: Path, target: str) -> str:
    """The option that mounts a file or a directory of the host, to be read alone.

    Raises Problem if engines cannot tell its path from the rest of the option.
    """
    if any(character in str(source) for character in ',"\n'):
        raise Problem(
            f"engines cannot mount {str(source)!r}: move it to a path without commas, "
            "quotes and line ends"
        )
    return f"--mount=type=bind,source={source},target={target},readonly"


def secrets(settings: Settings) -> tuple[Secret, ...]:
    """The secrets of the settings; a relative path is from the repository's top."""
    return tuple(
        Secret(name, Path(os.path.abspath(settings.root / os.path.expanduser(file))))
        for name, file in settings.secrets.items()
    )


def absolute(text: str, top: Path) -> str:
    """The setting of a volume with its directory, if it is one, below `top`."""
    source, path, options = check_volume(text)
    if "/" in source or source.startswith((".", "~")):
        source = os.path.abspath(top / os.path.expanduser(source))
    return ":".join(filter(None, (source, path, options)))


def mounts(settings: Settings) -> tuple[Mount, ...]:
    """What the settings mount; the last of several at one path stands."""
    found = [
        Mount(*check_volume(absolute(text, settings.root))) for text in settings.volumes
    ]
    return tuple({mount.path.rstrip("/"): mount for mount in found}.values())


def apart(settings: Settings, suffix: str) -> tuple[str, ...]:
    """The setting `volumes` for a container that must not touch what the others keep.

    Volumes get names that end in `suffix`; directories are mounted read-only.
    """
    found = []
    for mount in mounts(settings):
        source, options = mount.source, mount.options
        if mount.named:
            source = f"{source}-{suffix}"
        else:
            kept = [each for each in options.split(",") if each not in ("", "rw", "ro")]
            options = ",".join([*kept, "ro"])
        found.append(":".join(filter(None, (source, mount.path, options))))
    return tuple(found)


def prepare(
    settings: Settings,
    engine: Engine,
    reference: str,
    on_line: Callable[[str], None] = ignore,
) -> None:
    """See that all that is mounted is there, and that the image's user can use it.

    A volume that is missing is made, with the project's label; the image's user gets
    one that is empty and root's. Raises Problem for a directory or a file that is not
    there, for a mount without `:ro` that this user cannot write, and for a secret that
    it cannot read.
    """
    found, files = mounts(settings), secrets(settings)
    here = not engine.elsewhere()
    for secret in files:
        if here:
            secret.see()
    for mount in found:
        if mount.named:
            _make(settings, engine, mount.source, on_line)
        elif here and not os.path.exists(mount.source):
            raise Problem(
                f"there is no {mount.source} to mount: make it, or mend volumes"
            )
    written = [m for m in found if "ro" not in m.options.split(",")]
    if written or files:
        _see_usable(settings, engine, reference, written, files, on_line)


def _make(
    settings: Settings, engine: Engine, name: str, on_line: Callable[[str], None]
) -> None:
    form = "{{json .Labels}}"
    answer = engine.run(
        "volume", "inspect", "--format", form, name, check=False, echo=False
    )
    if answer.returncode:
        engine.run("volume", "create", f"--label={settings.label}", name)
        return
    if (json.loads(answer.stdout) or {}).get(PROJECT) != settings.image:
        on_line(f"volume {name} was there already, and not made for this project")


def _see_usable(
    settings: Settings,
    engine: Engine,
    reference: str,
    written: Sequence[Mount],
    files: Sequence[Secret],
    on_line: Callable[[str], None],
) -> None:
    alone = ("run", "--rm", f"--label={settings.label}", *_ALONE)
    every: list[Mount | Secret] = [*written, *files]
    look = ("-I", "-S", "-c", _LOOK, *(each.path for each in every))
    binds = [each.option for each in every]
    answer = engine.run(*alone, *binds, reference, *look, echo=False)
    user, group, found = json.loads(answer.stdout)
    for secret in files:
        readable, _, owner, _ = found[secret.path]
        if not readable:
            raise Problem(_unreadable(secret, owner, user, group))
    for mount in written:
        _, writable, owner, empty = found[mount.path]
        if writable:
            continue
        if not (mount.named and empty and owner == 0):
            raise Problem(_unwritable(engine, mount, owner, user, group))
        give = ("-I", "-S", "-c", _GIVE, mount.path, str(user), str(group))
        engine.run(
            *alone, "--user=0:0", "--cap-add=CHOWN", mount.option, reference, *give,
            echo=False,
        )  # fmt: skip
        on_line(f"volume {mount.source} is the app's now, that is user {user}'s")


def _unreadable(secret: Secret, owner: int, user: int, group: int) -> str:
    said = f"the app, user {user}, cannot read {secret.file}, the secret {secret.name}"
    if owner == user:
        return f"{said}, though it owns it: mend its mode, or its label for SELinux"
    said = f"{said}, which is user {owner}'s"
    file = shlex.quote(str(secret.file))
    if os.geteuid():  # who may give no file away, and has to read it for a cluster too
        return f"{said}: `chmod a+r {file}`, in a directory of mode 700"
    return f"{said}: `chown {user}:{group} {file}`"


def _unwritable(engine: Engine, mount: Mount, owner: int, user: int, group: int) -> str:
    what = f"{'volume ' if mount.named else ''}{mount.source}"
    said = f"the app, user {user}, cannot write {what}, mounted at {mount.path}"
    if owner == user:
        return (
            f"{said}, though it owns it: mend its mode, or add :z if SELinux guards it"
        )
    said = f"{said}, which is user {owner}'s: mount it with :ro"
    if mount.named:
        return f"{said}, or give its files to user {user}"
    give = f"chown -R {user}:{group} {shlex.quote(mount.source)}"
    if engine.kind == "podman" and os.geteuid():  # in the containers' user namespace
        give = f"podman unshare {give}"
    return f"{said}, or `{give}`"


def owned(settings: Settings, engine: Engine) -> list[str]:
    """The names of the volumes that were made for the project."""
    answer = engine.run(
        "volume", "ls", f"--filter=label={settings.label}", "--format={{.Name}}",
        echo=False,
    )  # fmt: skip
    return answer.stdout.split()


def remove(engine: Engine, names: Sequence[str]) -> None:
    """Remove volumes with what they hold; no container may use them."""
    if names:
        engine.run("volume", "rm", *names)
