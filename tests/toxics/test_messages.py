"""duplicate, reorder and corrupt: what they do to messages, and how often."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from bothends.toxics.base import Medium
from bothends.toxics.corrupt import Corrupt
from bothends.toxics.duplicate import Duplicate
from bothends.toxics.reorder import Reorder
from tests.toxics.path import DATAGRAMS, STREAM, Path, data_of, delays, messages_of, numbered, numbers

COUNT = 20_000


def test_a_share_arrives_twice_the_copy_right_behind() -> None:
    arrived = numbers(messages_of(Path(DATAGRAMS, Duplicate(probability=0.1)).run(numbered(COUNT))))
    times = Counter(Counter(arrived).values())
    assert set(times) == {1, 2}
    assert times[2] / COUNT == pytest.approx(0.1, abs=5 * (0.09 / COUNT) ** 0.5)
    assert arrived == sorted(arrived)


def test_every_so_manieth_is_overtaken() -> None:
    said = numbered(100, spacing=0.001)
    late = delays(said, Path(DATAGRAMS, Reorder(gap=5, delay=3.5)).run(said))
    assert [number for number, delay in enumerate(late) if delay] == list(range(4, 100, 5))
    assert late[4] == pytest.approx(0.0035)


def test_a_share_is_overtaken_by_as_many_as_come_meanwhile() -> None:
    said = numbered(COUNT, spacing=0.001)
    arrived = numbers(messages_of(Path(DATAGRAMS, Reorder(probability=0.05, delay=3.5)).run(said)))
    assert sorted(arrived) == list(range(COUNT))
    # One that is overtaken has later ones before it.
    late = sum(earlier > number for earlier, number in itertools.pairwise(arrived))
    assert late / COUNT == pytest.approx(0.05, abs=0.01)


def test_to_hold_all_back_alike_is_no_reordering() -> None:
    assert "a gap above 1" in Reorder().objection(DATAGRAMS)
    assert "bothends wire" in Reorder(gap=2).objection(STREAM)


def flips(before: bytes, after: bytes) -> int:
    return (int.from_bytes(before) ^ int.from_bytes(after)).bit_count()


def test_a_share_of_the_messages_has_one_bit_wrong() -> None:
    said = numbered(COUNT)
    arrived = messages_of(Path(DATAGRAMS, Corrupt(probability=0.1)).run(said))
    wrong = Counter(flips(data, came) for (_, data), came in zip(said, arrived, strict=True))
    assert set(wrong) == {0, 1}
    assert wrong[1] / COUNT == pytest.approx(0.1, abs=5 * (0.09 / COUNT) ** 0.5)


@pytest.mark.parametrize("medium", [STREAM, DATAGRAMS])
def test_single_bits_go_wrong_with_the_chance_that_was_asked_for(medium: Medium) -> None:
    said = numbered(5000)
    arrived = data_of(Path(medium, Corrupt(bit_errors=1e-3)).run(said))
    bits = 5000 * 800
    wrong = flips(b"".join(data for _, data in said), arrived)
    assert wrong / bits == pytest.approx(1e-3, abs=5 * (1e-3 / bits) ** 0.5)


def test_how_a_stream_is_cut_changes_no_error() -> None:
    data = bytes(10_000)
    whole = data_of(Path(STREAM, Corrupt(bit_errors=1e-3)).run([(0.0, data)]))
    pieces = [(0.0, data[start : start + 7]) for start in range(0, len(data), 7)]
    assert data_of(Path(STREAM, Corrupt(bit_errors=1e-3)).run(pieces)) == whole != data


def test_all_bits_and_none() -> None:
    assert Path(STREAM, Corrupt(bit_errors=1)).run([(0.0, b"\x0f\x00")]) == [(0.0, b"\xf0\xff")]
    assert Path(STREAM, Corrupt()).run([(0.0, b"abc")]) == [(0.0, b"abc")]


def test_a_share_of_a_streams_messages_makes_no_sense() -> None:
    assert "bit_errors" in Corrupt(probability=0.1).objection(STREAM)
