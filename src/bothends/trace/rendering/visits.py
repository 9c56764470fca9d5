"""Connections to one address that repeat: programs that ask on a connection of its own each time. Pure.

A connection has parts: what the client does from socket() to close(), what the server does with the accepted
socket, the packets of each direction, and its accept(). Connections overlap, so each part is compared with
the same part of the connection before it, whatever happens in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from bothends.trace.capture.calls import ACCEPTING
from bothends.trace.model import Call, Packet, Socket, SocketAddress, Trace, trim_oldest

MAX_VISIT: Final = 8  # calls of one end on a short connection
MAX_OPEN: Final = 1_000  # connections that have begun and not ended
MAX_ADDRESSES: Final = 20_000
_ACTIVE: Final = 256  # events of an address, after which a part that had none of them has ended

Token: TypeAlias = tuple[object, ...]


@dataclass(slots=True)
class VisitPart:
    """One part of the connections to an address: what it was in the last one, and how often in a row."""

    known: list[Token] = field(default_factory=list)
    repeats: int = 0
    last: int = 0  # the number of its last event among those of the address
    slowest: int = 0  # nanoseconds: of the connections
    open: dict[object, tuple[int, list[Token]]] = field(default_factory=dict)  # when each began, and so far

    def take(self, connection: object, at: int, token: Token, *, is_last: bool) -> tuple[bool, int]:
        """Take what happens next on a connection. Returns whether it was so before, and when this one began.

        `at`: in nanoseconds. `is_last`: the connection has ended.
        """
        began, tokens = self.open.pop(connection, (at, []))
        is_expected = len(tokens) < len(self.known) and self.known[len(tokens)] == token
        tokens.append(token)
        if not is_last:
            self.open[connection] = began, tokens
            trim_oldest(self.open, MAX_OPEN)
        elif tokens == self.known:
            self.repeats += 1
        else:
            self.known, self.repeats = tokens, 1
        return is_expected, began


@dataclass(slots=True, eq=False)
class VisitedAddress:
    """An address to which connections go. `visits`: how many in a row were short."""

    address: SocketAddress
    visits: int = 0
    events: int = 0
    parts: dict[object, VisitPart] = field(default_factory=dict)

    def part(self, key: object) -> VisitPart:
        """Return a part, which has an event now."""
        part = self.parts.get(key)
        if part is None:
            part = self.parts[key] = VisitPart()
        self.events += 1
        part.last = self.events
        return part

    def repeats_itself(self, times: int) -> bool:
        """Return whether each part was the same in `times` connections in a row."""
        active = [each for each in self.parts.values() if self.events - each.last <= _ACTIVE]
        return bool(active) and all(each.repeats >= times for each in active)

    @property
    def leader(self) -> object:
        """The part that counts the connections: the client's, if it is traced."""
        asks = [each for each in self.parts if isinstance(each, tuple) and each[0] == "asks"]
        return asks[0] if asks else "serves"


class Visits:
    """Finds out which calls and packets belong to short connections to an address that had others before."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._addresses: dict[SocketAddress, VisitedAddress] = {}
        self._by_socket: dict[int, VisitedAddress] = {}
        self._by_ends: dict[frozenset[SocketAddress], VisitedAddress] = {}
        self._counts: dict[int, int] = {}  # calls so far, by socket
        self._last: dict[int, VisitedAddress] = {}  # where a process has asked last

    def of_call(self, call: Call) -> VisitedAddress | None:
        """Return the address of a call's connection, None if it is not known to be short."""
        if call.name == "socket":
            last = self._last.get(call.process)
            return last if last is not None and last.visits else None
        socket = self._stream(call.socket)
        if socket is not None and call.name in ACCEPTING and socket.local is not None:
            address = self._addresses.get(socket.local)
            return address if address is not None and address.visits else None
        return self._by_socket.get(call.socket or 0)

    def of_packet(self, packet: Packet) -> VisitedAddress | None:
        """Return the address of a packet's connection, None if it is not known to be short."""
        ends = frozenset((packet.source, packet.destination))
        if "SYN" in packet.flags and "ACK" not in packet.flags:
            address = self._addresses.get(packet.destination)
            self._by_ends.pop(ends, None)  # the ports may have been used before
            if address is not None and address.visits:
                self._by_ends[ends] = address
                trim_oldest(self._by_ends, MAX_ADDRESSES)
        return self._by_ends.get(ends)

    def key_of(self, call: Call) -> object:
        """Return the part of a connection that a call belongs to."""
        if call.name in ACCEPTING:
            return "accepts"
        socket = self._trace.sockets.get(call.socket or 0)
        is_accepted = socket is not None and socket.accepted_from is not None
        return "serves" if is_accepted else ("asks", call.process)

    def count(self, call: Call, address: VisitedAddress | None) -> bool:
        """Count a call that has ended. Returns False if the connection is no longer a short one."""
        if address is not None and call.created_id is not None:
            self._by_socket[call.created_id] = address
            trim_oldest(self._by_socket, MAX_ADDRESSES)
        number, socket = call.socket or 0, self._stream(call.socket)
        if socket is None or socket.is_listener:
            return True
        count = self._counts[number] = self._counts.get(number, 0) + 1
        trim_oldest(self._counts, MAX_ADDRESSES)
        if count > MAX_VISIT and address is not None:
            address.visits = 0
            self._by_socket.pop(number, None)
            if socket.local is not None and socket.peer is not None:
                self._by_ends.pop(frozenset((socket.local, socket.peer)), None)
            return False
        if call.name == "close":
            self._counts.pop(number, None)
            self._by_socket.pop(number, None)
            if socket.accepted_from is None and socket.peer is not None:
                self._count_visit(call, socket.peer, is_short=count <= MAX_VISIT)
        return True

    def _count_visit(self, call: Call, peer: SocketAddress, *, is_short: bool) -> None:
        address = self._addresses.get(peer)
        if address is None:
            address = self._addresses[peer] = VisitedAddress(peer)
            trim_oldest(self._addresses, MAX_ADDRESSES)
        address.visits = address.visits + 1 if is_short else 0
        self._last[call.process] = address
        trim_oldest(self._last, MAX_ADDRESSES)

    def _stream(self, number: int | None) -> Socket | None:
        socket = self._trace.sockets.get(number or 0)
        return socket if socket is not None and socket.kind == "stream" else None
