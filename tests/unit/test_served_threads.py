"""The threads of the service."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from served import threads
from tests.conftest import PATIENCE


class Task:
    def __init__(self, work: Callable[[], object]) -> None:
        self.service = work


def names(of: threads.Threads, count: int) -> set[str]:
    """Of the threads that take `count` tasks, each of which waits for the others."""
    together = threading.Barrier(count, timeout=PATIENCE)
    found: SimpleQueue[str] = SimpleQueue()

    def work() -> None:
        together.wait()
        found.put(threading.current_thread().name)

    for _ in range(count):
        of.add_task(Task(work))
    return {found.get(timeout=PATIENCE) for _ in range(count)}


def test_as_many_as_are_wanted_work_at_once() -> None:
    started = threads.start(2)
    assert len(names(started, 2)) == 2
    started.set_count(3)
    three = names(started, 3)
    assert len(three) == 3
    alive = {thread.name: thread for thread in threading.enumerate()}
    started.set_count(0)
    for name in three:
        alive[name].join(PATIENCE)
        assert not alive[name].is_alive()


def test_a_thread_goes_on_after_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise SystemExit(3)

    started = threads.start(1)
    started.add_task(Task(fail))
    assert len(names(started, 1)) == 1
    started.set_count(0)


def test_tasks_keep_their_order() -> None:
    started = threads.start(1)
    found: SimpleQueue[int] = SimpleQueue()
    for number in range(100):
        started.add_task(Task(lambda number=number: found.put(number)))  # type: ignore[misc]
    assert [found.get(timeout=PATIENCE) for _ in range(100)] == list(range(100))
    started.set_count(0)
