"""The image: its base, its size, its build and its start, each against a peer."""

from __future__ import annotations

import contextlib
import dataclasses
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
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measure import compared, interleaved, seconds, table
from containerize import canonical, container, engine, image, inputs, layers, locks
from containerize.engine import Engine
from containerize.errors import Problem
from containerize.layers import visible
from containerize.settings import Settings, find_root, load

NAME = "containerize-bench"


def main() -> None:
    """Print all figures of the image."""
    ours = dataclasses.replace(load(find_root(Path(__file__).parent)), image=NAME)
    inputs.fetch(ours, progress=_Silent())
    using = engine.find(ours)
    found = using.describe()
    print(f"Engine: {found.kind} {found.server}, {found.builder}, {found.store}")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        scratch = Path(directory)
        try:
            base(ours, scratch)
            with _quiet():
                built = image.build(ours, using, output=scratch / "image.tar")
            size(built)
            build(ours, using, scratch)
            start(ours, using, built)
            archive(using, built, scratch)
            tutorial(ours, using, scratch)
        finally:
            image.remove(ours, using)
    commands(ours)
    memory()


class _Silent:
    def start(self, name: str, total: int | None) -> None: ...
    def advance(self, size: int) -> None: ...
    def done(self) -> None: ...
    def note(self, text: str) -> None: ...


def base(ours: Settings, scratch: Path) -> None:
    """Our base layer against mmdebstrap's, from the same packages on this disk."""
    for tool in ("mmdebstrap", "dpkg-scanpackages"):
        if not shutil.which(tool):
            sys.exit(f"bench: {tool} is missing: apt-get install mmdebstrap dpkg-dev")
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

    theirs = ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract"]
    theirs += [f"--include={names}", f"--architectures={ours.image_architecture}"]
    theirs += ["", str(scratch / "mm.tar"), f"deb [trusted=yes] copy:{debs} ./"]

    def mmdebstrap() -> None:
        subprocess.run(theirs, check=True)

    def packed() -> None:
        files = [path for _, path in collected.packages]
        with (scratch / "rootfs.tar").open("wb") as file:
            layers.rootfs(files, ours.python).write(file, locks.read_base(ours).time)

    compared(
        "Base: the locked packages as one tar",
        interleaved({"containerize": packed, "mmdebstrap": mmdebstrap}, 3),
        "mmdebstrap",
    )
    listed = [_files(scratch / name) for name in ("rootfs.tar", "mm.tar")]
    only_ours = sorted(listed[0] - listed[1])
    left_out = [x for x in listed[1] - listed[0] if x.startswith(layers.LEFT_OUT)]
    others = sorted(listed[1] - listed[0] - set(left_out))
    status = [x for x in only_ours if x.startswith("var/lib/dpkg/status.d")]
    rest = [x for x in only_ours if x not in status]
    print(f"\nFiles of both: {len(listed[0] & listed[1])}.")
    print(f"Only ours: {len(status)} in var/lib/dpkg/status.d; {', '.join(rest)}.")
    print(f"Only mmdebstrap's: {len(left_out)} of documentation; {', '.join(others)}.")


def _files(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        names = {member.name.removeprefix("./").rstrip("/") for member in archive}
    return names - {"", "."}


def size(built: image.Image) -> None:
    """What each layer weighs."""
    found = built.digests.layers
    rows = [
        (name, f"{layer.size / 1e6:.1f}", f"{layer.compressed_size / 1e6:.1f}")
        for name, layer in zip(
            ("rootfs", "deps", "app", "compiled"), found, strict=True
        )
    ]
    sums = (sum(layer.size for layer in found), sum(x.compressed_size for x in found))
    rows.append(("all", f"{sums[0] / 1e6:.1f}", f"{sums[1] / 1e6:.1f}"))
    table("Size of the layers", ("layer", "MB", "MB compressed"), rows)


def build(ours: Settings, using: Engine, scratch: Path) -> None:
    """`invoke build` against the plain `docker build` of the same context."""
    plain = image.commands(ours, [f"{NAME}:plain"], kind=using.kind, cache=False)[0]
    root = scratch / "clone"
    for file in visible(ours.root, ours.root):
        copy = root / file.relative_to(ours.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    clone = dataclasses.replace(ours, root=root)
    layers.pack(clone)
    app = root / "app" / "__init__.py"

    def whole(cache: bool) -> Callable[[], object]:
        def run() -> None:
            if not cache:
                shutil.rmtree(clone.build_dir, ignore_errors=True)
            else:
                app.write_text(app.read_text("utf-8") + "#\n", "utf-8")
            image.build(clone, using, cache=cache, output=scratch / "built.tar")

        return run

    def plainly() -> None:
        using.stream(*plain, cwd=ours.root)

    runs = {
        "whole build, no cache": whole(False),
        "one line of app/ changed": whole(True),
        "plain build, no cache": plainly,
    }
    with _quiet():
        found = interleaved(runs, 3)
    compared(
        "Build from cached inputs: pack, build, make canonical, load", found,
        "plain build, no cache",
    )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the engine writes goes nowhere."""
    sys.stdout.flush()
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    try:
        yield
    finally:
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(nowhere)


def start(ours: Settings, using: Engine, built: image.Image) -> None:
    """From `docker run` to the first 200, with and without the compiled modules."""
    reference = built.references[0]

    def answered(**options: object) -> Callable[[], object]:
        return lambda: _first_answer(ours, using, reference, **options)

    def nothing() -> None:
        command = container.run_command(ours, reference, name=f"{NAME}-pass", port=0)
        command.remove("--detach")
        command[1:1] = ["--rm", "--entrypoint=python3"]
        using.run(*command, "-c", "pass", echo=False)

    compared(
        "Start: `run` to the first 200",
        interleaved(
            {
                "our image": answered(),
                "without compiled modules": answered(
                    environment={"PYTHONPYCACHEPREFIX": "/nowhere"}
                ),
                "`python3 -c pass`": nothing,
            }
        ),
        "`python3 -c pass`",
    )


def _first_answer(
    ours: Settings, using: Engine, reference: str, **options: object
) -> None:
    running = container.run(
        ours, using, reference, name=f"{NAME}-run", port=0, wait=False, **options  # type: ignore[arg-type]
    )  # fmt: skip
    try:
        _wait(container.published(ours, using, running.name))
    finally:
        now = ["--time", "0"] if using.kind == "podman" else []
        using.run("rm", "--force", *now, running.name, echo=False)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return
        time.sleep(0.005)
    raise Problem("no answer within 60 s")


def archive(using: Engine, built: image.Image, scratch: Path) -> None:
    """Making an image canonical against only saving it."""
    saved = scratch / "saved.tar"
    form = ["--format", "docker-archive"] if using.kind == "podman" else []

    def save() -> None:
        saved.unlink(missing_ok=True)
        using.run(
            "save", *form, "--output", str(saved), built.references[0], echo=False
        )

    def make_canonical() -> None:
        canonical.canonicalize(
            saved, scratch / "again.tar", time=0, labels={}, references=["x:y"]
        )

    found = interleaved({f"{using.kind} save": save, "canonicalize": make_canonical})
    compared("Making the image canonical", found, f"{using.kind} save")


TUTORIAL = """
FROM {base}
WORKDIR /srv
COPY . .
RUN {pip}
ENV PYTHONPATH=/srv
CMD ["python3", "-m", "app"]
"""


def tutorial(ours: Settings, using: Engine, scratch: Path) -> None:
    """The tutorial's way: pip in the build, on a base with Python and pip."""
    base = f"{NAME}:tutorial-base"
    root = scratch / "tutorial"
    root.mkdir()
    rootfs = scratch / "tutorial.tar"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--mode=root", "--variant=apt",
         "--include=python3-pip,ca-certificates", ours.suite, str(rootfs)],
        check=True,
    )  # fmt: skip
    using.run("import", str(rootfs), base, echo=False)
    shutil.copytree(ours.root / "app", root / "app")
    shutil.copy(ours.root / "requirements.txt", root)
    wheels = root / "wheels"
    wheels.mkdir()
    for wheel in inputs.collect(ours).wheels:
        shutil.copy(wheel.path, wheels / wheel.name)
    # From wheels that are there already: the network would be timed, and ours has none.
    pip = (
        "pip install --break-system-packages --no-index --find-links wheels "
        "--require-hashes --requirement requirements.txt"
    )
    (root / "Dockerfile").write_text(TUTORIAL.format(base=base, pip=pip))
    made = f"{NAME}:tutorial"
    command = ["build", "--no-cache", "--tag", made]
    if using.kind == "podman":
        command += ["--format", "docker"]

    def theirs() -> None:
        using.stream(*command, ".", cwd=root)

    def mine() -> None:
        shutil.rmtree(ours.build_dir, ignore_errors=True)
        image.build(ours, using, cache=False, output=scratch / "mine.tar")

    with _quiet():
        found = interleaved({"ours": mine, "the tutorial's": theirs}, 3)
    compared("Build against the tutorial's way", found, "the tutorial's")
    runs = {
        "ours": lambda: _first_answer(ours, using, ours.reference()),
        "the tutorial's": lambda: _first_answer(ours, using, made),
    }
    compared(
        "First answer against the tutorial's way", interleaved(runs), "the tutorial's"
    )
    answer = [
        using.run("image", "inspect", "--format", "{{.Size}}", name, echo=False).stdout
        for name in (ours.reference(), made)
    ]
    mine_size, their_size = map(int, answer)
    table(
        "Size against the tutorial's way",
        ("", "MB", "×"),
        [
            ("ours", f"{mine_size / 1e6:.0f}", f"{mine_size / their_size:.2f}"),
            ("the tutorial's", f"{their_size / 1e6:.0f}", "1.00"),
        ],
    )
    using.run("rmi", "--force", made, base, check=False, echo=False)


def commands(ours: Settings) -> None:
    """The commands that should be quick."""
    invoke = [sys.executable, "-m", "invoke"]

    def run(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run(
            [*invoke, *arguments], cwd=ours.root, check=False, capture_output=True
        )

    found = interleaved(
        {"invoke --list": run("--list"), "invoke --version": run("--version")}
    )
    compared("Commands", found, "invoke --version")
    took = seconds(run("verify"))
    print(f"\n`invoke verify`: {took:.1f} s")


def memory() -> None:
    """Peak memory of making an image of 2 GB canonical."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        path = Path(directory, "big.tar")
        _big_image(path)
        script = (
            "import resource, sys; from pathlib import Path;"
            "from containerize import canonical;"
            "canonical.canonicalize(Path(sys.argv[1]), Path(sys.argv[1] + '.out'),"
            " time=0, labels={}, references=['x:y']);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        peaks = [
            subprocess.run(
                [sys.executable, "-c", code, str(path)], check=True,
                capture_output=True, text=True, cwd=find_root(Path(__file__).parent),
            ).stdout
            for code in (
                script,
                "import resource; from containerize import canonical;"
                "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)",
            )
        ]  # fmt: skip
    kib, empty = map(int, peaks)
    print(
        f"\nPeak memory, an image of 2 GB made canonical: {kib / 1024:.0f} MB; "
        f"{empty / 1024:.0f} MB of it are the interpreter and its modules"
    )


def _big_image(path: Path) -> None:
    """An image archive of 2 GB, half of it random, in files of 64 MB."""
    import hashlib
    import io

    digest = hashlib.sha256()
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
