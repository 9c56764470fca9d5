"""slicer: a stream comes in small pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import Behaviour, Decision, Link, Medium, Piece, Toxic


@dataclass(frozen=True, kw_only=True)
class Slicer(Toxic):
    """Chunks are cut into pieces of `average_size` ± `size_variation` bytes, `delay` apart."""

    type = "slicer"
    summary = "a stream comes in small pieces"
    meaning: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "each piece is sent by itself; the receiver's kernel may join them again",
    }
    refusal = "a message is one piece by its nature: cut in two it would be two messages"
    short = ("average_size", "size_variation")
    of_theirs = True

    average_size: int = attribute(64, "bytes", "of a piece", least=1, theirs=True)
    size_variation: int = attribute(0, "bytes", "how far the size varies", theirs=True)
    delay: float = attribute(0, "us", "from one piece to the next, in microseconds", theirs=True)

    def behaviour(self, link: Link) -> Behaviour:
        return _Knife(self, link)


class _Knife(Behaviour):
    capacity = 64 * 1024

    def __init__(self, toxic: Slicer, link: Link) -> None:
        self._random = link.random
        self._least = max(1, toxic.average_size - toxic.size_variation)
        self._most = toxic.average_size + toxic.size_variation
        self._delay = toxic.delay / 1e6
        self._next = 0.0

    def decide(self, now: float, size: int) -> Decision:
        pieces = []
        self._next = max(self._next, now)
        start = 0
        while start < size:
            stop = min(size, start + self._random.randint(self._least, self._most))
            pieces.append(Piece(self._next - now, start, stop))
            self._next += self._delay
            start = stop
        return tuple(pieces)
