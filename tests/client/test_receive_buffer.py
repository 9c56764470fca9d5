"""The receive buffer, retry timeouts and error translation."""

from __future__ import annotations

import errno
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bothends.client.receive_buffer import ReceiveBuffer, retry_timeouts, translate_oserror
from bothends.errors import ConnectionLost, MessageTooLong, SystemCallFailed


def stream_buffer(limit: int = 100) -> ReceiveBuffer:
    """Return the receive buffer of a stream."""
    return ReceiveBuffer(message_oriented=False, datagrams=False, limit=limit)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_take_line_is_independent_of_chunking(data: bytes, splits: list[int]) -> None:
    buffer = stream_buffer()
    lines = []
    offsets = sorted({0, len(data), *(offset for offset in splits if offset < len(data))})
    for start, stop in itertools.pairwise(offsets):
        buffer.feed(data[start:stop])
        while (line := buffer.take_line()) is not None:
            lines.append(line)
    buffer.feed(b"")
    while (line := buffer.take_line()) is not None:
        lines.append(line)
    expected = data.split(b"\n")
    assert lines == [line.removesuffix(b"\r") for line in (expected if expected[-1] else expected[:-1])]
    assert buffer.size == 0


_STEPS = st.one_of(
    st.tuples(st.just("feed"), st.text("ab\n", min_size=1, max_size=5)),
    st.tuples(st.sampled_from(["take", "take_exactly"]), st.integers(1, 6)),
    st.tuples(st.just("take_line"), st.none()),
)


@given(st.lists(_STEPS, max_size=30))
@example([("feed", "aaa"), ("take_line", None), ("take", 3), ("feed", "b\n"), ("take_line", None)])
def test_every_mix_of_calls_takes_what_is_there(steps: list[tuple[str, str | int | None]]) -> None:
    buffer, there = stream_buffer(), b""
    for name, argument in steps:
        if isinstance(argument, str):
            buffer.feed(argument.encode())
            there += argument.encode()
        elif argument is None:
            line, end, rest = there.partition(b"\n")
            assert buffer.take_line() == (line if end else None)
            there = rest if end else there
        else:
            enough = len(there) >= (argument if name == "take_exactly" else 1)
            taken = buffer.take(argument) if name == "take" else buffer.take_exactly(argument)
            assert taken == (there[:argument] if enough else None)
            there = there[argument:] if enough else there
        assert buffer.size == len(there)


@given(st.lists(st.binary(min_size=1, max_size=5)), st.lists(st.integers(1, 7)))
def test_take_mixed_calls_lose_no_bytes(chunks: list[bytes], sizes: list[int]) -> None:
    buffer = stream_buffer()
    for chunk in chunks:
        buffer.feed(chunk)
    taken = [(buffer.take if size % 2 else buffer.take_exactly)(size) or b"" for size in sizes]
    assert b"".join(taken) + buffer.take_all() == b"".join(chunks)


def test_take_line_at_limit_passes_and_above_raises() -> None:
    buffer = stream_buffer(limit=4)
    buffer.feed(b"four\r\n")
    assert buffer.take_line() == b"four"
    buffer.feed(b"fiver")
    assert buffer.take_line() is None  # the fifth byte could be a CR
    buffer.feed(b"s")
    with pytest.raises(MessageTooLong):
        buffer.take_line()
    assert buffer.take_all() == b"fivers"


def test_take_line_complete_but_too_long_raises() -> None:
    buffer = stream_buffer(limit=4)
    buffer.feed(b"fiver\n")
    with pytest.raises(MessageTooLong) as caught:
        buffer.take_line()
    assert (caught.value.size, caught.value.limit) == (5, 4)


def test_message_oriented_buffer_preserves_boundaries() -> None:
    buffer = ReceiveBuffer(message_oriented=True, datagrams=True, limit=100)
    for message in (b"one\ntwo", b"", b"three"):
        buffer.feed(message)
    assert not buffer.eof_received  # an empty datagram is a datagram
    assert [buffer.take(1), buffer.take_line(), buffer.take_line(), buffer.take_line()] == [
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
    assert "at most 65,507 bytes" in str(large)
