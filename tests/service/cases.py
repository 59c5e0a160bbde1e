"""Requests byte by byte, and what a server owes them."""

from __future__ import annotations

import pytest

MAX_BODY = 1 << 20
"""The default."""

CLOSE = b"Host: a\r\nConnection: close\r\n"
POST = b"POST /echo HTTP/1.1\r\n" + CLOSE
CODED = b"Transfer-Encoding: chunked\r\n"
CHUNKED = POST + CODED + b"\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

REFUSED = (
    # Two lengths, or one that not all would read alike.
    (400, POST + b"Content-Length: 3\r\n" + CODED + b"\r\n0\r\n\r\n"),
    (400, POST + CODED + b"Content-Length: 3\r\n\r\n0\r\n\r\n"),
    (400, POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n"),
    (400, POST + b"Content-Length: 0, 0\r\n\r\n"),
    (400, POST + b"Content-Length: +0\r\n\r\n"),
    (400, POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"),
    (400, POST + b"Content-Length : 0\r\n\r\n"),
    (400, POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    (400, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    (501, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    (501, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    (400, b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    # Chunks.
    (400, CHUNKED + b"g\r\nabc\r\n0\r\n\r\n"),
    (400, CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n"),
    (400, CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    (400, CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    (400, CHUNKED + b"3\nabc\n0\n\n"),
    (400, CHUNKED + b"3\n\r\nabc\r\n0\r\n\r\n"),
    (400, CHUNKED + b"3;a\n\r\nabc\r\n0\r\n\r\n"),
    (400, CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n"),
    (400, CHUNKED + b"3;" + b"a" * 5000),
    # Line ends and folds.
    (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\n\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + CLOSE + b"X: a\r\n b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + CLOSE + b"X: a\r\n\t" + CODED + b"\r\n"),
    # First lines.
    (400, b"GET /\0 HTTP/1.1\r\n" + CLOSE + b"\r\n"),
    (400, b"GET /\xff\xfe HTTP/1.1\r\n" + CLOSE + b"\r\n"),
    (400, "GET /é HTTP/1.1\r\n".encode() + CLOSE + b"\r\n"),
    (400, b"GET  / HTTP/1.1\r\n" + CLOSE + b"\r\n"),
    (400, b"GET / HTTP/1.1 x\r\n" + CLOSE + b"\r\n"),
    (400, b"GET /\r\n\r\n"),
    (400, b"get / HTTP/1.1\r\n" + CLOSE + b"\r\n"),
    (400, b"GET http://[ HTTP/1.1\r\n" + CLOSE + b"\r\n"),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (400, bytes.fromhex("160301020001000001fc0303") + b"\r\n\r\n"),
    # Host and headers.
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: b\r\n" + CLOSE + b"\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + CLOSE + b"X: a\0b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + CLOSE + b"no colon\r\n\r\n"),
    # Limits.
    (431, b"GET /" + b"a" * 17000),
    (431, b"GET / HTTP/1.1\r\n" + CLOSE + b"X: a\r\n" * 4000),
    (413, POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1)),
    (413, POST + b"Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n"),
    (413, CHUNKED + b"ffffffff\r\n" + b"a" * (MAX_BODY + 1)),
)  # fmt: skip
"""Status, and bytes that are answered with it alone; then the connection closes."""


def _case(section: str, *values: object) -> object:
    return pytest.param(*values, id=section)


def _get(target: bytes, rest: bytes = CLOSE, version: bytes = b"1.1") -> bytes:
    return b"GET %b HTTP/%b\r\n%b\r\n" % (target, version, rest)


LAST = CHUNKED + b"1\r\na\r\n0\r\n"

SECTIONS = (
    # Trailers: what a lenient end would let them swallow is the next request.
    _case("9112-2.2-trailer-lf", 400, LAST + b"X: y\n\n"),
    _case("9112-2.2-trailer-lf-crlf", 400, LAST + b"X: y\n\r\n"),
    _case("9112-2.2-trailer-lf-first", 400, LAST + b"\n"),
    _case("9112-2.2-trailer-bare-cr", 400, LAST + b"X: y\rZ: z\r\n\r\n"),
    _case("9110-5.5-trailer-nul", 400, LAST + b"X: y\0\r\n\r\n"),
    _case("9110-5.1-trailer-name-nul", 400, LAST + b"X\0: y\r\n\r\n"),
    _case("9112-5.1-trailer-space-colon", 400, LAST + b"X : y\r\n\r\n"),
    _case("9112-5.2-trailer-fold", 400, LAST + b"X: y\r\n z\r\n\r\n"),
    _case("9112-7.1.2-trailer-no-field", 400, LAST),
    # Chunk extensions.
    _case("9112-7.1.1-space-no-name", 400, CHUNKED + b"1 \r\na\r\n0\r\n\r\n"),
    _case("9112-7.1.1-no-name", 400, CHUNKED + b"1 ;\r\na\r\n0\r\n\r\n"),
    _case("9112-7.1.1-no-value", 400, CHUNKED + b"1;a=\r\na\r\n0\r\n\r\n"),
    _case("9112-7.1.1-open-quote", 400, CHUNKED + b'1;a="\r\na\r\n0\r\n\r\n'),
    _case("9112-7.1.1-space-first", 400, CHUNKED + b" 1;a\r\na\r\n0\r\n\r\n"),
    # Before the request line.
    _case("9112-2.2-space-first", 400, b" " + _get(b"/")),
    _case("9112-2.2-tab-first", 400, b"\t" + _get(b"/")),
    _case("9112-2.2-lf-first", 400, b"\n" + _get(b"/")),
    _case("9112-2.2-cr-first", 400, b"\r" + _get(b"/")),
    _case("9112-2.2-vt-first", 400, b"\x0b" + _get(b"/")),
    _case("9112-2.2-crlf-space-first", 400, b"\r\n " + _get(b"/")),
    _case("9112-2.2-crlf-lf-first", 400, b"\r\n\n" + _get(b"/")),
    # Targets.
    _case("9112-3.2-relative", 400, _get(b"x")),
    _case("9112-3.2-query-alone", 400, _get(b"?x=1")),
    _case("9112-3.2-scheme-path", 400, _get(b"a:/x")),
    _case("9112-3.2-other-scheme", 400, _get(b"ftp://a/x")),
    _case("9112-3.2.3-authority-get", 400, _get(b"host:443")),
    _case("9112-3.2.4-asterisk-get", 400, _get(b"*")),
    _case("9112-3.2-fragment", 400, _get(b"/#x")),
    _case("9110-4.2.1-empty-authority", 400, _get(b"http:///x")),
    _case("9110-4.2.4-userinfo", 400, _get(b"http://u:p@a/x")),
    _case("9112-3.2-bracket", 400, _get(b"http://[/x")),
    _case("9112-3.2-asterisk-path", 400, b"OPTIONS *x HTTP/1.1\r\n%b\r\n" % CLOSE),
    _case("9110-9.3.6-connect", 501, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"),
    # Host.
    *(
        _case(f"9112-3.2-host-{version.decode()}-{name}", 400,
              _get(b"/", b"Host: %b\r\nConnection: close\r\n" % host, version))
        for version in (b"1.0", b"1.1")
        for name, host in (
            ("empty", b""),
            ("twice", b"a\r\nHost: a"),
            ("list", b"a, a"),
            ("no-port", b"a:notaport"),
            ("high-port", b"a:65536"),
            ("two-ports", b"a:1:2"),
            ("bracket", b"["),
            ("no-ipv6", b"[::g]"),
            ("half-ipv6", b"[::1"),
            ("ipv6-tail", b"[::1]a"),
            ("zone", b"[fe80::1%25lo]"),
            ("bare-ipv6", b"::1"),
            ("userinfo", b"u@a"),
            ("path", b"a/b"),
            ("percent", b"a%zz"),
            ("nul", b"a\0"),
        )
    ),
    _case("9112-3.2-host-invalid-beside-absolute", 400,
          _get(b"http://a/", b"Host: a:b\r\nConnection: close\r\n")),
    # Fields and versions.
    _case("9110-8.3-two-content-types", 400,
          POST + b"Content-Type: text/plain\r\nContent-type: a/b\r\n\r\n"),
    _case("9110-2.5-http-2.0", 505, _get(b"/", version=b"2.0")),
    _case("9110-2.5-http-0.9", 505, _get(b"/", version=b"0.9")),
    _case("9110-2.5-http-9.9", 505, _get(b"/", version=b"9.9")),
    _case("9112-2.3-http-1.10", 400, _get(b"/", version=b"1.10")),
    _case("9112-2.3-http-1", 400, _get(b"/", version=b"1")),
)  # fmt: skip
"""Like REFUSED; the name begins with the RFC and its section."""


def _closing(value: bytes, version: bytes = b"1.1") -> bytes:
    kept = _get(b"/", b"Host: a\r\nConnection: %b\r\n" % value, version)
    return kept + _get(b"/nowhere")


ANSWERED = (
    _case("9112-2.2-crlf-first", b"\r\n\r\n" + _get(b"/"), [200]),
    _case("9112-2.3-http-1.2", _get(b"/", version=b"1.2"), [200]),
    _case("9112-2.3-http-1.2-keeps", _get(b"/", b"Host: a\r\n", b"1.2") + _get(b"/"),
          [200, 200]),
    _case("9112-7.1.1-space", CHUNKED + b"1 ; a=b\r\na\r\n0\r\n\r\n", [200]),
    _case("9112-7.1.1-spaces", CHUNKED + b'1\t;\ta = "b;\\"c" ;d\r\na\r\n0;e\r\n\r\n',
          [200]),
    _case("9112-7.1.2-trailer", POST.replace(b"Connection: close\r\n", b"") + CODED
          + b"\r\n1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\n" + _get(b"/"), [200, 200]),
    _case("9112-3.2.1-origin", _get(b"/?x=http://b/#".rstrip(b"#")), [200]),
    _case("9112-3.2.2-no-path", _get(b"http://a"), [200]),
    _case("9112-3.2.2-query", _get(b"HTTP://a?x=1"), [200]),
    _case("9112-3.2.2-ipv6", _get(b"https://[::1]:80/"), [200]),
    _case("9110-9.3.7-options", b"OPTIONS * HTTP/1.1\r\n%b\r\n" % CLOSE, [200]),
    _case("9112-3.2.4-options", b"OPTIONS http://a HTTP/1.1\r\n%b\r\n" % CLOSE, [200]),
    _case("9112-9.3-list", _closing(b"keep-alive, close"), [200]),
    _case("9112-9.3-two-lines", _closing(b"Keep-Alive\r\nConnection: Close"), [200]),
    _case("9112-9.3-blanks", _closing(b"x ,\tCLOSE , y"), [200]),
    _case("9112-9.3-not-a-part", _closing(b"closed, x-close"), [200, 404]),
    _case("9112-9.3-http-1.0", _closing(b"x, Keep-Alive", b"1.0"), [200, 404]),
    _case("9112-9.3-http-1.0-close", _closing(b"keep-alive, close", b"1.0"), [200]),
)  # fmt: skip
"""Bytes, and the status of each response to them; the server closes at the end."""
