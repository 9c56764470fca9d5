"""The pure part: cutting lines, timing repeats."""

from __future__ import annotations

import errno
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.client.receive_buffer import Inbox, translated, waits
from bothends.errors import ConnectionLost, MessageTooLong, SystemRefused


def stream(limit: int = 100) -> Inbox:
    """The inbox of a stream."""
    return Inbox(boundaries=False, datagrams=False, limit=limit)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_lines_are_the_same_however_the_stream_is_cut(data: bytes, cuts: list[int]) -> None:
    inbox = stream()
    lines = []
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, stop in itertools.pairwise(places):
        inbox.put(data[start:stop])
        while (line := inbox.take_line()) is not None:
            lines.append(line)
    inbox.put(b"")
    while (line := inbox.take_line()) is not None:
        lines.append(line)
    expected = data.split(b"\n")
    assert lines == [line.removesuffix(b"\r") for line in (expected if expected[-1] else expected[:-1])]
    assert inbox.size == 0


@given(st.lists(st.binary(min_size=1, max_size=5)), st.lists(st.integers(1, 7)))
def test_whatever_is_taken_in_whatever_way_nothing_is_lost(chunks: list[bytes], sizes: list[int]) -> None:
    inbox = stream()
    for chunk in chunks:
        inbox.put(chunk)
    taken = [(inbox.take if size % 2 else inbox.take_exactly)(size) or b"" for size in sizes]
    assert b"".join(taken) + inbox.take_all() == b"".join(chunks)


def test_a_line_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    inbox = stream(limit=4)
    inbox.put(b"four\r\n")
    assert inbox.take_line() == b"four"
    inbox.put(b"fiver")
    assert inbox.take_line() is None  # the fifth byte might have been a CR
    inbox.put(b"s")
    with pytest.raises(MessageTooLong):
        inbox.take_line()
    assert inbox.take_all() == b"fivers"


def test_a_long_line_that_ended_is_still_too_long() -> None:
    inbox = stream(limit=4)
    inbox.put(b"fiver\n")
    with pytest.raises(MessageTooLong) as caught:
        inbox.take_line()
    assert (caught.value.size, caught.value.limit) == (5, 4)


def test_messages_keep_their_boundaries() -> None:
    inbox = Inbox(boundaries=True, datagrams=True, limit=100)
    for message in (b"one\ntwo", b"", b"three"):
        inbox.put(message)
    assert not inbox.ended  # an empty datagram is a datagram
    assert [inbox.take(1), inbox.take_line(), inbox.take_line(), inbox.take_line()] == [
        b"one\ntwo",
        b"",
        b"three",
        None,
    ]


def test_waits_double_and_together_are_the_time_limit() -> None:
    assert list(waits(7.0, 2)) == [1.0, 2.0, 4.0]
    assert list(waits(2.0, 0)) == [2.0]
    assert list(waits(None, 2)) == [1.0, 2.0, None]


def test_errors_are_told_apart_by_what_they_mean() -> None:
    lost = translated(OSError(errno.ECONNRESET, "x"), "receiving", "tcp://h:1", datagrams=False)
    assert isinstance(lost, ConnectionLost)
    assert lost.errno == errno.ECONNRESET
    refused = translated(OSError(errno.ECONNREFUSED, "x"), "receiving", "udp://h:1", datagrams=True)
    assert isinstance(refused, SystemRefused)
    assert str(refused).startswith("cannot reach udp://h:1: ECONNREFUSED")
    large = translated(OSError(errno.EMSGSIZE, "x"), "sending", "udp://h:1", datagrams=True)
    assert "65,507 bytes at most" in str(large)
