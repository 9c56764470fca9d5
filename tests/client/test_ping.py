"""Probes and their outcomes, with an injected clock and a scripted transport."""

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
    DUPLICATE_WAIT,
    PROBE_HEADER,
    Pinger,
    Probe,
    ProbeEvent,
    ProbeFailure,
    ProbeReply,
    ProbeTimeout,
    ProbeTracker,
    RawReply,
    RttStatistics,
    UnexpectedReply,
    build_payload,
    describe_mismatch,
    parse_probe_number,
)
from bothends.testing.clock import FakeClock

TOKEN = 0xC0FFEE01
SIZE = 56

# The replies of a scripted transport to a probe: (delay in seconds, number, payload) of each.
Script = Callable[[int, bytes], Sequence[tuple[float, int, bytes]]]


class ScriptedTransport:
    """Reply according to a script; waiting advances the clock to the next arrival."""

    description = "a script"
    address = "192.0.2.1"

    def __init__(self, clock: FakeClock, script: Script) -> None:
        self._clock = clock
        self._script = script
        self._in_flight: list[tuple[float, int, bytes]] = []
        self.failures: deque[ProbeFailure] = deque()
        self.sent: list[tuple[float, int]] = []
        self.send_error_number = 0

    def send(self, number: int, payload: bytes) -> None:
        if number == self.send_error_number:
            raise OSError(errno.ENETUNREACH, "no network")
        self.sent.append((self._clock.now, number))
        self._in_flight += [
            (self._clock.now + after, reply_number, data)
            for after, reply_number, data in self._script(number, payload)
        ]
        self._in_flight.sort()

    def wait(self, timeout: float) -> None:
        if self.failures:
            return
        end = self._clock.now + timeout
        self._clock.now = min([end, *(max(self._clock.now, at) for at, _, _ in self._in_flight)])

    def receive(self) -> list[RawReply | ProbeFailure]:
        now = self._clock.now
        arrived = [each for each in self._in_flight if each[0] <= now]
        self._in_flight = self._in_flight[len(arrived) :]
        packets = [
            RawReply(number or None, data, len(data), self.address, 64, at) for at, number, data in arrived
        ]
        failures = [self.failures.popleft() for _ in range(len(self.failures))]
        return [*failures, *packets]

    def close(self) -> None:
        pass


def run(
    script: Script, *, count: int = 5, interval: float = 1.0, timeout: float = 2.0, send_error_number: int = 0
) -> tuple[list[ProbeEvent], ProbeTracker, ScriptedTransport]:
    clock = FakeClock()
    transport = ScriptedTransport(clock, script)
    transport.send_error_number = send_error_number
    tracker = ProbeTracker(count=count, interval=interval, timeout=timeout, now=clock)
    return list(Pinger(transport, tracker, token=TOKEN, size=SIZE).run()), tracker, transport


def replies(events: list[ProbeEvent]) -> list[ProbeReply]:
    return [event for event in events if isinstance(event, ProbeReply)]


def test_run_all_probes_answered() -> None:
    events, tracker, transport = run(lambda number, data: [(0.25, number, data)])
    assert [(each.number, each.seconds, each.ttl) for each in replies(events)] == [
        (number, 0.25, 64) for number in range(1, 6)
    ]
    assert [at for at, _ in transport.sent] == [1000, 1001, 1002, 1003, 1004]
    summary = tracker.summary()
    assert (summary.sent, summary.received, summary.intact, summary.lost, summary.loss) == (5, 5, 5, 0, 0)
    assert summary.round_trips == RttStatistics(0.25, 0.25, 0.25, 0.25, 0)


def test_unanswered_probe_times_out() -> None:
    events, tracker, _ = run(lambda number, data: [(0.5, number, data)] if number != 3 else [])
    assert [event for event in events if isinstance(event, ProbeTimeout)] == [ProbeTimeout(3)]
    assert (tracker.summary().received, tracker.summary().lost, tracker.summary().loss) == (4, 1, 0.2)


def test_all_probes_lost() -> None:
    events, tracker, _ = run(lambda number, data: [], count=2)
    assert events == [ProbeTimeout(1), ProbeTimeout(2)]
    assert (tracker.summary().loss, tracker.summary().round_trips) == (1, None)


def test_late_reply_is_marked_and_not_lost() -> None:
    events, tracker, _ = run(lambda number, data: [(2.5 if number == 1 else 0.1, number, data)], count=5)
    late = [each for each in replies(events) if each.late]
    assert [(each.number, each.seconds) for each in late] == [(1, 2.5)]
    assert ProbeTimeout(1) in events
    summary = tracker.summary()
    assert (summary.received, summary.late, summary.lost, summary.reordered) == (5, 1, 0, 1)


def test_reply_read_late_uses_receive_timestamp() -> None:
    clock = FakeClock()
    tracker = ProbeTracker(count=1, interval=1, timeout=2, now=clock)
    probe = tracker.start_probe()
    assert probe is not None
    clock.advance(9)  # the process was stopped; the kernel's timestamp has the time of arrival
    reply = tracker.record_reply(probe, received_at=1000.5)
    assert (reply.late, reply.seconds) == (False, 0.5)
    assert tracker.pop_expired() == []


def test_duplicates_are_counted_and_awaited_after_last_reply() -> None:
    late = DUPLICATE_WAIT / 2
    events, tracker, _ = run(lambda number, data: [(0.1, number, data), (0.1 + late, number, data)], count=2)
    assert [each.duplicate for each in replies(events)] == [False, True, False, True]
    summary = tracker.summary()
    assert (summary.received, summary.duplicates, summary.lost, summary.reordered) == (2, 2, 0, 0)


def test_reply_after_later_number_is_reordered() -> None:
    events, tracker, _ = run(lambda number, data: [({2: 1.5}.get(number, 0.1), number, data)], count=4)
    assert [(each.number, each.reordered) for each in replies(events)] == [
        (1, False),
        (3, False),
        (2, True),
        (4, False),
    ]
    assert tracker.summary().reordered == 1


def test_corrupted_reply_is_received_but_not_intact() -> None:
    events, tracker, _ = run(lambda number, data: [(0.1, number, data[:30] + b"!" + data[31:])], count=2)
    assert [each.mismatch for each in replies(events)] == ["byte 30 is 0x21, not 0x1e"] * 2
    assert (tracker.summary().received, tracker.summary().intact, tracker.summary().corrupted) == (2, 0, 2)


def test_intact_reply_after_corrupted_one_counts_as_intact() -> None:
    _, tracker, _ = run(lambda number, data: [(0.1, number, data[:-1]), (0.105, number, data)], count=1)
    summary = tracker.summary()
    assert (summary.received, summary.intact, summary.corrupted, summary.duplicates) == (1, 1, 1, 1)


def test_unexpected_replies_are_reported_and_not_counted_as_received() -> None:
    events, tracker, _ = run(lambda number, data: [(0.1, 0, b"what?"), (0.2, 77, data), (0.3, number, data)])
    assert events.count(UnexpectedReply(5, "192.0.2.1")) == 5
    assert (tracker.summary().strays, tracker.summary().received) == (10, 5)


def test_failure_completes_its_probe() -> None:
    clock = FakeClock()
    transport = ScriptedTransport(clock, lambda number, data: [])
    tracker = ProbeTracker(count=1, interval=1, timeout=30, now=clock)
    failure = ProbeFailure(1, "destination unreachable", "192.0.2.9", errno.EHOSTUNREACH)
    transport.failures.append(failure)
    pinger = Pinger(transport, tracker, token=TOKEN, size=SIZE)
    assert list(pinger.run_once()) == [failure]  # it has no probe yet: nothing was sent
    transport.failures.append(failure)
    assert list(pinger.run()) == [failure]
    assert clock.now == 1000
    assert (tracker.summary().errors, tracker.summary().lost) == (2, 1)


def test_failure_without_probe_is_counted() -> None:
    clock = FakeClock()
    tracker = ProbeTracker(count=1, interval=1, timeout=2, now=clock)
    tracker.start_probe()
    tracker.record_failure(None)
    assert (tracker.summary().errors, tracker.summary().waiting) == (1, 1)


def test_send_error_is_reported_and_run_continues() -> None:
    events, tracker, transport = run(lambda number, data: [(0.1, number, data)], count=3, send_error_number=2)
    (failure,) = [event for event in events if isinstance(event, ProbeFailure)]
    assert (failure.number, failure.errno, failure.source) == (2, errno.ENETUNREACH, "")
    assert failure.reason == "could not be sent: ENETUNREACH (Network is unreachable)"
    assert [number for _, number in transport.sent] == [1, 3]
    assert (tracker.summary().sent, tracker.summary().lost, tracker.summary().errors) == (3, 1, 1)


def test_probes_do_not_burst_after_a_pause() -> None:
    clock = FakeClock()
    tracker = ProbeTracker(count=None, interval=1, timeout=2, now=clock)
    assert tracker.start_probe() is not None
    assert tracker.start_probe() is None
    clock.advance(100)
    assert tracker.start_probe() is not None
    assert tracker.start_probe() is None
    assert tracker.next_timeout() == 0  # the first probe has timed out
    assert tracker.pop_expired() == [ProbeTimeout(1)]
    assert tracker.next_timeout() == 1


def test_summary_of_interrupted_run_counts_waiting() -> None:
    clock = FakeClock()
    tracker = ProbeTracker(count=None, interval=1, timeout=2, now=clock)
    tracker.start_probe()
    summary = tracker.summary()
    assert (summary.sent, summary.waiting, summary.lost, summary.loss) == (1, 1, 0, 0)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.tuples(st.floats(0, 5), st.integers(-2, 2), st.booleans()), max_size=3), max_size=12)
)
def test_summary_counters_are_consistent(script: list[list[tuple[float, int, bool]]]) -> None:
    def replies_for(number: int, data: bytes) -> list[tuple[float, int, bytes]]:
        plan = script[number - 1]
        return [(after, number + off, data if whole else data[:9]) for after, off, whole in plan]

    if not script:
        return
    events, tracker, _ = run(replies_for, count=len(script), interval=0.5)
    summary = tracker.summary()
    assert summary.sent == len(script) == summary.received + summary.lost
    assert summary.waiting == 0
    assert summary.intact <= summary.received
    received = replies(events)
    assert len(received) == summary.received + summary.duplicates
    assert sum(each.late for each in received) == summary.late
    assert sum(bool(each.mismatch) for each in received) == summary.corrupted
    timed_out = {event.number for event in events if isinstance(event, ProbeTimeout)}
    assert timed_out | {each.number for each in received} == set(range(1, len(script) + 1))


@settings(max_examples=60)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_rtt_statistics_match_reference(seconds: list[float]) -> None:
    trips = RttStatistics.from_samples(seconds)
    assert trips is not None
    assert (trips.min, trips.max) == (min(seconds), max(seconds))
    assert trips.median == pytest.approx(statistics.median(seconds))
    assert trips.mean == pytest.approx(statistics.fmean(seconds))
    assert math.isclose(trips.mdev, statistics.pstdev(seconds), rel_tol=1e-6, abs_tol=1e-9)


# Payloads


@settings(max_examples=60)
@given(st.integers(1, 10**6), st.integers(0, 1500))
def test_build_payload_size_and_probe_number_round_trip(number: int, size: int) -> None:
    payload = build_payload(TOKEN, Probe(number, 12.5), size)
    assert len(payload) == size
    found = parse_probe_number(TOKEN, payload, last_number=number + 5)
    assert found == (number if size >= PROBE_HEADER.size else None)
    assert parse_probe_number(TOKEN ^ 1, payload, last_number=number + 5) is None


def test_probe_header_is_big_endian() -> None:
    payload = build_payload(0x01020304, Probe(0x0A0B, 1.0), 20)
    assert payload == bytes.fromhex("01020304 00000a0b 000000003b9aca00 10111213")


@settings(max_examples=60)
@given(st.binary(max_size=40))
def test_parse_probe_number_accepts_any_bytes(data: bytes) -> None:
    number = parse_probe_number(TOKEN, data, last_number=10)
    assert number is None or number <= 10


@pytest.mark.parametrize(
    ("received", "text"),
    [
        (b"abcd", ""),
        (b"abXd", "byte 2 is 0x58, not 0x63"),
        (b"ab", "received 2 bytes of 4"),
        (b"abcde", "received 5 bytes of 4"),
    ],
)
def test_describe_mismatch_text(received: bytes, text: str) -> None:
    assert describe_mismatch(received, b"abcd").startswith(text)
    assert bool(describe_mismatch(received, b"abcd")) == bool(text)
