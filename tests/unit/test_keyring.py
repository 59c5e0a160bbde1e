"""Whose keys a keyring has: on the test archive's own and on made ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from containerize.fetch import keyring

OURS = (Path(__file__).parent / "debian/keyring.gpg").read_bytes()
PRIMARY = OURS[2 : 2 + OURS[1]]  # the first packet, of the old format


def packet(tag: int, body: bytes, form: str = "old") -> bytes:
    if form == "new":
        size = len(body)
        if size < 192:
            return bytes([0xC0 | tag, size]) + body
        if size < 8384:
            head = [0xC0 | tag, ((size - 192) >> 8) + 192, (size - 192) & 255]
            return bytes(head) + body
        return bytes([0xC0 | tag, 255]) + size.to_bytes(4, "big") + body
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2, "big") + body


def fingerprint(body: bytes) -> str:
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest()


KEY, SUBKEY, ROGUE = (b"\x04" + name * 400 for name in (b"k", b"s", b"r"))


def test_a_strange_keyring_has_no_known_key() -> None:
    assert keyring.trusted(OURS) == b""


def test_a_known_key_is_kept_whole() -> None:
    assert keyring.trusted(OURS, {fingerprint(PRIMARY)}) == OURS


@pytest.mark.parametrize("form", ["old", "new"])
def test_what_belongs_to_no_known_key_is_left_out(form: str) -> None:
    known = {fingerprint(KEY), fingerprint(SUBKEY)}
    good = packet(6, KEY, form) + packet(13, b"name", form) + packet(2, b"a", form)
    sub = packet(14, SUBKEY, form) + packet(2, b"b" * 9000, form)
    strange_sub = packet(14, ROGUE, form) + packet(2, b"c", form)
    strange = packet(6, ROGUE, form) + packet(13, b"name", form)
    # A subkey counts under its own primary key only.
    data = strange + sub + good + strange_sub + sub + strange
    assert keyring.trusted(data, known) == good + sub


@pytest.mark.parametrize(
    "data",
    [b"<html>", OURS[:-1], b"\xc6", b"\x9b1", b"\xc6\xe0", b"-----BEGIN PGP"],
)
def test_what_is_no_keyring_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="packet"):
        keyring.trusted(data)
