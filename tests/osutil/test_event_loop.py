"""The event loop of impair and wire: timers, descriptors, other threads, signals."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from bothends.osutil.event_loop import IN, EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with contextlib.closing(EventLoop()) as opened:
        yield opened


def test_call_later_runs_in_due_order_and_never_early(loop: EventLoop) -> None:
    calls: list[tuple[float, float]] = []
    for seconds in (0.02, 0.005, 0.01, 0.0):
        due = loop.now + seconds
        loop.call_later(seconds, lambda due=due: calls.append((due, time.monotonic())))  # type: ignore[misc]
    while len(calls) < 4:
        loop.run_once()
    assert calls == sorted(calls)
    assert all(due <= at for due, at in calls)


def test_run_once_has_submillisecond_precision(loop: EventLoop) -> None:
    """epoll_wait() alone rounds up to milliseconds: the best of 20 waits of 0.3 ms would take 1 ms."""
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


def test_timer_beyond_the_maximum_timeout_does_not_end_the_loop(loop: EventLoop) -> None:
    for seconds in (1e9, 1e15, 1e300):
        loop.call_later(seconds, lambda: None)
        loop.post(lambda: None)
        loop.run_once()  # the pipe of `post` is ready at once, but select() checks its timeout first
        loop.run_once(0.001)


def test_cancelled_timer_is_not_called(loop: EventLoop) -> None:
    calls: list[str] = []
    loop.call_later(0.001, lambda: calls.append("off")).cancel()
    loop.call_later(0.002, lambda: calls.append("on"))
    while not calls:
        loop.run_once()
    assert calls == ["on"]


def test_call_at_takes_monotonic_seconds(loop: EventLoop) -> None:
    due, called = time.monotonic() + 0.002, list[float]()
    loop.call_at(due, lambda: called.append(time.monotonic()))
    while not called:
        loop.run_once()
    assert called[0] >= due


def test_signal_ends_wait_through_wakeup_fd(loop: EventLoop) -> None:
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    previous_fd = signal.set_wakeup_fd(loop.wakeup_fd)
    try:
        signal.raise_signal(signal.SIGUSR1)  # before the wait, which it must end nevertheless
        loop.run_once()
    finally:
        signal.set_wakeup_fd(previous_fd)
        signal.signal(signal.SIGUSR1, before)


def test_post_from_another_thread_runs_in_order(loop: EventLoop) -> None:
    done: list[int] = []

    def post_all() -> None:
        for number in range(1000):
            loop.post(lambda number=number: done.append(number))  # type: ignore[misc]
        loop.post(loop.stop)

    thread = threading.Thread(target=post_all)
    thread.start()
    loop.run()
    thread.join()
    assert done == list(range(1000))


def test_unwatch_stops_readiness_callbacks(loop: EventLoop) -> None:
    read, write = os.pipe()
    try:
        received: list[bytes] = []
        loop.watch(read, IN, lambda _ready: received.append(os.read(read, 10)))
        os.write(write, b"x")
        loop.run_once()
        loop.unwatch(read)
        os.write(write, b"y")
        loop.run_once(timeout=0.01)
        assert received == [b"x"]
    finally:
        os.close(read)
        os.close(write)


def test_post_to_closed_loop_is_ignored() -> None:
    loop = EventLoop()
    loop.close()
    loop.post(lambda: None)
