"""What the service waits for."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from served.watched import IN, ONCE, OUT, Watched


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_bytes_are_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    watched = Watched()
    watched[one.fileno()] = one
    assert watched.wait(0) == []
    other.send(b"x")
    assert watched.wait(0) == [(one, IN)]
    del watched[one.fileno()]
    assert watched.wait(0) == []


def test_once_is_once(pair: tuple[socket.socket, socket.socket]) -> None:
    one, _ = pair
    watched = Watched()
    watched[one.fileno()] = one
    watched.watch(one.fileno(), one, lambda: OUT | ONCE)
    assert watched.wait(0) == [(one, OUT)]
    assert watched.wait(0) == []
    watched.watch(one.fileno(), one, lambda: 0)
    assert watched.wait(0) == []


def test_who_was_closed_changes_nothing_for_its_successor(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """A new connection gets the descriptor of one that a thread still works for."""
    one, _ = pair
    number = one.fileno()
    watched = Watched()
    watched[number] = closed = object()
    del watched[number]
    watched.watch(number, closed, lambda: OUT)  # not even known
    watched[number] = one
    watched.watch(number, closed, lambda: OUT)
    watched.watch(None, closed, lambda: OUT)
    assert watched.wait(0) == []
