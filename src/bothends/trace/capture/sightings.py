"""Join the sightings of a packet in several network namespaces: where sent, where arrived. Pure.

    sightings ──> SightingJoiner.add() ──> take() ──> packets, each once

1. A packet that passes through a virtual network is captured at each interface on its way. It is the same if
   what routers leave as it is, is the same: the IP identification, and of TCP all but the ports and the
   checksum. NAT changes addresses and ports (RFC 3022), not these. A retransmission has another
   identification or another timestamp. Datagrams may have none: what is seen at one interface twice are two.
2. The first sighting is where it was sent, the last one where it arrived, if that is another namespace. A
   packet with other addresses in the last one has been translated on its way.
3. Sightings later than the first one by more than `HOLD` are left out: the packet has been passed on.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from bothends.trace.capture.packets import RawPacket, TransitEvent
from bothends.trace.model import trim_oldest

HOLD: Final = 10_000_000  # nanoseconds: far longer than a packet takes between namespaces of one machine
FORGET: Final = 1_000_000_000  # nanoseconds, after which the same bytes are another packet
MAX_SAME: Final = 64  # packets with the same bytes that are told apart
MAX_KNOWN: Final = 50_000  # packets whose later sightings are recognized
_TCP, _UDP = 6, 17

Key: TypeAlias = tuple[object, ...]


@dataclass(slots=True, eq=False)
class _Sightings:
    """The first and the last sighting of a packet, and their namespaces."""

    first: RawPacket
    first_namespace: int
    last: RawPacket
    last_namespace: int
    interfaces: set[str]
    is_taken: bool = False


class SightingJoiner:
    """Joins sightings. Add them in the order of their times."""

    def __init__(self) -> None:
        self._known: dict[Key, list[_Sightings]] = {}  # several if the same bytes were sent again
        self._waiting: list[_Sightings] = []
        self._ready: list[tuple[int, int, RawPacket]] = []
        self._numbers = itertools.count(1)

    def add(self, sightings: Iterable[tuple[RawPacket, int]]) -> None:
        """Add sightings, each with a number for its namespace."""
        for raw, namespace in sightings:
            key = key_of(raw.data)
            same = self._known.get(key, []) if key is not None else []
            same = [each for each in same if raw.at - each.first.at < FORGET]
            known = next((each for each in same if raw.interface not in each.interfaces), None)
            if known is None:
                found = _Sightings(raw, namespace, raw, namespace, {raw.interface})
                self._waiting.append(found)
                if key is not None:
                    self._known[key] = [*same[-MAX_SAME:], found]
                    trim_oldest(self._known, MAX_KNOWN)
                continue
            known.interfaces.add(raw.interface)
            if not known.is_taken:
                known.last, known.last_namespace = raw, namespace

    def take(self, until: int) -> list[RawPacket]:
        """Return the packets of up to a time, in nanoseconds, in the order of their times."""
        count = 0
        for each in self._waiting:
            if each.first.at > until:
                break
            count += 1
            each.is_taken = True
            self._pass_on(each)
        del self._waiting[:count]
        found = []
        while self._ready and self._ready[0][0] <= until:
            found.append(heapq.heappop(self._ready)[2])
        return found

    def has_waiting(self) -> bool:
        """Return whether packets wait to be taken."""
        return bool(self._waiting or self._ready)

    def _pass_on(self, packet: _Sightings) -> None:
        first, last = packet.first, packet.last
        if packet.first_namespace == packet.last_namespace:
            self._push(first)
            return
        direction, number = (packet.first_namespace, packet.last_namespace), next(self._numbers)
        arrived_as = last.data if _ends_of(first.data) != _ends_of(last.data) else b""
        sent = TransitEvent("sent", direction, number, last.interface, arrived_as=arrived_as)
        self._push(first._replace(transit=sent))
        self._push(last._replace(transit=sent._replace(event="arrived", arrived_as=b"")))

    def _push(self, raw: RawPacket) -> None:
        heapq.heappush(self._ready, (raw.at, next(self._numbers), raw))


def key_of(data: bytes) -> Key | None:
    """Return what identifies an IP packet on its whole way; None if nothing does that for sure."""
    if len(data) < 28:
        return None
    if data[0] >> 4 == 4:
        start, protocol, identification = (data[0] & 15) * 4, data[9], data[4:6]
    else:
        start, protocol, identification = 40, data[6], data[1:4]  # the flow label
    body = data[start:]
    if protocol == _TCP and len(body) >= 20:
        return _TCP, identification, body[4:16], body[18:]
    if protocol == _UDP and len(body) >= 8:
        # A datagram has no sequence number: the same ends as well, which NAT would change.
        return _UDP, identification, _ends_of(data), body[8:]
    return None


def _ends_of(data: bytes) -> bytes:
    """Return the addresses and the ports of an IP packet."""
    if data[0] >> 4 == 4:
        start = (data[0] & 15) * 4
        return data[12:20] + data[start : start + 4]
    return data[8:44]
