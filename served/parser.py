# waitress has no types, and the stubs there are describe it wrongly.
# mypy: disallow-subclassing-any=False, disable-error-code="import-untyped"
"""How requests are read: one meaning or none."""

from __future__ import annotations

import ipaddress
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from waitress.buffers import OverflowableBuffer
from waitress.parser import (
    HTTPRequestParser,
    ParsingError,
    TransferEncodingNotImplemented,
)
from waitress.receiver import ChunkedReceiver, FixedStreamReceiver
from waitress.utilities import BadRequest, Error, RequestEntityTooLarge

MAX_TRAILER = 8192
"""Bytes of the headers that may follow a chunked body."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
FIELDS = re.compile(rb"(?:%b:[\t -~\x80-\xff]*\r\n)*(?:\r\n)?" % _TOKEN)
"""Lines of a header or a trailer, and perhaps its end."""
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)


class Chunks(ChunkedReceiver):
    """Reads a chunked body in the one way that every proxy reads it.

    waitress takes a bare LF for white space, empty lines for nothing and any bytes for
    a trailer, the next request among them; it refuses the white space that
    https://www.rfc-editor.org/rfc/rfc9112#section-7.1.1 allows; and it searches an
    endless line anew with each packet.
    """

    control_line: bytes
    error: Error | None
    _line = re.compile(rb"([0-9A-Fa-f]{1,16})(?:%b)*\r\n" % _EXTENSION)

    def received(self, data: bytes) -> int:
        consumed = 0
        while data and not self.completed and not self.error:
            if self.chunk_remainder:
                size = self.chunk_remainder
            elif self.validate_chunk_end:
                size = 2 - len(self.chunk_end)
            elif self.all_chunks_received:
                consumed += super().received(data)
                self._check_trailer()
                break
            else:
                size = data.find(b"\n") + 1 or len(data)
                consumed += size
                self._read_line(data[:size])
                data = data[size:]
                continue
            part, data = data[:size], data[size:]
            consumed += super().received(part)
        return consumed

    def _read_line(self, part: bytes) -> None:
        """Read more of the line that says a chunk's size."""
        line = self.control_line + part
        match = self._line.fullmatch(line)
        if len(line) > 1024 or (line.endswith(b"\n") and not match):
            self.error = BadRequest("Invalid chunk size")
        elif match:
            self.control_line = b""
            super().received(match[1] + b"\r\n")
        else:
            self.control_line = line

    def _check_trailer(self) -> None:
        lines = self.trailer[: self.trailer.rfind(b"\n") + 1]
        if len(self.trailer) > MAX_TRAILER:
            self.error = BadRequest("Trailer is too long")
        elif not FIELDS.fullmatch(lines):
            self.error = BadRequest("Trailer is invalid")


class Parser(HTTPRequestParser):
    """Refuses what waitress reads leniently and a proxy in front may read otherwise.

    https://www.rfc-editor.org/rfc/rfc9112 sections 2.2, 2.3, 3, 5.2, 6.3 and 9.3.
    """

    body_rcv: Any
    command = "-"
    path = query = ""
    url_scheme = "http"
    reserved = 0
    """Bytes that the body may come to, counted against `max_bodies`."""
    refusal: Error | None = None
    """An error other than 400."""

    _start = re.compile(rb"(?:\r\n)*(?:\r?\Z|[!-~])")
    _first_line = re.compile(rb"([!-~]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
    _method = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]+")
    _digits = re.compile(r"[0-9]{1,4000}")
    _absolute = re.compile(rb"(?i:https?)://([^/?]+)(.*)")
    _bare_lf = re.compile(rb"(?<!\r)\n")
    _host = re.compile(
        r"(?:\[([0-9A-Fa-f:.]+)\]|(?:[\w.~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)"
        r"(?::([0-9]{0,5}))?",
        re.ASCII,
    )

    def received(self, data: bytes) -> int:
        if self.body_rcv is None and not self._start.match(self.header_plus + data):
            self.error = BadRequest("Start line is invalid")
            self.completed = True
            return len(data)
        consumed: int = super().received(data)
        if not self.headers_finished and self._bare_lf.search(self.header_plus):
            # An end of the headers may stand there, which waitress would wait for.
            self.error = BadRequest("Bare LF in the headers")
            self.completed = True
        self.error = self.refusal or self.error
        if isinstance(self.error, RequestEntityTooLarge):
            self.error.body = f"{self.adj.max_request_body_size - 1} bytes at most"
        if self.completed:
            # Else waitress would invite a body that it has refused or that is not due.
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Read what stands before the body, in the place of waitress's method.

        That cuts each line with an expression of its own, and took as long for a
        browser's request as half of Flask's answer to it. Raises what it raises.
        """
        first_line, _, fields = header_plus.partition(b"\r\n")
        match = self._first_line.fullmatch(first_line)
        if not match:
            raise ParsingError("Start line is invalid")
        method, target, major, minor = match.groups()
        if major != b"1":
            self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken")
        if method == b"CONNECT":
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "This is no proxy")
        authority, target = self._target(method, target)
        self._read_fields(fields)
        self.command = method.decode()
        if not self._method.fullmatch(self.command):
            raise ParsingError("Method is invalid")
        self.version = "1.0" if minor == b"0" else "1.1"
        self.request_uri = target.decode()
        path, _, self.query = self.request_uri.partition("?")
        self.path = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        self._read_length()
        self._check_host(authority)
        self._read_connection()
        expect = self.headers.get("EXPECT", "").lower()
        self.expect_continue = self.version == "1.1" and expect == "100-continue"

    def _read_fields(self, fields: bytes) -> None:
        """Fill `headers` as WSGI names them, values of one name joined by commas."""
        if not FIELDS.fullmatch(fields):
            raise ParsingError("Header is invalid")
        headers = self.headers
        for line in fields.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            if not name or "_" in name:  # one that WSGI could not tell from another
                continue
            name = name.upper().replace("-", "_")
            value = value.strip(" \t")
            if name not in headers:
                headers[name] = value
            elif name == "CONTENT_TYPE":
                raise ParsingError("Content-Type stands twice")
            else:
                headers[name] += f", {value}"

    def _read_length(self) -> None:
        """How long the body is, and what receives it.

        https://www.rfc-editor.org/rfc/rfc9112#section-6.3
        """
        coding = self.headers.pop("TRANSFER_ENCODING", None)
        length = self.headers.get("CONTENT_LENGTH")
        if coding is not None:
            codings = {part.strip(" \t").lower() for part in coding.split(",")}
            if self.version == "1.1" and codings - {"chunked", ""}:
                raise TransferEncodingNotImplemented("Transfer-Encoding is unknown")
            if (
                self.version == "1.0"
                or length is not None
                or coding.lower() != "chunked"
            ):
                raise ParsingError("Length of the body is ambiguous")
            self.chunked = True
            self.body_rcv = Chunks(OverflowableBuffer(self.adj.inbuf_overflow))
            self.reserved = self.adj.max_request_body_size
        elif length is not None:
            if not self._digits.fullmatch(length):
                raise ParsingError("Length is invalid")
            self.reserved = self.content_length = int(length)
            if self.content_length:
                buffer = OverflowableBuffer(self.adj.inbuf_overflow)
                self.body_rcv = FixedStreamReceiver(self.content_length, buffer)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.refusal = make_error(status, text)
        raise ParsingError(text)

    def _target(self, method: bytes, target: bytes) -> tuple[str | None, bytes]:
        """The authority that a target names, if any, and its path with the query.

        https://www.rfc-editor.org/rfc/rfc9112#section-3.2
        """
        if b"#" in target:
            raise ParsingError("Target has a fragment")
        if target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*"):
            return None, target
        match = self._absolute.fullmatch(target)
        if not match:
            raise ParsingError("Target is invalid")
        authority, path = match.groups()
        if method == b"OPTIONS" and not path:
            path = b"*"  # section 3.2.4
        elif not path.startswith(b"/"):
            path = b"/" + path
        return authority.decode("latin-1"), path

    def _check_host(self, authority: str | None) -> None:
        """Refuse an invalid Host; an absolute target's own authority wins over it.

        https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
        """
        if "HOST" not in self.headers and self.version == "1.1":
            raise ParsingError("Host is missing")
        for host in (self.headers.get("HOST"), authority):
            if host is None:
                continue
            match = self._host.fullmatch(host)
            if not match or int(match[2] or 0) > 65535:
                raise ParsingError("Host is invalid")
            if match[1]:
                try:
                    ipaddress.IPv6Address(match[1])
                except ValueError:
                    raise ParsingError("Host is invalid") from None
        if authority is not None:
            self.headers["HOST"] = authority

    def _read_connection(self) -> None:
        """Leave the one option that is looked for."""
        value = self.headers.get("CONNECTION")
        if not value:
            return
        options = {option.strip(" \t").lower() for option in value.split(",")}
        if "close" in options:
            self.headers["CONNECTION"] = "close"
        elif "keep-alive" in options and self.version == "1.0":
            self.headers["CONNECTION"] = "keep-alive"


def make_error(status: HTTPStatus, text: str) -> Error:
    """An error that `Refusal` answers."""
    found = Error(text)
    found.code, found.reason = status.value, status.phrase
    return found
