"""Packets on a wire of ours: each is seen when it leaves, and when it arrives or is lost. Pure.

    Raw (left) ──> Packet, its beginning        Raw (arrived, lost) ──> the same Packet, its end

What the wire itself has made, a double or a packet with other bits, was never sent so: it begins and ends
when it arrives. What was refused at once (too large, for nobody) begins and ends when it left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from bothends.trace.capture.packets import Crossing, Raw
from bothends.trace.model import Moment, Packet

MOST: Final = 50_000  # remembered: more are never under way at once

_Key: TypeAlias = tuple[tuple[int, int], int]


class Crossings:
    """Pairs what was seen of each packet."""

    def __init__(self) -> None:
        self._known: dict[_Key, Packet] = {}

    def take(self, raw: Raw, crossing: Crossing, packet: Packet) -> Iterator[Moment]:
        """The moments that a sighting makes. `packet` is what was seen, if it is new."""
        key = crossing.way, crossing.number
        known = self._known.get(key) if crossing.number else None
        if crossing.event == "sent":
            packet.reaches = crossing.reaches
            self._known[key] = packet
            if len(self._known) > MOST:
                del self._known[next(iter(self._known))]
            yield Moment(packet)
            return
        if known is None or known.until is not None:
            known = packet
            known.reaches, known.made = crossing.reaches, crossing.event == "arrived"
            yield Moment(known)
        known.until, known.lost = raw.at, crossing.toxic
        yield Moment(known, is_end=True)
