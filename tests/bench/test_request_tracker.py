"""What a ledger says of answers that are bent in every way, without a socket."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench.request_tracker import RequestTracker, RunCounters, WorkloadBuffer
from bothends.bench.results import Faults
from bothends.bench.workload import Workload, numbered, parse_script


class Exchange:
    """A ledger, its tally, and how many requests were sent."""

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
    def intact(self) -> int:
        return self.counters.response_count


def lines(size: int = 16, depth: int = 8) -> Workload:
    return numbered(size, "upper", newline=True, depth=depth)


def datagrams(depth: int = 8) -> Workload:
    return numbered(16, "echo", newline=False, depth=depth)


@given(st.integers(1, 40), st.integers(1, 700), st.lists(st.integers(0, 40_000), max_size=8))
def test_stream_responses_any_chunking_counted_once(size: int, count: int, cuts: list[int]) -> None:
    talk = Exchange(lines(size, 2))
    sent = talk.send(count)
    places = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    for start, end in pairwise(places):
        if end > start:
            talk.receive(sent.upper()[start:end])
    assert talk.intact == count
    assert talk.faults == Faults()
    assert not talk.tracker.pending


@given(
    st.integers(1, 30), st.integers(0, 10_000), st.integers(1, 255), st.lists(st.integers(1, 400), max_size=5)
)
def test_stream_any_changed_byte_is_a_fault(count: int, place: int, flip: int, cuts: list[int]) -> None:
    talk = Exchange(lines())
    right = bytearray(talk.send(count).upper())
    place %= len(right)
    right[place] ^= flip
    for start, end in pairwise([0, *sorted({cut % len(right) for cut in cuts} - {0}), len(right)]):
        talk.receive(bytes(right[start:end]))
    talk.tracker.connection_closed()
    assert talk.faults.total
    assert talk.intact < count


@given(st.data())
def test_script_responses_are_compared(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=5))
    answers = tuple(bytes([65 + place]) * size for place, size in enumerate(sizes))
    talk = Exchange(Workload("script", tuple(b"?" for _ in sizes), answers))
    count = data.draw(st.integers(1, 12))
    talk.send(count)
    whole = b"".join(talk.response(number) for number in range(count))
    cut = data.draw(st.integers(0, len(whole)))
    talk.receive(*filter(None, (whole[:cut], whole[cut:])))
    assert (talk.intact, talk.faults) == (count, Faults())
    ends = list(accumulate(len(talk.response(number)) for number in range(count)))
    assert bisect_right(ends, cut) <= count


def test_stream_duplicate_response() -> None:
    talk = Exchange(lines())
    talk.send(3)
    talk.receive(talk.response(0), talk.response(0), talk.response(1) + talk.response(2))
    assert (talk.intact, talk.faults) == (3, Faults(duplicated=1))


def test_stream_reordered_responses() -> None:
    talk = Exchange(lines())
    talk.send(3)
    talk.receive(talk.response(1) + talk.response(0) + talk.response(2))
    assert (talk.intact, talk.faults) == (3, Faults(reordered=1))


def test_stream_missing_response_expires_alone() -> None:
    talk = Exchange(lines())
    talk.send(3)
    talk.receive(talk.response(0) + talk.response(2))
    assert [each[0] for each in talk.tracker.pending] == [1]
    assert talk.tracker.expire(talk.now) == 1
    talk.send()
    assert talk.receive(talk.response(3)) == 1
    assert (talk.intact, talk.faults) == (3, Faults())
    talk.receive(talk.response(1))
    assert talk.faults == Faults(late=1)


def test_stream_late_responses_after_expiry() -> None:
    talk = Exchange(lines())
    talk.send(2)
    talk.receive(talk.response(0)[:5])
    assert talk.tracker.expire(talk.now) == 2
    talk.send(2)
    talk.receive(talk.response(0)[5:] + talk.response(1) + talk.response(2) + talk.response(3))
    assert (talk.intact, talk.faults) == (2, Faults(late=2))


@pytest.mark.parametrize(
    ("bent", "found"),
    [
        (lambda right: right[:4] + b"\n", Faults(short=1)),
        (lambda right: right[:-1] + b"x\n", Faults(wrong=1)),
        (lambda right: right.lower(), Faults(wrong=1)),
        (lambda right: b"\n", Faults(short=1)),
    ],
)
def test_stream_resyncs_after_corrupted_response(corrupt, found) -> None:  # type: ignore[no-untyped-def]
    talk = Exchange(lines())
    talk.send(3)
    talk.receive(talk.response(0) + corrupt(talk.response(1)) + talk.response(2))
    assert (talk.intact, talk.faults) == (2, found)
    assert not talk.tracker.pending


def test_stream_unsolicited_bytes_are_wrong() -> None:
    talk = Exchange(lines())
    talk.receive(b"welcome\n")
    assert talk.faults == Faults(wrong=1)
    talk.send()
    talk.receive(talk.response(0))
    assert talk.intact == 1


def test_stream_without_terminator_is_desynced() -> None:
    talk = Exchange(lines())
    talk.send()
    talk.receive(b"y" * 100)
    assert talk.tracker.desynced
    assert talk.faults == Faults(wrong=1)


def test_script_desyncs_at_first_difference() -> None:
    talk = Exchange(parse_script("> a\n< one\n> b\n< two\n", newline=True))
    talk.send(2)
    talk.receive(b"one\ntwi\n")
    assert (talk.intact, talk.faults, talk.tracker.desynced) == (1, Faults(wrong=1), True)


def test_eof_within_response_is_short() -> None:
    talk = Exchange(lines())
    talk.send(3)
    talk.receive(talk.response(0) + talk.response(1)[:3])
    talk.tracker.connection_closed()
    assert (talk.intact, talk.faults) == (1, Faults(short=1, lost=1))


@pytest.mark.parametrize("doubting", [False, True])
def test_eof_between_responses_loses_pending(resyncing: bool) -> None:
    talk = Exchange(lines())
    talk.send(3)
    talk.receive(talk.response(0), *([talk.response(0)] if resyncing else []))
    talk.tracker.connection_closed()
    assert talk.faults == Faults(lost=2, duplicated=int(resyncing))


def test_datagram_faults() -> None:
    talk = Exchange(datagrams(), message_oriented=True)
    talk.send(8)
    right = talk.response
    talk.receive(right(1), right(0), right(2), right(2), right(3)[:9], b"", right(5)[:3] + b"#" * 13)
    assert talk.intact == 3
    assert talk.faults == Faults(reordered=1, duplicated=1, short=2, wrong=1)
    assert talk.tracker.expire(talk.now) == 2
    talk.receive(right(7))
    assert talk.faults.late == 1


@given(st.lists(st.sampled_from(["once", "twice", "never"]), min_size=1, max_size=60), st.randoms())
def test_datagram_fault_counts_are_consistent(fates: list[str], chance) -> None:  # type: ignore[no-untyped-def]
    talk = Exchange(datagrams(depth=64), message_oriented=True)
    talk.send(len(fates))
    times = {"once": 1, "twice": 2, "never": 0}
    coming = [number for number, fate in enumerate(fates) for _ in range(times[fate])]
    chance.shuffle(coming)
    talk.receive(*(talk.response(number) for number in coming))
    assert talk.intact == len(fates) - fates.count("never")
    assert talk.faults.duplicated == fates.count("twice")
    assert talk.tracker.expire(talk.now) == fates.count("never")
    if coming == sorted(coming):
        assert talk.faults.reordered == 0


def test_unnumbered_messages_are_compared() -> None:
    talk = Exchange(numbered(2, "upper", newline=True))
    talk.send(2)
    talk.receive(b"A\n", b"b\n")
    assert (talk.intact, talk.faults) == (1, Faults(wrong=1))


def test_only_requests_due_in_window_count() -> None:
    talk = Exchange(lines())
    talk.counters.start, talk.counters.stop = 10, 20
    for due, at in ((5, 12), (12, 15), (15, 25), (22, 23)):
        talk.tracker.receive(talk.tracker.send(1, due, due + 1).upper(), at)
    talk.counters.flush()
    outcome = talk.counters.outcome
    assert talk.intact == 4
    assert outcome.corrected.n == 2
    assert outcome.completed == 2  # those that came in it, whenever they were due
    assert outcome.corrected.maximum == 10
    assert outcome.uncorrected.maximum == 9
