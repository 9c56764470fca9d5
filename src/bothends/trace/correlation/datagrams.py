"""Datagrams: which call sent a packet, and which received it. Pure; a part of `correlator.py`.

Datagrams have no offsets. What tells them apart is where they go, what is in them, and their order: the first
that fits is taken, and taken once. A receive may have got only the beginning of one.

With packets: send ── packet ── receive. Without, and for UNIX sockets, send ── receive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from bothends.trace.model import Call, Packet, Place, Relation, Socket, Trace, keep_newest

MOST_MARKS: Final = 2_000  # ports and paths to which datagrams are under way at a time
UNMATCHED: Final = 2_000  # datagrams that wait for their other end, of each port
# Nanoseconds by which the times of strace and of the capture may be apart. Where a call ends is known less
# well: strace doesn't count what it needs itself for describing its arguments.
SKEW: Final = 1_000_000
LATE: Final = 250_000_000
COMPARED: Final = 512  # bytes of a datagram

# What stands for the place that a datagram goes to: a port, or a path. (Not an address: a socket that is
# bound to every address receives what goes to any of them.)
Mark: TypeAlias = int | str
Linker: TypeAlias = Callable[[Call | Packet, int, Relation, int], None]


class Moved(NamedTuple):
    """A datagram, as a call tells of it. `size` is what the call moved, `place` who is at the other end."""

    call: Call
    size: int
    data: bytes
    place: Place | None


class Datagrams:
    """Matches datagrams, and tells of what it finds by `link`."""

    def __init__(self, trace: Trace, link: Linker) -> None:
        self._trace = trace
        self._link = link
        self.has_packets = True
        self._sent: dict[Mark, deque[Moved]] = {}
        self._unsent: dict[Mark, deque[Packet]] = {}  # packets of which no call is known
        self._under_way: dict[Mark, deque[Packet]] = {}
        self._received: dict[Mark, deque[Moved]] = {}  # receives of which no packet is known

    def sends(self, call: Call, socket: Socket) -> Iterator[Place]:
        """A call begins to send. The places that it sends to."""
        for moved in _moved(call, socket):
            mark = _mark(moved.place, self._peer_of(socket))
            if mark is None:
                continue
            if moved.place is not None and moved.place.port:
                yield moved.place
            packet = next(
                (each for each in self._unsent.get(mark, ()) if _sent_as(moved, each, socket)), None
            )
            if packet is not None:
                self._unsent[mark].remove(packet)
                self._carry(call, socket, packet)
            else:
                _queue(self._sent, mark).append(moved)
            self._deliver(mark)

    def sent(self, call: Call, socket: Socket) -> None:
        """A call has ended that was to send: what failed is on no wire."""
        if call.failed:
            for waiting in self._sent.values():
                for moved in [each for each in waiting if each.call is call]:
                    waiting.remove(moved)

    def left(self, packet: Packet) -> Socket | None:
        """A packet has left. The socket that sent it, if it is known by now."""
        mark = packet.destination.port or 0
        sender = None
        for moved in self._sent.get(mark, ()):
            socket = self._trace.sockets.get(moved.call.socket or 0)
            if socket is not None and _sent_as(moved, packet, socket):
                self._sent[mark].remove(moved)
                self._carry(moved.call, socket, packet)
                sender = socket
                break
        else:
            _queue(self._unsent, mark).append(packet)
        return sender

    def came(self, packet: Packet) -> None:
        """A packet has arrived."""
        mark = packet.destination.port or 0
        _queue(self._under_way, mark).append(packet)
        self._deliver(mark)

    def received(self, call: Call, socket: Socket) -> None:
        """A call has received."""
        mark = _mark(socket.local, socket)
        if mark is None or call.failed or call.result is None or call.flags & {"MSG_PEEK", "MSG_ERRQUEUE"}:
            return
        for moved in _moved(call, socket):
            _queue(self._received, mark).append(moved)
        self._deliver(mark)

    def _carry(self, call: Call, socket: Socket, packet: Packet) -> None:
        self._link(call, packet.number, "carries", 2 * packet.number)
        if socket.local is None or not socket.local.port:
            socket.local = packet.source

    def _deliver(self, mark: Mark) -> None:
        """Find for each receive what it got."""
        for moved in list(self._received.get(mark, ())):
            if self.has_packets and isinstance(mark, int):
                packet = next((each for each in self._under_way.get(mark, ()) if _got(moved, each)), None)
                if packet is None:
                    continue
                self._under_way[mark].remove(packet)
                self._link(packet, moved.call.number, "feeds", 2 * moved.call.number + 1)
            else:
                sent = next((each for each in self._sent.get(mark, ()) if _reached(each, moved)), None)
                if sent is None:
                    continue
                self._sent[mark].remove(sent)
                self._link(sent.call, moved.call.number, "reaches", 2 * moved.call.number + 1)
            self._received[mark].remove(moved)

    def _peer_of(self, socket: Socket) -> Socket | None:
        """UNIX: the socket at the other end of a pair, which has no name."""
        inode = socket.peer_inode
        return (
            next((each for each in self._trace.sockets.values() if each.inode == inode), None)
            if inode
            else None
        )


def _queue(queues: dict[Mark, deque[Moved]] | dict[Mark, deque[Packet]], mark: Mark) -> deque:  # type: ignore[type-arg]
    if mark not in queues:
        if len(queues) > MOST_MARKS:
            for idle in [each for each, queue in queues.items() if not queue]:
                del queues[idle]
            keep_newest(queues, MOST_MARKS)
        queues[mark] = deque(maxlen=UNMATCHED)
    return queues[mark]


def _mark(place: Place | None, socket: Socket | None) -> Mark | None:
    if place is not None and place.port:
        return place.port
    if place is not None and place.port is None and place.host:
        return place.host
    return f"socket {socket.inode}" if socket is not None and socket.inode else None


def _moved(call: Call, socket: Socket) -> Iterator[Moved]:
    """The datagrams that a call moved or is to move."""
    if call.messages:
        for message in call.messages:
            yield Moved(call, message.size, message.data, message.place or socket.peer)
        return
    done = call.until is not None and call.result is not None
    size = call.size if done or call.asked is None else call.asked
    yield Moved(call, size, call.data, call.place or socket.peer)


def _sent_as(moved: Moved, packet: Packet, socket: Socket) -> bool:
    """Whether a packet is the datagram that a call sends."""
    if packet.size != moved.size or moved.place != packet.destination:
        return False
    if socket.local is not None and socket.local.port and socket.local.port != packet.source.port:
        return False
    return _alike(moved.data, packet.data)


def _got(moved: Moved, packet: Packet) -> bool:
    """Whether a packet is what a call received, the whole of it or its beginning."""
    if moved.size > packet.size or (
        moved.place is not None and moved.place.port and moved.place != packet.source
    ):
        return False
    return _alike(moved.data, packet.data) and packet.at <= (moved.call.until or packet.at) + LATE


def _reached(sent: Moved, got: Moved) -> bool:
    """The same without a packet. Who tells of himself tells of a send when it is done, which may be late."""
    return (
        got.size <= sent.size
        and _alike(got.data, sent.data)
        and sent.call.at <= (got.call.until or sent.call.at) + LATE
    )


def _alike(data: bytes, whole: bytes) -> bool:
    known = min(len(data), COMPARED)
    return whole[:known] == data[:known]
