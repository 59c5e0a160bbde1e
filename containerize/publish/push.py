"""An archive pushed to a registry, unchanged: what it lacks, and the tags last."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import re
import threading
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any

from containerize import disk
from containerize.errors import Problem
from containerize.image import archive
from containerize.image.archive import MANIFEST, Region
from containerize.progress import Progress, step
from containerize.publish import reference
from containerize.publish.reference import Reference
from containerize.publish.registry import Descriptor, Manifest, Repository
from containerize.publish.transport import Transport
from containerize.settings import Settings, check_tag
from containerize.terminal import amount

if TYPE_CHECKING:  # what it imports takes longer than a push
    from containerize.publish.evidence import Attachment

EMPTY = "application/vnd.oci.empty.v1+json"
"""The media type of `{}`, which stands where there is nothing to configure."""

# "Referrers Tag Schema" of the OCI distribution spec; cosign's have an ending.
_KEPT = re.compile(r"sha256-[0-9a-f]{64}(\.|$)")

WORKERS = 3
"""Blobs that are sent at a time."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """What an archive holds, each byte checked against its digest."""

    name: str
    """The archive's file name."""
    manifests: tuple[Manifest, ...]
    """What names others comes after them: the last one is what tags point to."""
    blobs: Mapping[str, Region]
    """Configs and layers by digest, in the manifests' order."""

    @property
    def digest(self) -> str:
        return self.manifests[-1].digest


@dataclasses.dataclass(frozen=True)
class Pushed:
    """What a push has brought about."""

    reference: Reference
    """The image by its digest."""
    tags: tuple[str, ...]
    sent: int
    """Bytes of blobs that the registry lacked."""


def targets(settings: Settings, text: str, tags: Sequence[str] = ()) -> list[Reference]:
    """`REGISTRY/NAME` with each of the tags, by default those of the settings.

    Raises Problem for what no registry takes, a digest, a tag that comes twice, and one
    that is kept for what refers to an image.
    """
    target = reference.parse(text)
    if target.digest:
        raise Problem(
            f"{text} names a digest, which the image decides: leave it out, and say "
            "--tag for a name"
        )
    for host in settings.insecure_registries:
        reference.check_host(host)
    own = (target.tag,) if target.tag else ()
    wanted = (*own, *tags) or settings.tags
    if twice := next((tag for tag in wanted if wanted.count(tag) > 1), ""):
        raise Problem(f"the tag {twice} is given twice: give each once")
    if kept := next((tag for tag in wanted if _KEPT.match(tag)), ""):
        raise Problem(
            f"the tag {kept} is kept for what refers to an image, and would hide that: "
            "take another"
        )
    return [dataclasses.replace(target, tag=check_tag(tag)) for tag in wanted]


def record_path(settings: Settings) -> Path:
    """Where the record of pushes is, beside that of the build."""
    return settings.dist_dir / f"{settings.image}.push.json"


def last(settings: Settings) -> dict[str, Any]:
    """The record of the last push, or {}: `reference` by digest, `tags`, `pushed`."""
    try:
        found = json.loads(record_path(settings).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def push(
    settings: Settings,
    file: Path,
    wanted: Sequence[Reference],
    *,
    progress: Progress,
    expected: str = "",
    beside: Sequence[Attachment] = (),
) -> Pushed:
    """Push the archive to the references, all of one repository; `targets` makes them.

    `beside` is attached to what the archive holds. A tag is written when all that it
    leads to is in the registry, and read again after.
    Raises Problem where the archive is damaged, or is not of the digest `expected`,
    before anything is sent, and where the registry does not take it.
    """
    with archive.open_files(file) as files:
        layout = _layout(files)
        if expected and layout.digest != expected:
            said = f"{file} has {layout.digest}, not {expected}"
            raise Problem(f"{said}: run `invoke build`, then repeat")
        repository = dataclasses.replace(wanted[0], tag="")
        way = Transport(
            repository, settings.insecure_registries, progress.note, pushes=True
        )
        target = Repository(way)
        source = _source(last(settings), repository)
        sent = _blobs(target, way.stopped, layout, source, progress)
        for manifest in layout.manifests:
            if target.find_manifest(manifest.digest) is None:
                target.put_manifest(manifest.content, manifest.descriptor.media_type)
        described = {each.digest: each.descriptor for each in layout.manifests}
        for attachment in beside:
            _attach(target, attachment, described[attachment.subject])
        for each in wanted:
            _tag(target, layout.manifests[-1], each.tag)
            progress.note(f"{each} is {layout.digest}")
    done = Pushed(
        dataclasses.replace(repository, digest=layout.digest),
        tuple(each.tag for each in wanted),
        sent,
    )
    _record(settings, done)
    return done


def _attach(target: Repository, beside: Attachment, subject: Descriptor) -> None:
    """Put an artifact that refers to a manifest (OCI image spec, "Guidelines for
    Artifact Usage")."""
    kind, digest = beside.media_type, target.put_bytes(beside.content)
    layer = Descriptor(kind, digest, len(beside.content))
    empty = Descriptor(EMPTY, target.put_bytes(b"{}"), 2)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": beside.artifact_type,
        "config": empty.json(),
        "layers": [layer.json()],
        "subject": subject.json(),
        "annotations": dict(beside.annotations),
    }
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    target.attach(text.encode())


def _tag(target: Repository, manifest: Manifest, tag: str) -> None:
    if target.find_manifest(tag) != manifest.digest:
        target.put_manifest(manifest.content, manifest.descriptor.media_type, tag)
        if (found := target.find_manifest(tag)) != manifest.digest:
            raise Problem(
                f"the tag {tag} is {found or 'not there'} after it was written: "
                "someone else pushes to it: push again if it is yours"
            )


def _blobs(
    target: Repository,
    stopped: threading.Event,
    layout: Layout,
    source: str,
    progress: Progress,
) -> int:
    """Have the blobs in the repository; how many bytes were sent."""
    lock = threading.Lock()  # progress is one line
    total = sum(region.size for region in layout.blobs.values())
    sent = 0

    def advance(size: int) -> None:
        with lock:
            progress.advance(size)

    def put(digest: str, region: Region) -> None:
        nonlocal sent
        try:
            how = target.put_blob(
                digest, region.size, _reader(region), source=source, on_bytes=advance
            )
        except Problem:
            if region.sha256() != digest and not stopped.is_set():
                text = f"{layout.name} changed during the push"
                raise Problem(f"{text}: run `invoke build`, then repeat") from None
            raise
        with lock:
            if how == "sent":
                sent += region.size
                progress.note(f"  {digest[:19]}  {amount(region.size)} sent")
            elif how == "mounted":
                progress.note(f"  {digest[:19]}  mounted from {source}")

    with step(progress, f"{len(layout.blobs)} blobs", total):
        _side_by_side(put, layout.blobs.items(), stopped)
    return sent


def _side_by_side(
    run: Callable[[str, Region], None],
    items: Iterable[tuple[str, Region]],
    stopped: threading.Event,
) -> None:
    """Call `run` with each item, some at a time, until one fails.

    A thread that waits for a registry then keeps nobody: none is waited for.
    """
    waiting: queue.SimpleQueue[tuple[str, Region]] = queue.SimpleQueue()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not stopped.is_set():
                item = waiting.get_nowait()
                try:
                    run(*item)
                    ended.put(None)
                except BaseException as error:
                    ended.put(error)

    for item in items:
        waiting.put(item)
    count = waiting.qsize()
    for _ in range(min(WORKERS, count)):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(count):
            if error := ended.get():
                raise error
    except BaseException:
        stopped.set()
        raise


def _reader(region: Region) -> Callable[[int], Iterator[bytes]]:
    return lambda offset: region.part(offset, region.size - offset).chunks()


def _layout(files: archive.Files) -> Layout:
    """What an archive holds, from its index.json on (OCI image layout)."""
    manifests: dict[str, Manifest] = {}
    blobs: dict[str, Region] = {}

    def walk(descriptor: Any, where: str, depth: int = 0) -> str:
        path, digest = files.blob(descriptor, where)
        if digest in manifests:
            return digest
        content = files.json(path)
        kind = files.field(descriptor, "mediaType", str, where)
        if isinstance(content, dict) and "manifests" in content and depth < 2:
            for child in files.field(content, "manifests", list, path):
                walk(child, path, depth + 1)
        else:
            for named in (
                files.field(content, "config", dict, path),
                *files.field(content, "layers", list, path),
            ):
                blob, found = files.blob(named, path)
                blobs[found] = files.region(blob)
        data = files.region(path).read()
        manifests[digest] = Manifest(Descriptor(kind, digest, len(data)), data)
        return digest

    top = files.field(files.json("index.json"), "manifests", list, "index.json")
    roots = dict.fromkeys(walk(descriptor, "index.json") for descriptor in top)
    if len(roots) != 1:
        raise Problem(f"{files.name} has {len(roots)} images: push an archive of one")
    return Layout(files.name, tuple(manifests.values()), blobs)


def _source(known: Mapping[str, Any], target: Reference) -> str:
    """Another repository of the registry that this project has pushed to last."""
    pushed = known.get("pushed")
    names: Collection[Any] = pushed if isinstance(pushed, list) else []
    for name in map(str, names):
        registry, _, path = name.partition("/")
        if registry == target.registry and path != target.name:
            return path
    return ""


def _record(settings: Settings, done: Pushed) -> None:
    """Note a push: for what deploys it, and for mounting its blobs elsewhere."""
    before = last(settings).get("pushed")
    own = done.reference.repository
    others = (
        [name for name in before if name != own] if isinstance(before, list) else []
    )
    facts = {
        "reference": str(done.reference),
        "tags": list(done.tags),
        "pushed": [own, *others],
    }
    with disk.atomic(record_path(settings)) as file:
        file.write(json.dumps(facts, indent=2, sort_keys=True).encode() + b"\n")
