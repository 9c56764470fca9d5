"""The data of a bulk transfer, and the check of what is received. Pure.

The data of `echo`, `upper` and `discard` is a block of pseudo-random letters, repeated. Its length is a prime
number, so that no cut, repeated or exchanged piece of a size that programs use goes unnoticed. That of
`chargen` is RFC 864's.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Final, Literal, TypeAlias

BulkKind: TypeAlias = Literal["echo", "upper", "chargen", "discard"]

CHUNK: Final = 256 * 1024
"""Bytes that are sent or received at once, at most."""

_BLOCK_SIZE: Final = 1_000_003
_PRINTABLE: Final = bytes(range(0x20, 0x7F))
_WIDTH: Final = 72


@cache
def sent_block(kind: BulkKind) -> bytes:
    """Return the block that is sent repeatedly, with its first `CHUNK` bytes once more; b"" for chargen."""
    if kind == "chargen":
        return b""
    letters = Random(1).choices(b"abcdefghijklmnopqrstuvwxyz", k=_BLOCK_SIZE)
    return _extended(bytes(letters))


@cache
def expected_block(kind: BulkKind) -> bytes:
    """Return the block that is received repeatedly, likewise; b"" for discard."""
    if kind == "discard":
        return b""
    if kind == "chargen":
        lines = ((_PRINTABLE * 2)[first : first + _WIDTH] + b"\r\n" for first in range(len(_PRINTABLE)))
        return _extended(b"".join(lines))
    block = sent_block(kind)
    return block.upper() if kind == "upper" else block


def period(block: bytes) -> int:
    """Return the length after which a block's data repeats; 1 for an empty one."""
    return max(len(block) - CHUNK, 1)


def _extended(block: bytes) -> bytes:
    return block + (block * (CHUNK // len(block) + 1))[:CHUNK]


class BulkCheck:
    """Compares the bytes that one connection receives. `count`: bytes received so far, all of them right."""

    __slots__ = ("_block", "_period", "count")

    def __init__(self, kind: BulkKind) -> None:
        self._block = expected_block(kind)
        self._period = period(self._block)
        self.count = 0

    def receive(self, data: bytes) -> bool:
        """Compare received data. Returns whether every byte is right; `count` then includes them."""
        for at in range(0, len(data), CHUNK):
            piece = data[at : at + CHUNK] if at or len(data) > CHUNK else data
            start = self.count % self._period
            if self._block[start : start + len(piece)] != piece:
                return False
            self.count += len(piece)
        return True
