"""Derive what is known of each socket at a point of a trace: its TCP state and both of its buffers. Pure.

    program ── send() ──> send buffer ── packets ──> peer ── ACK ──> out of the send buffer
    program <── recv() ── receive buffer <── packets ── peer

The kernel does not report these figures. They follow from the calls and packets so far:

1. Sent bytes are those of the calls that have ended, or of packets, whichever are more: a call ends after
   its packets. They leave the send buffer when the peer's kernel acknowledges them (RFC 9293, section 3.8.6),
   which does not mean that the program at the other end has read them.
2. Bytes arrive in order: what comes after a lost packet is counted when that packet has arrived.
3. Without the SYN of a connection, or without packets, offsets and acknowledgements are unknown: then the
   bytes in flight are too, and unread bytes are those that the other end has sent and this one has not
   received.
4. Datagrams are counted, not their bytes: recv() takes a whole one, however little of it fits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from bothends.trace.capture.calls import ACCEPTING, RECEIVING, SENDING
from bothends.trace.model import Call, Packet, Point, Socket, SocketAddress, Trace, trim_oldest
from bothends.trace.rendering.tcp_states import TcpStateTracker

MAX_SOCKETS: Final = 20_000
_End: TypeAlias = tuple[str, SocketAddress | int, SocketAddress | int]
_MAX_GAPS: Final = 100  # pieces of a stream that have arrived out of order


@dataclass(slots=True)
class SocketState:
    """What is known of one socket. None: it is not known.

    `process` is the number of the process that last used it. `sent` and `received` are bytes of calls,
    `unacknowledged` bytes of the send buffer, `unread` bytes of the receive buffer; of datagram sockets,
    `sent`, `received` and `unread` are datagrams. `queued` are the connections in a listener's accept queue.
    """

    socket: int
    process: int | None = None
    tcp: str = ""
    sent: int = 0
    received: int = 0
    unacknowledged: int | None = None
    unread: int | None = None
    queued: int | None = None
    is_closed: bool = False


@dataclass(slots=True)
class _Stream:
    """The counters of one socket. `arrived` counts in order, `pieces` came after a gap: (begin, end)."""

    sent: int = 0
    in_packets: int = 0
    acknowledged: int = 0
    received: int = 0
    arrived: int = 0
    pieces: list[tuple[int, int]] = field(default_factory=list)
    has_syn: bool = False
    queued: int = 0


class SocketStateTracker:
    """Follows the sockets of a trace. `changed`: those whose state may differ since it was cleared."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._tcp = TcpStateTracker(trace)
        self._streams: dict[int, _Stream] = {}
        self._names: dict[int, str] = {}  # the TCP states
        self._processes: dict[int, int] = {}
        self._closed: dict[int, None] = {}  # a set in the order in which they were closed
        self._peers: dict[int, int] = {}  # the socket at the other end
        self._by_end: dict[_End, int] = {}  # open sockets that were used, by what names them
        self._awaited: dict[_End, int] = {}  # those whose peer has not been used, by what names the peer
        self.changed: set[int] = set()

    def add(self, point: Point) -> None:
        """Apply a point of the trace, in order."""
        event = point.event
        trim_oldest(self._streams, MAX_SOCKETS)
        for numbers in (self._names, self._processes, self._closed, self._peers, self._by_end, self._awaited):
            trim_oldest(numbers, MAX_SOCKETS)
        if isinstance(event, Packet):
            self._add_packet(event, point)
        elif isinstance(event, Call) and point.is_end:
            self._add_call(event)
        for socket, name in self._tcp.transitions(point):
            known = self._trace.sockets.get(socket)
            if known is not None and known.is_listener and name != "LISTEN":
                if name == "ESTABLISHED":
                    self._stream(socket).queued += 1
                continue  # of a connection that is not accepted yet
            self._names[socket] = name
            self.changed.add(socket)

    def state(self, socket: int) -> SocketState | None:
        """Return what is known of a socket; None if it is no longer in the trace."""
        known, stream = self._trace.sockets.get(socket), self._streams.get(socket, _Stream())
        if known is None:
            return None
        found = SocketState(
            socket, self._processes.get(socket), self._names.get(socket, ""),
            is_closed=socket in self._closed,
        )  # fmt: skip
        if known.is_listener:
            found.queued = stream.queued
            return found
        found.sent, found.received = max(stream.sent, stream.in_packets), stream.received
        if known.kind == "stream":
            peer = self._streams.get(self._peers.get(socket, 0))
            if stream.has_syn:
                found.unacknowledged = max(0, found.sent - stream.acknowledged)
                found.unread = max(0, stream.arrived - stream.received)
            elif peer is not None:
                found.unread = max(0, peer.sent - stream.received)
        elif known.family in ("inet", "inet6"):
            found.unread = max(0, stream.arrived - stream.received)
        return found

    def states(self) -> list[SocketState]:
        """Return the sockets that are used, in the order of their first use."""
        found = (self.state(each) for each in self._processes)
        return [each for each in found if each is not None]

    def _stream(self, socket: int) -> _Stream:
        self.changed.add(socket)
        found = self._streams.get(socket)
        if found is None:
            found = self._streams[socket] = _Stream()
        return found

    # Calls --------------------------------------------------------------------------------------------

    def _add_call(self, call: Call) -> None:
        if call.socket is None or call.failed:
            return
        socket = self._trace.sockets.get(call.socket)
        if socket is None or not socket.is_shown:
            return
        if call.name == "close":
            self._add_close(call, socket)
            return
        self._processes[call.socket] = call.process
        self.changed.add(call.socket)
        if call.name in ACCEPTING and call.created_id is not None:
            self._accept(call, socket)
        elif call.name in SENDING:
            stream = self._stream(call.socket)
            stream.sent += call.size if socket.kind == "stream" else max(1, len(call.messages))
        elif call.name in RECEIVING and "MSG_PEEK" not in call.flags:
            stream = self._stream(call.socket)
            is_counted = socket.kind == "stream" or call.result is not None
            stream.received += (
                call.size if socket.kind == "stream" else max(1, len(call.messages)) * is_counted
            )
        if call.socket not in self._peers:
            self._find_peer(socket)

    def _accept(self, call: Call, listener: Socket) -> None:
        assert call.created_id is not None
        queue = self._stream(listener.number)
        queue.queued = max(0, queue.queued - 1)
        self._processes[call.created_id] = call.process
        self._names.setdefault(call.created_id, "ESTABLISHED" if listener.family != "unix" else "")
        accepted = self._trace.sockets.get(call.created_id)
        if accepted is not None:
            self._find_peer(accepted)
        self.changed.add(call.created_id)

    def _add_close(self, call: Call, socket: Socket) -> None:
        if not self._trace.holders_at(socket.number, call.until or call.at):
            self._closed[socket.number] = None
            end, other = self._ends(socket)
            for sockets, key in ((self._by_end, end), (self._awaited, other)):
                if key is not None and sockets.get(key) == socket.number:
                    del sockets[key]
            self.changed.add(socket.number)
            if self._names.get(socket.number) in ("LISTEN", "SYN-SENT"):
                self._names[socket.number] = "CLOSED"

    def _find_peer(self, socket: Socket) -> None:
        """Note the other end of a connection, if it has been used; otherwise it notes this one when it is."""
        end, other = self._ends(socket)
        peer = self._by_end.get(other) if other is not None else None
        if end is not None:
            self._by_end[end] = socket.number
            awaiting = self._awaited.pop(end, None)
            peer = awaiting if peer is None else peer
        if peer is not None and peer != socket.number:
            self._peers[socket.number], self._peers[peer] = peer, socket.number
        elif other is not None:
            self._awaited[other] = socket.number

    def _ends(self, socket: Socket) -> tuple[_End | None, _End | None]:
        """Return what names a socket and its peer: inodes, or addresses; None if it is not known."""
        if socket.family == "unix":
            own, other = (
                ("unix", each, each) if each else None for each in (socket.inode, socket.peer_inode)
            )
            return own, other
        ends = self._trace.ends_of(socket)
        return (None, None) if ends is None else ((socket.kind, *ends), (socket.kind, *ends[::-1]))

    # Packets ------------------------------------------------------------------------------------------

    def _add_packet(self, packet: Packet, point: Point) -> None:
        is_sent = not point.is_end and not packet.synthesized
        arrives = (point.is_end or not packet.reaches) and not packet.lost
        if packet.protocol == "udp":
            if is_sent and packet.sender is not None:
                self._stream(packet.sender).in_packets += 1
            if arrives and packet.receiver is not None:
                self._stream(packet.receiver).arrived += 1
            return
        sender = self._end(packet.sender)
        receiver = self._end(packet.receiver)
        for stream in (sender, receiver):
            if stream is not None and "SYN" in packet.flags:
                stream.has_syn = True
        begin = packet.offset or 0
        end = begin + packet.size
        if sender is not None and is_sent and packet.size:
            sender.in_packets = max(sender.in_packets, end)
        if receiver is None or not arrives:
            return
        if "ACK" in packet.flags and packet.acks is not None:
            receiver.acknowledged = max(receiver.acknowledged, packet.acks)
        if packet.size:
            _arrive(receiver, begin, end)

    def _end(self, socket: int | None) -> _Stream | None:
        known = self._trace.sockets.get(socket or 0)
        return self._stream(known.number) if known is not None and not known.is_listener else None


def _arrive(stream: _Stream, begin: int, end: int) -> None:
    """Count bytes that have arrived: in order at once, after a gap when it is filled."""
    if begin > stream.arrived:
        if len(stream.pieces) < _MAX_GAPS:
            stream.pieces.append((begin, end))
            stream.pieces.sort()
        return
    stream.arrived = max(stream.arrived, end)
    while stream.pieces and stream.pieces[0][0] <= stream.arrived:
        stream.arrived = max(stream.arrived, stream.pieces.pop(0)[1])
