"""One repository of a registry, by the OCI distribution specification, version 1.1.

Section names in comments are of that document. Every byte that is fetched is checked
against its digest, and every digest that a registry names against ours.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from containerize.errors import Problem
from containerize.image.archive import INDEX, MANIFEST, MAX_JSON
from containerize.publish.reference import Reference
from containerize.publish.transport import (
    FULL,
    TRIES,
    Answer,
    Passing,
    Refused,
    Transport,
)

_ACCEPTED = (
    *(INDEX, MANIFEST, "application/vnd.docker.distribution.manifest.list.v2+json"),
    "application/vnd.docker.distribution.manifest.v2+json",
)
_BYTES = {"Content-Type": "application/octet-stream"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FORGOTTEN = ("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID")
_PAGES = 1000  # of tags; more are a loop


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """What names a blob or a manifest (OCI image spec, "Descriptors")."""

    media_type: str
    digest: str
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """As it stands in a manifest or an index."""
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        return found


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A manifest or an index: its bytes, and what names them."""

    descriptor: Descriptor
    content: bytes = dataclasses.field(repr=False)

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    def json(self) -> dict[str, Any]:
        """The object in it. Raises Problem where it is none."""
        try:
            found = json.loads(self.content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Problem(
                f"the manifest {self.digest} is no JSON object: push it again"
            )
        return found


Read = Callable[[int], Iterator[bytes]]
"""The bytes of a blob from an offset on."""


def sha256(content: bytes) -> str:
    """The digest of bytes, as `sha256:` and hex."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Repository:
    """Blobs, manifests and tags of a repository; threads may share it.

    All methods raise Problem, in one line, for what the registry does not grant.
    """

    def __init__(self, transport: Transport) -> None:
        self._http = transport
        self._name = transport.repository.name
        self._where = transport.repository.repository

    @classmethod
    def at(cls, reference: Reference, insecure: Collection[str] = ()) -> Repository:
        """The repository of a reference; see `Transport` for `insecure`."""
        return cls(Transport(reference, insecure))

    # Blobs

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob ("Checking if content exists")."""
        found = self._http.request("HEAD", self._path("blobs", digest), ok=(200, 404))
        return found.status == 200

    def read_blob(self, digest: str, size: int) -> Iterator[bytes]:
        """The bytes of a blob, a piece at a time, going on where one is cut off.

        The last piece comes only if all have the digest and the size, so that whoever
        takes them until the end has what was asked for ("Pulling blobs").
        """
        hashed = hashlib.sha256()
        offset, cuts = 0, 0
        held = b""
        while offset < size:
            before = offset
            try:
                for chunk in self._rest(digest, offset):
                    if offset + len(chunk) > size:
                        raise self._altered(digest)
                    hashed.update(chunk)
                    offset += len(chunk)
                    if held:
                        yield held
                    held = chunk
                if offset == before:
                    raise self._altered(digest)  # it ends before its size
            except Passing as fault:
                cuts = 1 if offset > before else cuts + 1
                if cuts >= TRIES:
                    raise
                self._http.pause(fault, cuts)
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise self._altered(digest)
        if held:
            yield held

    def _rest(self, digest: str, offset: int) -> Iterator[bytes]:
        """The bytes of a blob from an offset on, unchecked."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        path = self._path("blobs", digest)
        with self._http.opened(path, ok=(200, 206), headers=headers) as response:
            skipped = 0 if response.status == 206 else offset
            for chunk in self._http.chunks(response):
                new = chunk[min(skipped, len(chunk)) :]
                skipped -= len(chunk) - len(new)
                if new:
                    yield new

    def put_blob(
        self,
        digest: str,
        size: int,
        read: Read,
        *,
        source: str = "",
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> str:
        """Have a blob in the repository: "there", "mounted" from `source`, or "sent".

        `source` is another repository of the registry that may have it ("Mounting a
        blob from another repository"). What is cut off goes on where the registry says
        that it has got to. `on_bytes` is told of bytes that are sent, and as a negative
        number of those that must be sent again.
        """
        if self.has_blob(digest):
            return "there"
        altered = False
        for _ in range(TRIES):
            location = self._begin_upload(digest, source)
            if not location:
                return "mounted"
            try:
                if self._upload(location, digest, size, read, on_bytes):
                    return "sent"
            except Refused as refused:
                if refused.code not in (*_FORGOTTEN, "DIGEST_INVALID"):
                    raise
                if altered and refused.code == "DIGEST_INVALID":
                    raise Problem(
                        f"{self._where} received other bytes than {digest}: something "
                        "changes them on the way, or they changed here: push again"
                    ) from None
                altered = refused.code == "DIGEST_INVALID"
            # A registry that was started again may have all, or know nothing of it.
            if self.has_blob(digest):
                return "sent"
            source = ""
        raise Problem(
            f"{self._where} loses what is sent to it: {FULL}, and push again later"
        )

    def put_bytes(self, content: bytes) -> str:
        """Have a small blob in the repository, and return its digest."""
        digest = sha256(content)
        self.put_blob(digest, len(content), lambda offset: iter([content[offset:]]))
        return digest

    def _begin_upload(self, digest: str, source: str) -> str:
        """Where a blob is to be sent; nothing where it has been mounted."""
        path = self._path("blobs", "uploads/")
        if source:
            query = urllib.parse.urlencode({"mount": digest, "from": source})
            try:
                answer = self._http.request(
                    *("POST", f"{path}?{query}"),
                    ok=(201, 202),
                    headers={"Content-Length": "0"},
                    also=(source,),
                )
                return "" if answer.status == 201 else self._location(answer, path)
            except Refused:
                pass  # who may write here need not be one who may read there
        answer = self._http.request(
            "POST", path, ok=(202,), headers={"Content-Length": "0"}
        )
        return self._location(answer, path)

    def _upload(
        self,
        location: str,
        digest: str,
        size: int,
        read: Read,
        on_bytes: Callable[[int], None],
    ) -> bool:
        """Send a blob ("Pushing a blob in chunks"); False if the upload is unknown."""
        told = offset = cuts = 0

        def tell(reached: int) -> None:
            nonlocal told
            on_bytes(reached - told)
            told = reached

        def body(start: int) -> Iterator[bytes]:
            for chunk in read(start):
                if self._http.stopped.is_set():
                    raise Problem("interrupted")
                yield chunk
                tell(told + len(chunk))

        try:
            while offset < size:
                headers = {**_BYTES, "Content-Length": str(size - offset)}
                if offset:
                    headers["Content-Range"] = f"{offset}-{size - 1}"
                try:
                    answer = self._http.request(
                        *("PATCH", location),
                        ok=(202, 404, 416),
                        headers=headers,
                        body=functools.partial(body, offset),
                        tries=1,
                    )
                    location = self._location(answer, location)
                    if answer.status == 202:
                        break
                    if answer.status == 404 or cuts + 1 >= TRIES:
                        tell(0)
                        return False
                    cuts += 1
                except Passing as fault:
                    cuts += 1
                    if cuts >= TRIES:
                        raise
                    self._http.pause(fault, cuts)
                answer = self._http.request("GET", location, ok=(200, 204, 404))
                reached = _reached(answer)
                if answer.status == 404 or reached > size:
                    tell(0)
                    return False
                tell(reached)
                cuts = 0 if reached > offset else cuts
                location, offset = self._location(answer, location), reached
            joint = "&" if "?" in location else "?"
            answer = self._http.request(
                "PUT",
                f"{location}{joint}{urllib.parse.urlencode({'digest': digest})}",
                ok=(201, 404),
                headers={**_BYTES, "Content-Length": "0"},
            )
        except Refused:
            tell(0)
            raise
        if answer.status == 404:
            tell(0)
            return False
        self._same(answer, digest)
        return True

    def _location(self, answer: Answer, before: str) -> str:
        """Where the next request of an upload goes; it may change each time."""
        found = answer.headers.get("Location", "")
        if not found:
            return before
        return self._http.join(before, found)

    # Manifests

    def find_manifest(self, reference: str) -> str | None:
        """The digest of what a tag or digest names, None where there is nothing."""
        path = self._path("manifests", reference)
        answer = self._http.request(
            "HEAD", path, ok=(200, 404), headers={"Accept": ", ".join(_ACCEPTED)}
        )
        if answer.status == 404:
            return None
        digest = answer.headers.get("Docker-Content-Digest", "")
        if not digest:
            return self.read_manifest(reference).digest
        if ":" in reference and digest != reference:
            raise self._altered(reference)
        return str(digest)

    def read_manifest(self, reference: str) -> Manifest:
        """The manifest or index that a tag or digest names ("Pulling manifests").

        Raises Problem where there is none.
        """
        if found := self._manifest(reference):
            return found[0]
        raise Problem(f"{self._where} has no {reference}: see that it is pushed")

    def _manifest(self, reference: str) -> tuple[Manifest, str] | None:
        """A manifest and its ETag."""
        answer = self._http.request(
            "GET",
            self._path("manifests", reference),
            ok=(200, 404),
            headers={"Accept": ", ".join(_ACCEPTED)},
        )
        if answer.status == 404:
            return None
        digest = sha256(answer.content)
        if _DIGEST.fullmatch(reference) and digest != reference:
            raise self._altered(reference)
        self._same(answer, digest)
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        descriptor = Descriptor(kind, digest, len(answer.content))
        return Manifest(descriptor, answer.content), answer.headers.get("ETag", "")

    def put_manifest(
        self, content: bytes, media_type: str, tag: str = "", *, etag: str = ""
    ) -> Answer:
        """Put a manifest or an index under its digest, or under a tag.

        With `etag`, only if what is there still has it; else Refused with status 412.
        """
        digest = sha256(content)
        headers = {"Content-Type": media_type, "Content-Length": str(len(content))}
        if etag:
            headers["If-Match"] = etag
        answer = self._http.request(
            "PUT",
            self._path("manifests", tag or digest),
            ok=(201,),
            headers=headers,
            body=lambda: iter([content]),
        )
        self._same(answer, digest)
        return answer

    def tags(self) -> list[str]:
        """The tags of the repository, none where it is not there ("Listing Tags")."""
        path, found = f"/v2/{self._name}/tags/list", []
        for _ in range(_PAGES):
            answer = self._http.request("GET", path, ok=(200, 404))
            if answer.status == 404:
                break
            try:
                found += [str(tag) for tag in json.loads(answer.content)["tags"] or ()]
            except (ValueError, KeyError, TypeError):
                raise Problem(f"{self._where} lists no tags: try again") from None
            more = re.match(
                r'\s*<([^>]+)>\s*;\s*rel="?next\b', answer.headers.get("Link", "")
            )
            if not more:
                break
            path = self._http.join(path, more[1])
        return found

    # Referrers

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """The descriptors of what refers to a manifest ("Listing Referrers").

        Where the registry has no such list, those of the tag that stands in for it.
        """
        path = f"/v2/{self._name}/referrers/{digest}"
        answer = self._http.request(
            "GET", path, ok=(200, 404), headers={"Accept": INDEX}
        )
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if answer.status == 200 and kind == INDEX:
            whole = Descriptor(INDEX, sha256(answer.content), len(answer.content))
            name = f"{self._where}, referrers of {digest},"
            return _entries(Manifest(whole, answer.content), name)
        tag = _stand_in(digest)
        found = self._manifest(tag)
        return _entries(found[0], f"{self._where}:{tag}") if found else []

    def attach(self, content: bytes, media_type: str = MANIFEST) -> Descriptor:
        """Put a manifest that has a `subject`, so that it is listed as its referrer.

        Its blobs must be there. By "Pushing Manifests with Subject": where the
        registry does not answer with OCI-Subject, the index of the subject's tag is
        read, merged, written, and read again, until our entry and those of others are
        in it. A registry that heeds no If-Match has no lock: what another client writes
        in the moment between may be lost.
        """
        manifest = Manifest(
            Descriptor(media_type, sha256(content), len(content)), content
        )
        entry = _entry(manifest)
        subject = str(manifest.json()["subject"]["digest"])
        answer = self.put_manifest(content, media_type)
        if answer.headers.get("OCI-Subject"):
            return entry
        tag = _stand_in(subject)
        name = f"{self._where}:{tag}"
        wanted: dict[str, dict[str, Any]] = {entry.digest: entry.json()}
        for number in range(1, TRIES + 1):
            found = self._manifest(tag)
            listed = _entries(found[0], name) if found else []
            there = {str(each.get("digest")): each for each in listed}
            if all(there.get(digest) == each for digest, each in wanted.items()):
                return entry
            # What others have, as they wrote it, and once seen it stays.
            wanted = {**there, **wanted}
            index = (
                found[0].json() if found else {"schemaVersion": 2, "mediaType": INDEX}
            )
            index["manifests"] = list(wanted.values())
            body = json.dumps(index, separators=(",", ":")).encode()
            if len(body) > MAX_JSON:
                raise Problem(f"{name} has no room for more: delete some")
            try:
                self.put_manifest(body, INDEX, tag, etag=found[1] if found else "")
            except Refused as refused:
                if refused.status != 412:
                    raise
                busy = Passing(f"{name} is being written: push again")
                self._http.pause(busy, number)
        found = self._manifest(tag)
        listed = _entries(found[0], name) if found else []
        if any(each.get("digest") == entry.digest for each in listed):
            return entry
        raise Problem(f"others keep writing {name}: push again later")

    # Both

    def _path(self, kind: str, reference: str) -> str:
        return f"/v2/{self._name}/{kind}/{reference}"

    def _same(self, answer: Answer, digest: str) -> None:
        """Raise Problem where a registry names another digest than ours."""
        named = answer.headers.get("Docker-Content-Digest", digest)
        if named != digest and _DIGEST.fullmatch(named):
            raise self._altered(digest)

    def _altered(self, digest: str) -> Problem:
        return Problem(
            f"{self._where} has other bytes than {digest}: they were changed there or "
            "on the way: try again, and if it stays so, tell who runs it"
        )


def _reached(answer: Answer) -> int:
    """How many bytes an upload has, by the Range of its status."""
    match = re.fullmatch(r"(?:bytes=)?0-(\d{1,15})", answer.headers.get("Range", ""))
    # `0-0` is also what registries say of none at all.
    return int(match[1]) + 1 if match and int(match[1]) else 0


def _stand_in(digest: str) -> str:
    """The tag of a manifest's referrers ("Referrers Tag Schema")."""
    return digest.replace(":", "-")


def _entry(manifest: Manifest) -> Descriptor:
    """What an index of referrers says of a manifest, with what it says of itself."""
    content = manifest.json()
    config: Mapping[str, Any] = content.get("config") or {}
    kind = content.get("artifactType") or config.get("mediaType") or ""
    return dataclasses.replace(
        manifest.descriptor,
        artifact_type=str(kind),
        annotations=content.get("annotations") or {},
    )


def _entries(index: Manifest, name: str) -> list[dict[str, Any]]:
    """The descriptors in an index of that name. Raises Problem where it is none."""
    found = index.json().get("manifests")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Problem(
            f"{name} is no index of what refers to an image: delete it in the registry"
        )
    return found
