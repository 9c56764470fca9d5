"""Find TCP retransmissions on a wire, and whether they were necessary. Pure.

On a wire each packet is observed at both ends, so it is known whether a retransmitted segment had been lost,
and where its acknowledgement was at the time.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from bothends.trace.model import Packet, SocketAddress

_MAX_PACKET: Final = 1 << 16  # bytes: a packet that contains a byte starts at most this far before it
NEARBY_PACKETS: Final = 200  # packets to search around a point in time: far more than are in transit

_AddressPair: TypeAlias = tuple[SocketAddress, SocketAddress]


@dataclass(frozen=True, slots=True)
class Retransmission:
    """A retransmitted segment, and the first one with its bytes."""

    original: Packet
    packet: Packet
    was_lost: bool
    reason: str  # lost: the toxic that dropped it; otherwise the state of its acknowledgement


@dataclass(slots=True)
class _Flow:
    """One direction of a connection: its segments by their first offset, and its acknowledgements."""

    copies: list[tuple[int, int, Packet]] = field(default_factory=list)
    acks: list[Packet] = field(default_factory=list)
    highest: list[int] = field(default_factory=list)  # the highest acknowledgement, up to each of `acks`

    def add(self, packet: Packet) -> None:
        """Add a sent packet."""
        start, end = sequence_range(packet)
        if end > start:
            insort(self.copies, (start, packet.number, packet))
        if packet.acks is not None:
            self.acks.append(packet)
            self.highest.append(max(packet.acks, self.highest[-1] if self.highest else 0))

    def copies_of(self, packet: Packet) -> list[Packet]:
        """Return the earlier segments with any of a packet's bytes, in the order in which they were sent."""
        start, end = sequence_range(packet)
        low = bisect_left(self.copies, (start - _MAX_PACKET,))
        high = bisect_left(self.copies, (end,))
        near = [each for _, _, each in self.copies[low:high] if sequence_range(each)[1] > start]
        return sorted(near, key=lambda each: each.number)

    def acks_of(self, end: int, until: int) -> list[Packet]:
        """Return the packets sent before `until` that acknowledge all bytes before `end`."""
        first = bisect_left(self.highest, end)
        found = self.acks[first : first + NEARBY_PACKETS]
        return [each for each in found if each.at < until and (each.acks or 0) >= end]


def sequence_range(packet: Packet) -> tuple[int, int]:
    """Return a segment's range of offsets. SYN and FIN occupy one each (RFC 9293, section 3.4)."""
    start = packet.offset or 0
    return start - ("SYN" in packet.flags), start + packet.size + ("FIN" in packet.flags)


def find_retransmissions(packets: Iterable[Packet]) -> tuple[list[Retransmission], list[Packet]]:
    """Return the retransmissions on a wire, and all segments: packets with bytes, SYN or FIN."""
    flows: dict[_AddressPair, _Flow] = defaultdict(_Flow)
    found: list[Retransmission] = []
    segments: list[Packet] = []
    for packet in packets:
        if packet.protocol != "tcp" or not packet.reaches:
            continue
        ends = packet.source, packet.destination
        if "SYN" in packet.flags and not packet.resent and not packet.synthesized:
            flows.pop(ends, None)  # a new connection reuses the ports
        flow, back = flows[ends], flows[ends[::-1]]
        if packet.synthesized and not any(packet.raw == each.raw for each in flow.copies_of(packet)):
            continue  # a corrupted copy: the receiver discards it because of its checksum
        start, end = sequence_range(packet)
        if end > start and not packet.synthesized:
            segments.append(packet)
        if packet.resent and not packet.synthesized and (packet.size or "SYN" in packet.flags):
            classified = _classify(packet, flow.copies_of(packet), back)
            found += [classified] if classified is not None else []
        flow.add(packet)
    return found, segments


def _classify(packet: Packet, copies: list[Packet], back: _Flow) -> Retransmission | None:
    """Determine whether a retransmitted segment had been lost. Returns None if that is unknown."""
    if not copies:
        return None
    start, end = sequence_range(packet)
    if not _covers([each for each in copies if each.until is not None and not each.lost], start, end):
        lost = [each.lost for each in copies if each.lost]
        return Retransmission(copies[0], packet, was_lost=True, reason=lost[-1] if lost else "damage")
    if "SYN" in packet.flags and "ACK" not in packet.flags and not back.copies:
        return None  # the SYN arrived and was not answered: the accept queue is full
    acks = back.acks_of(end, packet.at)
    if not acks:
        reason = "not sent yet"
    elif all(each.lost or each.until is None for each in acks):
        reason = "lost"
    else:
        reason = "in transit"
    return Retransmission(copies[0], packet, was_lost=False, reason=reason)


def _covers(packets: Iterable[Packet], start: int, end: int) -> bool:
    """Return whether these packets contain all sequence numbers from `start` up to `end`."""
    for low, high in sorted(map(sequence_range, packets)):
        if low <= start < high:
            start = high
    return start >= end
