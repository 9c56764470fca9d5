"""Match datagrams: which call sent a packet, and which call received it. Pure; used by `correlator.py`.

Datagrams have no offsets. They are matched by destination, content and order: the first match is used, and
used once. A receive may have only the beginning of a datagram.

With packets the links are: send ── packet ── receive. Without, and for UNIX sockets: send ── receive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from bothends.trace.correlation.timeline import key
from bothends.trace.model import Call, Packet, Relation, Socket, SocketAddress, Trace, trim_oldest

MAX_DESTINATIONS: Final = 2_000  # ports and paths with datagrams in transit at a time
MAX_UNMATCHED: Final = 2_000  # datagrams to one destination that wait for their counterpart
# Nanoseconds by which the timestamps of strace and of the capture may differ. The end of a call is less
# exact, because strace's durations don't include the time it takes to print the arguments.
CLOCK_SKEW: Final = 1_000_000
END_TIME_SLACK: Final = 250_000_000
COMPARED_BYTES: Final = 512  # of each datagram

# The destination of a datagram: a port, or a path. An address would not do, because a socket bound to the
# wildcard address receives datagrams to all of them.
DestinationKey: TypeAlias = int | str
Linker: TypeAlias = Callable[[Call | Packet, int, Relation, int], None]


class CallDatagram(NamedTuple):
    """A datagram of a call. `size` is the number of bytes transferred, `address` is the other end."""

    call: Call
    size: int
    data: bytes
    address: SocketAddress | None


class DatagramCorrelator:
    """Matches datagrams, and reports the links to `link`."""

    def __init__(self, trace: Trace, link: Linker) -> None:
        self._trace = trace
        self._link = link
        self.has_packets = True
        self._pending_sends: dict[DestinationKey, deque[CallDatagram]] = {}
        self._unclaimed_packets: dict[DestinationKey, deque[Packet]] = {}  # packets whose send is unknown
        self._in_transit: dict[DestinationKey, deque[Packet]] = {}  # packets that were not received yet
        self._pending_receives: dict[DestinationKey, deque[CallDatagram]] = {}  # receives without a packet

    def on_send_started(self, call: Call, socket: Socket) -> Iterator[SocketAddress]:
        """Add a call that starts to send. Returns the addresses that it sends to."""
        for datagram in _call_datagrams(call, socket):
            destination = _destination_key(datagram.address, self._peer_of(socket))
            if destination is None:
                continue
            if datagram.address is not None and datagram.address.port:
                yield datagram.address
            packet = next(
                (
                    each
                    for each in self._unclaimed_packets.get(destination, ())
                    if _is_packet_of_send(datagram, each, socket)
                ),
                None,
            )
            if packet is not None:
                self._unclaimed_packets[destination].remove(packet)
                self._link_sent_packet(call, socket, packet)
            else:
                _queue(self._pending_sends, destination).append(datagram)
            self._match_receives(destination)

    def on_send_ended(self, call: Call, socket: Socket) -> None:
        """Remove the datagrams of a send that has failed: there will be no packet."""
        if call.failed:
            for pending in self._pending_sends.values():
                for datagram in [each for each in pending if each.call is call]:
                    pending.remove(datagram)

    def on_packet_sent(self, packet: Packet) -> Socket | None:
        """Add a sent packet. Returns the socket that sent it, if it is known."""
        destination = packet.destination.port or 0
        for datagram in self._pending_sends.get(destination, ()):
            socket = self._trace.sockets.get(datagram.call.socket or 0)
            if socket is not None and _is_packet_of_send(datagram, packet, socket):
                self._pending_sends[destination].remove(datagram)
                self._link_sent_packet(datagram.call, socket, packet)
                return socket
        _queue(self._unclaimed_packets, destination).append(packet)
        return None

    def on_packet_arrived(self, packet: Packet) -> None:
        """Add a packet that has arrived."""
        destination = packet.destination.port or 0
        _queue(self._in_transit, destination).append(packet)
        self._match_receives(destination)

    def on_receive_ended(self, call: Call, socket: Socket) -> None:
        """Add a call that has received."""
        local = _destination_key(socket.local, socket)
        if local is None or call.failed or call.result is None or call.flags & {"MSG_PEEK", "MSG_ERRQUEUE"}:
            return
        for datagram in _call_datagrams(call, socket):
            _queue(self._pending_receives, local).append(datagram)
        self._match_receives(local)

    def _link_sent_packet(self, call: Call, socket: Socket, packet: Packet) -> None:
        self._link(call, packet.number, "carries", key(packet.number))
        socket.complete(packet.source, keep_wildcard=True)

    def _match_receives(self, destination: DestinationKey) -> None:
        """Match the pending receives at a destination with packets, or else with sends."""
        for datagram in list(self._pending_receives.get(destination, ())):
            receive = datagram.call.number
            if self.has_packets and isinstance(destination, int):
                packets = self._in_transit.get(destination, ())
                packet = next((each for each in packets if _is_packet_of_receive(datagram, each)), None)
                if packet is None:
                    continue
                self._in_transit[destination].remove(packet)
                self._link(packet, receive, "feeds", key(receive, True))
            else:
                sends = self._pending_sends.get(destination, ())
                sent = next((each for each in sends if _is_send_of_receive(each, datagram)), None)
                if sent is None:
                    continue
                self._pending_sends[destination].remove(sent)
                self._link(sent.call, receive, "reaches", key(receive, True))
            self._pending_receives[destination].remove(datagram)

    def _peer_of(self, socket: Socket) -> Socket | None:
        """UNIX: return the socket at the other end of a socketpair(), which has no name."""
        inode = socket.peer_inode
        return (
            next((each for each in self._trace.sockets.values() if each.inode == inode), None)
            if inode
            else None
        )


def _queue(
    queues: dict[DestinationKey, deque[CallDatagram]] | dict[DestinationKey, deque[Packet]],
    destination: DestinationKey,
) -> deque:  # type: ignore[type-arg]
    """Return the queue of a destination; create it if needed."""
    if destination not in queues:
        if len(queues) > MAX_DESTINATIONS:
            for empty in [each for each, queue in queues.items() if not queue]:
                del queues[empty]
            trim_oldest(queues, MAX_DESTINATIONS)
        queues[destination] = deque(maxlen=MAX_UNMATCHED)
    return queues[destination]


def _destination_key(address: SocketAddress | None, socket: Socket | None) -> DestinationKey | None:
    if address is not None and address.port:
        return address.port
    if address is not None and address.port is None and address.host:
        return address.host
    return f"socket {socket.inode}" if socket is not None and socket.inode else None


def _call_datagrams(call: Call, socket: Socket) -> Iterator[CallDatagram]:
    """Return the datagrams that a call transferred, or will transfer if it has not ended."""
    if call.messages:
        for message in call.messages:
            yield CallDatagram(call, message.size, message.data, message.address or socket.peer)
        return
    done = call.until is not None and call.result is not None
    size = call.size if done or call.requested is None else call.requested
    yield CallDatagram(call, size, call.data, call.address or socket.peer)


def _is_packet_of_send(datagram: CallDatagram, packet: Packet, socket: Socket) -> bool:
    """Return whether a packet is the datagram that a call sends."""
    if packet.size != datagram.size or datagram.address != packet.destination:
        return False
    if socket.local is not None and socket.local.port and socket.local.port != packet.source.port:
        return False
    return _has_same_prefix(datagram.data, packet.data)


def _is_packet_of_receive(datagram: CallDatagram, packet: Packet) -> bool:
    """Return whether a call received a packet, or the beginning of it."""
    if datagram.size > packet.size or (
        datagram.address is not None and datagram.address.port and datagram.address != packet.source
    ):
        return False
    return (
        _has_same_prefix(datagram.data, packet.data)
        and packet.at <= (datagram.call.until or packet.at) + END_TIME_SLACK
    )


def _is_send_of_receive(sent: CallDatagram, received: CallDatagram) -> bool:
    """Return whether a call received what another sent. (A recorded send has the time of its end.)"""
    return (
        received.size <= sent.size
        and _has_same_prefix(received.data, sent.data)
        and sent.call.at <= (received.call.until or sent.call.at) + END_TIME_SLACK
    )


def _has_same_prefix(data: bytes, whole: bytes) -> bool:
    known = min(len(data), COMPARED_BYTES)
    return whole[:known] == data[:known]
