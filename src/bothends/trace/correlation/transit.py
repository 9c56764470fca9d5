"""Packets on a wire of ours: each is seen when it leaves, and when it arrives or is lost. Pure.

    Raw (left) ──> Packet, its beginning        Raw (arrived, lost) ──> the same Packet, its end

What the wire itself has made, a double or a packet with other bits, was never sent so: it begins and ends
when it arrives. What was refused at once (too large, for nobody) begins and ends when it left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from bothends.trace.capture.packets import RawPacket, TransitEvent
from bothends.trace.model import Packet, Point

MAX_IN_TRANSIT: Final = 50_000  # remembered: more are never under way at once

_Key: TypeAlias = tuple[tuple[int, int], int]


class TransitTracker:
    """Pairs what was seen of each packet."""

    def __init__(self) -> None:
        self._in_transit: dict[_Key, Packet] = {}

    def track(self, raw: RawPacket, transit: TransitEvent, packet: Packet) -> Iterator[Point]:
        """The moments that a sighting makes. `packet` is what was seen, if it is new."""
        key = transit.direction, transit.number
        known = self._in_transit.get(key) if transit.number else None
        if transit.event == "sent":
            packet.reaches = transit.reaches
            self._in_transit[key] = packet
            if len(self._in_transit) > MAX_IN_TRANSIT:
                del self._in_transit[next(iter(self._in_transit))]
            yield Point(packet)
            return
        if known is None or known.until is not None:
            known = packet
            known.reaches, known.made = transit.reaches, transit.event == "arrived"
            yield Point(known)
        known.until, known.lost = raw.at, transit.toxic
        yield Point(known, is_end=True)
