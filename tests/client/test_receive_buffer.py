"""The pure part: cutting lines, timing repeats."""

from __future__ import annotations

import errno
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.client.receive_buffer import ReceiveBuffer, retry_timeouts, translate_oserror
from bothends.errors import ConnectionLost, MessageTooLong, SystemCallFailed


def stream_buffer(limit: int = 100) -> ReceiveBuffer:
    """The inbox of a stream."""
    return ReceiveBuffer(message_oriented=False, datagrams=False, limit=limit)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_take_line_is_independent_of_chunking(data: bytes, cuts: list[int]) -> None:
    inbox = stream_buffer()
    lines = []
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, stop in itertools.pairwise(places):
        inbox.feed(data[start:stop])
        while (line := inbox.take_line()) is not None:
            lines.append(line)
    inbox.feed(b"")
    while (line := inbox.take_line()) is not None:
        lines.append(line)
    expected = data.split(b"\n")
    assert lines == [line.removesuffix(b"\r") for line in (expected if expected[-1] else expected[:-1])]
    assert inbox.size == 0


@given(st.lists(st.binary(min_size=1, max_size=5)), st.lists(st.integers(1, 7)))
def test_take_mixed_calls_lose_no_bytes(chunks: list[bytes], sizes: list[int]) -> None:
    inbox = stream_buffer()
    for chunk in chunks:
        inbox.feed(chunk)
    taken = [(inbox.take if size % 2 else inbox.take_exactly)(size) or b"" for size in sizes]
    assert b"".join(taken) + inbox.take_all() == b"".join(chunks)


def test_take_line_at_limit_passes_and_above_raises() -> None:
    inbox = stream_buffer(limit=4)
    inbox.feed(b"four\r\n")
    assert inbox.take_line() == b"four"
    inbox.feed(b"fiver")
    assert inbox.take_line() is None  # the fifth byte might have been a CR
    inbox.feed(b"s")
    with pytest.raises(MessageTooLong):
        inbox.take_line()
    assert inbox.take_all() == b"fivers"


def test_take_line_complete_but_too_long_raises() -> None:
    inbox = stream_buffer(limit=4)
    inbox.feed(b"fiver\n")
    with pytest.raises(MessageTooLong) as caught:
        inbox.take_line()
    assert (caught.value.size, caught.value.limit) == (5, 4)


def test_message_oriented_buffer_preserves_boundaries() -> None:
    inbox = ReceiveBuffer(message_oriented=True, datagrams=True, limit=100)
    for message in (b"one\ntwo", b"", b"three"):
        inbox.feed(message)
    assert not inbox.eof_received  # an empty datagram is a datagram
    assert [inbox.take(1), inbox.take_line(), inbox.take_line(), inbox.take_line()] == [
        b"one\ntwo",
        b"",
        b"three",
        None,
    ]


def test_retry_timeouts_double_and_sum_to_timeout() -> None:
    assert list(retry_timeouts(7.0, 2)) == [1.0, 2.0, 4.0]
    assert list(retry_timeouts(2.0, 0)) == [2.0]
    assert list(retry_timeouts(None, 2)) == [1.0, 2.0, None]


def test_translate_oserror_maps_errno_to_error_class() -> None:
    lost = translate_oserror(OSError(errno.ECONNRESET, "x"), "receiving", "tcp://h:1", datagrams=False)
    assert isinstance(lost, ConnectionLost)
    assert lost.errno == errno.ECONNRESET
    refused = translate_oserror(OSError(errno.ECONNREFUSED, "x"), "receiving", "udp://h:1", datagrams=True)
    assert isinstance(refused, SystemCallFailed)
    assert str(refused).startswith("cannot reach udp://h:1: ECONNREFUSED")
    large = translate_oserror(OSError(errno.EMSGSIZE, "x"), "sending", "udp://h:1", datagrams=True)
    assert "65,507 bytes at most" in str(large)
