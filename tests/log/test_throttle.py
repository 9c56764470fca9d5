"""The first event of a kind passes at once, later ones are counted, and the counts are complete."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.errors import HandshakeFailed
from bothends.events import (
    Accepted,
    ConnectionRejected,
    DatagramDropped,
    Event,
    RateLimited,
    RejectReason,
    ServiceFailed,
    Stopped,
)
from bothends.log.throttle import PERIOD, Repeated, RepeatThrottle
from bothends.testing.clock import FakeClock

PEER = Address("inet", "192.0.2.1", 5000)
FULL = ConnectionRejected(PEER, "full", RejectReason.FULL)


class ThrottleHarness:
    """A throttle whose events are recorded, with a fake clock and its scheduled calls."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.scheduled: dict[int, tuple[float, Callable[[], None]]] = {}
        self._number = 0
        self.throttle = RepeatThrottle(self.events.append, now=self.clock, schedule=self._schedule)

    def _schedule(self, seconds: float, call: Callable[[], None]) -> Callable[[], object]:
        assert 0 <= seconds <= PERIOD + 1e-9
        self._number += 1
        number = self._number
        self.scheduled[number] = (self.clock.now + seconds, call)
        return lambda: self.scheduled.pop(number, None)

    def advance(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while soon := [number for number, (at, _) in self.scheduled.items() if at <= until]:
            at, call = self.scheduled.pop(min(soon, key=lambda number: self.scheduled[number][0]))
            self.clock.advance(at - self.clock.now)
            call()
        self.clock.advance(until - self.clock.now)

    def flood(self, count: int, event: Event = FULL) -> None:
        for _ in range(count):
            self.throttle(event)

    def summary(self) -> list[object]:
        return [
            (each.count, each.seconds, each.like) if isinstance(each, Repeated) else each
            for each in self.events
        ]


def test_first_event_passes_and_repeats_are_counted() -> None:
    harness = ThrottleHarness()
    harness.flood(1205)
    assert harness.events == [FULL]
    harness.advance(PERIOD)
    assert harness.summary() == [FULL, (1204, PERIOD, FULL)]


def test_continuing_flood_is_summarized_each_period() -> None:
    harness = ThrottleHarness()
    for _ in range(3):
        harness.flood(100)
        harness.advance(PERIOD)
    assert harness.summary() == [FULL, (99, PERIOD, FULL), (100, PERIOD, FULL), (100, PERIOD, FULL)]


def test_first_event_after_quiet_period_passes() -> None:
    harness = ThrottleHarness()
    harness.flood(3)
    harness.advance(2 * PERIOD)
    assert not harness.scheduled
    harness.flood(1)
    assert harness.summary() == [FULL, (2, PERIOD, FULL), FULL]


def test_rare_events_pass_without_timer() -> None:
    harness = ThrottleHarness()
    for _ in range(3):
        harness.flood(1)
        assert not harness.scheduled
        harness.advance(PERIOD)
    assert harness.events == [FULL] * 3


def test_repeat_key_is_reason_code_not_text() -> None:
    harness = ThrottleHarness()
    other = ConnectionRejected(PEER, "denied", RejectReason.NETWORK)
    harness.flood(2)
    harness.flood(2, other)
    harness.flood(2, DatagramDropped(PEER, "full", RejectReason.FULL))
    harness.throttle(ConnectionRejected(PEER, "full, in other words", RejectReason.FULL))
    assert [type(each) for each in harness.events] == [
        ConnectionRejected,
        ConnectionRejected,
        DatagramDropped,
    ]
    harness.advance(PERIOD)
    assert [each.count for each in harness.events if isinstance(each, Repeated)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("event", "throttled"),
    [
        (RateLimited(1, PEER, 5), True),
        (ServiceFailed(1, PEER, HandshakeFailed("", "")), True),
        (ServiceFailed(1, PEER, ValueError()), False),
        (Accepted(1, PEER, PEER), False),
    ],
)
def test_only_peer_triggered_events_are_throttled(event: Event, throttled: bool) -> None:
    harness = ThrottleHarness()
    harness.flood(5, event)
    assert len(harness.events) == (1 if throttled else 5)


def test_stopped_flushes_counts_and_timers() -> None:
    harness = ThrottleHarness()
    harness.flood(3)
    harness.advance(4)
    harness.throttle(Stopped(at=1))
    assert harness.summary() == [FULL, Stopped(at=1), (2, 4.0, FULL)]
    assert not harness.scheduled


@given(st.lists(st.integers(0, 5) | st.floats(0, 3 * PERIOD)))
def test_counts_sum_to_all_events(steps: list[int | float]) -> None:
    harness = ThrottleHarness()
    count = 0
    for step in steps:
        if isinstance(step, int):
            harness.flood(step)
            count += step
        else:
            harness.advance(step)
    harness.throttle(Stopped())
    counts = [
        each.count if isinstance(each, Repeated) else 1
        for each in harness.events[:]
        if not isinstance(each, Stopped)
    ]
    assert sum(counts) == count


def test_default_scheduler_flushes_from_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothends.log.throttle.PERIOD", 0.01)
    summarized = threading.Event()

    def observe(event: Event) -> None:
        if isinstance(event, Repeated):
            summarized.set()

    throttle = RepeatThrottle(observe)
    while not summarized.is_set():
        throttle(FULL)
    assert summarized.wait(10)
    throttle(Stopped())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_resets_state() -> None:
    harness = ThrottleHarness()
    harness.flood(3)
    reader, writer = os.pipe()
    with harness.throttle._lock:  # as if another thread held it
        pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            harness.events.clear()
            harness.flood(2)
            os.write(writer, b"%d" % len(harness.events))
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 10) == b"1"
    os.close(reader)
    os.waitpid(pid, 0)
