"""What came of what: calls, packets and calls again, matched by addresses and by offsets. Pure.

    send ── its bytes are ──> packet ── its bytes are ──> receive
    connect ──> SYN ──> accept      close ──> FIN ──> receive of 0 bytes      close ──> RST ──> ECONNRESET

1. A TCP stream is one direction of a connection. A packet's bytes have offsets in it (its sequence number
   less the initial one), a call's bytes have too (what its socket sent before). Where both overlap, one
   carries the other.
2. UNIX sockets have no packets, and without the privilege nothing has: then send and receive are joined by
   the same offsets.
3. Datagrams have no offsets: `datagrams.py`.
4. On a wire of ours a packet leaves at one time and arrives at another, or never. What it came of is matched
   when it leaves, what came of it when it arrives: what is lost feeds nothing. Elsewhere both are one.
5. Who is told first doesn't matter: each side looks for the other whenever it comes to light.
6. What is wrapped (TLS, say) moves other bytes than its packets carry: only its two ends are joined, where
   both tell what was said within.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, RECEIVING, SENDING
from bothends.trace.correlation.datagrams import CLOCK_SKEW, END_TIME_SLACK, DatagramCorrelator
from bothends.trace.correlation.tcp_streams import SocketStream, Span, Stream, sequence_difference, trim_spans
from bothends.trace.correlation.timeline import Timeline, key
from bothends.trace.model import (
    Call,
    CausalLink,
    Packet,
    Point,
    Relation,
    Socket,
    SocketAddress,
    Trace,
    trim_oldest,
)

MAX_STREAMS: Final = 20_000  # two for each connection
MAX_OUT_OF_ORDER: Final = 64  # spans: resent packets stand out of order, but not by more
MAX_UNMATCHED: Final = 2_000  # handshakes that wait for their other end

_RESET_ERRORS: Final = frozenset({"ECONNRESET", "EPIPE", "ECONNREFUSED", "ECONNABORTED"})


class Correlator:
    """Adds moments to a time-line, with what must come before what, and the links to a trace."""

    def __init__(self, trace: Trace, timeline: Timeline) -> None:
        self._trace = trace
        self._timeline = timeline
        self._streams: dict[tuple[SocketAddress, SocketAddress], Stream] = {}
        self._send_streams: dict[int, SocketStream] = {}
        self._receive_streams: dict[int, SocketStream] = {}
        self._address_pairs: dict[int, tuple[SocketAddress, SocketAddress]] = {}
        self._provisional_ends: dict[int, int] = {}  # provisional spans of sends that last, by event
        self._connect_calls: dict[int, Call] = {}  # by socket
        self._unmatched_connects: dict[
            SocketAddress, deque[Call]
        ] = {}  # connects of which our own port isn't known yet
        self._unmatched_syns: dict[SocketAddress, dict[Packet, None]] = {}  # those whose connect isn't known
        self._datagrams = DatagramCorrelator(trace, self.link)
        self.has_transit_times = False  # whether packets leave and arrive at times of their own
        self._by_inode: dict[int, Socket] = {}
        self._paired: set[int] = set()
        self._creators: dict[int, Call] = {}
        self._wildcard_ports: set[int] = set()  # ports that are watched at every address
        self._bound_by_port: dict[int, dict[int, None]] = {}  # by port: its listeners and datagram sockets
        self._watched_addresses: dict[SocketAddress, None] = {}
        self._remote_ports: set[int] = set()  # the ports of targets

    @property
    def has_packets(self) -> bool:
        """Whether packets are seen. Without, calls of both ends are joined directly."""
        return self._datagrams.has_packets

    @has_packets.setter
    def has_packets(self, value: bool) -> None:
        self._datagrams.has_packets = value

    def watch(self, address: SocketAddress) -> None:
        """Packets of this place matter, whoever sends them."""
        if address.port:
            trim_oldest(self._watched_addresses, MAX_STREAMS)
            self._watched_addresses[address] = None
            self._remote_ports.add(address.port)
            if address.is_wildcard:
                self._wildcard_ports.add(address.port)

    def may_be_relevant(self, source: int, destination: int) -> bool:
        """Whether packets between these ports may matter: quicker to say than `is_relevant`."""
        homes, far = self._bound_by_port, self._remote_ports
        return source in homes or destination in homes or source in far or destination in far

    @property
    def ports(self) -> frozenset[int]:
        """The ports at which packets may matter."""
        return frozenset(self._bound_by_port) | self._remote_ports - {0}

    def is_relevant(self, packet: Packet) -> bool:
        """Whether a packet is of a socket that was met. Everybody's packets are captured."""
        if (packet.source, packet.destination) in self._streams:
            return True
        return any(
            place in self._watched_addresses
            or self._bound_socket(packet, place) is not None
            or place.port in self._wildcard_ports
            for place in (packet.source, packet.destination)
        )

    def sockets_of(self, packet: Packet) -> tuple[Socket | None, Socket | None]:
        """The sockets that send and receive a packet, as far as they are known by now.

        Until it is accepted, a connection is its listener's.
        """
        if packet.protocol == "tcp":
            stream = self._stream((packet.source, packet.destination))
            back = self._stream((packet.destination, packet.source))
            sender, receiver = stream.sender or back.receiver, stream.receiver or back.sender
        else:
            sender = receiver = None
        return sender or self._bound_socket(packet, packet.source), receiver or self._bound_socket(
            packet, packet.destination
        )

    def _bound_socket(self, packet: Packet, address: SocketAddress) -> Socket | None:
        kind = "stream" if packet.protocol == "tcp" else "datagram"
        found = None
        for number in self._bound_by_port.get(address.port or 0, ()):
            socket = self._trace.sockets.get(number)
            if (
                socket is None
                or socket.kind != kind
                or (kind == "stream" and not socket.is_listener)
                or socket.local is None
            ):
                continue
            if socket.local == address:
                return socket
            if socket.local.is_wildcard:
                found = socket
        return found

    def prune(self) -> None:
        """Let go of the sockets that the trace has let go of; those of connections go with their streams."""
        known = self._trace.sockets
        for halves in (self._send_streams, self._receive_streams, self._connect_calls):
            for number in [each for each in halves if each not in known and each not in self._address_pairs]:
                del halves[number]
        for inode in [each for each, socket in self._by_inode.items() if socket.number not in known]:
            del self._by_inode[inode]
        self._paired &= known.keys()
        for port, homes in list(self._bound_by_port.items()):
            self._bound_by_port[port] = {number: None for number in homes if number in known}
            if not self._bound_by_port[port]:
                del self._bound_by_port[port]

    def add(self, point: Point) -> None:
        """A moment has come to light."""
        match point.event:
            case Packet() as packet:
                self._timeline.add(point)
                if packet.reaches and not point.is_end:
                    self._timeline.add_constraint(2 * packet.number, 2 * packet.number + 1)
                if not point.is_end:
                    self._on_packet_sent(packet)
                if (point.is_end or not packet.reaches) and not packet.lost:
                    self._on_packet_arrived(packet)
            case Call() as call:
                self._timeline.add(point)
                self._on_call(call, point.is_end)
            case change:
                self._timeline.add(point)
                if change.kind == "began" and (birth := self._creators.pop(change.thread, None)):
                    self.link(birth, change.number, "starts", key(point))

    # Calls

    def _on_call(self, call: Call, is_end: bool) -> None:
        if call.name in ("fork", "vfork", "clone", "clone3") and call.made is not None:
            self._creators[call.made] = call
        socket = self._trace.sockets.get(call.socket) if call.socket is not None else None
        if socket is None:
            return
        self._update_socket(socket)
        if call.name == "connect":
            self._on_connect(call, socket, is_end)
        elif call.name in ACCEPTING:
            made = self._trace.sockets.get(call.made) if is_end and call.made is not None else None
            if made is not None:
                self._update_socket(made)
                self._on_accept(call, made)
        elif call.name in ("close", "shutdown") and not is_end:
            self._on_close(call, socket)
        elif call.name in SENDING:
            if socket.kind == "stream":
                self._on_send(call, socket, is_end)
            elif socket.family != "netlink":
                self._on_send_datagram(call, socket, is_end)
        elif call.name in RECEIVING and is_end:
            if socket.kind == "stream":
                self._on_receive(call, socket)
            elif socket.family != "netlink":
                self._datagrams.on_receive_ended(call, socket)

    def _update_socket(self, socket: Socket) -> None:
        """Take in what is known of a socket by now: its ends join it to a stream of packets."""
        if socket.inode and socket.family == "unix":
            self._join_unix_pair(socket)
        if socket.family not in ("inet", "inet6"):
            return
        if (
            socket.local is not None
            and socket.local.port
            and (socket.peer is None or socket.kind != "stream")
        ):
            self._bound_by_port.setdefault(socket.local.port, {})[socket.number] = None
        if socket.peer is not None and socket.local is not None:
            self._remote_ports.add(socket.peer.port or 0)
            if socket.kind == "stream" and socket.local.port and not socket.local.is_wildcard:
                ends = socket.local, socket.peer
                before = self._address_pairs.get(socket.number)
                if before != ends:
                    if before is not None:
                        self._detach_stream(socket, before)
                    self._address_pairs[socket.number] = ends
                    self._attach_stream(socket, ends)

    def _join_unix_pair(self, socket: Socket) -> None:
        """UNIX: two sockets are the ends of one stream as soon as either says so."""
        self._by_inode[socket.inode] = socket
        other = self._by_inode.get(socket.peer_inode) if socket.peer_inode else None
        if other is None or other.number in self._paired:
            return
        other.peer_inode = other.peer_inode or socket.inode
        self._paired |= {socket.number, other.number}
        if socket.kind == "stream":
            self._link_directly(socket, other)
            self._link_directly(other, socket)

    def _attach_stream(self, socket: Socket, ends: tuple[SocketAddress, SocketAddress]) -> None:
        out, back = self._stream(ends), self._stream(ends[::-1])
        out.sender, back.receiver = socket, socket
        if not socket.is_wrapped:
            for span in self._socket_stream(self._send_streams, socket).spans:
                self._link_overlapping(span, out.departed.spans, "carries", span_is_cause=True)
            for span in self._socket_stream(self._receive_streams, socket).spans:
                self._link_overlapping(span, back.arrived.spans, "feeds", span_is_cause=False)
        out.connect_call = self._connect_calls.get(socket.number)
        if out.connect_call is not None and out.connect_call in self._unmatched_connects.get(ends[1], ()):
            self._unmatched_connects[ends[1]].remove(out.connect_call)
        self._link_open_and_close(out)
        self._link_open_and_close(back)
        if out.receiver is not None:
            self._link_directly(socket, out.receiver)
        if back.sender is not None:
            self._link_directly(back.sender, socket)

    def _detach_stream(self, socket: Socket, ends: tuple[SocketAddress, SocketAddress]) -> None:
        """A guess was wrong. By now the stream may be known as another's."""
        out, back = self._stream(ends), self._stream(ends[::-1])
        out.sender = None if out.sender is socket else out.sender
        back.receiver = None if back.receiver is socket else back.receiver

    def _stream(self, ends: tuple[SocketAddress, SocketAddress]) -> Stream:
        if ends not in self._streams:
            if len(self._streams) >= MAX_STREAMS:
                self._discard_oldest_streams()
            self._streams[ends] = Stream()
        return self._streams[ends]

    def _discard_oldest_streams(self) -> None:
        """A server may have had any number of connections: who came first is let go first."""
        for ends in list(self._streams)[: MAX_STREAMS // 4]:
            stream = self._streams.pop(ends)
            for socket in (stream.sender, stream.receiver):
                if socket is not None:
                    for known in (
                        self._address_pairs,
                        self._send_streams,
                        self._receive_streams,
                        self._connect_calls,
                    ):
                        known.pop(socket.number, None)
                    self._creators.pop(-socket.number, None)

    def _socket_stream(self, streams: dict[int, SocketStream], socket: Socket) -> SocketStream:
        if socket.number not in streams:
            streams[socket.number] = SocketStream()
        return streams[socket.number]

    def _link_directly(self, sender: Socket, receiver: Socket) -> None:
        """Two sockets turn out to be the ends of one stream."""
        spans = (
            self._socket_stream(self._send_streams, sender).spans
            if sender.is_wrapped == receiver.is_wrapped
            else ()
        )
        for span in spans:
            self._link_overlapping(
                span,
                self._socket_stream(self._receive_streams, receiver).spans,
                "reaches",
                span_is_cause=True,
            )
        self._link_direct_eof(sender, receiver)

    def _link_direct_eof(self, sender: Socket, receiver: Socket) -> None:
        """EOF without packets: the receive of 0 bytes comes after the shutdown or close."""
        if sender.family in ("inet", "inet6") and (
            self._stream(self._address_pairs[sender.number]).departed.fin is not None
        ):
            return
        for eof in self._socket_stream(self._receive_streams, receiver).end_calls:
            # Who tells of himself tells of a shutdown when it is done: the peer may have read the end then.
            stop = _last_before(
                eof.until or eof.at,
                self._socket_stream(self._send_streams, sender).end_calls,
                slack=END_TIME_SLACK,
            )
            if stop is not None:
                self.link(stop, eof.number, "ends", 2 * eof.number + 1)

    def _peer_socket(self, socket: Socket) -> Socket | None:
        """The socket at the other end, where it is one of ours."""
        if socket.family == "unix":
            return self._by_inode.get(socket.peer_inode) if socket.peer_inode else None
        ends = self._address_pairs.get(socket.number)
        return self._stream(ends).receiver if ends else None

    def _on_send(self, call: Call, socket: Socket, is_end: bool) -> None:
        half = self._socket_stream(self._send_streams, socket)
        if not is_end:
            size = call.asked if call.asked is not None else len(call.data)
            span = Span(half.position, half.position + size, call.number)
            half.position = span.end
            half.spans.append(span)
            self._provisional_ends[call.number] = span.end
            self._link_sent_span(socket, span)
        else:
            provisional = self._provisional_ends.pop(call.number, None)
            span = next((each for each in reversed(half.spans) if each.event == call.number), Span(0, 0, 0))
            if provisional is not None and span.event and span.end - span.start != call.size:
                # It took less than it was asked for, or nothing: whoever sent since then moves up.
                surplus = (span.end - span.start) - call.size
                span.end -= surplus
                for later in half.spans[half.spans.index(span) + 1 :]:
                    later.start, later.end = later.start - surplus, later.end - surplus
                half.position -= surplus
                if surplus < 0:
                    self._link_sent_span(socket, span)
            if call.error in _RESET_ERRORS:
                self._on_reset_error(call, socket)
        trim_spans(half.spans)

    def _link_sent_span(self, socket: Socket, span: Span) -> None:
        ends = self._address_pairs.get(socket.number)
        if ends is not None and not socket.is_wrapped:
            self._link_overlapping(span, self._stream(ends).departed.spans, "carries", span_is_cause=True)
        other = self._peer_socket(socket)
        if other is not None and other.is_wrapped == socket.is_wrapped:
            self._link_overlapping(
                span, self._socket_stream(self._receive_streams, other).spans, "reaches", span_is_cause=True
            )

    def _on_receive(self, call: Call, socket: Socket) -> None:
        if call.error in _RESET_ERRORS:
            self._on_reset_error(call, socket)
        if call.failed or call.result is None or "MSG_PEEK" in call.flags or "MSG_ERRQUEUE" in call.flags:
            return
        half = self._socket_stream(self._receive_streams, socket)
        ends, other = self._address_pairs.get(socket.number), self._peer_socket(socket)
        back = self._stream(ends[::-1]) if ends else None
        if call.size == 0:
            if call.asked != 0:
                half.end_calls.append(call)
                if back is not None:
                    self._link_open_and_close(back)
                if other is not None:
                    self._link_direct_eof(other, socket)
            return
        span = Span(half.position, half.position + call.size, call.number)
        half.position = span.end
        half.spans.append(span)
        trim_spans(half.spans)
        if back is not None and not socket.is_wrapped:
            self._link_overlapping(span, back.arrived.spans, "feeds", span_is_cause=False)
        if other is not None and other.is_wrapped == socket.is_wrapped:
            self._link_overlapping(
                span, self._socket_stream(self._send_streams, other).spans, "reaches", span_is_cause=False
            )

    def _link_overlapping(
        self,
        span: Span,
        others: list[Span],
        kind: Relation,
        *,
        span_is_cause: bool,
    ) -> None:
        """Link an event to each of the others that moved some of the same bytes."""
        missed = 0
        for other in reversed(others):
            if other.end <= span.start:
                missed += 1
                if missed > MAX_OUT_OF_ORDER:
                    break
                continue
            if other.start < span.end:
                cause, effect = (span, other) if span_is_cause else (other, span)
                is_end = kind != "carries"  # what is received is received when the call ends
                self._link_numbers(cause.event, effect.event, kind, 2 * effect.event + is_end)

    def _on_connect(self, call: Call, socket: Socket, is_end: bool) -> None:
        if call.place is None or not call.place.port or socket.kind != "stream":
            if call.place is not None and call.place.port:
                self.watch(call.place)
            return
        if not is_end:
            self.watch(call.place)
            self._connect_calls[socket.number] = call
            if socket.number in self._address_pairs:  # by bind() before, to an address and a port
                self._attach_stream(socket, self._address_pairs[socket.number])
            else:
                trim_oldest(self._unmatched_connects, MAX_STREAMS)
                self._unmatched_connects.setdefault(call.place, deque(maxlen=MAX_UNMATCHED)).append(call)
        for packet in list(self._unmatched_syns.get(call.place, ())):
            self._match_syn(packet)
        if is_end and socket.number in self._address_pairs:
            self._link_open_and_close(self._stream(self._address_pairs[socket.number][::-1]))

    def _match_syn(self, packet: Packet) -> None:
        """Find the connect that a SYN comes of, if only one can be meant: then the socket's port is known
        before strace tells it. Otherwise it is left for then.
        """
        candidates = [
            call for call in self._unmatched_connects.get(packet.destination, ()) if _may_cause(call, packet)
        ]
        for call in candidates:
            self._timeline.add_constraint(2 * call.number, 2 * packet.number)
        if len(candidates) == 1:
            socket = self._trace.sockets.get(candidates[0].socket or 0)
            if socket is not None:
                socket.local, socket.peer = packet.source, packet.destination
                self._update_socket(socket)

    def _on_accept(self, call: Call, accepted: Socket) -> None:
        ends = self._address_pairs.get(accepted.number)
        if ends is not None:
            back = self._stream(ends[::-1])
            back.receiver = accepted
            if back.arrived.syn is not None:
                self.link(back.arrived.syn, call.number, "opens", 2 * call.number + 1)
            if back.arrived.first_ack is not None:
                self._timeline.add_constraint(_arrival_key(back.arrived.first_ack), 2 * call.number + 1)
            self._creators[-accepted.number] = call

    def _on_close(self, call: Call, socket: Socket) -> None:
        if call.name == "shutdown" and call.arguments[1:2] == ("SHUT_RD",):
            return
        half = self._socket_stream(self._send_streams, socket)
        half.end_calls.append(call)
        ends, other = self._address_pairs.get(socket.number), self._peer_socket(socket)
        if ends is not None:
            self._link_open_and_close(self._stream(ends))
        if other is not None:
            self._link_direct_eof(socket, other)

    def _on_reset_error(self, call: Call, socket: Socket) -> None:
        self._socket_stream(self._receive_streams, socket).failures.append(call)
        if socket.number in self._address_pairs:
            self._link_open_and_close(self._stream(self._address_pairs[socket.number][::-1]))

    def _on_send_datagram(self, call: Call, socket: Socket, is_end: bool) -> None:
        if is_end:
            self._datagrams.on_send_ended(call, socket)
            return
        for place in self._datagrams.on_send_started(call, socket):
            self.watch(place)
        self._update_socket(socket)

    # Packets

    def _on_packet_sent(self, packet: Packet) -> None:
        """A packet leaves: which bytes it carries, and what it comes of."""
        if packet.protocol == "udp":
            sender = self._datagrams.on_packet_sent(packet)
            if sender is not None:
                self._update_socket(sender)
            return
        ends = packet.source, packet.destination
        if "SYN" in packet.flags and "ACK" not in packet.flags:
            before = self._stream(ends).departed.syn
            if before is not None and before.sequence != packet.sequence:
                self._discard_connection(ends)  # the same ports, used again
        out = self._stream(ends)
        if out.first_sequence is None or ("SYN" in packet.flags and out.departed.syn is None):
            out.first_sequence = packet.sequence + ("SYN" in packet.flags)
        self._set_offsets(packet, out, self._stream(ends[::-1]))
        if packet.made:
            return
        if packet.size and out.sender is not None and not out.sender.is_wrapped:
            start = packet.offset or 0
            span = Span(start, start + packet.size, packet.number)
            self._link_overlapping(
                span,
                self._socket_stream(self._send_streams, out.sender).spans,
                "carries",
                span_is_cause=False,
            )
        is_first = "SYN" in packet.flags and "ACK" not in packet.flags and out.departed.syn is None
        out.departed.record(packet)
        if is_first:
            trim_oldest(self._unmatched_syns, MAX_STREAMS)
            waiting = self._unmatched_syns.setdefault(packet.destination, {})
            trim_oldest(waiting, MAX_UNMATCHED)
            waiting[packet] = None
            self._match_syn(packet)
        self._link_open_and_close(out)

    def _set_offsets(self, packet: Packet, out: Stream, back: Stream) -> None:
        """Where in its stream a packet is, and which one before had the same bytes."""
        first = packet.sequence + ("SYN" in packet.flags)
        start = out.highest_offset + sequence_difference(
            first - (out.first_sequence or 0) - out.highest_offset
        )
        packet.offset = start
        if "ACK" in packet.flags and back.first_sequence is not None:
            packet.acks = back.highest_offset + sequence_difference(
                packet.acknowledged - back.first_sequence - back.highest_offset
            )
        end = start + packet.size
        if packet.made:
            return  # nobody has sent it
        packet.resent = packet.size > 0 and end <= out.highest_offset
        out.highest_offset = max(out.highest_offset, end)
        before = (
            out.departed.syn if "SYN" in packet.flags else out.departed.fin if "FIN" in packet.flags else None
        )
        if packet.resent:
            packet.repeats = next(
                (each.event for each in out.departed.spans if each.start <= start < each.end), None
            )
        elif before is not None and before.sequence == packet.sequence:
            packet.resent, packet.repeats = True, before.number
        if packet.repeats is not None:
            self._trace.link(CausalLink(packet.repeats, packet.number, "repeats"))

    def _on_packet_arrived(self, packet: Packet) -> None:
        """A packet arrives: what comes of it."""
        if packet.protocol == "udp":
            self._datagrams.on_packet_arrived(packet)
            return
        ends = packet.source, packet.destination
        out, back = self._stream(ends), self._stream(ends[::-1])
        is_news = not packet.reaches or not out.arrived.contains(packet)
        out.arrived.record(packet)
        if packet.size and is_news and out.receiver is not None and not out.receiver.is_wrapped:
            start = packet.offset or 0
            span = Span(start, start + packet.size, packet.number)
            self._link_overlapping(
                span,
                self._socket_stream(self._receive_streams, out.receiver).spans,
                "feeds",
                span_is_cause=True,
            )
        self._link_open_and_close(out)
        self._link_open_and_close(back)

    def _discard_connection(self, ends: tuple[SocketAddress, SocketAddress]) -> None:
        for each in (ends, ends[::-1]):
            self._streams.pop(each, None)
        for number in [
            number for number, bound in self._address_pairs.items() if bound in (ends, ends[::-1])
        ]:
            del self._address_pairs[number]

    def _link_open_and_close(self, stream: Stream) -> None:
        """What opens and what ends a stream: each joined as soon as both sides are known."""
        if stream.sender is not None:
            self._link_close(stream)
            if stream.connect_call is not None and stream.departed.syn is not None:
                self.link(
                    stream.connect_call, stream.departed.syn.number, "opens", 2 * stream.departed.syn.number
                )
                self._unmatched_syns.get(stream.departed.syn.destination, {}).pop(stream.departed.syn, None)
        if stream.receiver is not None:
            self._link_handshake(stream, stream.receiver)
            half = self._socket_stream(self._receive_streams, stream.receiver)
            if stream.arrived.fin is not None:
                for eof in half.end_calls:
                    self.link(stream.arrived.fin, eof.number, "ends", 2 * eof.number + 1)
            if stream.arrived.rst is not None:
                for failed in half.failures:
                    if failed.until is None or stream.arrived.rst.at <= failed.until + END_TIME_SLACK:
                        self.link(stream.arrived.rst, failed.number, "resets", 2 * failed.number + 1)

    def _link_close(self, stream: Stream) -> None:
        assert stream.sender is not None
        stops = self._socket_stream(self._send_streams, stream.sender).end_calls
        if stream.departed.fin is not None and (stop := _last_before(stream.departed.fin.at, stops)):
            shutdown = next((each for each in stops if each.name == "shutdown" and each.at <= stop.at), None)
            self.link(shutdown or stop, stream.departed.fin.number, "ends", 2 * stream.departed.fin.number)
        if stream.departed.rst is not None and (stop := _last_before(stream.departed.rst.at, stops)):
            self.link(stop, stream.departed.rst.number, "resets", 2 * stream.departed.rst.number)

    def _link_handshake(self, stream: Stream, receiver: Socket) -> None:
        """The handshake: `stream` comes from the peer of `receiver`."""
        accepted = self._creators.get(-receiver.number)
        if accepted is not None:
            if stream.arrived.syn is not None:
                self.link(stream.arrived.syn, accepted.number, "opens", 2 * accepted.number + 1)
            if stream.arrived.first_ack is not None:
                self._timeline.add_constraint(_arrival_key(stream.arrived.first_ack), 2 * accepted.number + 1)
        ends = self._address_pairs.get(receiver.number)
        connecting = self._stream(ends).connect_call if ends is not None else None
        if connecting is not None and connecting.until is not None and connecting.error != "EINPROGRESS":
            answer = stream.arrived.syn if not connecting.failed else stream.arrived.rst
            if answer is not None:
                self.link(answer, connecting.number, "opens", 2 * connecting.number + 1)

    # Links

    def link(self, cause: Call | Packet, effect: int, kind: Relation, effect_key: int) -> None:
        """One event came of another, which therefore comes before."""
        self._trace.link(CausalLink(cause.number, effect, kind))
        came = _arrival_key(cause) if isinstance(cause, Packet) else 2 * cause.number
        self._timeline.add_constraint(came, effect_key)

    def _link_numbers(self, cause: int, effect: int, kind: Relation, effect_key: int) -> None:
        self._trace.link(CausalLink(cause, effect, kind))
        self._timeline.add_constraint(2 * cause + (kind == "feeds" and self.has_transit_times), effect_key)


def _arrival_key(packet: Packet) -> int:
    """The number of the moment at which a packet is at its receiver."""
    return 2 * packet.number + bool(packet.reaches)


def _may_cause(call: Call, packet: Packet) -> bool:
    """Whether a SYN may come of a connect, by time."""
    is_over = (
        call.until is not None and call.error != "EINPROGRESS" and call.until < packet.at - END_TIME_SLACK
    )
    return call.at <= packet.at + CLOCK_SKEW and not is_over


def _last_before(at: int, calls: list[Call], slack: int = CLOCK_SKEW) -> Call | None:
    """The last of these calls that began by then; if there is none, the first one that is not `late`r."""
    before = [call for call in calls if call.at <= at]
    return before[-1] if before else next((call for call in calls if call.at <= at + slack), None)
