"""Datagrams: which call sent a packet, and which received it. Pure; a part of `correlator.py`.

Datagrams have no offsets. What tells them apart is where they go, what is in them, and their order: the first
that fits is taken, and taken once. A receive may have got only the beginning of one.

With packets: send ── packet ── receive. Without, and for UNIX sockets, send ── receive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from bothends.trace.model import Call, Packet, Relation, Socket, SocketAddress, Trace, trim_oldest

MAX_DESTINATIONS: Final = 2_000  # ports and paths to which datagrams are under way at a time
MAX_UNMATCHED: Final = 2_000  # datagrams that wait for their other end, of each port
# Nanoseconds by which the times of strace and of the capture may be apart. Where a call ends is known less
# well: strace doesn't count what it needs itself for describing its arguments.
CLOCK_SKEW: Final = 1_000_000
END_TIME_SLACK: Final = 250_000_000
COMPARED_BYTES: Final = 512  # bytes of a datagram

# What stands for the place that a datagram goes to: a port, or a path. (Not an address: a socket that is
# bound to every address receives what goes to any of them.)
DestinationKey: TypeAlias = int | str
Linker: TypeAlias = Callable[[Call | Packet, int, Relation, int], None]


class CallDatagram(NamedTuple):
    """A datagram, as a call tells of it. `size` is what the call moved, `place` who is at the other end."""

    call: Call
    size: int
    data: bytes
    address: SocketAddress | None


class DatagramCorrelator:
    """Matches datagrams, and tells of what it finds by `link`."""

    def __init__(self, trace: Trace, link: Linker) -> None:
        self._trace = trace
        self._link = link
        self.has_packets = True
        self._pending_sends: dict[DestinationKey, deque[CallDatagram]] = {}
        self._unclaimed_packets: dict[DestinationKey, deque[Packet]] = {}  # packets of which no call is known
        self._in_transit: dict[DestinationKey, deque[Packet]] = {}
        self._pending_receives: dict[
            DestinationKey, deque[CallDatagram]
        ] = {}  # receives of which no packet is known

    def on_send_started(self, call: Call, socket: Socket) -> Iterator[SocketAddress]:
        """A call begins to send. The places that it sends to."""
        for moved in _call_datagrams(call, socket):
            mark = _destination_key(moved.address, self._peer_of(socket))
            if mark is None:
                continue
            if moved.address is not None and moved.address.port:
                yield moved.address
            packet = next(
                (
                    each
                    for each in self._unclaimed_packets.get(mark, ())
                    if _is_packet_of_send(moved, each, socket)
                ),
                None,
            )
            if packet is not None:
                self._unclaimed_packets[mark].remove(packet)
                self._link_sent_packet(call, socket, packet)
            else:
                _queue(self._pending_sends, mark).append(moved)
            self._match_receives(mark)

    def on_send_ended(self, call: Call, socket: Socket) -> None:
        """A call has ended that was to send: what failed is on no wire."""
        if call.failed:
            for waiting in self._pending_sends.values():
                for moved in [each for each in waiting if each.call is call]:
                    waiting.remove(moved)

    def on_packet_sent(self, packet: Packet) -> Socket | None:
        """A packet has left. The socket that sent it, if it is known by now."""
        mark = packet.destination.port or 0
        sender = None
        for moved in self._pending_sends.get(mark, ()):
            socket = self._trace.sockets.get(moved.call.socket or 0)
            if socket is not None and _is_packet_of_send(moved, packet, socket):
                self._pending_sends[mark].remove(moved)
                self._link_sent_packet(moved.call, socket, packet)
                sender = socket
                break
        else:
            _queue(self._unclaimed_packets, mark).append(packet)
        return sender

    def on_packet_arrived(self, packet: Packet) -> None:
        """A packet has arrived."""
        mark = packet.destination.port or 0
        _queue(self._in_transit, mark).append(packet)
        self._match_receives(mark)

    def on_receive_ended(self, call: Call, socket: Socket) -> None:
        """A call has received."""
        mark = _destination_key(socket.local, socket)
        if mark is None or call.failed or call.result is None or call.flags & {"MSG_PEEK", "MSG_ERRQUEUE"}:
            return
        for moved in _call_datagrams(call, socket):
            _queue(self._pending_receives, mark).append(moved)
        self._match_receives(mark)

    def _link_sent_packet(self, call: Call, socket: Socket, packet: Packet) -> None:
        self._link(call, packet.number, "carries", 2 * packet.number)
        if socket.local is None or not socket.local.port:
            socket.local = packet.source

    def _match_receives(self, key: DestinationKey) -> None:
        """Find for each receive what it got."""
        for moved in list(self._pending_receives.get(key, ())):
            if self.has_packets and isinstance(key, int):
                packet = next(
                    (each for each in self._in_transit.get(key, ()) if _is_packet_of_receive(moved, each)),
                    None,
                )
                if packet is None:
                    continue
                self._in_transit[key].remove(packet)
                self._link(packet, moved.call.number, "feeds", 2 * moved.call.number + 1)
            else:
                sent = next(
                    (each for each in self._pending_sends.get(key, ()) if _is_send_of_receive(each, moved)),
                    None,
                )
                if sent is None:
                    continue
                self._pending_sends[key].remove(sent)
                self._link(sent.call, moved.call.number, "reaches", 2 * moved.call.number + 1)
            self._pending_receives[key].remove(moved)

    def _peer_of(self, socket: Socket) -> Socket | None:
        """UNIX: the socket at the other end of a pair, which has no name."""
        inode = socket.peer_inode
        return (
            next((each for each in self._trace.sockets.values() if each.inode == inode), None)
            if inode
            else None
        )


def _queue(
    queues: dict[DestinationKey, deque[CallDatagram]] | dict[DestinationKey, deque[Packet]],
    key: DestinationKey,
) -> deque:  # type: ignore[type-arg]
    if key not in queues:
        if len(queues) > MAX_DESTINATIONS:
            for idle in [each for each, queue in queues.items() if not queue]:
                del queues[idle]
            trim_oldest(queues, MAX_DESTINATIONS)
        queues[key] = deque(maxlen=MAX_UNMATCHED)
    return queues[key]


def _destination_key(address: SocketAddress | None, socket: Socket | None) -> DestinationKey | None:
    if address is not None and address.port:
        return address.port
    if address is not None and address.port is None and address.host:
        return address.host
    return f"socket {socket.inode}" if socket is not None and socket.inode else None


def _call_datagrams(call: Call, socket: Socket) -> Iterator[CallDatagram]:
    """The datagrams that a call moved or is to move."""
    if call.messages:
        for message in call.messages:
            yield CallDatagram(call, message.size, message.data, message.address or socket.peer)
        return
    done = call.until is not None and call.result is not None
    size = call.size if done or call.asked is None else call.asked
    yield CallDatagram(call, size, call.data, call.place or socket.peer)


def _is_packet_of_send(datagram: CallDatagram, packet: Packet, socket: Socket) -> bool:
    """Whether a packet is the datagram that a call sends."""
    if packet.size != datagram.size or datagram.address != packet.destination:
        return False
    if socket.local is not None and socket.local.port and socket.local.port != packet.source.port:
        return False
    return _has_same_prefix(datagram.data, packet.data)


def _is_packet_of_receive(datagram: CallDatagram, packet: Packet) -> bool:
    """Whether a packet is what a call received, the whole of it or its beginning."""
    if datagram.size > packet.size or (
        datagram.address is not None and datagram.address.port and datagram.address != packet.source
    ):
        return False
    return (
        _has_same_prefix(datagram.data, packet.data)
        and packet.at <= (datagram.call.until or packet.at) + END_TIME_SLACK
    )


def _is_send_of_receive(sent: CallDatagram, received: CallDatagram) -> bool:
    """The same without a packet. Who tells of himself tells of a send when it is done, which may be late."""
    return (
        received.size <= sent.size
        and _has_same_prefix(received.data, sent.data)
        and sent.call.at <= (received.call.until or sent.call.at) + END_TIME_SLACK
    )


def _has_same_prefix(data: bytes, whole: bytes) -> bool:
    known = min(len(data), COMPARED_BYTES)
    return whole[:known] == data[:known]
