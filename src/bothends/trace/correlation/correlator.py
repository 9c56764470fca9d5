"""Find causal links: from calls to packets and from packets to calls, by addresses and stream offsets. Pure.

    send ── its bytes are in ──> packet ── its bytes are in ──> receive
    connect ──> SYN ──> accept      close ──> FIN ──> receive of 0 bytes      close ──> RST ──> ECONNRESET

1. A TCP stream is one direction of a connection. The bytes of a packet have offsets in it (the sequence
   number minus the initial one), and so have the bytes of a call (after the bytes its socket sent before). If
   the ranges overlap, the packet carries bytes of the call.
2. UNIX sockets have no packets, and without CAP_NET_RAW no packets are captured. Then sends and receives are
   linked directly, by the same offsets.
3. Datagrams have no offsets: see `datagrams.py`.
4. On a wire a packet is sent at one time and arrives at another, or never. Its causes are linked when it is
   sent, its effects when it arrives, so a lost packet has no effects. Without a wire both times are the same.
5. Events may be added in any order: each side looks for the other when it becomes known.
6. The packets of a wrapped socket (TLS, for example) carry other bytes than its calls. Only its two ends are
   linked, if both are recorded inside the wrapping.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, TypeAlias

from bothends.trace.capture.calls import ACCEPTING, RECEIVING, SENDING
from bothends.trace.correlation.datagrams import CLOCK_SKEW, END_TIME_SLACK, DatagramCorrelator
from bothends.trace.correlation.streams import (
    MAX_OUT_OF_ORDER,
    SocketStream,
    Span,
    SpanList,
    Stream,
    first_after,
    may_open_or_close,
    sequence_difference,
)
from bothends.trace.correlation.timeline import Timeline, key, key_of
from bothends.trace.model import (
    Call,
    CausalLink,
    KernelEvent,
    Packet,
    Point,
    ProcessEvent,
    Relation,
    Socket,
    SocketAddress,
    Trace,
    trim_oldest,
)

MAX_STREAMS: Final = 20_000  # two for each connection
MAX_UNMATCHED: Final = 2_000  # connects, or SYNs, to one address that wait for their counterpart
MAX_IN_TRANSIT: Final = 100_000  # packets whose arrival is another point than their sending
MAX_END_CALLS: Final = 16  # of each socket that get a link: a program may read EOF for ever

Ends: TypeAlias = tuple[SocketAddress, SocketAddress]

_RESET_ERRORS: Final = frozenset({"ECONNRESET", "EPIPE", "ECONNREFUSED", "ECONNABORTED"})


class Correlator:
    """Adds points and constraints to a timeline, and causal links to a trace."""

    def __init__(self, trace: Trace, timeline: Timeline) -> None:
        self._trace = trace
        self._timeline = timeline
        self._streams: dict[tuple[SocketAddress, SocketAddress], Stream] = {}
        self._send_streams: dict[int, SocketStream] = {}
        self._receive_streams: dict[int, SocketStream] = {}
        self._address_pairs: dict[int, tuple[SocketAddress, SocketAddress]] = {}
        self._unfinished_sends: set[int] = set()  # calls whose span assumes that they send all their data
        self._connect_calls: dict[int, Call] = {}  # by socket
        # By destination: connects whose local port is unknown, and SYNs whose connect is unknown.
        self._unmatched_connects: dict[SocketAddress, deque[Call]] = {}
        self._unmatched_syns: dict[SocketAddress, dict[Packet, None]] = {}
        self._datagrams = DatagramCorrelator(trace, self.link)
        self._by_inode: dict[int, Socket] = {}
        self._paired: set[int] = set()
        self._used: dict[int, tuple[object, ...]] = {}  # what `_update_socket` has used, by socket
        self._creators: dict[
            int, Call
        ] = {}  # fork() by the child's pid, accept() by minus the socket's number
        self._wildcard_ports: set[int] = set()  # ports watched at every address
        self._bound_by_port: dict[int, dict[int, None]] = {}  # listeners and datagram sockets, by port
        self._watched_addresses: dict[SocketAddress, None] = {}
        self._remote_ports: set[int] = set()  # the ports of connect() and sendto()
        # NAT: the ends of a connection as they are seen later on the way, and the ends where it begins.
        self._translated: dict[Ends, Ends] = {}
        self._translations: dict[Ends, Ends] = {}  # the other way round
        self._in_transit: dict[int, None] = {}  # packets that arrive later than they are sent

    @property
    def has_packets(self) -> bool:
        """Whether packets are captured. Otherwise the calls of both ends are linked directly."""
        return self._datagrams.has_packets

    @has_packets.setter
    def has_packets(self, value: bool) -> None:
        self._datagrams.has_packets = value

    def watch(self, address: SocketAddress) -> None:
        """Treat all packets from and to an address as relevant."""
        if address.port:
            trim_oldest(self._watched_addresses, MAX_STREAMS)
            self._watched_addresses[address] = None
            self._remote_ports.add(address.port)
            if address.is_wildcard:
                self._wildcard_ports.add(address.port)

    def may_be_relevant(self, source: int, destination: int) -> bool:
        """Return whether packets between these ports may be relevant: a quick check before `is_relevant`."""
        bound, remote = self._bound_by_port, self._remote_ports
        return source in bound or destination in bound or source in remote or destination in remote

    @property
    def ports(self) -> frozenset[int]:
        """The ports of relevant packets."""
        return frozenset(self._bound_by_port) | self._remote_ports - {0}

    def is_relevant(self, packet: Packet) -> bool:
        """Return whether a packet belongs to a known socket: the packets of all processes are captured."""
        ends = packet.source, packet.destination
        if ends in self._streams or ends in self._translations or ends in self._translated:
            return True
        return any(
            address in self._watched_addresses
            or self._bound_socket(packet, address) is not None
            or address.port in self._wildcard_ports
            for address in (packet.source, packet.destination)
        )

    def sockets_of(self, packet: Packet) -> tuple[Socket | None, Socket | None]:
        """Return the sockets that send and receive a packet, as far as they are known.

        Before accept(), the listener stands for the connection.
        """
        if packet.protocol == "tcp":
            stream = self._stream((packet.source, packet.destination))
            back = self._stream((packet.destination, packet.source))
            sender, receiver = stream.sender or back.receiver, stream.receiver or back.sender
            translated = self._translations.get((packet.source, packet.destination))
            if translated is not None:
                sender = sender or self._bound_socket(packet, translated[0])
                receiver = receiver or self._bound_socket(packet, translated[1])
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

    def add_translation(self, begins: Ends, arrives: Ends) -> None:
        """Note that NAT translates the ends of a connection: they are those of one connection."""
        if begins in self._translated or self._translations.get(begins) == arrives:
            return  # known: a packet of the connection, or one in the other direction
        for known in (self._translated, self._translations):
            trim_oldest(known, MAX_STREAMS)
        for original, seen in ((begins, arrives), (begins[::-1], arrives[::-1])):
            self._translated[seen], self._translations[original] = original, seen
            self._streams.pop(seen, None)
        self._trace.translations[arrives] = begins
        trim_oldest(self._trace.translations, MAX_STREAMS)
        self._remote_ports |= {each.port or 0 for each in begins}
        for number, ends in list(self._address_pairs.items()):
            original = self._translated.get(ends, ends)
            socket = self._trace.sockets.get(number)
            if original != ends and socket is not None:
                self._address_pairs[number] = original
                self._attach_stream(socket, original)

    def prune(self) -> None:
        """Drop the sockets that the trace has pruned. Those of connections are dropped with their streams."""
        known = self._trace.sockets
        for by_socket in (self._send_streams, self._receive_streams, self._connect_calls):
            for number in [
                each for each in by_socket if each not in known and each not in self._address_pairs
            ]:
                del by_socket[number]
        for inode in [each for each, socket in self._by_inode.items() if socket.number not in known]:
            del self._by_inode[inode]
        self._paired &= known.keys()
        self._used.clear()
        for port, numbers in list(self._bound_by_port.items()):
            self._bound_by_port[port] = {number: None for number in numbers if number in known}
            if not self._bound_by_port[port]:
                del self._bound_by_port[port]

    def add(self, point: Point) -> None:
        """Add a point. Add the points of one thread, and the packets of one interface, in order."""
        if type(point.event) is Call:
            self._timeline.add(point)
            self._on_call(point.event, point.is_end)
            return
        match point.event:
            case Packet() as packet:
                self._timeline.add(point)
                if packet.reaches and not point.is_end:
                    trim_oldest(self._in_transit, MAX_IN_TRANSIT)
                    self._in_transit[packet.number] = None
                    self._timeline.add_constraint(key(packet.number), key(packet.number, True))
                if not point.is_end:
                    self._on_packet_sent(packet)
                if (point.is_end or not packet.reaches) and not packet.lost:
                    self._on_packet_arrived(packet)
            case KernelEvent():
                self._timeline.add(point)
            case ProcessEvent() as process_event:
                self._timeline.add(point)
                if process_event.kind == "began" and (fork := self._creators.pop(process_event.thread, None)):
                    self.link(fork, process_event.number, "starts", key_of(point))

    def add_library_call(self, call: Call, links: Iterable[CausalLink]) -> None:
        """Add a call of a library, such as SSL_write(), when the system calls that it made are known.

        Its bytes are those before encryption, so only its `links` connect it.
        """
        self._timeline.add_unordered(Point(call))
        self._timeline.add_unordered(Point(call, is_end=True))
        self._timeline.add_constraint(key(call.number), key(call.number, True))
        for link in links:
            self.link_library_call(link)

    def link_library_call(self, link: CausalLink) -> None:
        """Link a call of a library to a system call, or a system call to it."""
        is_end = link.kind == "feeds"  # what a call has received is there when it has ended
        self._trace.link(link)
        self._timeline.add_constraint(key(link.cause, is_end), key(link.effect, is_end))

    # Calls

    def _on_call(self, call: Call, is_end: bool) -> None:
        name = call.name
        if name in ("fork", "vfork", "clone", "clone3") and call.created_id is not None:
            self._creators[call.created_id] = call
        socket = self._trace.sockets.get(call.socket) if call.socket is not None else None
        if socket is None:
            return
        self._update_socket(socket)
        if name in RECEIVING:
            if is_end and socket.kind == "stream":
                self._on_receive(call, socket)
            elif is_end and socket.family != "netlink":
                self._datagrams.on_receive_ended(call, socket)
        elif name == "connect":
            self._on_connect(call, socket, is_end)
        elif call.name in ACCEPTING:
            accepted = self._trace.sockets.get(call.created_id or 0) if is_end else None
            if accepted is not None:
                self._update_socket(accepted)
                self._on_accept(call, accepted)
        elif call.name in ("close", "shutdown") and not is_end:
            self._on_close(call, socket)
        elif call.name in SENDING:
            if socket.kind == "stream":
                self._on_send(call, socket, is_end)
            elif socket.family != "netlink":
                self._on_send_datagram(call, socket, is_end)

    def _update_socket(self, socket: Socket) -> None:
        """Use what is known about a socket: its two addresses attach it to a stream of packets."""
        known = socket.local, socket.peer, socket.inode, socket.peer_inode, socket.family
        if self._used.get(socket.number) == known:
            return
        self._used[socket.number] = known
        if socket.inode and socket.family in ("unix", "pipe"):
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
                ends = self._translated.get(ends, ends)
                before = self._address_pairs.get(socket.number)
                if before != ends:
                    if before is not None:
                        self._detach_stream(socket, before)
                    self._address_pairs[socket.number] = ends
                    self._attach_stream(socket, ends)

    def _join_unix_pair(self, socket: Socket) -> None:
        """UNIX: link two sockets as the ends of one stream if one of them names the other as its peer."""
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
        """Undo a wrong guess. The stream may have been attached to another socket since."""
        out, back = self._stream(ends), self._stream(ends[::-1])
        out.sender = None if out.sender is socket else out.sender
        back.receiver = None if back.receiver is socket else back.receiver

    def _stream(self, ends: Ends) -> Stream:
        if self._translated:
            ends = self._translated.get(ends, ends)
        if ends not in self._streams:
            if len(self._streams) >= MAX_STREAMS:
                self._discard_oldest_streams()
            self._streams[ends] = Stream()
        return self._streams[ends]

    def _discard_oldest_streams(self) -> None:
        """Discard the oldest quarter of the streams: a server may accept any number of connections."""
        self._used.clear()
        for ends in list(self._streams)[: MAX_STREAMS // 4]:
            stream = self._streams.pop(ends)
            for socket in (stream.sender, stream.receiver):
                if socket is not None:
                    for by_socket in (
                        self._address_pairs,
                        self._send_streams,
                        self._receive_streams,
                        self._connect_calls,
                    ):
                        by_socket.pop(socket.number, None)
                    self._creators.pop(-socket.number, None)

    def _socket_stream(self, streams: dict[int, SocketStream], socket: Socket) -> SocketStream:
        if socket.number not in streams:
            streams[socket.number] = SocketStream()
        return streams[socket.number]

    def _link_directly(self, sender: Socket, receiver: Socket) -> None:
        """Link the calls of two sockets that are the ends of one stream."""
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
        """Without packets, link a shutdown or close to the receive of 0 bytes at the other end."""
        if sender.family in ("inet", "inet6") and (
            self._stream(self._address_pairs[sender.number]).departed.fin is not None
        ):
            return
        for eof in self._socket_stream(self._receive_streams, receiver).end_calls:
            # A recorded shutdown has the time of its end, and the peer may have received EOF before.
            stop = _last_before(
                eof.until or eof.at,
                self._socket_stream(self._send_streams, sender).end_calls,
                slack=END_TIME_SLACK,
            )
            if stop is not None:
                self.link(stop, eof.number, "ends", key(eof.number, True))

    def _peer_socket(self, socket: Socket) -> Socket | None:
        """Return the socket at the other end, if it belongs to a traced process."""
        if socket.family in ("unix", "pipe"):
            return self._by_inode.get(socket.peer_inode) if socket.peer_inode else None
        ends = self._address_pairs.get(socket.number)
        return self._stream(ends).receiver if ends else None

    def _on_send(self, call: Call, socket: Socket, is_end: bool) -> None:
        stream = self._socket_stream(self._send_streams, socket)
        if not is_end:
            size = call.requested if call.requested is not None else len(call.data)
            span = Span(stream.position, stream.position + size, call.number)
            stream.position = span.end
            stream.spans.add(span)
            self._unfinished_sends.add(call.number)
            self._link_sent_span(socket, span)
        else:
            was_unfinished = call.number in self._unfinished_sends
            self._unfinished_sends.discard(call.number)
            spans = stream.spans
            if spans and spans[-1].event == call.number:
                span = spans[-1]
            else:
                span = next((each for each in reversed(spans) if each.event == call.number), Span(0, 0, 0))
            if was_unfinished and span.event and span.end - span.start != call.size:
                # A short or failed send: shift the spans of later sends down.
                surplus = (span.end - span.start) - call.size
                span.end -= surplus
                for later in stream.spans[stream.spans.index(span) + 1 :]:
                    later.start, later.end = later.start - surplus, later.end - surplus
                stream.position -= surplus
                stream.spans.in_order = False
                if surplus < 0:
                    self._link_sent_span(socket, span)
            if call.error in _RESET_ERRORS:
                self._on_reset_error(call, socket)

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
        stream = self._socket_stream(self._receive_streams, socket)
        ends, other = self._address_pairs.get(socket.number), self._peer_socket(socket)
        back = self._stream(ends[::-1]) if ends else None
        if call.size == 0:
            if call.requested != 0 and len(stream.end_calls) < MAX_END_CALLS:
                stream.end_calls.append(call)
                if back is not None:
                    self._link_open_and_close(back)
                if other is not None:
                    self._link_direct_eof(other, socket)
            return
        span = Span(stream.position, stream.position + call.size, call.number)
        stream.position = span.end
        stream.spans.add(span)
        if back is not None and not socket.is_wrapped:
            self._link_overlapping(span, back.arrived.spans, "feeds", span_is_cause=False)
        if other is not None and other.is_wrapped == socket.is_wrapped:
            self._link_overlapping(
                span, self._socket_stream(self._send_streams, other).spans, "reaches", span_is_cause=False
            )

    def _link_overlapping(
        self,
        span: Span,
        others: SpanList,
        kind: Relation,
        *,
        span_is_cause: bool,
    ) -> None:
        """Link an event to each of the others that transferred some of the same bytes."""
        if not others or (others.in_order and others[-1].end <= span.start):
            return
        disjoint = MAX_OUT_OF_ORDER if others.in_order else 0
        for at in range(first_after(others, span.end) - 1, -1, -1):
            other = others[at]
            if other.end <= span.start:
                disjoint += 1
                if disjoint > MAX_OUT_OF_ORDER:
                    break
                continue
            if other.start < span.end:
                cause, effect = (span, other) if span_is_cause else (other, span)
                is_end = kind != "carries"  # a call has received data when it ends
                self._link_numbers(cause.event, effect.event, kind, key(effect.event, is_end))

    def _on_connect(self, call: Call, socket: Socket, is_end: bool) -> None:
        if call.address is None or not call.address.port or socket.kind != "stream":
            if call.address is not None and call.address.port:
                self.watch(call.address)
            return
        if not is_end:
            self.watch(call.address)
            self._connect_calls[socket.number] = call
            if socket.number in self._address_pairs:  # bind() has set the local address and port
                self._attach_stream(socket, self._address_pairs[socket.number])
            else:
                trim_oldest(self._unmatched_connects, MAX_STREAMS)
                self._unmatched_connects.setdefault(call.address, deque(maxlen=MAX_UNMATCHED)).append(call)
        for packet in list(self._unmatched_syns.get(call.address, ())):
            self._match_syn(packet)
        if is_end and socket.number in self._address_pairs:
            self._link_open_and_close(self._stream(self._address_pairs[socket.number][::-1]))

    def _match_syn(self, packet: Packet) -> None:
        """Find the connect() that caused a SYN, if only one fits: its socket's port is then known early.

        Otherwise the port is known when strace shows the socket's label.
        """
        candidates = [
            call for call in self._unmatched_connects.get(packet.destination, ()) if _may_cause(call, packet)
        ]
        for call in candidates:
            self._timeline.add_constraint(key(call.number), key(packet.number))
        if len(candidates) == 1:
            socket = self._trace.sockets.get(candidates[0].socket or 0)
            if socket is not None:
                socket.set_connection(packet.source, packet.destination)
                self._update_socket(socket)

    def _on_accept(self, call: Call, accepted: Socket) -> None:
        if accepted.family != "unix":
            trim_oldest(self._creators, 2 * MAX_STREAMS)
            self._creators[-accepted.number] = call
        ends = self._address_pairs.get(accepted.number)
        if ends is not None:
            back = self._stream(ends[::-1])
            back.receiver = accepted
            if back.arrived.syn is not None:
                self.link(back.arrived.syn, call.number, "opens", key(call.number, True))
            if back.arrived.first_ack is not None:
                self._timeline.add_constraint(_arrival_key(back.arrived.first_ack), key(call.number, True))

    def _on_close(self, call: Call, socket: Socket) -> None:
        if call.failed or (call.name == "shutdown" and call.arguments[1:2] == ("SHUT_RD",)):
            return
        self._socket_stream(self._send_streams, socket).end_calls.append(call)
        ends, other = self._address_pairs.get(socket.number), self._peer_socket(socket)
        if ends is not None:
            self._link_open_and_close(self._stream(ends))
        if other is not None:
            self._link_direct_eof(socket, other)

    def _on_reset_error(self, call: Call, socket: Socket) -> None:
        failures = self._socket_stream(self._receive_streams, socket).failures
        if len(failures) >= MAX_END_CALLS:
            return
        failures.append(call)
        if socket.number in self._address_pairs:
            self._link_open_and_close(self._stream(self._address_pairs[socket.number][::-1]))

    def _on_send_datagram(self, call: Call, socket: Socket, is_end: bool) -> None:
        if is_end:
            self._datagrams.on_send_ended(call, socket)
            return
        for address in self._datagrams.on_send_started(call, socket):
            self.watch(address)
        self._update_socket(socket)

    # Packets

    def _on_packet_sent(self, packet: Packet) -> None:
        """Set a packet's offsets, and link its causes."""
        if packet.protocol == "udp":
            sender = self._datagrams.on_packet_sent(packet)
            if sender is not None:
                self._update_socket(sender)
            return
        ends = packet.source, packet.destination
        if "SYN" in packet.flags and "ACK" not in packet.flags:
            before = self._stream(ends).departed.syn
            if before is not None and before.sequence != packet.sequence:
                self._discard_connection(ends)  # a new connection reuses the ports
        out = self._stream(ends)
        if out.first_sequence is None or ("SYN" in packet.flags and out.departed.syn is None):
            out.first_sequence = packet.sequence + ("SYN" in packet.flags)
        self._set_offsets(packet, out, self._stream(ends[::-1]))
        if packet.synthesized:
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
        if may_open_or_close(packet, out):
            self._link_open_and_close(out)

    def _set_offsets(self, packet: Packet, out: Stream, back: Stream) -> None:
        """Set a packet's offsets in its stream, and the earlier packet that it repeats."""
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
        if packet.synthesized:
            return
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
        """Link a packet's effects."""
        if packet.protocol == "udp":
            self._datagrams.on_packet_arrived(packet)
            return
        ends = packet.source, packet.destination
        out, back = self._stream(ends), self._stream(ends[::-1])
        is_new = not packet.reaches or not out.arrived.contains(packet)
        out.arrived.record(packet)
        if packet.size and is_new and out.receiver is not None and not out.receiver.is_wrapped:
            start = packet.offset or 0
            span = Span(start, start + packet.size, packet.number)
            self._link_overlapping(
                span,
                self._socket_stream(self._receive_streams, out.receiver).spans,
                "feeds",
                span_is_cause=True,
            )
        if may_open_or_close(packet, out):
            self._link_open_and_close(out)
            self._link_open_and_close(back)

    def _discard_connection(self, ends: tuple[SocketAddress, SocketAddress]) -> None:
        self._used.clear()
        for each in (ends, ends[::-1]):
            self._streams.pop(each, None)
        for number in [
            number for number, bound in self._address_pairs.items() if bound in (ends, ends[::-1])
        ]:
            del self._address_pairs[number]

    def _link_open_and_close(self, stream: Stream) -> None:
        """Link the handshake and the end of a stream, as far as both sides are known."""
        if stream.sender is not None:
            self._link_close(stream)
            if stream.connect_call is not None and stream.departed.syn is not None:
                self.link(
                    stream.connect_call, stream.departed.syn.number, "opens", key(stream.departed.syn.number)
                )
                self._unmatched_syns.get(stream.departed.syn.destination, {}).pop(stream.departed.syn, None)
        if stream.receiver is not None:
            self._link_handshake(stream, stream.receiver)
            received = self._socket_stream(self._receive_streams, stream.receiver)
            if stream.arrived.fin is not None:
                for eof in received.end_calls:
                    self.link(stream.arrived.fin, eof.number, "ends", key(eof.number, True))
            if stream.arrived.rst is not None:
                for failed in received.failures:
                    if failed.until is None or stream.arrived.rst.at <= failed.until + END_TIME_SLACK:
                        self.link(stream.arrived.rst, failed.number, "resets", key(failed.number, True))

    def _link_close(self, stream: Stream) -> None:
        assert stream.sender is not None
        stops = self._socket_stream(self._send_streams, stream.sender).end_calls
        if stream.departed.fin is not None and (stop := _last_before(stream.departed.fin.at, stops)):
            shutdown = next((each for each in stops if each.name == "shutdown" and each.at <= stop.at), None)
            self.link(shutdown or stop, stream.departed.fin.number, "ends", key(stream.departed.fin.number))
        if stream.departed.rst is not None and (stop := _last_before(stream.departed.rst.at, stops)):
            self.link(stop, stream.departed.rst.number, "resets", key(stream.departed.rst.number))

    def _link_handshake(self, stream: Stream, receiver: Socket) -> None:
        """Link the handshake's packets to accept() or connect(). `stream` is what `receiver` receives."""
        accept = self._creators.get(-receiver.number)
        if accept is not None:
            if stream.arrived.syn is not None:
                self.link(stream.arrived.syn, accept.number, "opens", key(accept.number, True))
            if stream.arrived.first_ack is not None:
                self._timeline.add_constraint(
                    _arrival_key(stream.arrived.first_ack), key(accept.number, True)
                )
        ends = self._address_pairs.get(receiver.number)
        connect = self._stream(ends).connect_call if ends is not None else None
        if connect is not None and connect.until is not None and connect.error != "EINPROGRESS":
            reply = stream.arrived.syn if not connect.failed else stream.arrived.rst
            if reply is not None:
                self.link(reply, connect.number, "opens", key(connect.number, True))

    # Links

    def link(self, cause: Call | Packet, effect: int, kind: Relation, effect_key: int) -> None:
        """Add a causal link, and the constraint that the cause precedes the effect."""
        self._trace.link(CausalLink(cause.number, effect, kind))
        cause_key = _arrival_key(cause) if isinstance(cause, Packet) else key(cause.number)
        self._timeline.add_constraint(cause_key, effect_key)

    def _link_numbers(self, cause: int, effect: int, kind: Relation, effect_key: int) -> None:
        self._trace.link(CausalLink(cause, effect, kind))
        self._timeline.add_constraint(key(cause, kind == "feeds" and cause in self._in_transit), effect_key)


def _arrival_key(packet: Packet) -> int:
    """Return the key of the point at which a packet arrives."""
    return key(packet.number, bool(packet.reaches))


def _may_cause(call: Call, packet: Packet) -> bool:
    """Return whether a connect() may have caused a SYN, by their times."""
    is_over = (
        call.until is not None and call.error != "EINPROGRESS" and call.until < packet.at - END_TIME_SLACK
    )
    return call.at <= packet.at + CLOCK_SKEW and not is_over


def _last_before(at: int, calls: list[Call], slack: int = CLOCK_SKEW) -> Call | None:
    """Return the last of these calls that started by `at`, or else the first within `slack` after it."""
    before = [call for call in calls if call.at <= at]
    return before[-1] if before else next((call for call in calls if call.at <= at + slack), None)
