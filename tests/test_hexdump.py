"""Hex dumps, compared with the output of `hexdump -C`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bothends.hexdump import HexDump, hex_lines


def test_hex_lines_match_hexdump() -> None:
    assert list(hex_lines(b"sixteen bytes...and \x00\x7f\x80\xff\n")) == [
        "00000000  73 69 78 74 65 65 6e 20  62 79 74 65 73 2e 2e 2e  |sixteen bytes...|",
        "00000010  61 6e 64 20 00 7f 80 ff  0a                       |and .....|",
    ]


def test_eight_bytes_pad_second_half() -> None:
    assert list(hex_lines(b"12345678", 0x1_0000_0000)) == [
        "100000000  31 32 33 34 35 36 37 38                           |12345678|"
    ]


def test_empty_data_has_no_lines() -> None:
    assert list(hex_lines(b"")) == []


@given(st.binary(max_size=100), st.integers(0, 1000))
def test_hex_lines_round_trip_and_are_printable(data: bytes, offset: int) -> None:
    lines = list(hex_lines(data, offset))
    assert bytes.fromhex("".join(line[10:58] for line in lines)) == data
    assert [int(line[:8], 16) for line in lines] == list(range(offset, offset + len(data), 16))
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert len({line.index("|") for line in lines}) <= 1


def test_stream_offsets_are_per_direction() -> None:
    dump = HexDump()
    assert dump.lines("sent", b"hello\n") == [
        "-> 00000000  68 65 6c 6c 6f 0a                                 |hello.|"
    ]
    assert dump.lines("received", b"HE") == [
        "<- 00000000  48 45                                             |HE|"
    ]
    assert dump.lines("received", b"LLO\n") == [
        "<- 00000002  4c 4c 4f 0a                                       |LLO.|"
    ]
    assert dump.lines("sent", b"") == ["-> 00000006  EOF"]


def test_message_offsets_restart_per_message() -> None:
    dump = HexDump(message_oriented=True)
    for _ in range(2):
        assert dump.lines("sent", b"hello") == [
            "-> 00000000  68 65 6c 6c 6f                                    |hello|"
        ]
    assert dump.lines("received", b"") == ["<- 00000000  empty message"]
