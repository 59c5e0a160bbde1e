"""The evidence beside images, for files in dist/ and for a registry."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from containerize.publish import provenance, sbom
from containerize.publish.provenance import Source
from containerize.publish.subjects import Subject
from containerize.settings import Settings


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
    found = []
    for subject in subjects:
        made = sbom.make(subject)
        found.append(
            Attachment(
                subject=subject.manifest,
                artifact_type=sbom.MEDIA_TYPE,
                media_type=sbom.MEDIA_TYPE,
                content=made.content,
                annotations={"org.opencontainers.image.created": made.created},
            )
        )
    for digest in (*(one.manifest for one in subjects), *filter(None, [index])):
        found.append(
            Attachment(
                subject=digest,
                artifact_type=provenance.MEDIA_TYPE,
                media_type=provenance.MEDIA_TYPE,
                content=statement,
                # As BuildKit says what is in such a layer.
                annotations={"in-toto.io/predicate-type": provenance.PREDICATE},
            )
        )
    return found


def sbom_path(settings: Settings) -> Path:
    """The SBOM of this architecture's image."""
    name = f"{settings.image}-{settings.image_architecture}.cdx.json"
    return settings.dist_dir / name


def provenance_path(settings: Settings) -> Path:
    """The statement on the images of all architectures."""
    return settings.dist_dir / f"{settings.image}.provenance.json"
