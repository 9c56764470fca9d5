"""Pair the two events of a packet on a wire: it is sent, and it arrives or is lost. Pure.

    RawPacket (sent) ──> Packet, its start        RawPacket (arrived, lost) ──> the same Packet, its end

A packet that the wire synthesized, a duplicate or a corrupted copy, starts and ends when it arrives. A packet
that the wire rejected (too large, no such host) starts and ends when it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from bothends.trace.capture.packets import RawPacket, TransitEvent
from bothends.trace.model import Packet, Point

MAX_IN_TRANSIT: Final = 50_000  # packets in transit to remember: far more than are in transit at a time

_Key: TypeAlias = tuple[tuple[int, int], int]


class TransitTracker:
    """Pairs the transit events of each packet."""

    def __init__(self) -> None:
        self._in_transit: dict[_Key, Packet] = {}

    def track(self, raw: RawPacket, transit: TransitEvent, packet: Packet) -> Iterator[Point]:
        """Return the points of a transit event. `packet` is used if the packet is not known yet."""
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
            known.reaches, known.synthesized = transit.reaches, transit.event == "arrived"
            yield Point(known)
        known.until, known.lost = raw.at, transit.toxic
        yield Point(known, is_end=True)
