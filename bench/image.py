"""The image: its base, its size, its build and its start, each against a peer."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Set
from pathlib import Path

from bench.measure import (
    compared,
    interleaved,
    quiet,
    require,
    seconds,
    table,
    timed,
)
from containerize import build as building
from containerize.engines import container, engine
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.fetch import inputs
from containerize.image import canonical
from containerize.lock import locks
from containerize.pack import layers
from containerize.settings import Settings, find_root, load
from tests.conftest import Quiet, copied, unused_port

NAME = "containerize-bench"


def main() -> None:
    """Print all figures of the image."""
    project = dataclasses.replace(load(find_root(Path(__file__).parent)), image=NAME)
    inputs.fetch(project, progress=Quiet())
    using = engine.find(project)
    found = using.describe()
    print(f"Engine: {found.kind} {found.server}, {found.builder}, {found.store}")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o755)  # mmdebstrap reads in it as another user
        ours = copied(project, scratch / "clone")
        base(ours, scratch)
        try:
            with quiet():
                built = building.build(ours, using, output=scratch / "image.tar")
            size(built)
            theirs = Tutorial(ours, using, scratch)
            with quiet():
                theirs.build()
            build(ours, using, scratch, theirs)
            start(ours, using, theirs)
            weigh(using, {"ours": built.references[0], TUTORIAL: theirs.image})
            archive(using, built, scratch)
        finally:
            building.remove(ours, using)
    commands(project)
    memory()


def base(ours: Settings, scratch: Path) -> None:
    """Our base layer against mmdebstrap's, from the same packages on this disk."""
    require("mmdebstrap", "mmdebstrap")
    require("dpkg-scanpackages", "dpkg-dev")
    collected = inputs.collect(ours)
    debs = scratch / "debs"
    debs.mkdir()
    for package, path in collected.packages:
        shutil.copy(path, debs / Path(package.path).name)
    index = subprocess.run(
        ["dpkg-scanpackages", "--multiversion", "."], cwd=debs, check=True,
        capture_output=True,
    ).stdout  # fmt: skip
    # Without dependencies, or apt would take more than is locked.
    fields = re.compile(rb"^(Pre-)?Depends:.*\n", re.MULTILINE)
    (debs / "Packages").write_bytes(fields.sub(b"", index))
    names = ",".join(package.name for package, _ in collected.packages)

    theirs = ["mmdebstrap", "--quiet", "--variant=extract"]
    theirs += [f"--include={names}", f"--architectures={ours.image_architecture}"]
    theirs += ["", str(scratch / "mm.tar"), f"deb [trusted=yes] copy:{debs} ./"]

    def mmdebstrap() -> None:
        subprocess.run(theirs, check=True)

    def packed() -> None:
        files = [path for _, path in collected.packages]
        with (scratch / "rootfs.tar").open("wb") as file:
            layers.rootfs(files, ours.python).write(file, locks.read_base(ours).time)

    compared(
        "Base: the locked packages as one tar (goal ≤ 0.5 ×)",
        interleaved(
            {"containerize": timed(packed), "mmdebstrap": timed(mmdebstrap)}, 3
        ),
        "mmdebstrap",
    )
    first, second = (_files(scratch / name) for name in ("rootfs.tar", "mm.tar"))
    mine, others = first.keys(), second.keys()
    both = mine & others
    other = sorted(path for path in both if first[path] != second[path])
    rows = [("both", len(both) - len(other), "", "alike in type, mode, link, content")]
    if other:
        rows.append(("both", len(other), ", ".join(other), "unlike"))
    rows += _explained("ours", mine - others, ONLY_OURS)
    rows += _explained("mmdebstrap's", others - mine, ONLY_THEIRS)
    table("Its files", ("in", "paths", "which", "why"), rows)


ONLY_OURS = {
    ("var/lib/dpkg/status.d",): "the packages, where scanners look for them",
    ("etc/passwd", "etc/group"): "the user; base-passwd's script makes them elsewhere",
    ("etc/nsswitch.conf",): "base-files' script makes it elsewhere",
    ("etc/ssl/certs", "usr/lib/ssl"): "the CA bundle; ca-certificates' script, openssl",
    ("usr/bin/python3",): "package python3-minimal has it",
    ("usr/local",): "where the wheels go",
}
ONLY_THEIRS = {
    layers.LEFT_OUT: "documentation, as in Debian's slim images; copyrights stay",
    ("dev",): "an engine mounts its own",
    ("etc/hostname", "etc/resolv.conf", "etc/fstab"): "an engine's, or a machine's",
    (
        "etc/apt",
        "etc/dpkg",
        "var/cache/apt",
        "var/lib/apt",
        "var/lib/dpkg",
        "var/log/apt",
    ): "the package manager's",
}


def _explained(
    whose: str, paths: Set[str], reasons: Mapping[tuple[str, ...], str]
) -> list[tuple[str, int, str, str]]:
    rows = []
    for tops, reason in reasons.items():
        found = {p for p in paths if any(p == t or p.startswith(f"{t}/") for t in tops)}
        paths = paths - found
        rows.append((whose, len(found), ", ".join(f"/{top}" for top in tops), reason))
    if paths:
        rows.append((whose, len(paths), ", ".join(sorted(paths)), "**unexplained**"))
    return rows


def _files(path: Path) -> dict[str, tuple[object, ...]]:
    """What is in an archive, by path; hard links as what they link to."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./").rstrip("/")
            has = member.isreg() or member.islnk()
            content = archive.extractfile(member) if has else None
            kind = tarfile.REGTYPE if member.islnk() else member.type
            link = member.linkname if member.issym() else ""
            digest = hashlib.sha256(content.read()).digest() if content else b""
            found[name] = (kind, member.mode & 0o7777, link, digest)
    return {name: value for name, value in found.items() if name not in ("", ".")}


def size(built: building.Image) -> None:
    """What each layer weighs."""
    found = built.digests.layers
    rows = [
        (name, f"{layer.size / 1e6:.1f}", f"{layer.compressed_size / 1e6:.1f}")
        for name, layer in zip(
            ("rootfs", "deps", "service", "app", "compiled"), found, strict=True
        )
    ]
    sums = (sum(layer.size for layer in found), sum(x.compressed_size for x in found))
    rows.append(("all", f"{sums[0] / 1e6:.1f}", f"{sums[1] / 1e6:.1f}"))
    table(
        "Size of the layers (goal ≤ 75 and 25 MB)",
        ("layer", "MB", "MB compressed"),
        rows,
    )


TUTORIAL = "the tutorial's way"
DOCKERFILE = """
FROM {base}
WORKDIR /srv
COPY . .
RUN pip install --break-system-packages --no-index --find-links /wheels \\
    --require-hashes --requirement requirements.txt
ENV PYTHONPATH=/srv
CMD ["python3", "-m", "app"]
"""


class Tutorial:
    """pip in the build, on a base with Python and pip, which is made once.

    pip takes the wheels that ours takes, from a directory of that base: the network
    would be timed, and our build uses none.
    """

    def __init__(self, ours: Settings, using: Engine, scratch: Path) -> None:
        self.using = using
        self.image = f"{NAME}:tutorial"
        self.root = scratch / "tutorial"
        shutil.copytree(ours.root / ours.app, self.root / ours.app)
        shutil.copy(ours.root / "requirements.txt", self.root)
        wheels = scratch / "wheels"
        wheels.mkdir()
        for wheel in inputs.collect(ours).wheels:
            shutil.copy(wheel.path, wheels / wheel.name)
        rootfs = scratch / "tutorial.tar"
        command = ["mmdebstrap", "--quiet", "--variant=apt", ours.suite, str(rootfs)]
        command += ["--include=python3-pip,ca-certificates"]
        command += [f"--customize-hook=copy-in {wheels} /"]
        subprocess.run(command, check=True)
        base = f"{NAME}:tutorial-base"
        label = "LABEL " + ours.label
        using.run("import", f"--change={label}", str(rootfs), base, echo=False)
        dockerfile = DOCKERFILE.format(base=base)
        (self.root / "Dockerfile").write_text(dockerfile, "utf-8")

    def build(self) -> None:
        form = ["--format=docker"] if self.using.kind == "podman" else []
        command = ["build", *form, "--no-cache", "--tag", self.image, "."]
        self.using.stream(*command, cwd=self.root)


def build(ours: Settings, using: Engine, scratch: Path, theirs: Tutorial) -> None:
    """`invoke build` against the plain `docker build` of the same context."""
    names = [f"{NAME}:plain"]
    command = building.build_command(ours, using.kind, names, cache=False)
    app = ours.root / ours.app / "__init__.py"
    before = app.read_bytes()

    def whole() -> None:
        shutil.rmtree(ours.build_dir, ignore_errors=True)
        building.build(ours, using, cache=False, output=scratch / "built.tar")

    def changed() -> None:
        app.write_bytes(app.read_bytes() + b"#\n")
        building.build(ours, using, output=scratch / "built.tar")

    plain = "plain build, no cache"
    runs = {
        "whole build, no cache": whole,
        "one line of app/ changed": changed,
        plain: lambda: using.stream(*command, cwd=ours.root),
        TUTORIAL: theirs.build,
    }
    with quiet():
        building.build(
            ours, using, output=scratch / "built.tar"
        )  # a cache to start from
        found = interleaved({name: timed(run) for name, run in runs.items()}, 3)
    title = "Build from cached inputs: pack, build, make canonical, load (goal ≤ 2 ×)"
    compared(title, found, plain, TUTORIAL)
    app.write_bytes(before)


def start(ours: Settings, using: Engine, theirs: Tutorial) -> None:
    """From `run` to the first 200, with and without the compiled modules."""
    reference, nothing = ours.reference(), "`python3 -c pass`"
    runs = {
        "our image": lambda: first_answer(ours, using, reference),
        "without compiled modules": lambda: first_answer(
            ours, using, reference, {"PYTHONPYCACHEPREFIX": "/nowhere"}
        ),
        nothing: lambda: _nothing(ours, using, reference),
        TUTORIAL: lambda: first_answer(ours, using, theirs.image),
    }
    title = "Start: `run` to the first 200 (goal ≤ 1.5 ×)"
    compared(title, interleaved(runs), nothing, TUTORIAL)


def weigh(using: Engine, images: Mapping[str, str]) -> None:
    """What the images weigh, unpacked."""
    rows = []
    for name, reference in images.items():
        form = ("image", "inspect", "--format", "{{.Size}}", reference)
        size = int(using.run(*form, echo=False).stdout)
        rows.append((name, f"{size / 1e6:.0f}"))
    table("Size against the tutorial's way", ("", "MB"), rows)


def first_answer(
    ours: Settings,
    using: Engine,
    reference: str,
    environment: Mapping[str, str] | None = None,
) -> float:
    """Seconds from `run` to the first 200."""
    port = unused_port()
    given = tuple(f"--env={key}={value}" for key, value in (environment or {}).items())
    launch = container.Launch(
        settings=ours, reference=reference, name=f"{NAME}-run", port=port, options=given
    )
    command = launch.command()

    def run() -> None:
        using.run(*command, echo=False)
        _wait(port)

    try:
        return seconds(run)
    finally:
        using.discard(f"{NAME}-run", echo=False)


def _nothing(ours: Settings, using: Engine, reference: str) -> float:
    """Seconds of a container that starts Python and ends."""
    words = ("python3", "-c", "pass")
    launch = container.Launch(
        settings=ours, reference=reference, name=f"{NAME}-pass", port=0, words=words
    )
    try:
        return seconds(lambda: using.run(*launch.command(("run",)), echo=False))
    finally:
        using.discard(f"{NAME}-pass", echo=False)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return
        time.sleep(0.005)
    raise Problem("no answer within 60 s")


def archive(using: Engine, built: building.Image, scratch: Path) -> None:
    """Making an image canonical against only saving it."""
    saved = scratch / "saved.tar"
    command = building.save_command(using.kind, built.references[0], saved)

    def save() -> None:
        saved.unlink(missing_ok=True)
        using.run(*command, echo=False)

    def make_canonical() -> None:
        canonical.canonicalize(
            saved, scratch / "again.tar", time=0, labels={}, references=["x:y"]
        )

    found = interleaved(
        {f"{using.kind} save": timed(save), "canonicalize": timed(make_canonical)}
    )
    compared("Making the image canonical", found, f"{using.kind} save")


def commands(project: Settings) -> None:
    """The commands that should be quick."""
    codes = []

    def run(*arguments: str) -> Callable[[], float]:
        def invoke() -> None:
            done = subprocess.run(
                [sys.executable, "-m", "invoke", *arguments],
                cwd=project.root, check=False, capture_output=True,
            )  # fmt: skip
            codes.append(done.returncode)

        return timed(invoke)

    quick = {"invoke --list": run("--list"), "invoke --version": run("--version")}
    compared("Commands (goal ≤ 0.15 s)", interleaved(quick), "invoke --version")
    assert not any(codes), codes
    times = interleaved({"invoke verify": run("verify")}, 3)
    compared("Two rebuilds compared (goal ≤ 15 s)", times)
    if any(codes):
        print("\nIt found the image to be another than digests.json says.")


def memory() -> None:
    """Peak memory of making an image of 2 GB canonical."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        path = Path(directory, "big.tar")
        _big_image(path)
        canonicalize = (
            "from pathlib import Path;"
            "canonical.canonicalize(Path(sys.argv[1]), Path(sys.argv[1] + '.out'),"
            " time=0, labels={}, references=['x:y'])"
        )
        # Not ru_maxrss: a child begins with its parent's.
        script = (
            "import sys; from containerize.image import canonical; {};"
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
        )
        peaks = [
            subprocess.run(
                [sys.executable, "-c", script.format(code), str(path)], check=True,
                capture_output=True, text=True, cwd=find_root(Path(__file__).parent),
            ).stdout
            for code in (canonicalize, "pass")
        ]  # fmt: skip
    kib, empty = map(int, peaks)
    print(
        f"\nPeak memory, an image of 2 GB made canonical: {kib / 1024:.0f} MB; "
        f"{empty / 1024:.0f} MB of it are the interpreter and its modules"
    )


def _big_image(path: Path) -> None:
    """An image archive of 2 GB, half of it random, in files of 64 MB."""
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        for number in range(32):
            info = tarfile.TarInfo(f"file-{number}")
            info.size = 64 << 20
            half = os.urandom(32 << 20)
            tar.addfile(info, io.BytesIO(half + bytes(32 << 20)))
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
        }
    ).encode()  # fmt: skip
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps(
        [{"Config": name, "RepoTags": ["x:y"], "Layers": ["layer.tar"]}]
    )
    with tarfile.open(path, "w") as tar:
        tar.add(layer, "layer.tar")
        for member, content in ((name, config), ("manifest.json", manifest.encode())):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    layer.unlink()
