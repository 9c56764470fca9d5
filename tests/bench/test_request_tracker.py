"""The request tracker classifies every kind of faulty response; sans-IO."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench.heat_map import COLUMNS, row_bound
from bothends.bench.request_tracker import RequestTracker, RunCounters, WorkloadBuffer
from bothends.bench.results import Faults
from bothends.bench.workload import Workload, numbered, parse_script


class Exchange:
    """A request tracker with its counters and a manual clock."""

    def __init__(self, workload: Workload, *, message_oriented: bool = False) -> None:
        self.counters = RunCounters()
        self.counters.stop = 1_000_000
        self.workload = workload
        self.tracker = RequestTracker(
            WorkloadBuffer(workload), self.counters, message_oriented=message_oriented
        )
        self.now = 0

    def send(self, count: int = 1) -> bytes:
        self.now += 1
        return self.tracker.send(count, self.now, self.now)

    def receive(self, *pieces: bytes) -> int:
        self.now += 1
        return sum(self.tracker.receive(each, self.now) for each in pieces)

    def response(self, number: int) -> bytes:
        return self.workload.responses[number % len(self.workload)]

    @property
    def faults(self) -> Faults:
        return self.counters.outcome.faults

    @property
    def correct(self) -> int:
        return self.counters.response_count


def lines(size: int = 16, depth: int = 8) -> Workload:
    return numbered(size, "upper", newline=True, depth=depth)


def datagrams(depth: int = 8) -> Workload:
    return numbered(16, "echo", newline=False, depth=depth)


@given(st.integers(1, 40), st.integers(1, 700), st.lists(st.integers(0, 40_000), max_size=8))
def test_stream_responses_any_chunking_counted_once(size: int, count: int, cuts: list[int]) -> None:
    exchange = Exchange(lines(size, 2))
    sent = exchange.send(count)
    offsets = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    for start, end in pairwise(offsets):
        if end > start:
            exchange.receive(sent.upper()[start:end])
    assert exchange.correct == count
    assert exchange.faults == Faults()
    assert not exchange.tracker.pending


@given(
    st.integers(1, 30), st.integers(0, 10_000), st.integers(1, 255), st.lists(st.integers(1, 400), max_size=5)
)
def test_stream_any_changed_byte_is_a_fault(count: int, offset: int, flip: int, cuts: list[int]) -> None:
    exchange = Exchange(lines())
    responses = bytearray(exchange.send(count).upper())
    offset %= len(responses)
    responses[offset] ^= flip
    for start, end in pairwise([0, *sorted({cut % len(responses) for cut in cuts} - {0}), len(responses)]):
        exchange.receive(bytes(responses[start:end]))
    exchange.tracker.connection_closed()
    assert exchange.faults.total
    assert exchange.correct < count


@given(st.data())
def test_script_responses_are_compared(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=5))
    responses = tuple(bytes([65 + index]) * size for index, size in enumerate(sizes))
    exchange = Exchange(Workload("script", tuple(b"?" for _ in sizes), responses))
    count = data.draw(st.integers(1, 12))
    exchange.send(count)
    whole = b"".join(exchange.response(number) for number in range(count))
    cut = data.draw(st.integers(0, len(whole)))
    exchange.receive(*filter(None, (whole[:cut], whole[cut:])))
    assert (exchange.correct, exchange.faults) == (count, Faults())
    ends = list(accumulate(len(exchange.response(number)) for number in range(count)))
    assert bisect_right(ends, cut) <= count


def test_stream_duplicate_response() -> None:
    exchange = Exchange(lines())
    exchange.send(3)
    exchange.receive(exchange.response(0), exchange.response(0), exchange.response(1) + exchange.response(2))
    assert (exchange.correct, exchange.faults) == (3, Faults(duplicated=1))


def test_stream_reordered_responses() -> None:
    exchange = Exchange(lines())
    exchange.send(3)
    exchange.receive(exchange.response(1) + exchange.response(0) + exchange.response(2))
    assert (exchange.correct, exchange.faults) == (3, Faults(reordered=1))


def test_stream_missing_response_expires_alone() -> None:
    exchange = Exchange(lines())
    exchange.send(3)
    exchange.receive(exchange.response(0) + exchange.response(2))
    assert [each[0] for each in exchange.tracker.pending] == [1]
    assert exchange.tracker.expire(exchange.now) == 1
    exchange.send()
    assert exchange.receive(exchange.response(3)) == 1
    assert (exchange.correct, exchange.faults) == (3, Faults())
    exchange.receive(exchange.response(1))
    assert exchange.faults == Faults(late=1)


def test_stream_late_responses_after_expiry() -> None:
    exchange = Exchange(lines())
    exchange.send(2)
    exchange.receive(exchange.response(0)[:5])
    assert exchange.tracker.expire(exchange.now) == 2
    exchange.send(2)
    exchange.receive(
        exchange.response(0)[5:] + exchange.response(1) + exchange.response(2) + exchange.response(3)
    )
    assert (exchange.correct, exchange.faults) == (2, Faults(late=2))


@pytest.mark.parametrize(
    ("corrupt", "faults"),
    [
        (lambda response: response[:4] + b"\n", Faults(short=1)),
        (lambda response: response[:-1] + b"x\n", Faults(wrong=1)),
        (lambda response: response.lower(), Faults(wrong=1)),
        (lambda response: b"\n", Faults(short=1)),
    ],
)
def test_stream_resyncs_after_corrupted_response(corrupt, faults) -> None:  # type: ignore[no-untyped-def]
    exchange = Exchange(lines())
    exchange.send(3)
    exchange.receive(exchange.response(0) + corrupt(exchange.response(1)) + exchange.response(2))
    assert (exchange.correct, exchange.faults) == (2, faults)
    assert not exchange.tracker.pending


def test_stream_unsolicited_bytes_are_wrong() -> None:
    exchange = Exchange(lines())
    exchange.receive(b"welcome\n")
    assert exchange.faults == Faults(wrong=1)
    exchange.send()
    exchange.receive(exchange.response(0))
    assert exchange.correct == 1


def test_stream_without_terminator_is_desynced() -> None:
    exchange = Exchange(lines())
    exchange.send()
    exchange.receive(b"y" * 100)
    assert exchange.tracker.desynced
    assert exchange.faults == Faults(wrong=1)


def test_script_desyncs_at_first_difference() -> None:
    exchange = Exchange(parse_script("> a\n< one\n> b\n< two\n", newline=True))
    exchange.send(2)
    exchange.receive(b"one\ntwi\n")
    assert (exchange.correct, exchange.faults, exchange.tracker.desynced) == (1, Faults(wrong=1), True)


@pytest.mark.parametrize("newline", [True, False])
def test_timeout_desyncs_only_without_line_ends(newline: bool) -> None:
    script = parse_script("> a\n< one\n> b\n< two\n", newline=True)
    exchange = Exchange(lines() if newline else script)
    exchange.send()
    assert exchange.tracker.expire(exchange.now + 1) == 1
    assert exchange.tracker.desynced is not newline


def test_eof_within_response_is_short() -> None:
    exchange = Exchange(lines())
    exchange.send(3)
    exchange.receive(exchange.response(0) + exchange.response(1)[:3])
    exchange.tracker.connection_closed()
    assert (exchange.correct, exchange.faults) == (1, Faults(short=1, lost=1))


@pytest.mark.parametrize("resyncing", [False, True])
def test_eof_between_responses_loses_pending(resyncing: bool) -> None:
    exchange = Exchange(lines())
    exchange.send(3)
    exchange.receive(exchange.response(0), *([exchange.response(0)] if resyncing else []))
    exchange.tracker.connection_closed()
    assert exchange.faults == Faults(lost=2, duplicated=int(resyncing))


def test_datagram_faults() -> None:
    exchange = Exchange(datagrams(), message_oriented=True)
    exchange.send(8)
    response = exchange.response
    exchange.receive(response(1), response(0), response(2), response(2), response(3)[:9], b"")
    exchange.receive(response(5)[:3] + b"#" * 13)
    assert exchange.correct == 3
    assert exchange.faults == Faults(reordered=1, duplicated=1, short=2, wrong=1)
    assert exchange.tracker.expire(exchange.now) == 2
    exchange.receive(response(7))
    assert exchange.faults.late == 1


@given(st.lists(st.sampled_from(["once", "twice", "never"]), min_size=1, max_size=60), st.randoms())
def test_datagram_fault_counts_are_consistent(fates: list[str], random) -> None:  # type: ignore[no-untyped-def]
    exchange = Exchange(datagrams(depth=64), message_oriented=True)
    exchange.send(len(fates))
    times = {"once": 1, "twice": 2, "never": 0}
    arriving = [number for number, fate in enumerate(fates) for _ in range(times[fate])]
    random.shuffle(arriving)
    exchange.receive(*(exchange.response(number) for number in arriving))
    assert exchange.correct == len(fates) - fates.count("never")
    assert exchange.faults.duplicated == fates.count("twice")
    assert exchange.tracker.expire(exchange.now) == fates.count("never")
    if arriving == sorted(arriving):
        assert exchange.faults.reordered == 0


def test_unnumbered_messages_are_compared() -> None:
    exchange = Exchange(numbered(2, "upper", newline=True))
    exchange.send(2)
    exchange.receive(b"A\n", b"b\n")
    assert (exchange.correct, exchange.faults) == (1, Faults(wrong=1))


@pytest.mark.parametrize("is_resyncing", [False, True])
def test_latency_is_the_sum_of_its_parts(is_resyncing: bool) -> None:
    exchange = Exchange(lines())
    exchange.counters.start, exchange.counters.stop = 0, 10_000
    if is_resyncing:
        exchange.tracker.send(1, 20_000, 20_000)
        exchange.tracker.receive(b"?\n", 20_000)
    response = exchange.tracker.send(1, 100, 150, 200).upper()
    second = exchange.tracker.send(1, 100, 100).upper()
    exchange.tracker.receive(response[:5], 500)
    exchange.tracker.receive(response[5:] + second, 900)
    exchange.counters.flush()
    outcome = exchange.counters.outcome
    assert (outcome.wait.maximum, outcome.wait.n) == (100, 2)
    assert (outcome.first_byte.mean, outcome.first_byte.maximum) == ((300 + 800) / 2, 800)
    assert (outcome.transfer.mean, outcome.transfer.maximum) == (400 / 2, 400)
    assert outcome.uncorrected.maximum == 800
    filled = outcome.heat.columns()[1 * COLUMNS // 100]
    assert sum(filled[1::2]) == 2
    assert row_bound(filled[0]) <= 750 < row_bound(filled[0] + 1)


def test_only_requests_due_in_window_count() -> None:
    exchange = Exchange(lines())
    exchange.counters.start, exchange.counters.stop = 10, 20
    for due, at in ((5, 12), (12, 15), (15, 25), (22, 23)):
        exchange.tracker.receive(exchange.tracker.send(1, due, due + 1).upper(), at)
    exchange.counters.flush()
    outcome = exchange.counters.outcome
    assert exchange.correct == 4
    assert outcome.corrected.n == 2
    assert outcome.completed == 2  # responses received in the window, whenever they were due
    assert outcome.corrected.maximum == 10
    assert outcome.uncorrected.maximum == 9
