"""What the package index says of releases that are locked.

This program, which `outdated` runs in a process of its own,

    python pipindex.py RELEASES

asks each index of pip's settings, as pip would (proxies, certificates, credentials),
for RELEASES: a JSON text, versions by project. It reaches into pip and pip-tools for
that, so the tool lock pins both. The answer is in the JSON file `report` afterwards:

    failed    which index did not answer, and why, one line; empty if all did
    indexes   how many there are
    releases  of each the project, the version, its wheels' files (name, SHA-256 or
              nothing, why it was yanked or null) and its advisories (ids, fixed), null
              if no index has any to tell
"""

import dataclasses
import json
import os
import re
import sys
import urllib.parse
from pathlib import Path
from typing import Any

from pip._internal.exceptions import PipError
from pip._internal.index import collector
from pip._internal.models.link import Link
from pip._internal.network.utils import raise_for_status
from pip._internal.utils.misc import redact_auth_from_url
from pip._internal.utils.urls import url_to_path
from pip._vendor.packaging.utils import parse_wheel_filename
from pip._vendor.packaging.version import Version
from pip._vendor.requests import RequestException
from piptools.repositories.pypi import PyPIRepository

_GONE = (404, 410)
_FAILURES = (
    PipError,
    RequestException,
    ValueError,
    collector._NotHTTP,
    collector._NotAPIContent,
)


class _FailedError(Exception):
    """An index does not answer as one; its text says which and why."""


@dataclasses.dataclass(frozen=True)
class Index:
    """One index of pip's settings."""

    url: str
    session: Any

    def links(self, project: str) -> list[Link] | None:
        """The links to a project's files; None if it does not let us see any.

        Raises _FailedError.
        """
        url = f"{self.url}/{urllib.parse.quote(project)}/"
        if url.startswith("file:") and os.path.isdir(url_to_path(url)):
            url += "index.html"
        if not self.session.is_secure_origin(Link(url)):
            raise self.failed("it is neither HTTPS nor a trusted host")
        try:
            answer = collector._get_simple_response(url, self.session)
            return list(collector.parse_links(collector._make_index_content(answer)))
        except _FAILURES as error:
            if _status(error) in _GONE:
                return []
            # Some stores of files answer so for what they lack.
            if _status(error) == 403:
                return None
            raise self.failed(_why(error)) from None

    def advisories(self, project: str, version: str) -> list[dict[str, Any]] | None:
        """The advisories on a release; None if it tells none of any.

        They are in the JSON API that is beside `/simple` where an index has one
        (Warehouse's documentation, "JSON API", "Known vulnerabilities"). Raises
        _FailedError.
        """
        top = self.url.removesuffix("/simple")
        if top == self.url:
            return None
        where = "/".join(map(urllib.parse.quote, (project, version)))
        try:
            answer = self.session.get(
                f"{top}/pypi/{where}/json", headers={"Accept": "application/json"}
            )
            raise_for_status(answer)
        except _FAILURES as error:
            status = _status(error)
            if status and status < 500 and status not in (401, 407, 429):
                return None
            raise self.failed(_why(error)) from None
        try:
            found = answer.json()
        except ValueError:  # a page for people
            return None
        told = found.get("vulnerabilities") if isinstance(found, dict) else None
        if not isinstance(told, list):
            return None
        return [
            {
                "ids": _texts([one.get("id"), *(one.get("aliases") or [])]),
                "fixed": _texts(one.get("fixed_in") or []),
            }
            for one in told
            if isinstance(one, dict) and not one.get("withdrawn")
        ]

    def failed(self, why: str) -> _FailedError:
        return _FailedError(f"{redact_auth_from_url(self.url)}: {why}")


def _texts(values: list[object]) -> list[str]:
    return list(dict.fromkeys(_line(str(value)) for value in values if value))


def _line(text: str) -> str:
    """A text from elsewhere, fit for a terminal, without the passwords of URLs."""
    words = " ".join(text.split())
    shown = "".join(letter for letter in words if letter.isprintable())
    return re.sub(r"//[^/\s@]+@", "//****@", shown)[:200]


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _why(error: BaseException) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return _line(f"it answers {response.status_code} {response.reason}")
    if isinstance(error, (collector._NotHTTP, collector._NotAPIContent, ValueError)):
        return "what it answers is no page of an index"
    if context := getattr(error, "context", None):
        return _line(str(context))
    cause = (error.args or [error])[0]
    # urllib3's MaxRetryError has what went wrong the last time.
    return _line(str(getattr(cause, "reason", cause)))


def _wheels(links: list[Link], version: str) -> list[tuple[str, str, str | None]]:
    found: list[tuple[str, str, str | None]] = []
    for link in links:
        try:
            _, of, *_ = parse_wheel_filename(link.filename)
        except ValueError:
            continue
        if of == Version(version):
            reason = link.yanked_reason
            digest = link._hashes.get("sha256", "")
            found.append(
                (str(link.filename), digest, None if reason is None else _line(reason))
            )
    return found


def _release(
    indexes: list[Index],
    listed: list[list[Link] | None],
    project: str,
    version: str,
) -> dict[str, Any]:
    files = [file for links in listed for file in _wheels(links or [], version)]
    told = [index.advisories(project, version) for index in indexes]
    advisories = [one for found in told for one in found or []]
    unlike = {json.dumps(one): one for one in advisories}
    return {
        "project": project,
        "version": version,
        "files": files,
        "advisories": None if told.count(None) == len(told) else [*unlike.values()],
    }


def main(asked: str) -> None:
    repository = PyPIRepository([], "")
    urls = dict.fromkeys(repository.finder.search_scope.index_urls)
    indexes = [Index(url.rstrip("/"), repository.session) for url in urls]
    report: dict[str, Any] = {"failed": "", "indexes": len(indexes), "releases": []}
    try:
        for project, versions in json.loads(asked).items() if indexes else ():
            listed = [index.links(project) for index in indexes]
            if None in listed and not any(listed):
                raise indexes[listed.index(None)].failed("it answers 403 Forbidden")
            for version in versions:
                report["releases"].append(_release(indexes, listed, project, version))
    except _FailedError as error:
        report["failed"] = str(error)
    Path("report").write_text(json.dumps(report), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
