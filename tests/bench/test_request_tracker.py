"""What a ledger says of answers that are bent in every way, without a socket."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench.request_tracker import Ledger, Ring, Tally
from bothends.bench.results import Faults
from bothends.bench.workload import Workload, numbered, scripted


class Talk:
    """A ledger, its tally, and how many requests were sent."""

    def __init__(self, workload: Workload, *, boundaries: bool = False) -> None:
        self.tally = Tally()
        self.tally.stop = 1_000_000
        self.workload = workload
        self.ledger = Ledger(Ring(workload), self.tally, boundaries=boundaries)
        self.now = 0

    def ask(self, count: int = 1) -> bytes:
        self.now += 1
        return self.ledger.send(count, self.now, self.now)

    def hear(self, *pieces: bytes) -> int:
        self.now += 1
        return sum(self.ledger.receive(each, self.now) for each in pieces)

    def answer(self, number: int) -> bytes:
        return self.workload.answers[number % len(self.workload)]

    @property
    def faults(self) -> Faults:
        return self.tally.outcome.faults

    @property
    def intact(self) -> int:
        return self.tally.answered


def lines(size: int = 16, depth: int = 8) -> Workload:
    return numbered(size, "upper", newline=True, depth=depth)


def datagrams(depth: int = 8) -> Workload:
    return numbered(16, "echo", newline=False, depth=depth)


@given(st.integers(1, 40), st.integers(1, 700), st.lists(st.integers(0, 40_000), max_size=8))
def test_however_answers_are_cut_each_is_counted_once(size: int, count: int, cuts: list[int]) -> None:
    talk = Talk(lines(size, 2))
    sent = talk.ask(count)
    places = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    for start, end in pairwise(places):
        if end > start:
            talk.hear(sent.upper()[start:end])
    assert talk.intact == count
    assert talk.faults == Faults()
    assert not talk.ledger.open


@given(
    st.integers(1, 30), st.integers(0, 10_000), st.integers(1, 255), st.lists(st.integers(1, 400), max_size=5)
)
def test_not_one_byte_may_differ(count: int, place: int, flip: int, cuts: list[int]) -> None:
    talk = Talk(lines())
    right = bytearray(talk.ask(count).upper())
    place %= len(right)
    right[place] ^= flip
    for start, end in pairwise([0, *sorted({cut % len(right) for cut in cuts} - {0}), len(right)]):
        talk.hear(bytes(right[start:end]))
    talk.ledger.end()
    assert talk.faults.total
    assert talk.intact < count


@given(st.data())
def test_a_script_is_held_to_every_byte_too(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=5))
    answers = tuple(bytes([65 + place]) * size for place, size in enumerate(sizes))
    talk = Talk(Workload("script", tuple(b"?" for _ in sizes), answers))
    count = data.draw(st.integers(1, 12))
    talk.ask(count)
    whole = b"".join(talk.answer(number) for number in range(count))
    cut = data.draw(st.integers(0, len(whole)))
    talk.hear(*filter(None, (whole[:cut], whole[cut:])))
    assert (talk.intact, talk.faults) == (count, Faults())
    ends = list(accumulate(len(talk.answer(number)) for number in range(count)))
    assert bisect_right(ends, cut) <= count


def test_an_answer_that_comes_twice_on_a_stream() -> None:
    talk = Talk(lines())
    talk.ask(3)
    talk.hear(talk.answer(0), talk.answer(0), talk.answer(1) + talk.answer(2))
    assert (talk.intact, talk.faults) == (3, Faults(duplicated=1))


def test_answers_in_another_order_on_a_stream() -> None:
    talk = Talk(lines())
    talk.ask(3)
    talk.hear(talk.answer(1) + talk.answer(0) + talk.answer(2))
    assert (talk.intact, talk.faults) == (3, Faults(reordered=1))


def test_one_answer_that_is_left_out_is_timed_out_and_no_other() -> None:
    talk = Talk(lines())
    talk.ask(3)
    talk.hear(talk.answer(0) + talk.answer(2))
    assert [each[0] for each in talk.ledger.open] == [1]
    assert talk.ledger.overdue(talk.now) == 1
    talk.ask()
    assert talk.hear(talk.answer(3)) == 1
    assert (talk.intact, talk.faults) == (3, Faults())
    talk.hear(talk.answer(1))
    assert talk.faults == Faults(late=1)


def test_late_answers_after_none_at_all() -> None:
    talk = Talk(lines())
    talk.ask(2)
    talk.hear(talk.answer(0)[:5])
    assert talk.ledger.overdue(talk.now) == 2
    talk.ask(2)
    talk.hear(talk.answer(0)[5:] + talk.answer(1) + talk.answer(2) + talk.answer(3))
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
def test_one_answer_is_bent_and_the_next_is_not(bent, found) -> None:  # type: ignore[no-untyped-def]
    talk = Talk(lines())
    talk.ask(3)
    talk.hear(talk.answer(0) + bent(talk.answer(1)) + talk.answer(2))
    assert (talk.intact, talk.faults) == (2, found)
    assert not talk.ledger.open


def test_bytes_that_nobody_asked_for() -> None:
    talk = Talk(lines())
    talk.hear(b"welcome\n")
    assert talk.faults == Faults(wrong=1)
    talk.ask()
    talk.hear(talk.answer(0))
    assert talk.intact == 1


def test_a_stream_without_line_ends_is_given_up() -> None:
    talk = Talk(lines())
    talk.ask()
    talk.hear(b"y" * 100)
    assert talk.ledger.broken
    assert talk.faults == Faults(wrong=1)


def test_a_script_is_given_up_at_the_first_difference() -> None:
    talk = Talk(scripted("> a\n< one\n> b\n< two\n", newline=True))
    talk.ask(2)
    talk.hear(b"one\ntwi\n")
    assert (talk.intact, talk.faults, talk.ledger.broken) == (1, Faults(wrong=1), True)


def test_an_end_in_the_middle_of_an_answer() -> None:
    talk = Talk(lines())
    talk.ask(3)
    talk.hear(talk.answer(0) + talk.answer(1)[:3])
    talk.ledger.end()
    assert (talk.intact, talk.faults) == (1, Faults(short=1, lost=1))


@pytest.mark.parametrize("doubting", [False, True])
def test_an_end_between_answers(doubting: bool) -> None:
    talk = Talk(lines())
    talk.ask(3)
    talk.hear(talk.answer(0), *([talk.answer(0)] if doubting else []))
    talk.ledger.end()
    assert talk.faults == Faults(lost=2, duplicated=int(doubting))


def test_datagrams_lost_duplicated_reordered_short_wrong_and_late() -> None:
    talk = Talk(datagrams(), boundaries=True)
    talk.ask(8)
    right = talk.answer
    talk.hear(right(1), right(0), right(2), right(2), right(3)[:9], b"", right(5)[:3] + b"#" * 13)
    assert talk.intact == 3
    assert talk.faults == Faults(reordered=1, duplicated=1, short=2, wrong=1)
    assert talk.ledger.overdue(talk.now) == 2
    talk.hear(right(7))
    assert talk.faults.late == 1


@given(st.lists(st.sampled_from(["once", "twice", "never"]), min_size=1, max_size=60), st.randoms())
def test_datagrams_add_up(fates: list[str], chance) -> None:  # type: ignore[no-untyped-def]
    talk = Talk(datagrams(depth=64), boundaries=True)
    talk.ask(len(fates))
    times = {"once": 1, "twice": 2, "never": 0}
    coming = [number for number, fate in enumerate(fates) for _ in range(times[fate])]
    chance.shuffle(coming)
    talk.hear(*(talk.answer(number) for number in coming))
    assert talk.intact == len(fates) - fates.count("never")
    assert talk.faults.duplicated == fates.count("twice")
    assert talk.ledger.overdue(talk.now) == fates.count("never")
    if coming == sorted(coming):
        assert talk.faults.reordered == 0


def test_messages_too_short_for_numbers_are_still_compared() -> None:
    talk = Talk(numbered(2, "upper", newline=True))
    talk.ask(2)
    talk.hear(b"A\n", b"b\n")
    assert (talk.intact, talk.faults) == (1, Faults(wrong=1))


def test_only_what_was_due_in_the_window_counts() -> None:
    talk = Talk(lines())
    talk.tally.start, talk.tally.stop = 10, 20
    for due, at in ((5, 12), (12, 15), (15, 25), (22, 23)):
        talk.ledger.receive(talk.ledger.send(1, due, due + 1).upper(), at)
    talk.tally.count()
    outcome = talk.tally.outcome
    assert talk.intact == 4
    assert outcome.corrected.n == 2
    assert outcome.completed == 2  # those that came in it, whenever they were due
    assert outcome.corrected.maximum == 10
    assert outcome.uncorrected.maximum == 9
