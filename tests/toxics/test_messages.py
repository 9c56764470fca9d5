"""duplicate, reorder and corrupt: their effect on messages, and its rate."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from bothends.toxics.base import Medium
from bothends.toxics.corrupt import Corrupt
from bothends.toxics.duplicate import Duplicate
from bothends.toxics.reorder import Reorder
from tests.toxics.path import DATAGRAMS, STREAM, ToxicPath, data_of, delays, messages_of, numbered, numbers

COUNT = 20_000


def test_duplicate_share_arrives_twice_in_order() -> None:
    arrived = numbers(messages_of(ToxicPath(DATAGRAMS, Duplicate(probability=0.1)).run(numbered(COUNT))))
    times = Counter(Counter(arrived).values())
    assert set(times) == {1, 2}
    assert times[2] / COUNT == pytest.approx(0.1, abs=5 * (0.09 / COUNT) ** 0.5)
    assert arrived == sorted(arrived)


def test_reorder_gap_delays_every_nth_message() -> None:
    sent = numbered(100, spacing=0.001)
    late = delays(sent, ToxicPath(DATAGRAMS, Reorder(gap=5, delay=3.5)).run(sent))
    assert [number for number, delay in enumerate(late) if delay] == list(range(4, 100, 5))
    assert late[4] == pytest.approx(0.0035)


def test_reorder_probability_matches_share() -> None:
    sent = numbered(COUNT, spacing=0.001)
    arrived = numbers(messages_of(ToxicPath(DATAGRAMS, Reorder(probability=0.05, delay=3.5)).run(sent)))
    assert sorted(arrived) == list(range(COUNT))
    # An overtaken message arrives after a later one.
    late = sum(earlier > number for earlier, number in itertools.pairwise(arrived))
    assert late / COUNT == pytest.approx(0.05, abs=0.01)


def test_reorder_defaults_are_rejected() -> None:
    assert "a gap above 1" in Reorder().unsupported_reason(DATAGRAMS)
    assert "bothends wire" in Reorder(gap=2).unsupported_reason(STREAM)


def count_flipped_bits(before: bytes, after: bytes) -> int:
    return (int.from_bytes(before) ^ int.from_bytes(after)).bit_count()


def test_corrupt_probability_flips_one_bit_of_share() -> None:
    sent = numbered(COUNT)
    arrived = messages_of(ToxicPath(DATAGRAMS, Corrupt(probability=0.1)).run(sent))
    wrong = Counter(count_flipped_bits(data, item) for (_, data), item in zip(sent, arrived, strict=True))
    assert set(wrong) == {0, 1}
    assert wrong[1] / COUNT == pytest.approx(0.1, abs=5 * (0.09 / COUNT) ** 0.5)


@pytest.mark.parametrize("medium", [STREAM, DATAGRAMS])
def test_corrupt_bit_errors_match_requested_rate(medium: Medium) -> None:
    sent = numbered(5000)
    arrived = data_of(ToxicPath(medium, Corrupt(bit_errors=1e-3)).run(sent))
    bits = 5000 * 800
    wrong = count_flipped_bits(b"".join(data for _, data in sent), arrived)
    assert wrong / bits == pytest.approx(1e-3, abs=5 * (1e-3 / bits) ** 0.5)


def test_corrupt_stream_is_independent_of_chunking() -> None:
    data = bytes(10_000)
    whole = data_of(ToxicPath(STREAM, Corrupt(bit_errors=1e-3)).run([(0.0, data)]))
    pieces = [(0.0, data[start : start + 7]) for start in range(0, len(data), 7)]
    assert data_of(ToxicPath(STREAM, Corrupt(bit_errors=1e-3)).run(pieces)) == whole != data


def test_corrupt_bit_errors_one_and_zero() -> None:
    assert ToxicPath(STREAM, Corrupt(bit_errors=1)).run([(0.0, b"\x0f\x00")]) == [(0.0, b"\xf0\xff")]
    assert ToxicPath(STREAM, Corrupt()).run([(0.0, b"abc")]) == [(0.0, b"abc")]


def test_corrupt_probability_on_stream_is_rejected() -> None:
    assert "bit_errors" in Corrupt(probability=0.1).unsupported_reason(STREAM)
