"""slicer: cut a stream into small chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import Decision, Delivery, LinkContext, Medium, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class Slicer(Toxic):
    """Cuts chunks into pieces of `average_size` ± `size_variation` bytes, sent `delay` apart."""

    type = "slicer"
    summary = "cuts a stream into small pieces"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "each piece is sent separately; the receiver's kernel may coalesce them",
    }
    incompatibility = "a message cannot be cut: its pieces would be separate messages"
    short_form = ("average_size", "size_variation")
    in_toxiproxy = True

    average_size: int = attribute(64, "bytes", "mean size of a piece", minimum=1, in_toxiproxy=True)
    size_variation: int = attribute(0, "bytes", "maximum deviation from the mean size", in_toxiproxy=True)
    delay: float = attribute(0, "us", "time between two pieces, in microseconds", in_toxiproxy=True)

    def new_state(self, link: LinkContext) -> ToxicState:
        return _SlicerState(self, link)


class _SlicerState(ToxicState):
    capacity = 64 * 1024

    def __init__(self, toxic: Slicer, link: LinkContext) -> None:
        self._random = link.random
        self._min_size = max(1, toxic.average_size - toxic.size_variation)
        self._max_size = toxic.average_size + toxic.size_variation
        self._delay = toxic.delay / 1e6
        self._next_at = 0.0

    def decide(self, now: float, size: int) -> Decision:
        pieces = []
        self._next_at = max(self._next_at, now)
        start = 0
        while start < size:
            stop = min(size, start + self._random.randint(self._min_size, self._max_size))
            pieces.append(Delivery(self._next_at - now, start, stop))
            self._next_at += self._delay
            start = stop
        return tuple(pieces)
