"""What a registry receives after an edit, and how long that takes; all of an image."""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.copy import NAME, Copy, builders, copy, peer_build, peer_context, write_edit
from bench.measure import (
    Row,
    attempt,
    interleaved,
    judged,
    quiet,
    seconds,
    table,
    timed,
)
from containerize import build as building
from containerize.publish import push as pushing
from tests import registries
from tests.conftest import Quiet

GOAL = 100e3
"""Bytes."""
FACTOR = 1.2
"""Of the seconds that skopeo takes."""
SEVERAL = 1.8
"""Of the seconds that one image takes."""
SECONDS = 1.0
"""For a push after an edit."""
EDITS = 3
STATIC = 20
"""Files of 1 MB each that the larger app has."""


@dataclasses.dataclass(frozen=True)
class Case:
    """An edit of an app, and what it is called."""

    name: str
    edit: Callable[[Path, int], object]
    """Of the app's directory, a different one for each number."""
    large: bool = False


def main() -> Iterator[Row]:
    """Print what a push takes, beside what others take of the same archive."""
    yield from attempt("several processors", several)
    yield from attempt("push", transfers)
    yield from attempt("bytes pushed", edits)


def several() -> Iterator[Row]:
    """Time all processors' images and their index beside the own one's image."""
    with copy(builders()[0]) as made:
        made.invoke("build", "--all")
        runs = {
            "all": timed(lambda: made.invoke("build", "--all", "--no-cache")),
            "own": timed(lambda: made.invoke("build", "--no-cache")),
        }
        with quiet():
            found = interleaved(runs)
        figure = "`build --all --no-cache`, two processors"
        yield judged(figure, found["all"], "one", found["own"], factor=SEVERAL)


def transfers() -> Iterator[Row]:
    """Time pushes to a registry on loopback, which has none of it before."""
    with registries.registry() as registry, copy(builders()[0]) as made:
        made.invoke("build", "--all")
        archive = building.index_path(made.settings)
        number = itertools.count()

        def target(name: str = "") -> str:
            # Without the record nothing is known that could be mounted.
            pushing.record_path(made.settings).unlink(missing_ok=True)
            return f"{registry.host}/{name or next(number)}"

        def ours(name: str = "") -> None:
            made.invoke("push", target(name), "--no-evidence")

        def peer(name: str = "") -> None:
            skopeo = registries.require("skopeo", "skopeo")
            command = [skopeo, "copy", "--quiet", "--all", "--preserve-digests"]
            command += ["--dest-tls-verify=false", f"oci-archive:{archive}"]
            subprocess.run([*command, f"docker://{target(name)}:latest"], check=True)

        def alone() -> None:
            wanted = pushing.targets(made.settings, target())
            pushing.push(made.settings, archive, wanted, progress=Quiet())

        runs = {"ours": timed(ours), "alone": timed(alone), "peer": timed(peer)}
        with quiet():
            found = interleaved(runs)
        name, theirs = "`skopeo copy`", found["peer"]
        yield judged("`push`, a new image", found["ours"], name, theirs, factor=FACTOR)
        figure = "of that what is no start of Python, and no look for changes"
        yield judged(figure, found["alone"], name, theirs, factor=FACTOR)
        ours("edited")
        peer("edited-too")
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(EDITS):
            made.edit()
            made.invoke("build", "--all")
            before = stored(registry)
            times["ours"].append(seconds(lambda: ours("edited")))
            new = stored(registry) - before
            with quiet():
                times["peer"].append(seconds(lambda: peer("edited-too")))
        figure = "`push` after one line"
        yield judged(figure, times["ours"], name, times["peer"], most=SECONDS)
        yield Row(
            "bytes that the registry stores then",
            *(f"{new / 1e3:.1f} kB", "", "", f"≤ {GOAL / 1e3:.0f} kB", new <= GOAL),
        )


def stored(registry: registries.Registry) -> int:
    """The bytes of all blobs and manifests that a registry stores."""
    return sum(path.stat().st_size for path in registry.root.rglob("blobs/*/*/*/data"))


def edits() -> Iterator[Row]:
    """Print the bytes that an edit makes a registry take, in whole archives."""
    for large in (False, True):
        with copy(builders()[0]) as made:
            app = made.root / made.settings.app
            if large:
                for number in range(STATIC):
                    path = app / "static" / f"{number}.bin"
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(os.urandom(1 << 20))
                (app / "static" / "site.css").write_text("body { margin: 0 }\n")
            made.invoke("build")
            with quiet():
                context = peer_context(made)
                plain = peer_build(made, context)
                plain()
            for case in CASES:
                if case.large == large:
                    yield measured(made, context, plain, case)


def measured(made: Copy, context: Path, plain: Callable[[], None], case: Case) -> Row:
    app = made.settings.app
    before, before_peer = blobs(made.archive), saved(made)
    case.edit(made.root / app, 1)
    case.edit(context / app, 1)
    with quiet():
        made.invoke("build")
        plain()
    new = {n: s for n, s in blobs(made.archive).items() if n not in before}
    theirs = sum(s for n, s in saved(made).items() if n not in before_peer)
    ours = sum(new.values())
    met = ours <= GOAL
    if not met:
        rows = [(name[:19], f"{size / 1e3:.1f}") for name, size in new.items()]
        table(f"A layer goes whole. New blobs: {case.name}", ("blob", "kB"), rows)
    return Row(
        f"bytes pushed, {case.name}",
        f"{ours / 1e3:.1f} kB",
        f"cached `COPY . .`: {theirs / 1e3:.1f} kB",
        f"{ours / theirs:.2g}",
        f"≤ {GOAL / 1e3:.0f} kB",
        met,
    )


def blobs(archive: Path) -> dict[str, int]:
    """The blobs of an OCI archive, and their sizes."""
    with tarfile.open(archive) as tar:
        return {
            Path(member.name).name: member.size
            for member in tar
            if member.isreg() and member.name.startswith("blobs/")
        }


def saved(made: Copy) -> dict[str, int]:
    """The peer's layers and config, layers compressed as an engine's push does it."""
    path = made.root.with_name("peer.tar")
    path.unlink(missing_ok=True)
    using = made.builder.engine
    command = building.save_command(using.kind, f"{NAME}:peer", path)
    using.run(*command, echo=False)
    found: dict[str, int] = {}
    with tarfile.open(path) as tar:

        def content(name: str) -> bytes:
            file = tar.extractfile(name)
            return file.read() if file else b""

        [manifest] = json.loads(content("manifest.json"))
        config = content(manifest["Config"])
        found[manifest["Config"]] = len(config)
        ids = json.loads(config)["rootfs"]["diff_ids"]
        for number, name in zip(ids, manifest["Layers"], strict=True):
            found[number] = _compressed(content(name)) if number == ids[-1] else 0
    return found


def _compressed(content: bytes) -> int:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6) as file:
        file.write(content)
    return len(out.getvalue())


def _module(app: Path, number: int) -> None:
    write_edit(app / "__init__.py", number)


def _small(app: Path, number: int) -> None:
    (app / "static" / "site.css").write_text(f"body {{ margin: {number}px }}\n")


def _big(app: Path, number: int) -> None:
    (app / "static" / "0.bin").write_bytes(bytes([number]) + os.urandom(1 << 20))


SIZE = f"app with {STATIC} MB of static files"
CASES = (
    Case("one line of this app", _module),
    Case(f"one line, {SIZE}", _module, large=True),
    Case(f"a small static file, {SIZE}", _small, large=True),
    Case(f"a static file of 1 MB, {SIZE}", _big, large=True),
)
