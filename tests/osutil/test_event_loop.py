"""The proxy's loop: moments, descriptors, other threads."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import pytest

from bothends.osutil.event_loop import IN, EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with contextlib.closing(EventLoop()) as made:
        yield made


def test_call_later_runs_in_due_order_and_never_early(loop: EventLoop) -> None:
    made: list[tuple[float, float]] = []
    for seconds in (0.02, 0.005, 0.01, 0.0):
        due = loop.now + seconds
        loop.call_later(seconds, lambda due=due: made.append((due, time.monotonic())))  # type: ignore[misc]
    while len(made) < 4:
        loop.run_once()
    assert made == sorted(made)
    assert all(due <= at for due, at in made)


def test_run_once_has_submillisecond_precision(loop: EventLoop) -> None:
    """epoll_wait counts milliseconds, rounded up: then the best of 20 waits of 0.3 ms would be 1 ms."""
    best = 1.0
    for _ in range(20):
        due = time.monotonic() + 0.0003
        late: list[float] = []
        loop.now = time.monotonic()
        loop.call_later(0.0003, lambda due=due, late=late: late.append(time.monotonic() - due))  # type: ignore[misc]
        while not late:
            loop.run_once()
        best = min(best, late[0])
    assert best < 0.0005


def test_cancelled_timer_is_not_called(loop: EventLoop) -> None:
    made: list[str] = []
    loop.call_later(0.001, lambda: made.append("off")).cancel()
    loop.call_later(0.002, lambda: made.append("on"))
    while not made:
        loop.run_once()
    assert made == ["on"]


def test_post_from_another_thread_runs_in_order(loop: EventLoop) -> None:
    done: list[int] = []

    def others() -> None:
        for number in range(1000):
            loop.post(lambda number=number: done.append(number))  # type: ignore[misc]
        loop.post(loop.stop)

    thread = threading.Thread(target=others)
    thread.start()
    loop.run()
    thread.join()
    assert done == list(range(1000))


def test_unwatch_stops_readiness_callbacks(loop: EventLoop) -> None:
    read, write = os.pipe()
    try:
        heard: list[bytes] = []
        loop.watch(read, IN, lambda _ready: heard.append(os.read(read, 10)))
        os.write(write, b"x")
        loop.run_once()
        loop.unwatch(read)
        os.write(write, b"y")
        loop.run_once(timeout=0.01)
        assert heard == [b"x"]
    finally:
        os.close(read)
        os.close(write)


def test_post_to_closed_loop_is_ignored() -> None:
    loop = EventLoop()
    loop.close()
    loop.post(lambda: None)
