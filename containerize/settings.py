"""The settings: one table in pyproject.toml, overridden by `CONTAINERIZE_*`."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path

from containerize.errors import Problem

TABLE = "tool.containerize"
PREFIX = "CONTAINERIZE_"
PROJECT = "containerize.project"
"""The key of the label by which what is a project's is found."""

# The OCI image specification's names for the machines that `uname -m` names.
ARCHITECTURES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
}

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SIZE = re.compile(r"[1-9][0-9]*[kmg]")
_NETWORK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_COMMAND = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
# What Swarm takes for a secret's name, and Kubernetes for a key of one.
_SECRET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")
_LONGEST_DRAIN = 3600
# Names that engines have, which stand for no network that a port could be published on.
_NO_NETWORK = re.compile(r"host|none|private|(container|ns|slirp4netns|pasta)(:.*)?")
# The table or one within it.
_HEADER = re.compile(
    rb"^(?:\xef\xbb\xbf)?[ \t]*\[[ \t]*([\"']?)tool\1[ \t]*\.[ \t]*"
    rb"([\"']?)containerize\2[ \t]*[].]",
    re.MULTILINE,
)
_PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one project.

    Names, types and defaults stand here; what this project sets differently stands
    in the `[tool.containerize]` table of its pyproject.toml.
    """

    root: Path
    """The repository's top directory, absolute."""
    image: str
    """Name of the image, without a tag."""
    tags: tuple[str, ...] = ("latest",)
    """Tags that `build` gives when told none; `run` takes the first."""
    container: str = ""
    """Name of the container; the image's name when empty."""
    port: int = 8080
    """Port on 127.0.0.1 that `run` publishes."""
    container_port: int = 8080
    """Port that the app listens on in the container."""
    engine: str = ""
    """`docker`, `podman`, or a path to one; whichever answers when empty."""
    app: str = "app"
    """What is served, as FLASK_APP says it, such as `shop:create_app`."""
    requirements: str = "requirements.in"
    """File that asks for the app's requirements; pyproject.toml: [project] does."""
    requirements_lock: str = ""
    """Their lock; requirements.txt when empty, or .lock where that is what asks."""
    dockerfile: str = "Dockerfile"
    """What puts the packed layers together."""
    include: tuple[str, ...] = ()
    """Files to pack though .gitignore or our own rules name them, as patterns."""
    exclude: tuple[str, ...] = ()
    """Files to leave out of the image, as patterns of a .gitignore."""
    python: str = "3.13"
    """The image's Python, as X.Y."""
    interpreter: str = ""
    """The interpreter's path in the image; /usr/bin/pythonX.Y when empty."""
    glibc: str = "2.41"
    """The image's C library, which decides which wheels fit."""
    architectures: tuple[str, ...] = ()
    """The processors that there is an image for; this machine's alone when empty."""
    architecture: str = ""
    """The one that is built, `amd64` or `arm64`; by default this machine's if it is
    one of `architectures`, else the first of these."""
    suite: str = "trixie"
    """The Debian release of the base packages."""
    base_image: str | Mapping[str, str] = dataclasses.field(default="", hash=False)
    """`NAME@sha256:…` of an image to build on instead of the base packages: that of an
    index, or a table of one for each architecture, where there are several."""
    mirrors: tuple[str, ...] = ()
    """Debian mirrors, tried in turn; those of this machine's apt when empty."""
    security_mirrors: tuple[str, ...] = ()
    """Mirrors of the security suite, likewise."""
    keyring: str = ""
    """Keyring that signs the Debian suites; the Debian archive's when empty."""
    debian_image: str = ""
    """Image whose apt stands in where the host's is not Debian's; debian:SUITE-slim."""
    cache: str = ""
    """Input cache; $XDG_CACHE_HOME/containerize when empty."""
    env_file: str = ""
    """File of variables for the containers, in the syntax of dotenv."""
    volumes: tuple[str, ...] = ()
    """`NAME:/path` or `./directory:/path`, each with `:options` if need be."""
    network: str = ""
    """Network of the engine that the containers join; its default one when empty."""
    insecure_registries: tuple[str, ...] = ()
    """Registries, as HOST or HOST:PORT, that may be spoken to without TLS."""
    commands: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    """Further processes by name, each a container of its own: `NAME = "COMMAND"`."""
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    """Files that containers find in /run/secrets: `NAME = "FILE"`, FILE on this
    machine; an orchestrator has its own secret of that NAME instead."""
    replicas: int = 2
    """Containers of the service that an orchestrator keeps running."""
    drain_delay: int = 15
    """Seconds for which one that an orchestrator stops still takes connections, while
    what is before it sees that it is not ready."""
    ingress_port: int = 0
    """Port of every node of a Swarm that leads to the service; 0 publishes none."""
    memory: str = "128m"
    """Memory limit of each container."""
    pids: int = 64
    """Limit on processes and threads of the container."""
    health_timeout: int = 60
    """Seconds that `run` waits for the container to become healthy."""
    stop_timeout: int = 30
    """Seconds that `stop` waits before the engine kills the container."""

    @property
    def build_top(self) -> Path:
        """Where all that is packed goes; one build at a time has it."""
        return self.root / "build"

    @property
    def build_dir(self) -> Path:
        """Where the packed layers go, for this machine's processor all that the build
        context of a `docker build` by hand lets through."""
        chosen, own = self._chosen(), this_machine()
        return self.build_top / chosen if chosen and chosen != own else self.build_top

    @property
    def dist_dir(self) -> Path:
        """Where the image archive and its record go."""
        return self.root / "dist"

    @property
    def cache_dir(self) -> Path:
        """The input cache: one file per SHA-256."""
        if self.cache:
            return self.root / os.path.expanduser(self.cache)
        # XDG base directory specification: relative paths are to be ignored.
        given = os.environ.get("XDG_CACHE_HOME", "")
        if os.path.isabs(given):
            return Path(given, "containerize")
        home = os.path.expanduser("~")
        if home == "~":
            raise Problem(
                "this user has no home directory for the input cache: "
                f"set {PREFIX}CACHE to a directory"
            )
        return Path(home, ".cache", "containerize")

    @property
    def container_name(self) -> str:
        return self.container or self.image

    @property
    def interpreter_path(self) -> str:
        return self.interpreter or f"/usr/bin/python{self.python}"

    @property
    def image_architecture(self) -> str:
        """The architecture of the image that is built, in OCI terms.

        Raises Problem if none is named and this machine's is unknown.
        """
        found = self._chosen()
        if found is None:
            machine = platform.machine().lower()
            raise Problem(
                f"no image can be made for this machine's processor, {machine}: "
                f"set {PREFIX}ARCHITECTURE to amd64 or arm64"
            )
        return found

    def _chosen(self) -> str | None:
        found = self.architecture or this_machine()
        if self.architectures and found not in self.architectures:
            return self.architectures[0]
        return found

    @property
    def image_architectures(self) -> tuple[str, ...]:
        """Those with an image: `architectures`, or the one that is built."""
        return self.architectures or (self.image_architecture,)

    @property
    def locked_architectures(self) -> tuple[str, ...]:
        """Those that the locks are for: `architectures`, or all that there are."""
        return tuple(sorted(self.architectures or {*ARCHITECTURES.values()}))

    def for_architecture(self, architecture: str) -> Settings:
        """The same settings with another architecture's image to build."""
        return dataclasses.replace(self, architecture=architecture)

    def for_each(self) -> list[Settings]:
        """The settings for each processor that there is an image for."""
        return [self.for_architecture(each) for each in self.image_architectures]

    @property
    def base_reference(self) -> str:
        """`base_image` for the architecture that is built; nothing if none is set.

        Raises Problem if it is a table without that architecture.
        """
        if isinstance(self.base_image, str):
            return self.base_image
        wanted = self.image_architecture
        if wanted not in self.base_image:
            raise Problem(
                f'base-image names none for {wanted}: add {wanted} = "NAME@sha256:…"'
            )
        return self.base_image[wanted]

    @property
    def debian_image_name(self) -> str:
        return self.debian_image or f"debian:{self.suite}-slim"

    @property
    def requirements_lock_name(self) -> str:
        """The lock of the app's requirements, from the repository's top."""
        own = self.requirements == "requirements.txt"
        default = "requirements.lock" if own else "requirements.txt"
        return self.requirements_lock or default

    @property
    def installs_project(self) -> bool:
        """Whether the app is the [project] of pyproject.toml, which is installed."""
        return self.requirements == "pyproject.toml"

    @property
    def label(self) -> str:
        """The label on every image, container and network of this project."""
        return f"{PROJECT}={self.image}"

    def reference(self, tag: str | None = None) -> str:
        """`IMAGE:TAG` for a tag, by default the first of `tags`."""
        return f"{self.image}:{check_tag(tag) if tag is not None else self.tags[0]}"


def this_machine() -> str | None:
    """This machine's processor in OCI's terms; None for one that no image is for."""
    return ARCHITECTURES.get(platform.machine().lower())


def find_root(start: Path) -> Path:
    """The nearest directory at or above `start` whose pyproject.toml has our table."""
    for directory in (start, *start.parents):
        file = directory / "pyproject.toml"
        try:
            found = _HEADER.search(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except OSError as error:
            raise Problem(f"{file} cannot be read: {error.strerror}") from None
        if found:
            return directory
    raise Problem(
        f"no pyproject.toml with a [{TABLE}] table at or above {start}: "
        "change into the repository, or start with `invoke init`"
    )


def load(root: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the project at `root`, with `CONTAINERIZE_NAME` overrides.

    Lists in the environment are comma-separated. Raises Problem for an unknown
    name, a value of the wrong type or out of range, and for a broken file.
    """
    environ = os.environ if environ is None else environ
    file = root / "pyproject.toml"
    try:
        table = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise Problem(f"{file} is missing: restore it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Problem(f"{file} cannot be read: {error}") from None
    for part in TABLE.split("."):
        table = table.get(part, {})
    values: dict[str, object] = {}
    fields = {f.name: f for f in dataclasses.fields(Settings) if f.name != "root"}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise Problem(f"pyproject.toml: [{TABLE}] has no setting {key}: delete it")
        values[name] = _typed(f"pyproject.toml: {key}", fields[name], value)
    for name, field in fields.items():
        variable = PREFIX + name.upper()
        if variable in environ:
            values[name] = _typed(variable, field, environ[variable], text=True)
    if "image" not in values:
        raise Problem(f"pyproject.toml: [{TABLE}] sets no image: name one")
    settings = Settings(root=root.resolve(), **values)  # type: ignore[arg-type]
    _check(settings)
    return settings


def check_tag(tag: str) -> str:
    """`tag` itself; a Problem where it is no tag (OCI distribution spec, "Pull")."""
    if not _TAG.fullmatch(tag):
        raise Problem(
            f"{tag!r} is no tag: use up to 128 letters, digits, '_', '.' and '-', "
            "the first a letter, digit or '_'"
        )
    return tag


def check_port(port: int | str, *, name: str = "port") -> int:
    """A TCP port number; a Problem for anything but 1 to 65535."""
    try:
        number = int(str(port))
    except ValueError:
        number = 0
    if not 1 <= number <= 65535:
        raise Problem(f"{name} {port} is no port: use a number from 1 to 65535")
    return number


def check_container(name: str) -> str:
    """`name` itself; a Problem where engines would refuse it as a container's name."""
    if not _CONTAINER.fullmatch(name):
        raise Problem(
            f"{name!r} is no container name: use two or more letters, digits, '_', '.' "
            "and '-', the first a letter or digit"
        )
    return name


def check_size(size: str) -> str:
    """`size` itself; a Problem if it is no size of memory."""
    if not _SIZE.fullmatch(size):
        raise Problem(f"memory {size!r} is no size: use one like 128m")
    return size


def size_in_bytes(size: str) -> int:
    """How many bytes a size of memory is, one that `check_size` lets through."""
    return int(size[:-1]) << 10 * (1 + "kmg".index(size[-1]))


def check_network(name: str) -> str:
    """`name` itself; a Problem if no port can be published on such a network."""
    if name and (_NO_NETWORK.fullmatch(name) or not _NETWORK.fullmatch(name)):
        raise Problem(
            f"network {name!r} is none that a port can be published on: name one that "
            "the engine lists (`docker network ls`)"
        )
    return name


def check_volume(text: str) -> tuple[str, str, str]:
    """The source, path in the container and options of `SOURCE:/path[:options]`.

    The source is a volume's name, or a directory, which has a slash or begins with a
    dot or a tilde. Raises Problem for anything else.
    """
    source, _, rest = text.partition(":")
    path, _, options = rest.partition(":")
    parts = path.split("/")
    named = _CONTAINER.fullmatch(source)
    directory = "/" in source or source.startswith((".", "~"))
    whole = path.startswith("/") and path.strip("/") and ".." not in parts
    if not whole or ":" in options or not (named or directory):
        raise Problem(
            f"volume {text!r} is none: use NAME:/path or ./directory:/path, with "
            "options if need be, such as NAME:/path:ro"
        )
    return source, path, options


def _check_command(name: str, command: str) -> None:
    """A Problem if a command's name cannot end a container's, or has no words."""
    if not _COMMAND.fullmatch(name) or name == "next":
        raise Problem(
            f"commands: {name!r} is no name: use lower-case letters, digits and '-', "
            "and not next, which `up` uses itself"
        )
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise Problem(
            f"commands: {name}: {command!r} cannot be read: {error}"
        ) from None
    if not words:
        raise Problem(f'commands: {name} is empty: say {name} = "python -m …"')


def _check_secret(name: str, file: str) -> None:
    """A Problem if a secret's name is no file's that all take, or names no file."""
    if not _SECRET.fullmatch(name):
        raise Problem(
            f"secrets: {name!r} is no name: use up to 64 letters, digits, '-', '_' and "
            "'.', the first and the last a letter or digit"
        )
    if not file or re.search(r'[,"\n\0]', file):
        raise Problem(
            f"secrets: {name}: {file!r} is no file that engines can mount: name one "
            "without commas, quotes and line ends"
        )


def _typed(
    where: str, field: dataclasses.Field[object], value: object, *, text: bool = False
) -> object:
    """`value` as the field's type; `text` says that it came from the environment."""
    kind = field.type
    if kind == "tuple[str, ...]":
        if text:
            return tuple(part.strip() for part in str(value).split(",") if part.strip())
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return tuple(value)
        raise Problem(f"{where} must be a list of strings, not {value!r}")
    if kind == "str | Mapping[str, str]":
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
            return value
        raise Problem(f"{where} must be a string, or a table of them, not {value!r}")
    if kind == "Mapping[str, str]":
        if text:
            raise Problem(f"{where} cannot be set by a variable: use pyproject.toml")
        if isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
            return value
        raise Problem(f'{where} must be a table of NAME = "TEXT", not {value!r}')
    if kind == "int":
        try:
            if isinstance(value, bool):
                raise ValueError
            return int(str(value))
        except ValueError:
            raise Problem(f"{where} must be a whole number, not {value!r}") from None
    if not isinstance(value, str):
        raise Problem(f"{where} must be a string, not {value!r}")
    return value


def _check(settings: Settings) -> None:
    if not _NAME.fullmatch(settings.image):
        raise Problem(
            f"image {settings.image!r} is no image name: use lower-case letters and "
            "digits, separated by '.', '_' or '-'"
        )
    if not settings.tags:
        raise Problem("tags is empty: name at least one")
    for tag in settings.tags:
        check_tag(tag)
    check_container(settings.container_name)
    check_port(settings.port)
    check_port(settings.container_port, name="container-port")
    if not re.fullmatch(r"3\.[1-9][0-9]?", settings.python):
        raise Problem(f"python {settings.python!r} is no version: use one like 3.13")
    if not re.fullmatch(r"2\.[0-9]+", settings.glibc):
        raise Problem(f"glibc {settings.glibc!r} is no version: use one like 2.41")
    for name in ("requirements", "requirements_lock"):
        path = Path(getattr(settings, name))
        if path.is_absolute() or ".." in path.parts:
            raise Problem(
                f"{name.replace('_', '-')} {str(path)!r} is not below the repository's "
                "top: name a file there"
            )
    if Path(settings.requirements) == Path(settings.requirements_lock_name):
        raise Problem(
            f"requirements and requirements-lock both name {settings.requirements}, "
            "and the lock is written anew: give it another name"
        )
    for name in filter(None, (settings.architecture, *settings.architectures)):
        if name not in ARCHITECTURES.values():
            raise Problem(f"architecture {name!r} is unknown: use amd64 or arm64")
    if len(set(settings.architectures)) < len(settings.architectures):
        raise Problem("architectures names one twice: name each once")
    if settings.architecture not in ("", *settings.image_architectures):
        raise Problem(
            f"architecture {settings.architecture!r} is none of architectures: name it "
            "there too"
        )
    _check_base_image(settings)
    check_size(settings.memory)
    check_network(settings.network)
    for volume in settings.volumes:
        check_volume(volume)
    for name, command in settings.commands.items():
        _check_command(name, command)
    for name, file in settings.secrets.items():
        _check_secret(name, file)
    for name in ("pids", "health_timeout", "stop_timeout", "replicas"):
        if getattr(settings, name) < 1:
            raise Problem(f"{name.replace('_', '-')} must be at least 1")
    if not 0 <= settings.drain_delay <= _LONGEST_DRAIN:
        raise Problem(
            f"drain-delay {settings.drain_delay} is not from 0 to {_LONGEST_DRAIN} s"
        )
    if settings.ingress_port:
        check_port(settings.ingress_port, name="ingress-port")


def _check_base_image(settings: Settings) -> None:
    named = settings.base_image
    if not named:
        return
    for one in [named] if isinstance(named, str) else named.values():
        if not _PINNED.fullmatch(one):
            raise Problem(
                f"base-image {one!r} has no digest: pin it as NAME@sha256:…, so that "
                "every build starts from the same bytes"
            )
    for name in () if isinstance(named, str) else named:
        if name not in ARCHITECTURES.values():
            raise Problem(f"base-image: {name!r} is unknown: use amd64 or arm64")
    for name in settings.architectures:
        _ = settings.for_architecture(name).base_reference
