from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.errors import MessageTooLong, UsageError
from bothends.framing import DEFAULT_LIMIT, FixedSize, Framing, LengthPrefixed, Lines


def decode(framing: Framing, chunks: list[bytes]) -> tuple[list[bytes], MessageTooLong | None]:
    """Return the messages of a stream and the error, if any; messages before an error come from the error."""
    decoder = framing.decoder()
    messages: list[bytes] = []
    try:
        for chunk in chunks:
            messages += decoder.feed(chunk)
        messages += decoder.end()
    except MessageTooLong as error:
        return messages + list(error.completed_messages), error
    return messages, None


def all_chunkings(data: bytes) -> list[list[bytes]]:
    single = [data[at : at + 1] for at in range(len(data))]
    return [[data], single, *([data[:at], data[at:]] for at in range(len(data) + 1))]


def decode_all_chunkings(framing: Framing, data: bytes) -> tuple[list[bytes], bool]:
    outcomes = []
    for chunks in all_chunkings(data):
        messages, error = decode(framing, chunks)
        assert error is None or (error.limit == framing.limit and error.size > error.limit)  # type: ignore[attr-defined]
        outcomes.append((messages, error is not None))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return outcomes[0]


# --- lines ---


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),  # the last newline is missing
        (b"a\n", [b"a"]),
        (b"a\r\n", [b"a"]),
        (b"a\r", [b"a"]),
        (b"\n\r\n", [b"", b""]),
        (b"a\r\r\nb\rc\n", [b"a\r", b"b\rc"]),
        (b"\0\xff\n\r", [b"\0\xff", b""]),
    ],
)
def test_lines(data: bytes, lines: list[bytes]) -> None:
    assert decode_all_chunkings(Lines(), data) == (lines, False)


@pytest.mark.parametrize(
    ("data", "lines", "too_long"),
    [
        (b"1234\n", [b"1234"], False),
        (b"1234\r\n", [b"1234"], False),  # the CR is not part of the line
        (b"1234", [b"1234"], False),
        (b"1234\r", [b"1234"], False),
        (b"12345\n", [], True),
        (b"12345", [], True),
        (b"123456", [], True),
        (b"1234\r5\n", [], True),
        (b"1234\r\r\n", [], True),
        (b"a\n\nb\r\n12345\nc\n", [b"a", b"", b"b"], True),
        (b"a\nb\n123456789", [b"a", b"b"], True),
    ],
)
def test_line_limit(data: bytes, lines: list[bytes], too_long: bool) -> None:
    assert decode_all_chunkings(Lines(4), data) == (lines, too_long)


LINES = st.lists(st.sampled_from([b"\n", b"\r", b"a", b"bcd", b"efghij"]), max_size=12).map(b"".join)


@given(LINES)
def test_lines_match_reference_implementation(data: bytes) -> None:
    *whole, rest = data.split(b"\n")
    expected = []
    too_long = False
    for line in [*whole, *([rest] if rest else [])]:
        line = line.removesuffix(b"\r")
        too_long = len(line) > 6
        if too_long:
            break
        expected.append(line)
    assert decode_all_chunkings(Lines(6), data) == (expected, too_long)


@given(st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line and not line.endswith(b"\r"))))
def test_lines_round_trip(lines: list[bytes]) -> None:
    framing = Lines()
    assert decode_all_chunkings(framing, b"".join(map(framing.encode, lines))) == (lines, False)


def test_line_at_default_limit_is_accepted() -> None:
    assert Lines().limit == DEFAULT_LIMIT == 65_536
    line = b"x" * DEFAULT_LIMIT
    for chunks in ([line + b"\n"], [line, b"\r", b"\n"], [line[:9], line[9:] + b"\n", b""]):
        assert decode(Lines(), chunks) == ([line], None)


def test_unterminated_line_over_limit_raises() -> None:
    decoder = Lines(1000).decoder()
    for _ in range(1001 // 7):  # one byte over the limit may be the CR of CR LF
        assert decoder.feed(b"x" * 7) == []
    with pytest.raises(MessageTooLong) as caught:
        decoder.feed(b"x" * 7)
    assert caught.value.size == 1001 + 7


# --- length-prefixed messages ---


@pytest.mark.parametrize("width", [1, 2, 3, 4, 8])
def test_length_prefixed(width: int) -> None:
    framing = LengthPrefixed(width)
    data = framing.encode(b"one") + framing.encode(b"") + framing.encode(b"two\n")
    assert data.startswith(b"\0" * (width - 1) + b"\3one")
    assert decode_all_chunkings(framing, data) == ([b"one", b"", b"two\n"], False)


def test_length_in_little_endian_order() -> None:
    framing = LengthPrefixed(2, byteorder="little")
    assert framing.encode(b"x" * 258) == b"\2\1" + b"x" * 258
    assert decode_all_chunkings(framing, framing.encode(b"one") + framing.encode(b"")) == (
        [b"one", b""],
        False,
    )


@given(st.lists(st.binary(max_size=8)))
def test_length_prefixed_round_trip(messages: list[bytes]) -> None:
    framing = LengthPrefixed(2)
    assert decode_all_chunkings(framing, b"".join(map(framing.encode, messages))) == (messages, False)


@given(st.binary(max_size=40), st.sampled_from([1, 2]))
def test_length_prefixed_arbitrary_bytes(data: bytes, width: int) -> None:
    messages, _ = decode_all_chunkings(LengthPrefixed(width, limit=5), data)
    assert all(len(message) <= 5 for message in messages)


def test_truncated_message_at_eof_is_dropped() -> None:
    for data in (b"\0", b"\0\3", b"\0\3on"):
        assert decode_all_chunkings(LengthPrefixed(2), b"\0\1x" + data) == ([b"x"], False)


def test_length_over_limit_raises_before_payload() -> None:
    decoder = LengthPrefixed(4, limit=10).decoder()
    with pytest.raises(MessageTooLong) as caught:
        decoder.feed(b"\0\0\0\3one" + b"\xff\xff\xff\xff")
    assert (caught.value.limit, caught.value.size) == (10, 0xFFFF_FFFF)
    assert list(caught.value.completed_messages) == [b"one"]


def test_encode_message_over_prefix_width_raises() -> None:
    assert LengthPrefixed(1).encode(b"x" * 255) == b"\xff" + b"x" * 255
    with pytest.raises(MessageTooLong) as caught:
        LengthPrefixed(1).encode(b"x" * 256)
    assert (caught.value.limit, caught.value.size) == (255, 256)


@pytest.mark.parametrize("width", [-1, 0, 9])
def test_invalid_prefix_width_raises(width: int) -> None:
    with pytest.raises(UsageError, match=f"LengthPrefixed\\({width}\\)"):
        LengthPrefixed(width)


def test_decoders_are_independent() -> None:
    for framing in (Lines(), LengthPrefixed(1)):
        one, two = framing.decoder(), framing.decoder()
        one.feed(b"\2a")
        assert two.feed(b"\1\n")
        assert two.end() == []


# --- messages of a fixed size ---


@given(st.binary(max_size=40), st.integers(1, 9))
def test_fixed_size(data: bytes, size: int) -> None:
    whole = [data[at : at + size] for at in range(0, len(data) - size + 1, size)]
    assert decode_all_chunkings(FixedSize(size), data) == (whole, False)


def test_fixed_size_encodes_with_nul_bytes() -> None:
    assert FixedSize(4).encode(b"ab") == b"ab\0\0"
    assert FixedSize(4).with_limit(2).encode(b"ab") == b"ab"
    with pytest.raises(MessageTooLong) as caught:
        FixedSize(4).encode(b"abcde")
    assert (caught.value.limit, caught.value.size) == (4, 5)
    with pytest.raises(UsageError, match=r"FixedSize\(0\)"):
        FixedSize(0)
