"""The service: its speed, memory and stop, each against a peer in the same image."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.copy import remove
from bench.measure import Row, quiet, require, table
from containerize import build as building
from containerize.engines import container, engine
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.fetch import inputs
from containerize.lock import locks
from containerize.pack import layers
from containerize.settings import Settings, find_root, load
from tests.conftest import Quiet

NAME = "containerize-bench-service"
OURS = "ours (waitress)"
PLAIN = "waitress alone, no access log"
GUNICORN = "gunicorn gthread"
THREADS = 4
PORT = 8080
"""What all the servers listen on."""

# Ours writes a line a request, and cannot do without; the others are tried both ways.
_GUNICORN = (
    f"gunicorn --bind 0.0.0.0:{PORT} --workers 1 --worker-class gthread "
    f"--threads {THREADS} --no-control-socket --worker-tmp-dir /dev/shm"
)
_GRANIAN = (
    f"granian --interface wsgi --host 0.0.0.0 --port {PORT} --workers 1 "
    f"--blocking-threads {THREADS} --factory --log"
)
SERVERS = {
    OURS: "python3 -m served",
    GUNICORN: f"{_GUNICORN} --access-logfile - app:create_app()",
    "granian": f"{_GRANIAN} --access-log app:create_app",
    PLAIN: f"waitress-serve --port={PORT} --threads={THREADS} --call app:create_app",
    "gunicorn gthread, no access log": f"{_GUNICORN} app:create_app()",
    "granian, no access log": f"{_GRANIAN} app:create_app",
}
# The image's own check asks what only our service has.
_CHECK = "CMD " + json.dumps(
    [
        *("python3", "-c"),
        f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{PORT}/')",
    ]
)
PEERS = (PLAIN, GUNICORN)
"""Those that a goal names."""
LOGGED = list(SERVERS)[:3]
"""Those that write a line a request."""
LOADS = (10, 100)
SIZES = (1, 2, 4, 8, 16)
CONNECTIONS = (10, 100, 1000)
ROUNDS = 8
SECONDS = 1
"""Of each run. Many short ones in turns: what disturbs one meets the others too."""
STOPS = 5


def main() -> Iterator[Row]:
    """Print the service's figures, each against its peers."""
    with ready() as service:
        yield from servers(service)


@contextlib.contextmanager
def ready() -> Iterator[Service]:
    """The images with all the servers; they go on leaving. Raises Problem."""
    require("wrk", "wrk")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise Problem("the service needs one CPU and its client another: only 1 is")
    # As much memory as they want: what they take is to be seen.
    ours = dataclasses.replace(
        load(find_root(Path(__file__).parent)), image=NAME, memory="1g", pids=256
    )
    using = engine.find(ours)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            build(ours, using, Path(directory))
        yield Service(ours, using, *cpus[:2])
    finally:
        remove(ours, using)


# --- The image with all servers ----------------------------------------------------


def build(ours: Settings, using: Engine, scratch: Path) -> None:
    """An image with the servers beside the app, and one more for each server."""
    inputs.fetch(ours, progress=Quiet())
    layers.pack(ours)
    context = scratch / "context"
    left_out = shutil.ignore_patterns("context")
    shutil.copytree(ours.build_dir, context / "build", ignore=left_out)
    for name in ("Dockerfile", ".dockerignore"):
        shutil.copy(ours.root / name, context)
    wheels = [(w.name, w.path) for w in inputs.collect(ours).wheels]
    known = {name for name, _ in wheels}
    wheels += [(p.name, p) for p in download(ours, scratch) if p.name not in known]
    with (context / "build" / "deps.tar").open("wb") as file:
        layers.dependencies(ours, wheels).write(file, locks.read_base(ours).time)
    with quiet():
        image = f"{NAME}:servers"
        _build(ours, using, image, context)
        for number, command in enumerate(SERVERS.values()):
            entrypoint = json.dumps(command.split())
            dockerfile = (
                f"FROM {image}\nENTRYPOINT {entrypoint}\nHEALTHCHECK {_CHECK}\n"
            )
            (context / "Dockerfile").write_text(dockerfile, "utf-8")
            _build(ours, using, _tag(number), context)


def _build(ours: Settings, using: Engine, name: str, context: Path) -> None:
    """As the tool builds, but from a context of the bench's own."""
    *command, _ = building.build_command(ours, using.kind, [name])
    using.stream(*command, ".", cwd=context)


def download(ours: Settings, scratch: Path) -> list[Path]:
    """The wheels of requirements.txt here, for the image's Python."""
    target = locks.image_target(ours, ours.image_architecture)
    wheels = scratch / "wheels"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--quiet"),
            *("--require-hashes", "--no-deps", "--only-binary=:all:"),
            *("--implementation=cp", f"--python-version={target.python}"),
            *(f"--platform={platform}" for platform in target.platforms),
            f"--requirement={Path(__file__).with_name('requirements.txt')}",
            f"--dest={wheels}",
        ],
        check=True,
    )
    return sorted(wheels.iterdir())


def _tag(number: int) -> str:
    return f"{NAME}:server-{number}"


# --- Containers and their client -------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Load:
    """What wrk saw of one run."""

    rate: float
    """Requests a second."""
    p50: float
    """Milliseconds."""
    p99: float
    failed: int
    """Answers that were no 2xx or 3xx, timeouts and broken connections."""
    cpu: float
    """Milliseconds of the server's CPU for a request: noise moves it least."""


@dataclasses.dataclass(frozen=True)
class Server:
    """A running container, its main process and its address on the bridge."""

    name: str
    pid: int
    url: str


@dataclasses.dataclass(frozen=True)
class Service:
    """Containers on a CPU of their own, and wrk on another."""

    settings: Settings
    using: Engine
    server_cpu: int
    client_cpu: int

    @contextlib.contextmanager
    def running(
        self, images: Mapping[str, str], environment: Mapping[str, Mapping[str, str]]
    ) -> Iterator[dict[str, Server]]:
        """Healthy containers of `images`, removed on leaving."""
        with contextlib.ExitStack() as stack:
            found = {}
            for number, (name, reference) in enumerate(images.items()):
                started = container.run(
                    self.settings, self.using, reference,
                    name=f"{NAME}-{number}", port=0,
                    environment=environment.get(name),
                    # No health checks of those that wait for their turn.
                    options=[
                        f"--cpuset-cpus={self.server_cpu}", "--health-interval=1h"
                    ],
                )  # fmt: skip
                stack.callback(self.using.discard, started.name, echo=False)
                found[name] = self._server(started)
            yield found

    def _server(self, started: container.Container) -> Server:
        form = (
            "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        )
        answer = self.using.run(
            "container", "inspect", "--format", form, started.name, echo=False
        )
        # A published port has a proxy of the engine before it, which needs CPU too.
        pid, *addresses = answer.stdout.split()
        url = f"http://{addresses[0]}:{PORT}/" if addresses else started.url
        return Server(started.name, int(pid), url)

    def load(self, server: Server, connections: int, seconds: float) -> Load:
        before = cpu(server.pid)
        with self._wrk(server, connections, seconds) as wrk:
            out, _ = wrk.communicate()
        return _parse(out, cpu(server.pid) - before)

    def memory_under_load(self, server: Server) -> tuple[float, float] | None:
        with self._wrk(server, LOADS[-1], SECONDS) as wrk:
            time.sleep(SECONDS / 2)
            found = memory(server.pid)
            wrk.communicate()
        return found

    def _wrk(
        self, server: Server, connections: int, seconds: float
    ) -> subprocess.Popen[str]:
        command = ["taskset", "--cpu-list", str(self.client_cpu), "wrk", "--latency"]
        command += ["--threads=1", f"--connections={connections}", "--timeout=10s"]
        return subprocess.Popen(
            [*command, f"--duration={seconds:g}s", server.url],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def stop(self, server: Server) -> float:
        """Milliseconds from SIGTERM to the end of the main process."""
        ended = select.poll()
        descriptor = os.pidfd_open(server.pid)
        try:
            ended.register(descriptor, select.POLLIN)
            began = time.perf_counter()
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            except PermissionError:  # not root: the engine's command is timed as well
                self.using.run("kill", "--signal=TERM", server.name, echo=False)
            ended.poll(60_000)
            return (time.perf_counter() - began) * 1000
        finally:
            os.close(descriptor)


def _parse(out: str, used: float) -> Load:
    def percentile(number: int) -> float:
        match = re.search(rf"^ +{number}% +([\d.]+)(us|ms|s|m) *$", out, re.MULTILINE)
        assert match, out
        return float(match[1]) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[match[2]]

    rate = re.search(r"^Requests/sec: +([\d.]+)", out, re.MULTILINE)
    count = re.search(r"^ +(\d+) requests in ", out, re.MULTILINE)
    assert rate, out
    assert count, out
    failed = re.findall(r"(?:(?:connect|read|write|timeout)|3xx responses:) (\d+)", out)
    return Load(
        rate=float(rate[1]),
        p50=percentile(50),
        p99=percentile(99),
        failed=sum(map(int, failed)),
        cpu=used * 1000 / max(int(count[1]), 1),
    )


def processes(pid: int) -> Iterator[Path]:
    """A process and its descendants, as directories of /proc."""
    found = Path(f"/proc/{pid}")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        yield found
        for task in (found / "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from processes(int(child))


def cpu(pid: int) -> float:
    """Seconds of CPU that the threads of a process and its descendants have used."""
    threads = (task for found in processes(pid) for task in (found / "task").iterdir())
    # In ns; the clock ticks of stat are as long as a hundred requests.
    return sum(int((t / "schedstat").read_text().split()[0]) for t in threads) / 1e9


def memory(pid: int) -> tuple[float, float] | None:
    """MB resident, summed over a process and its descendants, and their fair share.

    The share counts a page that n processes have 1/n times each (PSS). None where
    this user may not read it.
    """
    resident = shared = 0
    for process in processes(pid):
        try:
            text = (process / "smaps_rollup").read_text()
        except PermissionError:
            return None
        fields = dict(re.findall(r"^(Rss|Pss): +(\d+) kB", text, re.MULTILINE))
        resident += int(fields["Rss"])
        shared += int(fields["Pss"])
    return resident / 1024, shared / 1024


# --- Figures ---------------------------------------------------------------------


def servers(service: Service) -> Iterator[Row]:
    """Ours against the others: one CPU, one worker, the same number of threads.

    Where others use the CPU too, a second of it tells more than one of the clock.
    """
    images = {name: _tag(number) for number, name in enumerate(SERVERS)}
    with service.running(images, {}) as running:
        for server in running.values():
            service.load(
                server, LOADS[0], 1
            )  # what the first requests import and cache
        for connections in LOADS:
            yield from _compare(service, running, connections)
    rows, idle = [], {}
    for name in LOGGED:
        # One at a time: containers of one image share pages.
        with service.running({name: images[name]}, {}) as running:
            idle[name] = memory(running[name].pid)
            loaded = service.memory_under_load(running[name])
        rows.append((name, *_megabytes(idle[name]), *_megabytes(loaded)))
    header = ("", "RSS MB idle", "PSS", f"RSS MB at {LOADS[-1]} connections", "PSS")
    table(
        "Memory, all processes of a container (goal ≤ 32 MB idle, ≤ 1.2 × gunicorn)",
        header,
        rows,
    )
    mine, theirs = idle[OURS], idle[GUNICORN]
    yield Row(
        "resident memory, idle",
        f"{mine[0]:.1f} MB" if mine else "root only",
        f"{GUNICORN}: {theirs[0]:.1f} MB" if theirs else "",
        f"{mine[0] / theirs[0]:.2f}" if mine and theirs else "",
        "≤ 32 MB",
        mine[0] <= 32 if mine else None,
    )
    stops: dict[str, list[float]] = {name: [] for name in LOGGED}
    for _ in range(STOPS):
        with service.running({name: images[name] for name in LOGGED}, {}) as running:
            for name, server in running.items():
                stops[name].append(service.stop(server))
    table(
        "From SIGTERM to the end, idle (goal ≤ 200 ms)",
        ("", "median ms", "min–max"),
        [(name, *_spread(stops[name], "{:.0f}")) for name in LOGGED],
    )


def _megabytes(found: tuple[float, float] | None) -> tuple[str, str]:
    return (f"{found[0]:.1f}", f"{found[1]:.1f}") if found else ("root only", "")


def _compare(
    service: Service, running: Mapping[str, Server], connections: int
) -> Iterator[Row]:
    found: dict[str, list[Load]] = {name: [] for name in running}
    for _ in range(ROUNDS):
        for name, server in running.items():
            found[name].append(service.load(server, connections, SECONDS))
    rows = []
    for name, runs in found.items():
        rates = [run.rate for run in runs]
        rows.append(
            (
                name,
                *_spread(rates, "{:.0f}"),
                *(_ratio(rates, (run.rate for run in found[p])) for p in PEERS),
                f"{statistics.median(run.cpu for run in runs):.2f}",
                *(
                    _ratio((run.cpu for run in found[p]), (run.cpu for run in runs))
                    for p in PEERS
                ),
                f"{statistics.median(run.p50 for run in runs):.1f}",
                f"{statistics.median(run.p99 for run in runs):.1f}",
                sum(run.failed for run in runs),
            )
        )
    table(
        f"`/` over {connections} connections that are kept, {THREADS} threads, one CPU "
        f"(goal ≥ 1.0 × {PLAIN}, ≥ 1.5 × gunicorn)",
        (
            "",
            "requests/s",
            "min–max",
            "× waitress alone",
            "× gunicorn",
            "CPU ms each",
            "a CPU second's × waitress alone",
            "a CPU second's × gunicorn",
            "p50 ms",
            "p99 ms",
            "failed",
        ),
        rows,
    )

    mine = [run.rate for run in found[OURS]]
    for peer, least in ((PLAIN, 1.0), (GUNICORN, 1.5), ("granian", None)):
        others = [run.rate for run in found[peer]]
        ratio = _ratio(mine, others)
        yield Row(
            f"requests/s of `/`, access log on, {connections} connections",
            f"{statistics.median(mine):.0f}",
            f"{peer}: {statistics.median(others):.0f}",
            ratio,
            f"≥ {least} ×" if least else "print",
            float(ratio) >= least if least else None,
        )


def _ratio(values: Iterable[float], others: Iterable[float]) -> str:
    """The median of each round's ratio: rounds differ more than servers do."""
    ratios = [value / other for value, other in zip(values, others, strict=True)]
    return f"{statistics.median(ratios):.2f}"


def _spread(values: Sequence[float], form: str) -> tuple[str, str]:
    low, high = form.format(min(values)), form.format(max(values))
    return form.format(statistics.median(values)), f"{low}–{high}"


def sizing(service: Service) -> None:
    """What more threads and more connections do to ours."""
    images = {str(threads): _tag(0) for threads in SIZES}
    environment = {
        # By default fewer connections are held than the most that are tried here.
        name: {"SERVED_THREADS": name, "SERVED_CONNECTIONS": "2000"}
        for name in images
    }
    found: dict[tuple[str, int], list[Load]] = {}
    with service.running(images, environment) as running:
        for _ in range(3):
            for connections in CONNECTIONS:
                for name, server in running.items():
                    # 1,000 connections take a while to be made.
                    seconds = 2 * SECONDS if connections > 100 else SECONDS
                    load = service.load(server, connections, seconds)
                    found.setdefault((name, connections), []).append(load)
    rows = []
    for name in images:
        cells = [found[name, connections] for connections in CONNECTIONS]
        rows.append(
            (
                name,
                *(f"{statistics.median(r.rate for r in runs):.0f}" for runs in cells),
                *(f"{statistics.median(r.p99 for r in runs):.0f}" for runs in cells),
                sum(run.failed for runs in cells for run in runs),
            )
        )
    table(
        "`/` by threads and connections, one CPU",
        ("threads", *(f"requests/s at {n}" for n in CONNECTIONS),
         *(f"p99 ms at {n}" for n in CONNECTIONS), "failed"),
        rows,
    )  # fmt: skip
