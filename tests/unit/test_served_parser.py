"""How requests are read: one meaning or none, however they are cut into packets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waitress.adjustments import Adjustments

from served.parser import Parser

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def parse(data: bytes, step: int = 1 << 20) -> tuple[Parser, bytes]:
    """What the first request is read as, and the bytes that are not its own."""
    adjustments = Adjustments(
        max_request_header_size=1024, max_request_body_size=65536, port=1
    )
    parser = Parser(adjustments)
    while data and not parser.completed:
        part, data = data[:step], data[step:]
        used = parser.received(part)
        data = part[used:] + data
    return parser, data


def body(parser: Parser) -> bytes:
    found: bytes = parser.get_body_stream().read()
    return found


def status(parser: Parser) -> int | None:
    """The error's; None for a request that is whole, 0 for one that is not."""
    if not parser.completed:
        return 0
    return parser.error.code if parser.error else None


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_chunked_body(step: int) -> None:
    data = CHUNKED + b"3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
    parser, rest = parse(data + b"GET", step)
    assert status(parser) is None
    assert body(parser) == b"abc0123456789"
    assert parser.headers["CONTENT_LENGTH"] == "13"
    assert rest == b"GET"


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.integers(min_value=1, max_value=60),
)
def test_any_chunks_in_any_packets(chunks: list[bytes], step: int) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    parser, _ = parse(CHUNKED + data + b"0\r\n\r\n", step)
    assert status(parser) is None
    assert body(parser) == b"".join(chunks)


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    "data",
    [
        b"3\nabc\n0\n\n",
        b"3\n\r\nabc\r\n0\r\n\r\n",
        b"3;a=b\n\r\nabc\r\n0\r\n\r\n",
        b"\r\n3\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"g\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3;\0\r\nabc\r\n0\r\n\r\n",
        b"00000000000000003\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_bad_chunks(data: bytes, step: int) -> None:
    assert status(parse(CHUNKED + data, step)[0]) == 400


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        (b"GET / HTTP/1.0\r\n\r\n", None),
        (b"\r\n\r\nGET / HTTP/1.0\r\n\r\n", None),
        (POST + b"Content-Length: 3\r\n\r\nabc", None),
        (POST + b"Content-Length: 3\r\n\r\nab", 0),
        # Two lengths, or none that all would agree on.
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: +3\r\n\r\nabc", 400),
        (POST + b"Content-Length: -1\r\n\r\nabc", 400),
        (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
        (POST + b"Content-Length: " + b"9" * 900 + b"\r\n\r\n", 413),
        (POST + b"Content-Length : 3\r\n\r\nabc", 400),
        (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
        (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        # Line ends.
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n\nGET /b HTTP/1.1\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: a\r\n b\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        # The first line.
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        # Host.
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", 400),
        # Sizes.
        (b"GET /" + b"a" * 2000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2000 + b"\r\n\r\n", 431),
        (POST + b"Content-Length: 65536\r\n\r\n", 413),
        (CHUNKED + b"10000\r\n" + b"a" * 65536, 413),
        (CHUNKED + b"1;" + b"a" * 2000, 400),
        (CHUNKED + b"0\r\nX: " + b"a" * 10000, 400),
    ],
)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_status(data: bytes, wanted: int | None, step: int) -> None:
    assert status(parse(data, step)[0]) == wanted


def test_digits_beyond_what_int_reads() -> None:
    adjustments = Adjustments(max_request_header_size=16384, port=1)
    parser = Parser(adjustments)
    parser.received(POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n")
    assert status(parser) == 400
