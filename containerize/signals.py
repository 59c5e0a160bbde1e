"""Signals that end a program, kept from what must not stop half way."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals by which a user, a terminal or a CI ends what runs."""


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let no signal of a user stop what mends, commands included: it takes seconds."""
    if _blocked() or threading.current_thread() is not threading.main_thread():
        yield  # what waits still ends this process later
        return
    before = [signal.signal(kind, signal.SIG_IGN) for kind in ENDING]
    try:
        yield
    finally:
        for kind, handler in zip(ENDING, before, strict=True):
            signal.signal(kind, handler)


@contextlib.contextmanager
def later() -> Iterator[None]:
    """Let signals that would end this process wait, and its commands end whole."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kept() -> bool:
    """Whether no such signal ends this process now: `undisturbed`, `later`, or nohup.

    What it runs then must be in a process group of its own, or a terminal's Ctrl-C ends
    it: Docker's newer clients and Podman take signals that they inherited as ignored,
    and any program of Go takes those that it inherited as blocked.
    """
    return _blocked() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def _blocked() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def forget() -> None:
    """Drop the signals that wait for this process.

    One that comes between a fork and the new process group waits for a child too.
    """
    for kind in ENDING:
        before = signal.signal(kind, signal.SIG_IGN)
        signal.signal(kind, before)
