"""The image: its base, its size, its start and its canonical form."""

from __future__ import annotations

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
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from bench import profile
from bench.copy import Copy, builders, copy, wait
from bench.measure import (
    Row,
    compared,
    interleaved,
    judged,
    quiet,
    require,
    seconds,
    table,
    timed,
)
from containerize import build as building
from containerize.engines import container
from containerize.engines.engine import Engine
from containerize.fetch import inputs
from containerize.image import canonical
from containerize.lock import locks
from containerize.pack import layers
from containerize.settings import Settings, find_root
from tests.conftest import unused_port

RUNS = 3


def main() -> Iterator[Row]:
    """Print the figures of the image, in the first engine that answers."""
    builder = builders()[0]
    with copy(builder) as made:
        scratch = made.root.parent
        ours = made.settings
        yield base(ours, scratch)
        with quiet():
            built = building.build(ours, builder.engine, output=scratch / "image.tar")
        yield from size(built)
        yield start(ours, builder.engine)
        yield archive(builder.engine, built, scratch)
        yield commands(made)
    yield memory()


def base(ours: Settings, scratch: Path) -> Row:
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

    found = interleaved({"ours": timed(packed), "peer": timed(mmdebstrap)}, RUNS)
    first, second = (_files(scratch / name) for name in ("rootfs.tar", "mm.tar"))
    mine, others = first.keys(), second.keys()
    both = mine & others
    other = sorted(path for path in both if first[path] != second[path])
    rows = [("both", len(both) - len(other), "", "alike in type, mode, link, content")]
    if other:
        rows.append(("both", len(other), ", ".join(other), "unlike"))
    rows += _explained("ours", mine - others, ONLY_OURS)
    rows += _explained("mmdebstrap's", others - mine, ONLY_THEIRS)
    table("Files of the base", ("in", "paths", "which", "why"), rows)
    row = judged(
        "base from packages on disk", found["ours"],
        "mmdebstrap", found["peer"], factor=0.5,
    )  # fmt: skip
    if row.met is False:
        with profile.watched() as spent:
            packed()
        profile.show("our base", spent)
    return row


ONLY_OURS = {
    ("var/lib/dpkg/status.d",): "the packages, where scanners look for them",
    ("etc/passwd", "etc/group"): "the user; base-passwd's script makes them elsewhere",
    ("etc/nsswitch.conf",): "base-files' script makes it elsewhere",
    ("etc/ssl/certs", "usr/lib/ssl"): "the CA bundle; ca-certificates' script, openssl",
    ("usr/bin/python", "usr/bin/python3"): "packages of Debian's own default have them",
    ("etc/ld.so.cache", "usr/sbin/ldconfig"): "what finds libraries; libc-bin's script",
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


def size(built: building.Image) -> Iterator[Row]:
    """What each layer weighs, and all of them."""
    found = built.digests.layers
    rows = [
        (number, f"{layer.size / 1e6:.2f}", f"{layer.compressed_size / 1e6:.2f}")
        for number, layer in enumerate(found, 1)
    ]
    table("Size of the layers", ("layer", "MB", "MB compressed"), rows)
    for name, most, sizes in (
        ("unpacked", 75, [layer.size for layer in found]),
        ("compressed", 25, [layer.compressed_size for layer in found]),
    ):
        whole = sum(sizes) / 1e6
        goal = f"≤ {most} MB"
        yield Row(f"image, {name}", f"{whole:.1f} MB", goal=goal, met=whole <= most)


def start(ours: Settings, using: Engine) -> Row:
    """From `run` to the first 200, with and without the compiled modules."""
    reference = ours.reference()
    elsewhere = {"PYTHONPYCACHEPREFIX": "/nowhere"}
    runs = {
        "ours": lambda: first_answer(ours, using, reference),
        "without compiled modules": lambda: first_answer(
            ours, using, reference, elsewhere
        ),
        "peer": lambda: _nothing(ours, using, reference),
    }
    found = interleaved(runs)
    compared("Start: `run` to the first 200", found, "peer")
    return judged(
        "`run` to the first 200", found["ours"],
        "`python3 -c pass` in the same image", found["peer"], factor=1.5,
    )  # fmt: skip


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
        settings=ours,
        reference=reference,
        name=f"{ours.image}-run",
        port=port,
        options=given,
    )
    command = launch.command()

    def run() -> None:
        using.run(*command, echo=False)
        wait(f"http://127.0.0.1:{port}/", "")

    try:
        return seconds(run)
    finally:
        using.discard(f"{ours.image}-run", echo=False)


def _nothing(ours: Settings, using: Engine, reference: str) -> float:
    """Seconds of a container that starts Python and ends."""
    words = ("python3", "-c", "pass")
    launch = container.Launch(
        settings=ours,
        reference=reference,
        name=f"{ours.image}-pass",
        port=0,
        words=words,
    )
    try:
        return seconds(lambda: using.run(*launch.command(("run",)), echo=False))
    finally:
        using.discard(f"{ours.image}-pass", echo=False)


def archive(using: Engine, built: building.Image, scratch: Path) -> Row:
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

    found = interleaved({"peer": timed(save), "ours": timed(make_canonical)})
    return judged(
        "canonical form of a saved image", found["ours"],
        f"`{using.kind} save` alone", found["peer"],
    )  # fmt: skip


def commands(made: Copy) -> Row:
    """The command that lists the verbs."""
    runs = {
        "ours": timed(lambda: made.invoke("--list")),
        "peer": timed(lambda: made.invoke("--version")),
    }
    found = interleaved(runs)
    return judged(
        "`invoke --list`", found["ours"], "`invoke --version`", found["peer"], most=0.15
    )


def memory() -> Row:
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
    return Row(
        "peak memory, an image of 2 GB made canonical",
        f"{kib / 1024:.0f} MB",
        f"the interpreter and its modules: {empty / 1024:.0f} MB",
        f"{kib / empty:.2f}",
        "print",
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
