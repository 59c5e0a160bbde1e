"""The bill of materials of one architecture's image, in CycloneDX 1.6.

What is in it is read from the image's own archive, and named by hash as the locks do.
The same image gives the same bytes: the time is that of base.lock, and the serial
number comes of the content.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, canonicalize_version

from containerize import DISTRIBUTION, FORMAT
from containerize.errors import Problem
from containerize.lock import locks, pins
from containerize.lock.base import Package
from containerize.lock.pins import Pin
from containerize.publish import contents, licences
from containerize.publish.contents import Contents, Fields
from containerize.publish.subjects import Below, Locked, Subject, locked
from containerize.settings import Settings

MEDIA_TYPE = "application/vnd.cyclonedx+json"

APP, SERVICE, IMAGE, BASE = "app", "served", "image", "base image"
SYSTEM, PYTHON = "system", "python"
"""What components that are no packages are called within the document."""

_Part = tuple[Component, set[str]]
"""A component, and the names of those that it needs."""


@dataclasses.dataclass(frozen=True)
class Sbom:
    """A document, and what it could not say."""

    content: bytes
    created: str
    """The time that it gives, that of base.lock (RFC 3339)."""
    notes: tuple[str, ...]


def make(subject: Subject) -> Sbom:
    """The SBOM of an image.

    Raises Problem where a lock is not in step, where the archive is damaged, and where
    the image does not say that it holds what is locked.
    """
    settings = subject.settings
    named = locked(settings)
    try:
        held = contents.read(subject.archive)
    except Problem as problem:
        raise Problem(f"{problem} (`invoke digest` builds it again)") from None
    notes: list[str] = []
    metadata = {
        pin.name: _same(held, pin, held.distributions.get(canonicalize_name(pin.name)))
        for pin in named.pins
    }
    needs = _resolve(_asked(settings, metadata, notes), named.target.environment)
    parts = [*_system(held), *_packages(held, named, notes)]
    python = _deb(f"python{settings.python}")
    if python not in (component.bom_ref.value for component, _ in parts):
        python = PYTHON
        parts.append((_python(settings), set()))
    parts += [
        (_wheel(pin, metadata[pin.name]), needs[_pypi(pin.name)]) for pin in named.pins
    ]
    if named.below:
        parts.append((_base(named.below), set()))
    parts.append((_app(settings, held), {python, *needs[APP]}))
    parts.append((_service(subject), {APP, python, *needs[SERVICE]}))
    found = _document(_image(subject, held), parts, named.base.time)
    if named.below:
        # The library has no model of this.
        incomplete = {"aggregate": "incomplete", "assemblies": [IMAGE, BASE]}
        found["compositions"] = [incomplete]
        notes.append(
            f"what {named.below.name} holds is unknown: the SBOM says that it is "
            "incomplete"
        )
    text = json.dumps(found, sort_keys=True)
    found["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, text).urn
    whole = json.dumps(found, sort_keys=True, indent=2)
    created = found["metadata"]["timestamp"]
    return Sbom(f"{whole}\n".encode(), created, tuple(notes))


def _document(image: Component, parts: Sequence[_Part], time: int) -> dict[str, Any]:
    """The document, without a serial number."""
    needs = {str(component.bom_ref.value): needed for component, needed in parts}
    # All that nothing else needs is there for the image's own sake.
    needs[IMAGE] = needs.keys() - set().union(*needs.values())
    components = [image, *(component for component, _ in parts)]
    refs = {component.bom_ref.value: component.bom_ref for component in components}
    tool = Component(
        type=ComponentType.APPLICATION,
        name=DISTRIBUTION,
        version=f"format {FORMAT}",
        bom_ref="tool",
    )
    bom = Bom(
        components=components[1:],
        metadata=BomMetaData(
            component=image,
            timestamp=datetime.datetime.fromtimestamp(time, datetime.UTC),
            tools=ToolRepository(components=[tool]),
        ),
        dependencies=[
            Dependency(refs[name], [Dependency(refs[other]) for other in needed])
            for name, needed in needs.items()
        ],
    )
    found: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    del found["serialNumber"]
    return found


def _same(held: Contents, named: Pin | Package, found: Fields | None) -> Fields:
    """What an image says of a package. Raises Problem if that is not what is locked."""
    there = str(found["Version"] or "") if found is not None else ""
    if found is None or not there:
        raise Problem(
            f"{held.name} does not say that it holds {named.name} {named.version}, "
            "which is locked: see what the Dockerfile removes, then build again"
        )
    # Of a wheel one may say 1.2 and the other 1.02.
    form = canonicalize_version if isinstance(named, Pin) else str
    if form(there) != form(named.version):
        raise Problem(
            f"{held.name} holds {named.name} {there}, and {named.version} is locked: "
            "build it again"
        )
    return found


def _image(subject: Subject, held: Contents) -> Component:
    name = subject.settings.image
    qualifiers = {"arch": subject.architecture}
    return Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=subject.manifest,
        bom_ref=IMAGE,
        purl=PackageURL("oci", None, name, subject.manifest, qualifiers),
        properties=[_property("config", held.config)],
    )


# --- Debian packages -------------------------------------------------------------


def _system(held: Contents) -> Iterator[_Part]:
    if "ID" in held.system:
        component = Component(
            type=ComponentType.OPERATING_SYSTEM,
            name=held.system["ID"],
            version=held.system.get("VERSION_ID"),
            bom_ref=SYSTEM,
        )
        yield component, set()


def _packages(held: Contents, named: Locked, notes: list[str]) -> Iterator[_Part]:
    controls = {
        each.name: _same(held, each, held.packages.get(each.name))
        for each in named.packages
    }
    provided: dict[str, str] = {}
    for name in sorted(controls, reverse=True):
        for choice in _relation(controls[name], "Provides"):
            provided |= dict.fromkeys(choice, name)
    provided |= {name: name for name in controls}
    for package in named.packages:
        name = package.name
        control = controls[name]
        choices = _relation(control, "Pre-Depends", "Depends")
        first = (next((x for x in each if x in provided), "") for each in choices)
        needs = {provided[x] for x in first if x} - {name}
        # Debian Policy, 12.5: what needs another of the same source may have its file.
        source = _source(control)[0]
        same = [x for x in sorted(needs) if _source(controls[x])[0] == source]
        component = Component(
            name=name,
            version=package.version,
            purl=_deb_url(control, held.system),
            bom_ref=_deb(name),
            hashes=[_sha256(package.sha256)],
            licenses=_licenses(_copyright(held, [name, *same], notes)),
            properties=_for_trivy(control),
        )
        yield component, set(map(_deb, needs))


def _copyright(
    held: Contents, packages: Sequence[str], notes: list[str]
) -> Sequence[licences.Clause]:
    """The licence as the first copyright file of these packages has it."""
    for name in packages:
        content = held.copyright(name)
        if content is None:
            continue
        try:
            text = content.decode()
        except UnicodeDecodeError:
            notes.append(
                f"{packages[0]}: its copyright file is not UTF-8: no licence is named"
            )
            return ()
        where = f"see /usr/share/doc/{name}/copyright"
        return licences.debian(text) or (licences.Clause(where, False),)
    return ()


def _relation(control: Fields, *names: str) -> list[list[str]]:
    """The names in relations of a package: for each, those of which one will do."""
    text = ",".join(str(control[name]) for name in names if control[name])
    return [
        re.findall(r"(?:^|\|)\s*([a-z0-9][a-z0-9+.-]+)", choice)
        for choice in text.split(",")
    ]


def _source(control: Fields) -> tuple[str, str]:
    """Name and version of the source package."""
    text = str(control["Source"] or control["Package"])
    name, _, version = text.partition(" ")
    return name, version.strip(" ()") or str(control["Version"])


def _deb_url(control: Fields, system: Mapping[str, str]) -> PackageURL:
    """The package URL as Syft writes it, so that others compare equal."""
    qualifiers = {"arch": str(control["Architecture"])}
    if "ID" in system:
        qualifiers["distro"] = f"{system['ID']}-{system.get('VERSION_ID', '')}"
    name, version = _source(control)
    if version != control["Version"]:
        qualifiers["upstream"] = f"{name}@{version}"
    elif name != control["Package"]:
        qualifiers["upstream"] = name
    return PackageURL(
        "deb",
        system.get("ID", "debian"),
        str(control["Package"]),
        str(control["Version"]),
        qualifiers,
    )


def _for_trivy(control: Fields) -> Iterator[Property]:
    """The source package as Trivy 0.59 writes it.

    It looks for Debian's advisories by that, and does not read `upstream`.
    """
    for key, value in zip(("SrcName", "SrcVersion"), _source(control), strict=True):
        yield Property(name=f"aquasecurity:trivy:{key}", value=value)


# --- Python ----------------------------------------------------------------------


def _base(below: Below) -> Component:
    return Component(
        type=ComponentType.CONTAINER,
        name=below.name,
        version=f"sha256:{below.sha256}",
        purl=below.url,
        bom_ref=BASE,
        hashes=[_sha256(below.sha256)],
    )


def _python(settings: Settings) -> Component:
    """A Python that is no Debian package, as that of a base image."""
    return Component(
        type=ComponentType.PLATFORM,
        name="python",
        version=settings.python,
        bom_ref=PYTHON,
    )


def _wheel(pin: Pin, metadata: Fields) -> Component:
    [digest] = pin.hashes
    return Component(
        name=pin.name,
        version=pin.version,
        purl=PackageURL("pypi", name=pin.name, version=pin.version),
        bom_ref=_pypi(pin.name),
        hashes=[_sha256(digest)],
        licenses=_licenses(licences.wheel(metadata)),
    )


def _service(subject: Subject) -> Component:
    """What serves the app, which is named by the hash that decides the image."""
    return Component(
        type=ComponentType.APPLICATION,
        name="served",
        bom_ref=SERVICE,
        hashes=[_sha256(subject.inputs["package served"].removeprefix("sha256:"))],
    )


def _app(settings: Settings, held: Contents) -> Component:
    """The app: a name, and its layers by digest; more if it is installed."""
    name, metadata, purl = settings.app.partition(":")[0], contents.fields(b""), None
    if settings.installs_project:
        table = pins.read_toml(settings.root / "pyproject.toml")
        project = canonicalize_name(str(table.get("project", {}).get("name")))
        if own := held.distributions.get(project):
            name, metadata = project, own
            purl = PackageURL("pypi", name=project, version=str(own["Version"]))
    return Component(
        type=ComponentType.APPLICATION,
        name=name,
        version=metadata["Version"],
        purl=purl,
        bom_ref=APP,
        licenses=_licenses(licences.wheel(metadata)),
        properties=[
            _property(f"layer:{layer.digest}", f"diff ID {layer.diff_id}")
            for layer in held.layers
            if layer.of_app
        ],
    )


def _asked(
    settings: Settings, metadata: Mapping[str, Fields], notes: list[str]
) -> dict[str, list[Requirement]]:
    """What the app, what serves it, and each wheel ask for."""
    source = pins.read_source(settings.root / settings.requirements)
    found = {
        APP: [Requirement(each) for each in source.requirements],
        SERVICE: [Requirement(each) for each in locks.service_requirements()],
    }
    for name, fields in metadata.items():
        found[_pypi(name)] = own = []
        for text in fields.get_all("Requires-Dist", []):
            try:
                own.append(Requirement(str(text)))
            except InvalidRequirement:
                notes.append(
                    f"{name}: its metadata asks for {str(text)!r}, which is no "
                    "requirement: that dependency is left out"
                )
    return found


def _resolve(
    asked: Mapping[str, Sequence[Requirement]], environment: dict[str, str]
) -> dict[str, set[str]]:
    """What each asks for of what is there, by the names of components.

    Extras count as in pip: what one asks for of another, that other needs.
    """
    extras: dict[str, set[str]] = {}
    needs: dict[str, set[str]] = {name: set() for name in asked}
    waiting = [APP, SERVICE]
    while waiting:
        name = waiting.pop()
        for one in asked[name]:
            chosen = ("", *extras.get(name, ()))
            if one.marker and not any(
                one.marker.evaluate({**environment, "extra": extra}) for extra in chosen
            ):
                continue
            other = _pypi(canonicalize_name(one.name))
            if other not in asked:
                continue
            needs[name].add(other)
            wanted = {canonicalize_name(extra) for extra in one.extras}
            if other not in extras or wanted - extras[other]:
                extras[other] = extras.get(other, set()) | wanted
                waiting.append(other)
    return needs


def _deb(name: str) -> str:
    return f"deb {name}"


def _pypi(name: str) -> str:
    return f"pypi {name}"


# --- What both have -------------------------------------------------------------


def _licenses(
    clauses: Sequence[licences.Clause],
) -> Iterator[DisjunctiveLicense | LicenseExpression]:
    """One expression if SPDX knows all, else each by what it is called."""
    if len(clauses) == 1 and clauses[0].is_spdx and " " not in clauses[0].text:
        yield DisjunctiveLicense(id=clauses[0].text)
    elif clauses and all(clause.is_spdx for clause in clauses):
        yield LicenseExpression(licences.joined(clauses))
    else:
        for clause in clauses:
            if clause.is_spdx and " " not in clause.text:
                yield DisjunctiveLicense(id=clause.text)
            else:
                yield DisjunctiveLicense(name=clause.text)


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _property(name: str, value: str) -> Property:
    return Property(name=f"containerize:{name}", value=value)
