"""Debian's archive keys: told by their fingerprints, wherever a keyring came from."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator

KNOWN = frozenset(
    fingerprint.replace(" ", "").lower()
    for fingerprint in (
        # Debian 11: the archive's key and its subkey, security's and its, the release's
        "1F89 983E 0081 FDE0 18F3  CC96 73A4 F27B 8DD4 7936",
        "A723 6886 F3CC CAAD 148A  27F8 0E98 404D 386F A1D9",
        "AC53 0D52 0F2F 3269 F5E9  8313 A484 4904 4AAD 5C5D",
        "ED54 1312 A33F 1128 F10B  1C6C 5440 4762 BBB6 E853",
        "A428 5295 FC7B 1A81 6000  62A9 605C 66F0 0D6C 9793",
        # Debian 12, in the same order
        "B8B8 0B5B 623E AB6A D877  5C45 B7C5 D7D6 3509 47F8",
        "4CB5 0190 207B 4758 A3F7  3A79 6ED0 E7B8 2643 E131",
        "05AB 9034 0C0C 5E79 7F44  A8C8 254C F3B5 AEC0 A8F0",
        "B0CA B926 6E8C 3929 798B  3EEE BDE6 D2B9 216E C7A8",
        "4D64 FEC1 19C2 0290 67D6  E791 F8D2 585B 8783 D481",
        # Debian 13
        "04B5 4C3C DCA7 9751 B16B  C6B5 2256 29DF 75B1 88BD",
        "B8E5 F131 76D2 A7A7 5220  0280 78DB A3BC 47EF 2265",
        "5E04 A1E3 223A 19A2 0706  E20F 9904 613D 4CCE 68C6",
        "89C8 7ACE A5DD 6B8E 6A70  6880 8E9F 8312 05B4 BA95",
        "4158 7F7D B8C7 74BC CF13  1416 762F 67A0 B2C3 9DE4",
    )
)
"""The keys that sign Debian's suites, as its archive publishes their fingerprints
(https://ftp-master.debian.org/keys.html)."""

_PRIMARY, _SUBKEY = 6, 14  # RFC 4880, section 4.3


def trusted(keyring: bytes, known: Collection[str] = KNOWN) -> bytes:
    """The part of a binary OpenPGP keyring that belongs to known keys.

    Empty where it has none of them. Raises ValueError for what is no keyring.
    """
    kept = []
    of_known = keeps = False
    for tag, body, packet in _packets(keyring):
        if tag in (_PRIMARY, _SUBKEY):
            # RFC 4880, section 12.2
            head = b"\x99" + len(body).to_bytes(2, "big")
            found = hashlib.sha1(head + body).hexdigest()  # noqa: S324 (as it says)
            keeps = body[:1] == b"\x04" and found in known
            of_known = keeps if tag == _PRIMARY else of_known
            keeps = keeps and of_known
        if keeps:
            kept.append(packet)
    return b"".join(kept)


def _packets(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Tag, body and whole of each packet (RFC 4880, section 4.2)."""
    at = 0
    while at < len(data):
        start, first = at, data[at]
        at += 1
        if not first & 0x80:
            raise ValueError("no OpenPGP packet")
        if first & 0x40:
            tag, [length] = first & 0x3F, data[at : at + 1] or b"\xff"
            size = 1
            if 192 <= length < 224:
                length = ((length - 192) << 8) + int.from_bytes(data[at + 1 : at + 2])
                length, size = length + 192, 2
            elif length == 255:
                length, size = int.from_bytes(data[at + 1 : at + 5]), 5
            elif length >= 224:
                raise ValueError("a packet of unknown length")
        else:
            tag, kind = first >> 2 & 15, first & 3
            if kind == 3:
                raise ValueError("a packet of unknown length")
            size = 1 << kind
            length = int.from_bytes(data[at : at + size])
        at += size
        if at + length > len(data):
            raise ValueError("a packet is cut off")
        yield tag, data[at : at + length], data[start : at + length]
        at += length
