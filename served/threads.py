"""The threads in which the application answers."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from served.logs import events


class Work(Protocol):
    """What a thread can be given."""

    def service(self) -> None: ...


class TooManyThreads(Exception):
    """The system does not let the process have as many; its text is one line."""


class Threads:
    """Threads that do what they are given, in its order.

    In the place of waitress's own, which takes several locks in Python for each task.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._count = 0

    def add_task(self, task: Work) -> None:
        self._queue.put(task)

    def set_count(self, count: int) -> None:
        """Start threads, or end some once they are idle.

        Raises RuntimeError if the system has no more.
        """
        while self._count < count:
            threading.Thread(target=self._work, daemon=True).start()
            self._count += 1
        while self._count > count:
            self._queue.put(None)
            self._count -= 1

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            try:
                task.service()
            except BaseException as error:  # of a thread, which has to go on
                events.error("a request has failed", exc_info=error)


def start(count: int) -> Threads:
    """As many threads; raises TooManyThreads."""
    started = Threads()
    try:
        started.set_count(count)
    except RuntimeError:
        text = f"only {threading.active_count() - 1} threads can be started, not "
        text += f"{count}: lower SERVED_THREADS"
        for name in ("pids.max", "pids/pids.max"):  # cgroups of version 2 and 1
            with contextlib.suppress(OSError):
                limit = Path("/sys/fs/cgroup", name).read_text().strip()
                text += f", or raise the container's limit of {limit} processes"
                break
        raise TooManyThreads(text) from None
    return started
