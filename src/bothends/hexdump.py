"""Bytes as a hex dump: offset, hexadecimal and ASCII. Pure.

    -> 00000000  68 65 6c 6c 6f 0a                                 |hello.|
    <- 00000000  48 45 4c 4c 4f 0a                                 |HELLO.|

The layout is that of `hexdump -C`, after an arrow: `->` for sent, `<-` for received data. Each read or write
starts a new line, so the dump shows how the stream was cut into chunks.

Rank 0. The output is printable ASCII, so it cannot affect a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

ByteDirection: TypeAlias = Literal["sent", "received"]

ARROWS: Final[dict[ByteDirection, str]] = {"sent": "->", "received": "<-"}

_BYTES_PER_LINE: Final = 16
_HALF: Final = 8
# Two digits and a space for each byte, one more space between the halves, none at the end.
_COLUMNS: Final = 3 * _BYTES_PER_LINE

# Printable ASCII characters, and a dot for any other byte.
_PRINTABLE: Final = bytes(byte if 0x20 <= byte < 0x7F else ord(".") for byte in range(256))


def hex_lines(data: bytes, offset: int = 0) -> Iterator[str]:
    """Yield the lines of some data, which starts at `offset`. No line for no data."""
    for start in range(0, len(data), _BYTES_PER_LINE):
        row = data[start : start + _BYTES_PER_LINE]
        halves = " ".join((row[:_HALF].hex(" "), "", row[_HALF:].hex(" "))).rstrip()
        shown = row.translate(_PRINTABLE).decode("ascii")
        yield f"{offset + start:08x}  {halves:<{_COLUMNS}}  |{shown}|"


class HexDump:
    """The dump of one connection, with separate offsets for each direction.

    With `message_oriented` each piece of data is a message, and offsets start at 0 in each. Otherwise empty
    data means EOF.
    """

    def __init__(self, *, message_oriented: bool = False) -> None:
        self._message_oriented = message_oriented
        self._offsets: dict[ByteDirection, int] = {"sent": 0, "received": 0}

    def lines(self, direction: ByteDirection, data: bytes) -> list[str]:
        """Return the lines of the data of one read or write, each with its arrow."""
        arrow, offset = ARROWS[direction], self._offsets[direction]
        if not data:
            return [f"{arrow} {offset:08x}  {'empty message' if self._message_oriented else 'EOF'}"]
        if not self._message_oriented:
            self._offsets[direction] += len(data)
        return [f"{arrow} {line}" for line in hex_lines(data, offset)]
