"""The evidence beside images, for files in dist/ and for a registry."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Mapping, Sequence

from containerize.publish import provenance, sbom
from containerize.publish.provenance import Source
from containerize.publish.subjects import Subject


@dataclasses.dataclass(frozen=True)
class Attachment:
    """What a registry keeps beside a manifest, as a referrer of it."""

    subject: str
    """The digest of the manifest or index."""
    artifact_type: str
    media_type: str
    """Of the content, the one layer of the artifact."""
    content: bytes
    annotations: Mapping[str, str]


def attachments(
    subjects: Sequence[Subject], source: Source, index: str = ""
) -> list[Attachment]:
    """What belongs to each manifest and to the index, whose digest `index` is.

    Made anew, and the same bytes each time. Raises Problem as `sbom.make` and
    `provenance.make` do.
    """
    statement = provenance.make(subjects, source, index)
    with concurrent.futures.ThreadPoolExecutor() as pool:  # to unpack takes no lock
        bills = pool.map(sbom.make, subjects)
    of_images = [
        Attachment(
            subject=subject.manifest,
            artifact_type=sbom.MEDIA_TYPE,
            media_type=sbom.MEDIA_TYPE,
            content=made.content,
            annotations={"org.opencontainers.image.created": made.created},
        )
        for subject, made in zip(subjects, bills, strict=True)
    ]
    of_all = [
        Attachment(
            subject=digest,
            artifact_type=provenance.MEDIA_TYPE,
            media_type=provenance.MEDIA_TYPE,
            content=statement,
            # As BuildKit says what is in such a layer.
            annotations={"in-toto.io/predicate-type": provenance.PREDICATE},
        )
        for digest in (*(one.manifest for one in subjects), *filter(None, [index]))
    ]
    return [*of_images, *of_all]
