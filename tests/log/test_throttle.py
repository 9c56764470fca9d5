"""Calm: the first of a kind at once, the others by their number, and nothing is lost from the count."""

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
from bothends.events import Dropped, Event, Failed, Opened, Refused, Slowed, Stopped, Why
from bothends.log.throttle import PERIOD, Calm, Repeated
from bothends.testing.clock import FakeClock

PEER = Address("inet", "192.0.2.1", 5000)
FULL = Refused(PEER, "full", Why.FULL)


class Listener:
    """Who is told; with a clock, and the calls that are due at a time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[Event] = []
        self.due: dict[int, tuple[float, Callable[[], None]]] = {}
        self._number = 0
        self.calm = Calm(self.told.append, now=self.clock, later=self._later)

    def _later(self, seconds: float, call: Callable[[], None]) -> Callable[[], object]:
        assert 0 <= seconds <= PERIOD + 1e-9
        self._number += 1
        number = self._number
        self.due[number] = (self.clock.now + seconds, call)
        return lambda: self.due.pop(number, None)

    def wait(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while soon := [number for number, (at, _) in self.due.items() if at <= until]:
            at, call = self.due.pop(min(soon, key=lambda number: self.due[number][0]))
            self.clock.advance(at - self.clock.now)
            call()
        self.clock.advance(until - self.clock.now)

    def flood(self, count: int, event: Event = FULL) -> None:
        for _ in range(count):
            self.calm(event)

    def summary(self) -> list[object]:
        return [
            (each.count, each.seconds, each.like) if isinstance(each, Repeated) else each
            for each in self.told
        ]


def test_the_first_is_told_at_once_and_the_others_by_their_number() -> None:
    listener = Listener()
    listener.flood(1205)
    assert listener.told == [FULL]
    listener.wait(PERIOD)
    assert listener.summary() == [FULL, (1204, PERIOD, FULL)]


def test_a_flood_that_goes_on_is_told_every_period() -> None:
    listener = Listener()
    for _ in range(3):
        listener.flood(100)
        listener.wait(PERIOD)
    assert listener.summary() == [FULL, (99, PERIOD, FULL), (100, PERIOD, FULL), (100, PERIOD, FULL)]


def test_once_it_is_over_the_next_is_told_at_once() -> None:
    listener = Listener()
    listener.flood(3)
    listener.wait(2 * PERIOD)
    assert not listener.due
    listener.flood(1)
    assert listener.summary() == [FULL, (2, PERIOD, FULL), FULL]


def test_one_now_and_then_is_told_each_time_and_needs_no_thread() -> None:
    listener = Listener()
    for _ in range(3):
        listener.flood(1)
        assert not listener.due
        listener.wait(PERIOD)
    assert listener.told == [FULL] * 3


def test_kinds_are_kept_apart_by_why_and_not_by_words() -> None:
    listener = Listener()
    other = Refused(PEER, "denied", Why.NETWORK)
    listener.flood(2)
    listener.flood(2, other)
    listener.flood(2, Dropped(PEER, "full", Why.FULL))
    listener.calm(Refused(PEER, "full, by other words", Why.FULL))
    assert [type(each) for each in listener.told] == [Refused, Refused, Dropped]
    listener.wait(PERIOD)
    assert [each.count for each in listener.told if isinstance(each, Repeated)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("event", "calmed"),
    [
        (Slowed(1, PEER, 5), True),
        (Failed(1, PEER, HandshakeFailed("", "")), True),
        (Failed(1, PEER, ValueError()), False),
        (Opened(1, PEER, PEER), False),
    ],
)
def test_what_peers_cause_at_will_is_calmed_and_nothing_else(event: Event, calmed: bool) -> None:
    listener = Listener()
    listener.flood(5, event)
    assert len(listener.told) == (1 if calmed else 5)


def test_the_end_tells_what_was_kept_back_and_leaves_nothing_to_wait_for() -> None:
    listener = Listener()
    listener.flood(3)
    listener.wait(4)
    listener.calm(Stopped(at=1))
    assert listener.summary() == [FULL, Stopped(at=1), (2, 4.0, FULL)]
    assert not listener.due


@given(st.lists(st.integers(0, 5) | st.floats(0, 3 * PERIOD)))
def test_nothing_is_lost_from_the_count(steps: list[int | float]) -> None:
    listener = Listener()
    count = 0
    for step in steps:
        if isinstance(step, int):
            listener.flood(step)
            count += step
        else:
            listener.wait(step)
    listener.calm(Stopped())
    told = [
        each.count if isinstance(each, Repeated) else 1
        for each in listener.told[:]
        if not isinstance(each, Stopped)
    ]
    assert sum(told) == count


def test_a_thread_tells_where_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothends.log.throttle.PERIOD", 0.01)
    told: list[Event] = []
    heard = threading.Event()

    def hear(event: Event) -> None:
        told.append(event)
        if isinstance(event, Repeated):
            heard.set()

    calm = Calm(hear)
    while not heard.is_set():
        calm(FULL)
    assert heard.wait(10)
    calm(Stopped())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_begins_anew() -> None:
    listener = Listener()
    listener.flood(3)
    reader, writer = os.pipe()
    with listener.calm._lock:  # held by another thread, say
        pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            listener.told.clear()
            listener.flood(2)
            os.write(writer, b"%d" % len(listener.told))
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 10) == b"1"
    os.close(reader)
    os.waitpid(pid, 0)
