"""Build again, from nothing and elsewhere, and see whether the same image comes out.

Each rebuild runs in processes of its own, in a copy of the repository, with a fresh
build directory and the builder's cache off. What a varied one has otherwise is what
Debian's reprotest varies, as far as it reaches what runs outside of the engine: inside
of it the clock goes on by itself, and the rest is the engine's own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from containerize import build, disk, environ
from containerize.engines.engine import Engine, ignore
from containerize.errors import Problem
from containerize.fetch import bases, inputs
from containerize.image import record
from containerize.image.canonical import ImageDigests
from containerize.lock import locks
from containerize.pack import selection, sources
from containerize.settings import Settings
from containerize.verify import expected, explain
from containerize.verify.expected import Built, Expected
from containerize.verify.explain import Difference

AHEAD = 400 * 24 * 3600
"""Seconds that the clock of a varied rebuild is ahead."""

NOISE = (
    "BUILDAH_FORMAT",
    "BUILDAH_LAYERS",
    "BUILDX_GIT_LABELS",
    "BUILDX_METADATA_PROVENANCE",
    "BUILDX_NO_DEFAULT_LOAD",
    "DOCKER_CONTENT_TRUST",
    "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_TARGET",
    "PIP_USER",
)
"""Variables that a varied rebuild has besides, all of them 1."""

FIRST = "the first rebuild"
"""What others are compared with where nothing else is given."""

NOBODY = 65534
"""The user that packs the layers in a varied rebuild of root's."""


@dataclasses.dataclass(frozen=True)
class Rebuild:
    """An image built from nothing; its files last as long as `scratch` does."""

    name: str
    digests: ImageDigests
    scratch: Path
    seconds: float

    @property
    def archive(self) -> Path:
        return self.scratch / "image.tar"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether rebuilds gave what was expected, and what is known of why not."""

    rebuilds: tuple[Rebuild, ...]
    expected: str
    """What they were compared with, in words."""
    digest: str
    """The digest that was expected."""
    differences: tuple[Difference, ...] = ()
    """What differs between two archives, where there were two."""
    changed: tuple[str, ...] = ()
    """Inputs that are others than those of the expected image, where they are known."""
    architecture: str = ""
    besides: tuple[str, ...] = ()
    """What else decides what runs (`Target.besides`)."""

    @property
    def equal(self) -> bool:
        return all(self.digest in _names(r.digests) for r in self.rebuilds)

    @property
    def hint(self) -> str:
        """What a digest alone tells, where the image is another one."""
        part = explain.named(self.rebuilds[0].digests, self.digest)
        if part:
            return f"{self.digest} is the digest of {part}"
        return "nothing in the image has this digest: give an archive to learn why"

    @property
    def by(self) -> str:
        """The digest by which they are equal, and whose it is."""
        manifest = self.digest == self.rebuilds[0].digests.manifest
        return f"{'manifest' if manifest else 'config'} {self.digest}"


def verify(
    settings: Settings,
    engines: Sequence[Engine],
    *,
    against: Expected | None = None,
    verbose: bool = False,
    on_rebuild: Callable[[Rebuild], None] = lambda _: None,
    besides: Callable[[Path], Sequence[str]] = lambda _: (),
) -> Verdict:
    """Rebuild and compare: with `against`, or else the rebuilds with one another.

    Without it, the first engine builds a plain image and every engine a varied one;
    equal ones must be those of digests.json, if that is there. `besides` is given an
    archive of the image. Raises Problem where another format of this tool made the
    Dockerfile, and where a build fails.
    """
    build.check_dockerfile(settings)  # first: a digest of it is saved after its mend
    wanted = against or expected.golden(settings).images[0]
    # Not in /tmp: an engine that is confined, as by snap, has one of its own.
    with disk.scratch(settings.dist_dir) as scratch:
        scratch.chmod(0o755)
        plans = [(engine, not against) for engine in engines]
        if not against:
            plans.insert(0, (engines[0], False))
        rebuilds = []
        with (
            contextlib.ExitStack() as stack,
            concurrent.futures.ThreadPoolExecutor(len(plans)) as pool,
        ):
            for engine in engines:
                stack.enter_context(_tidied(settings, engine))
            futures = [
                pool.submit(rebuild, settings, engine, scratch, varied=varied)
                for engine, varied in plans
            ]
            for future in futures:
                rebuilds.append(future.result())
                on_rebuild(rebuilds[-1])
        return _judged(rebuilds, wanted, scratch, verbose, besides)


def _judged(
    rebuilds: Sequence[Rebuild],
    wanted: Expected,
    scratch: Path,
    verbose: bool,
    besides: Callable[[Path], Sequence[str]],
) -> Verdict:
    """What the rebuilds are, compared with one another and with what is wanted."""
    first, digests = rebuilds[0], rebuilds[0].digests
    verdict = Verdict(
        tuple(rebuilds),
        FIRST,
        digests.manifest,
        architecture=wanted.architecture,
    )
    other = next((r for r in rebuilds if r.digests.manifest != digests.manifest), None)
    if other:
        found = explain.compare(first.archive, other.archive, verbose=verbose)
        return dataclasses.replace(verdict, differences=tuple(found))
    if not wanted.digest:
        return verdict
    if wanted.digest not in _names(digests) and wanted.look:
        built = Built(digests=digests, archive=first.archive, scratch=scratch)
        wanted = wanted.look(wanted, built)
    verdict = dataclasses.replace(
        verdict,
        expected=wanted.name,
        digest=wanted.digest,
        changed=wanted.changed,
        besides=tuple(besides(first.archive)),
    )
    if verdict.equal or not wanted.archive:
        return verdict
    found = explain.compare(wanted.archive, first.archive, verbose=verbose)
    return dataclasses.replace(verdict, differences=tuple(found))


def _names(digests: ImageDigests) -> tuple[str, ...]:
    return digests.manifest, digests.config


# --- One rebuild -----------------------------------------------------------------


def rebuild(
    settings: Settings, engine: Engine, scratch: Path, *, varied: bool
) -> Rebuild:
    """Build the repository from nothing in a copy of its own below `scratch`.

    Neither the tree, nor its tags, nor the record of the last build change. Raises
    Problem where the build fails, with the last line of its log.
    """
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(dir=scratch, prefix="verify-"))
    home.chmod(0o755)
    root = home / (os.fsdecode("ein längerer Pfad".encode()) if varied else "copy")
    _copy(settings, root, varied)
    host = engine.native()
    cache = _fresh_cache(settings, home, host) if varied else settings.cache_dir
    copied = dataclasses.replace(settings, root=root, cache=str(cache))
    tag = home.name.replace("_", "-")
    # The second process gets ready while the first one packs.
    with _process("build", root, varied=varied) as building:
        with contextlib.ExitStack() as stack:
            user = None
            if varied and os.geteuid() == 0 and _may_run(NOBODY, root):
                user = NOBODY
                stack.enter_context(_owned_by(user, home))
            packing = stack.enter_context(
                _process("pack", root, varied=varied, user=user)
            )
            packing.finish(copied, engine, varied=varied)
        try:
            building.finish(copied, engine, varied=varied, tag=tag)
        finally:
            engine.run("rmi", settings.reference(tag), check=False, echo=False)
    digests = pickle.loads((home / "digests").read_bytes())  # noqa: S301 - our own
    name = f"{engine.kind}, {'varied' if varied else 'plain'}"
    return Rebuild(name, digests, home, time.monotonic() - began)


def _copy(settings: Settings, target: Path, varied: bool) -> None:
    """Copy what git would take of the repository, and what the setting include names.

    Varied, in another order and time.

    Without the .gitignore files: the copy is no checkout, and all in it was taken.
    """
    found = {file.path: file for file in selection.app(settings).files}
    found |= {file.path: file for file in sources.read(settings.root).files}
    files = [found[path] for path in sorted(found)]
    target.mkdir()
    for file in reversed(files) if varied else files:
        if PurePosixPath(file.path).name == ".gitignore":
            continue
        copy = file.write(target, mask=0o077 if varied else 0o022)
        if varied:
            os.utime(copy, (AHEAD, AHEAD), follow_symlinks=False)


def _fresh_cache(settings: Settings, home: Path, host: str) -> Path:
    """A copy of the inputs that the locks name, each hashed on the way.

    And of those that compile on the processor `host`.
    """
    collected = inputs.collect(settings)
    compiling = inputs.collect_base(settings.for_architecture(host))
    cache = home / "cache"
    cache.mkdir()
    for path in {
        *(wheel.path for wheel in collected.wheels),
        *(path for _, path in (*collected.packages, *compiling.packages)),
        *(wheel.path for wheel in inputs.collect_backend(settings)),
        *bases.collect(settings),
    }:
        shutil.copyfile(path, cache / path.name)
    return cache


@contextlib.contextmanager
def _owned_by(user: int, top: Path) -> Iterator[None]:
    for owner in (user, os.geteuid()):
        for path in (top, *top.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)
        if owner == user:
            yield


def _may_run(user: int, directory: Path) -> bool:
    """Whether another user may run this Python and see this package."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import containerize.pack.layers"],
            cwd=directory.parent,
            user=user,
            group=user,
            extra_groups=[],
            env=environ.python({}) | {"PYTHONPATH": str(_top())},
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _top() -> Path:
    """The directory that this package is in."""
    return Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def _tidied(settings: Settings, engine: Engine) -> Iterator[None]:
    """Remove the nameless images that builders without a cache leave behind."""
    before = _dangling(settings, engine)
    try:
        yield
    finally:
        if left := _dangling(settings, engine) - before:
            engine.run("rmi", *left, check=False, echo=False)


def _dangling(settings: Settings, engine: Engine) -> set[str]:
    """The project's images that have no name any more, such as those of stages."""
    filters = ("--filter=dangling=true", f"--filter=label={settings.label}")
    return set(engine.listing("images", "--quiet", "--no-trunc", *filters))


@dataclasses.dataclass(frozen=True)
class _Process:
    """A process of a rebuild's own, which waits for the plan of its step."""

    step: str
    popen: subprocess.Popen[bytes]
    log: Path

    def finish(
        self, settings: Settings, engine: Engine, *, varied: bool, tag: str = ""
    ) -> None:
        """Give it the plan and wait. Raises Problem with its last words."""
        # An engine finds its settings and its images in the user's home.
        variables = _home() | dict(engine.environment)
        plan = (
            self.step,
            dataclasses.replace(settings, root=Path()),  # its text has a locale
            dataclasses.replace(engine, environment=variables, on_command=ignore),
            tag,
            varied,
        )
        self.popen.communicate(pickle.dumps(plan))
        if self.popen.returncode:
            lines = self.log.read_text("utf-8", "replace").strip().splitlines()
            silent = (
                f"its step {self.step} ended with exit code {self.popen.returncode} "
                "and no word"
            )
            raise Problem(f"a rebuild failed: {lines[-1] if lines else silent}")


@contextlib.contextmanager
def _process(
    step: str, root: Path, *, varied: bool, user: int | None = None
) -> Iterator[_Process]:
    """Start a process in `root`; on leaving it has ended."""
    log = root.with_name(f"{step}.log")
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=root,
            env=_environment(root.parent, varied),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            umask=0o077 if varied else 0o022,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        ) as popen,
    ):
        yield _Process(step, popen, log)


def _home() -> dict[str, str]:
    return {"HOME": os.environ["HOME"]} if "HOME" in os.environ else {}


def _environment(home: Path, varied: bool) -> dict[str, str]:
    """The environment of a rebuild's process."""
    variables = environ.python(os.environ) | {"PYTHONPATH": str(_top())}
    if not varied:
        return variables
    # What tools read and `environ` holds back, each with a value that would show.
    noise = dict.fromkeys(NOISE, "1")
    return (
        variables
        | noise
        | {
            "TZ": "Pacific/Kiritimati",
            "LC_ALL": "C",
            "LANGUAGE": "tr",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONUTF8": "0",
            "PYTHONHASHSEED": "4711",
            "USER": "somebody-else",
            "LOGNAME": "somebody-else",
            "HOME": str(home),
            "CFLAGS": "-g",
            "DEB_BUILD_OPTIONS": "noopt",
            "SOURCE_DATE_EPOCH": str(AHEAD),
            "DOCKER_DEFAULT_PLATFORM": "linux/s390x",
            "CAPTURE_ENVIRONMENT": "noise",
        }
    )


def _vary() -> None:
    """Give this process another clock, order of files and number of CPUs."""
    now, now_ns, listdir = time.time, time.time_ns, os.listdir

    def shuffled(path: str = ".") -> list[str]:
        names = listdir(path)
        random.shuffle(names)
        return names

    time.time = lambda: now() + AHEAD
    time.time_ns = lambda: now_ns() + AHEAD * 10**9
    os.listdir = shuffled  # type: ignore[assignment]
    # macOS lets no process choose its CPUs.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@contextlib.contextmanager
def _turn(file: Path) -> Iterator[None]:
    """Builds by engines of one kind come one after the other.

    At the same time they would not show a step that writes the time, and BuildKit runs
    what two builds have in common once for both.
    """
    with file.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Do the step of a rebuild that stdin describes."""
    # From the process that began this one.
    step, settings, engine, tag, varied = pickle.load(sys.stdin.buffer)  # noqa: S301
    if varied:
        _vary()
    settings = dataclasses.replace(settings, root=Path.cwd())
    try:
        if step == "pack":
            build.pack(settings, host=engine.native())
            return
        names = build.references(settings, [tag])
        home = settings.root.parent
        with _turn(home.with_name(engine.kind)):
            build.make(settings, engine, names, cache=False)
        digests = build.export(
            settings, engine, names, home / "image.tar",
            time=locks.read_base(settings).time, sources=record.inputs(settings),
        )  # fmt: skip
        (home / "digests").write_bytes(pickle.dumps(digests))
    except Problem as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
