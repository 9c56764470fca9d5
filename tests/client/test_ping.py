"""Probes and what became of them: by an injected clock and a scripted wire."""

from __future__ import annotations

import errno
import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothends.client.ping import (
    HEAD,
    LINGER,
    Answer,
    Bookkeeping,
    Event,
    Failure,
    Missing,
    Pinger,
    Probe,
    Reply,
    RoundTrips,
    Stray,
    flaw_in,
    number_of,
    payload_of,
)
from bothends.testing.clock import FakeClock

TOKEN = 0xC0FFEE01
SIZE = 56

# What a scripted wire does with probe number n: arrivals, each after so many seconds.
Script = Callable[[int, bytes], Sequence[tuple[float, int, bytes]]]


class ScriptedWire:
    """Answers as the script says; waiting moves the clock to whatever comes first."""

    how = "a script"
    address = "192.0.2.1"

    def __init__(self, clock: FakeClock, script: Script) -> None:
        self._clock = clock
        self._script = script
        self._coming: list[tuple[float, int, bytes]] = []
        self.failures: deque[Failure] = deque()
        self.sent: list[tuple[float, int]] = []
        self.refuses = 0

    def send(self, number: int, payload: bytes) -> None:
        if number == self.refuses:
            raise OSError(errno.ENETUNREACH, "no network")
        self.sent.append((self._clock.now, number))
        self._coming += [
            (self._clock.now + after, its, data) for after, its, data in self._script(number, payload)
        ]
        self._coming.sort()

    def wait(self, seconds: float) -> None:
        if self.failures:
            return
        end = self._clock.now + seconds
        self._clock.now = min([end, *(max(self._clock.now, at) for at, _, _ in self._coming)])

    def receive(self) -> list[Answer | Failure]:
        now = self._clock.now
        come = [each for each in self._coming if each[0] <= now]
        self._coming = self._coming[len(come) :]
        answers = [Answer(number or None, data, len(data), self.address, 64, at) for at, number, data in come]
        failures = [self.failures.popleft() for _ in range(len(self.failures))]
        return [*failures, *answers]

    def close(self) -> None:
        pass


def run(
    script: Script, *, count: int = 5, interval: float = 1.0, timeout: float = 2.0, refuses: int = 0
) -> tuple[list[Event], Bookkeeping, ScriptedWire]:
    clock = FakeClock()
    wire = ScriptedWire(clock, script)
    wire.refuses = refuses
    book = Bookkeeping(count=count, interval=interval, timeout=timeout, now=clock)
    return list(Pinger(wire, book, token=TOKEN, size=SIZE).run()), book, wire


def replies(events: list[Event]) -> list[Reply]:
    return [event for event in events if isinstance(event, Reply)]


def test_each_is_answered() -> None:
    events, book, wire = run(lambda number, data: [(0.25, number, data)])
    assert [(each.number, each.seconds, each.ttl) for each in replies(events)] == [
        (number, 0.25, 64) for number in range(1, 6)
    ]
    assert [at for at, _ in wire.sent] == [1000, 1001, 1002, 1003, 1004]
    summary = book.summary()
    assert (summary.sent, summary.received, summary.intact, summary.lost, summary.loss) == (5, 5, 5, 0, 0)
    assert summary.round_trips == RoundTrips(0.25, 0.25, 0.25, 0.25, 0)


def test_silence_is_lost_after_the_time_limit() -> None:
    events, book, _ = run(lambda number, data: [(0.5, number, data)] if number != 3 else [])
    assert [event for event in events if isinstance(event, Missing)] == [Missing(3)]
    assert (book.summary().received, book.summary().lost, book.summary().loss) == (4, 1, 0.2)


def test_nothing_ever_comes() -> None:
    events, book, _ = run(lambda number, data: [], count=2)
    assert events == [Missing(1), Missing(2)]
    assert (book.summary().loss, book.summary().round_trips) == (1, None)


def test_a_late_answer_is_marked_and_no_longer_lost() -> None:
    events, book, _ = run(lambda number, data: [(2.5 if number == 1 else 0.1, number, data)], count=5)
    late = [each for each in replies(events) if each.late]
    assert [(each.number, each.seconds) for each in late] == [(1, 2.5)]
    assert Missing(1) in events
    summary = book.summary()
    assert (summary.received, summary.late, summary.lost, summary.reordered) == (5, 1, 0, 1)


def test_an_answer_read_late_that_came_in_time_is_not_late() -> None:
    clock = FakeClock()
    book = Bookkeeping(count=1, interval=1, timeout=2, now=clock)
    probe = book.begin()
    assert probe is not None
    clock.advance(9)  # we were stopped; the kernel's time stamp says when it came
    reply = book.answered(probe, at=1000.5)
    assert (reply.late, reply.seconds) == (False, 0.5)
    assert book.expired() == []


def test_duplicates_count_once_and_the_last_one_is_waited_for() -> None:
    late = LINGER / 2
    events, book, _ = run(lambda number, data: [(0.1, number, data), (0.1 + late, number, data)], count=2)
    assert [each.duplicate for each in replies(events)] == [False, True, False, True]
    summary = book.summary()
    assert (summary.received, summary.duplicates, summary.lost, summary.reordered) == (2, 2, 0, 0)


def test_reordering_is_the_later_number_first() -> None:
    events, book, _ = run(lambda number, data: [({2: 1.5}.get(number, 0.1), number, data)], count=4)
    assert [(each.number, each.reordered) for each in replies(events)] == [
        (1, False),
        (3, False),
        (2, True),
        (4, False),
    ]
    assert book.summary().reordered == 1


def test_corrupted_answers_are_no_success() -> None:
    events, book, _ = run(lambda number, data: [(0.1, number, data[:30] + b"!" + data[31:])], count=2)
    assert [each.flaw for each in replies(events)] == ["byte 30 is 0x21, not 0x1e"] * 2
    assert (book.summary().received, book.summary().intact, book.summary().corrupted) == (2, 0, 2)


def test_an_intact_answer_after_a_corrupted_one_is_a_success() -> None:
    _, book, _ = run(lambda number, data: [(0.1, number, data[:-1]), (0.105, number, data)], count=1)
    summary = book.summary()
    assert (summary.received, summary.intact, summary.corrupted, summary.duplicates) == (1, 1, 1, 1)


def test_strays_are_told_and_change_nothing() -> None:
    events, book, _ = run(lambda number, data: [(0.1, 0, b"what?"), (0.2, 77, data), (0.3, number, data)])
    assert events.count(Stray(5, "192.0.2.1")) == 5
    assert (book.summary().strays, book.summary().received) == (10, 5)


def test_an_error_ends_the_waiting_for_its_probe() -> None:
    clock = FakeClock()
    wire = ScriptedWire(clock, lambda number, data: [])
    book = Bookkeeping(count=1, interval=1, timeout=30, now=clock)
    failure = Failure(1, "destination unreachable", "192.0.2.9", errno.EHOSTUNREACH)
    wire.failures.append(failure)
    pinger = Pinger(wire, book, token=TOKEN, size=SIZE)
    assert list(pinger.turn()) == [failure]  # of nobody yet: nothing was sent
    wire.failures.append(failure)
    assert list(pinger.run()) == [failure]
    assert clock.now == 1000
    assert (book.summary().errors, book.summary().lost) == (2, 1)


def test_an_error_of_nobody_known() -> None:
    clock = FakeClock()
    book = Bookkeeping(count=1, interval=1, timeout=2, now=clock)
    book.begin()
    book.failed(None)
    assert (book.summary().errors, book.summary().waiting) == (1, 1)


def test_what_cannot_be_sent_is_told_and_the_next_is_tried() -> None:
    events, book, wire = run(lambda number, data: [(0.1, number, data)], count=3, refuses=2)
    (failure,) = [event for event in events if isinstance(event, Failure)]
    assert (failure.number, failure.errno, failure.source) == (2, errno.ENETUNREACH, "")
    assert failure.words == "could not be sent: ENETUNREACH (Network is unreachable)"
    assert [number for _, number in wire.sent] == [1, 3]
    assert (book.summary().sent, book.summary().lost, book.summary().errors) == (3, 1, 1)


def test_after_a_pause_no_burst() -> None:
    clock = FakeClock()
    book = Bookkeeping(count=None, interval=1, timeout=2, now=clock)
    assert book.begin() is not None
    assert book.begin() is None
    clock.advance(100)
    assert book.begin() is not None
    assert book.begin() is None
    assert book.wait() == 0  # the first one's time is over
    assert book.expired() == [Missing(1)]
    assert book.wait() == 1


def test_an_interrupted_run_still_awaits() -> None:
    clock = FakeClock()
    book = Bookkeeping(count=None, interval=1, timeout=2, now=clock)
    book.begin()
    summary = book.summary()
    assert (summary.sent, summary.waiting, summary.lost, summary.loss) == (1, 1, 0, 0)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.tuples(st.floats(0, 5), st.integers(-2, 2), st.booleans()), max_size=3), max_size=12)
)
def test_the_books_always_balance(script: list[list[tuple[float, int, bool]]]) -> None:
    def answers(number: int, data: bytes) -> list[tuple[float, int, bytes]]:
        plan = script[number - 1]
        return [(after, number + off, data if whole else data[:9]) for after, off, whole in plan]

    if not script:
        return
    events, book, _ = run(answers, count=len(script), interval=0.5)
    summary = book.summary()
    assert summary.sent == len(script) == summary.received + summary.lost
    assert summary.waiting == 0
    assert summary.intact <= summary.received
    told = replies(events)
    assert len(told) == summary.received + summary.duplicates
    assert sum(each.late for each in told) == summary.late
    assert sum(bool(each.flaw) for each in told) == summary.corrupted
    gone = {event.number for event in events if isinstance(event, Missing)}
    assert gone | {each.number for each in told} == set(range(1, len(script) + 1))


@settings(max_examples=60)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_the_round_trips(seconds: list[float]) -> None:
    trips = RoundTrips.of(seconds)
    assert trips is not None
    assert (trips.min, trips.max) == (min(seconds), max(seconds))
    assert trips.median == pytest.approx(statistics.median(seconds))
    assert trips.mean == pytest.approx(statistics.fmean(seconds))
    assert math.isclose(trips.mdev, statistics.pstdev(seconds), rel_tol=1e-6, abs_tol=1e-9)


# Payloads


@settings(max_examples=60)
@given(st.integers(1, 10**6), st.integers(0, 1500))
def test_a_payload_is_as_long_as_asked_and_finds_its_probe(number: int, size: int) -> None:
    payload = payload_of(TOKEN, Probe(number, 12.5), size)
    assert len(payload) == size
    found = number_of(TOKEN, payload, newest=number + 5)
    assert found == (number if size >= HEAD.size else None)
    assert number_of(TOKEN ^ 1, payload, newest=number + 5) is None


def test_the_head_is_in_network_order() -> None:
    payload = payload_of(0x01020304, Probe(0x0A0B, 1.0), 20)
    assert payload == bytes.fromhex("01020304 00000a0b 000000003b9aca00 10111213")


@settings(max_examples=60)
@given(st.binary(max_size=40))
def test_any_datagram_can_be_asked_for_its_number(data: bytes) -> None:
    number = number_of(TOKEN, data, newest=10)
    assert number is None or number <= 10


@pytest.mark.parametrize(
    ("came", "words"),
    [
        (b"abcd", ""),
        (b"abXd", "byte 2 is 0x58, not 0x63"),
        (b"ab", "2 bytes came back of 4"),
        (b"abcde", "5 bytes"),
    ],
)
def test_flaws_in_words(came: bytes, words: str) -> None:
    assert flaw_in(came, b"abcd").startswith(words)
    assert bool(flaw_in(came, b"abcd")) == bool(words)
