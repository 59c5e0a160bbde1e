"""Container engines, installed and started where none answers."""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from containerize import environ
from containerize.engines.complaints import INSTALL, NoEngine
from containerize.engines.engine import Engine, OnCommand, find, ignore, probe, which
from containerize.errors import Problem
from containerize.settings import PREFIX, Settings

OnLine = Callable[[str], None]

LOG = Path("/var/log/docker.log")
"""What a Docker daemon run by hand writes; where Debian's init script puts it."""
PIDFILE = Path("/run/docker.pid")
"""Where such a daemon leaves its process ID."""


def install(
    settings: Settings,
    on_command: OnCommand = ignore,
    on_line: OnLine = ignore,
) -> Engine:
    """Install an engine where none is, start it where it needs that, and return it.

    What the settings name, else Docker for root, and for others Podman, which serves
    them without a daemon. `on_line` gets what apt writes. Raises Problem where this
    is no Debian or a relative of it, where root's rights cannot be had, and where
    installing or starting fails.
    """
    with contextlib.suppress(NoEngine):
        return find(settings, on_command)
    wanted = settings.engine or ("docker" if os.geteuid() == 0 else "podman")
    kind = "podman" if Path(wanted).name == "podman" else "docker"
    programs = (wanted, "dockerd") if kind == "docker" else (wanted,)
    if not all(map(which, programs)):
        _apt_install(kind, on_command, on_line)
    if kind == "docker":
        start(on_command, client=(wanted,))
    return find(settings, on_command)


def _apt_install(kind: str, on_command: OnCommand, on_line: OnLine) -> None:
    if not which("apt-get"):
        raise Problem(
            "this host has no apt-get: install Docker or Podman its own way, or set "
            f"{PREFIX}ENGINE to the path of one"
        )
    apt = (*_root("install an engine"), "env", "DEBIAN_FRONTEND=noninteractive")
    apt = (*apt, "apt-get", "-o", "DPkg::Lock::Timeout=120")
    # What Podman recommends is what it needs to work without root.
    wanted = ["podman"]
    if kind == "docker":
        wanted = ["--no-install-recommends", "docker.io", "iptables"]

    def install() -> tuple[int, str]:
        more = []
        # Newer releases ship the client apart.
        if kind == "docker" and not which("docker") and _is_package("docker-cli"):
            more = ["docker-cli"]
        command = (*apt, "install", "--yes", *wanted, *more)
        return _watch(command, on_command, on_line)

    code, output = install()
    if code:  # The package lists are missing, as on a new machine, or out of date.
        _watch((*apt, "update"), on_command, on_line)
        code, output = install()
    if code:
        errors = [x[2:].strip() for x in output.splitlines() if x.startswith("E:")]
        said = errors[0] if errors else f"apt-get exited with {code}"
        raise Problem(f"{kind} cannot be installed: {said}")


def start(
    on_command: OnCommand = ignore,
    *,
    flags: Sequence[str] = (),
    log: Path = LOG,
    pidfile: Path = PIDFILE,
    client: Sequence[str] = ("docker",),
    timeout: float = 60,
) -> None:
    """Start the Docker daemon unless it answers `client`, and wait until it does.

    systemd does it where it runs; elsewhere, and where `flags` are given, dockerd is
    run by hand and goes on when this process ends; `pidfile` says which it is.
    Raises Problem with the daemon's own last words where it cannot start or does not
    answer within `timeout` seconds.
    """
    if probe(client, environ.engine(os.environ)).server:
        return
    deadline = time.monotonic() + timeout
    if Path("/run/systemd/system").is_dir() and not flags:
        line = [*_root("start Docker"), "systemctl", "start", "docker"]
        code, output = _watch(line, on_command, ignore)
        if code:
            said = " ".join(output.split())
            raise Problem(f"systemd cannot start the Docker daemon: {said}")
        _wait(client, deadline, lambda: True)
        return
    dockerd = which("dockerd")
    if not dockerd:
        raise NoEngine(f"the Docker daemon is not installed: {INSTALL}")
    command = [dockerd, f"--pidfile={pidfile}", *flags]
    if os.geteuid() != 0:
        command += [f"--group={_group()}"]
    fallbacks = dict(_FALLBACKS)
    while True:
        line = [*_root("start Docker"), "sh", "-c", _DETACH, str(log), *command]
        code, output = _watch(line, on_command, ignore)
        if code:
            raise Problem(f"the Docker daemon cannot be run: {output.strip()}")
        daemon = Path("/proc", output.strip(), "cmdline")
        if _wait(client, deadline, functools.partial(_lives, daemon)):
            return
        said = _last_words(log)
        more = [key for key in fallbacks if re.search(key, said, re.IGNORECASE)]
        if _lives(daemon) or not more:
            raise Problem(
                f"the Docker daemon does not {'answer' if _lives(daemon) else 'start'}:"
                f" {said} (its log is {log})"
            )
        command += fallbacks.pop(more[0])


# Its own session, so that no Ctrl-C or hang-up reaches it; prints its process ID.
_DETACH = 'setsid "$@" >"$0" 2>&1 </dev/null & echo $!'

# What a daemon says that cannot start, and the flags that it can start with. It
# publishes ports on 127.0.0.1 by a process of its own, which needs no iptables.
_FALLBACKS = {
    r"iptables|nftables": ("--iptables=false", "--ip6tables=false"),
    r"overlay": ("--storage-driver=vfs",),
}


def _wait(client: Sequence[str], deadline: float, lives: Callable[[], bool]) -> bool:
    """Whether the daemon comes to answer before it ends or the time is over."""
    while not (found := probe(client, environ.engine(os.environ))).server:
        if "permission denied" in found.message:
            raise Engine("docker", tuple(client)).problem(("version",), found.message)
        if not lives() or time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _group() -> str:
    """The name of this process's group; its number where it has no name."""
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())


def _lives(cmdline: Path) -> bool:
    """Whether a process runs; one that nobody has waited for has no command line."""
    try:
        return bool(cmdline.read_bytes())
    except OSError:
        return False


def _last_words(log: Path) -> str:
    """Why a daemon ended, as its log has it, on one line."""
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError as error:
        return f"its log {log} cannot be read ({error.strerror})"
    lines = [line.strip() for line in lines if line.strip()]
    fatal = [x for x in lines if x.startswith("failed to start") or "level=fatal" in x]
    said = (fatal or lines or ["it wrote nothing"])[-1]
    return re.sub(r'^time=.* msg="?|"$|^failed to start daemon: ', "", said)


def _root(purpose: str) -> tuple[str, ...]:
    """What makes a command run as root. Raises Problem where nothing does."""
    if os.geteuid() == 0:
        return ()
    if not which("sudo"):
        raise Problem(
            f"only root can {purpose}, and there is no sudo: ask someone who can, "
            "or run `invoke engine --install` as root"
        )
    # Without a terminal, asking for a password would fail or hang.
    return (
        ("sudo",) if sys.stdin and sys.stdin.isatty() else ("sudo", "--non-interactive")
    )


def _watch(
    command: Sequence[str], on_command: OnCommand, on_line: OnLine
) -> tuple[int, str]:
    """Run a command of the system; its exit code and all it wrote, also by lines."""
    on_command(command)
    lines = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environ.system(environ.engine(os.environ)),
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            on_line(line.rstrip("\n"))
    return process.returncode, "".join(lines)


def _is_package(name: str) -> bool:
    shown = ["apt-cache", "show", "--no-all-versions", name]
    return (
        subprocess.run(
            shown, env=environ.system(os.environ), check=False, capture_output=True
        ).returncode
        == 0
    )
