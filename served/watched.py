"""The descriptors that the service waits for."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from typing import Any

IN, OUT, ONCE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLONESHOT


class Watched(dict[int, Any]):
    """waitress's map of what is open, by descriptor, each watched for bytes to read.

    The kernel keeps what is watched. waitress's own loop asks every connection before
    each wait, and has to be woken for that whenever a thread has answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll()
        self._lock = threading.Lock()

    def __setitem__(self, number: int, found: Any) -> None:
        super().__setitem__(number, found)
        self._epoll.register(number, IN)

    def __delitem__(self, number: int) -> None:
        with self._lock:
            super().__delitem__(number)
            self._epoll.unregister(number)

    def watch(self, number: int | None, found: Any, wanted: Callable[[], int]) -> None:
        """Watch `found` for what it wants now, unless it was closed or wants nothing.

        Any thread may call it after it has changed that: the last one asks last.
        """
        with self._lock:
            if number is not None and self.get(number) is found and (what := wanted()):
                self._epoll.modify(number, what)

    def wait(self, seconds: float) -> list[tuple[Any, int]]:
        """What has happened, to whom."""
        happened = self._epoll.poll(seconds)
        return [(self[number], what) for number, what in happened]
