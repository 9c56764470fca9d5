"""What TCP sent again on a wire, and whether it had to. Pure.

On a wire of ours each packet was seen at both ends: so it is known whether what was sent again had been
lost, and where its acknowledgement was.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from bothends.trace.model import Packet, SocketAddress

_MAX_PACKET: Final = 1 << 16  # bytes of a packet: no copy of a byte begins further before it
NEARBY_PACKETS: Final = (
    200  # packets nearest to a moment: more are not under way that would say anything else
)

_AddressPair: TypeAlias = tuple[SocketAddress, SocketAddress]


@dataclass(frozen=True, slots=True)
class Retransmission:
    """A segment that was sent again, and the first that had its bytes."""

    original: Packet
    packet: Packet
    was_lost: bool
    reason: str  # which toxic has taken it; or where its acknowledgement was


@dataclass(slots=True)
class _Flow:
    """One direction of a connection: copies of its bytes by where they begin, and what it acknowledges."""

    copies: list[tuple[int, int, Packet]] = field(default_factory=list)
    acks: list[Packet] = field(default_factory=list)
    highest: list[int] = field(default_factory=list)  # what had been acknowledged by then

    def add(self, packet: Packet) -> None:
        """One more packet that has left."""
        start, end = sequence_range(packet)
        if end > start:
            insort(self.copies, (start, packet.number, packet))
        if packet.acks is not None:
            self.acks.append(packet)
            self.highest.append(max(packet.acks, self.highest[-1] if self.highest else 0))

    def copies_of(self, packet: Packet) -> list[Packet]:
        """The copies of any of a packet's bytes, in the order in which they left."""
        start, end = sequence_range(packet)
        low = bisect_left(self.copies, (start - _MAX_PACKET,))
        high = bisect_left(self.copies, (end,))
        near = [each for _, _, each in self.copies[low:high] if sequence_range(each)[1] > start]
        return sorted(near, key=lambda each: each.number)

    def acks_of(self, end: int, until: int) -> list[Packet]:
        """What acknowledges everything up to a byte, of what had left by a time."""
        first = bisect_left(self.highest, end)
        found = self.acks[first : first + NEARBY_PACKETS]
        return [each for each in found if each.at < until and (each.acks or 0) >= end]


def sequence_range(packet: Packet) -> tuple[int, int]:
    """The sequence numbers of a segment, as offsets: SYN and FIN have one each (RFC 9293 section 3.4)."""
    start = packet.offset or 0
    return start - ("SYN" in packet.flags), start + packet.size + ("FIN" in packet.flags)


def find_retransmissions(packets: Iterable[Packet]) -> tuple[list[Retransmission], Counter[tuple[str, str]]]:
    """What was sent again on a wire, and how many segments there were on each of its ways."""
    flows: dict[_AddressPair, _Flow] = defaultdict(_Flow)
    found: list[Retransmission] = []
    count: Counter[tuple[str, str]] = Counter()
    for packet in packets:
        if packet.protocol != "tcp" or not packet.reaches:
            continue
        ends = packet.source, packet.destination
        if "SYN" in packet.flags and not packet.resent and not packet.made:
            flows.pop(ends, None)  # the ports are used anew
        flow, back = flows[ends], flows[ends[::-1]]
        if packet.made and not any(packet.raw == each.raw for each in flow.copies_of(packet)):
            continue  # it has other bits than were sent: no kernel takes it
        start, end = sequence_range(packet)
        count[packet.interface, packet.reaches] += end > start and not packet.made
        if packet.resent and not packet.made and (packet.size or "SYN" in packet.flags):
            again = _classify(packet, flow.copies_of(packet), back)
            found += [again] if again is not None else []
        flow.add(packet)
    return found, count


def _classify(packet: Packet, copies: list[Packet], back: _Flow) -> Retransmission | None:
    """Whether what is sent again was lost before. None where it can't be told."""
    if not copies:
        return None
    start, end = sequence_range(packet)
    if not _covers([each for each in copies if each.until is not None and not each.lost], start, end):
        lost = [each.lost for each in copies if each.lost]
        return Retransmission(copies[0], packet, was_lost=True, reason=lost[-1] if lost else "damage")
    if "SYN" in packet.flags and "ACK" not in packet.flags and not back.copies:
        return None  # it has come, and was not answered: the listener's queue is full
    acks = back.acks_of(end, packet.at)
    if not acks:
        why = "not sent yet"
    elif all(each.lost or each.until is None for each in acks):
        why = "lost"
    else:
        why = "on its way"
    return Retransmission(copies[0], packet, was_lost=False, reason=why)


def _covers(packets: Iterable[Packet], start: int, end: int) -> bool:
    """Whether all sequence numbers from `start` up to `end` are in these packets."""
    for low, high in sorted(map(sequence_range, packets)):
        if low <= start < high:
            start = high
    return start >= end
