"""Bytes as a hex dump: offset, hexadecimal, and what of it is ASCII. Pure.

    -> 00000000  68 65 6c 6c 6f 0a                                 |hello.|
    <- 00000000  48 45 4c 4c 4f 0a                                 |HELLO.|

The layout is that of `hexdump -C`, with an arrow before it: `->` is what we sent, `<-` what came. Each
read or write begins a line, so that the dump shows where the stream was cut.

Rank 0: whoever moves bytes may show them so, and nothing in a line can act on a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

ByteDirection: TypeAlias = Literal["sent", "received"]

ARROWS: Final[dict[ByteDirection, str]] = {"sent": "->", "received": "<-"}

_BYTES_PER_LINE: Final = 16  # bytes a line
_HALF: Final = 8
_COLUMNS: Final = (
    3 * _BYTES_PER_LINE
)  # two digits and a space each, one space more between the halves, none at the end

# What ASCII can show of each byte.
_PRINTABLE: Final = bytes(byte if 0x20 <= byte < 0x7F else ord(".") for byte in range(256))


def hex_lines(data: bytes, offset: int = 0) -> Iterator[str]:
    """The lines of a piece of data, of which `offset` bytes went before. None for no data."""
    for start in range(0, len(data), _BYTES_PER_LINE):
        row = data[start : start + _BYTES_PER_LINE]
        halves = " ".join((row[:_HALF].hex(" "), "", row[_HALF:].hex(" "))).rstrip()
        shown = row.translate(_PRINTABLE).decode("ascii")
        yield f"{offset + start:08x}  {halves:<{_COLUMNS}}  |{shown}|"


class HexDump:
    """The dump of one conversation: each direction has offsets of its own.

    With `boundaries` each piece is a message, and offsets begin anew with each. Without, no data at all is
    the end of that direction.
    """

    def __init__(self, *, message_oriented: bool = False) -> None:
        self._message_oriented = message_oriented
        self._offsets: dict[ByteDirection, int] = {"sent": 0, "received": 0}

    def lines(self, direction: ByteDirection, data: bytes) -> list[str]:
        """The lines of what one call moved, each with its arrow."""
        arrow, offset = ARROWS[direction], self._offsets[direction]
        if not data:
            return [f"{arrow} {offset:08x}  {'an empty message' if self._message_oriented else 'the end'}"]
        if not self._message_oriented:
            self._offsets[direction] += len(data)
        return [f"{arrow} {line}" for line in hex_lines(data, offset)]
