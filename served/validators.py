"""Conditional requests for packed files, which all have one time.

Werkzeug tells versions of a file apart by its time and size. In an image neither need
change when the content does, and a browser would be told that its old copy is current.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from typing import Any

import werkzeug.utils
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wrappers import Response

IMAGE_TIME = os.stat(__file__).st_mtime_ns
"""The time of every packed file, in nanoseconds since 1970: this one is packed too."""

_werkzeug_send_file = werkzeug.utils.send_file
_signature = inspect.signature(_werkzeug_send_file)


def install() -> None:
    """Put `send_file` in the place of Werkzeug's, through which all of Flask's go.

    To be called before the application is imported, which may take it by name.
    """
    werkzeug.utils.send_file = send_file


@functools.wraps(_werkzeug_send_file)
def send_file(*args: Any, **kwargs: Any) -> Response:
    """As Werkzeug's; the validators of a packed file are those of its content.

    It has a strong ETag and no Last-Modified, unless the caller gives them. Files of
    another time, and objects in place of paths, are left to Werkzeug. Raises what
    Werkzeug's does.
    """
    call = _signature.bind(*args, **kwargs)
    call.apply_defaults()
    given = call.arguments
    try:
        path = os.path.join(
            os.fspath(given.get("_root_path") or ""), os.fspath(given["path_or_file"])
        )
        packed = os.stat(path).st_mtime_ns == IMAGE_TIME
    except (TypeError, OSError):  # A file object, or what Werkzeug complains of itself.
        packed = False
    if not packed:
        return _werkzeug_send_file(*args, **kwargs)
    if given["etag"] and not isinstance(given["etag"], str):
        given["etag"] = content_tag(path)
    conditional, given["conditional"] = given["conditional"], False
    response = _werkzeug_send_file(*call.args, **call.kwargs)
    if given["last_modified"] is None:
        del response.headers["Last-Modified"]
    return _evaluate(response, given["environ"]) if conditional else response


def content_tag(path: str) -> str:
    """SHA-256 of a file, in hex; read again only if the file is another or written to.

    Raises OSError.
    """
    found = os.stat(path)
    identity = found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns
    return _digest(path, identity)


@functools.lru_cache(maxsize=4096)
def _digest(path: str, _identity: tuple[int, ...]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _evaluate(response: Response, environ: dict[str, Any]) -> Response:
    """Preconditions, then the range, in the order of RFC 9110 13.2.2.

    Werkzeug looks at the range first, and takes If-Range by its looser rules.
    """
    size = response.content_length
    plain = {key: value for key, value in environ.items() if key != "HTTP_RANGE"}
    response.make_conditional(plain, accept_ranges=True, complete_length=size)
    if response.status_code == 304:
        response.headers.pop("X-Sendfile", None)
    if_range = environ.get("HTTP_IF_RANGE")
    current = if_range in (
        None,
        response.headers.get("ETag"),
        response.headers.get("Last-Modified"),
    )
    # RFC 9110 14.2: a range is defined for GET alone.
    if response.status_code != 200 or environ["REQUEST_METHOD"] != "GET" or not current:
        return response
    ranged = {key: value for key, value in environ.items() if key != "HTTP_IF_RANGE"}
    try:
        response.make_conditional(ranged, accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable:
        response.close()
        raise
    return response
