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
from bothends.trace.correlation.datagrams import LATE, SKEW, Datagrams
from bothends.trace.correlation.tcp_streams import Half, Span, Stream, shorten, signed
from bothends.trace.correlation.timeline import Timeline, key
from bothends.trace.model import Call, Link, Moment, Packet, Place, Relation, Socket, Trace, keep_newest

MOST_STREAMS: Final = 20_000  # two for each connection
OUT_OF_ORDER: Final = 64  # spans: resent packets stand out of order, but not by more
UNMATCHED: Final = 2_000  # handshakes that wait for their other end

_RESET_ERRORS: Final = frozenset({"ECONNRESET", "EPIPE", "ECONNREFUSED", "ECONNABORTED"})


class Matcher:
    """Adds moments to a time-line, with what must come before what, and the links to a trace."""

    def __init__(self, trace: Trace, timeline: Timeline) -> None:
        self._trace = trace
        self._timeline = timeline
        self._streams: dict[tuple[Place, Place], Stream] = {}
        self._sending: dict[int, Half] = {}
        self._receiving: dict[int, Half] = {}
        self._bound: dict[int, tuple[Place, Place]] = {}
        self._ends: dict[int, int] = {}  # provisional spans of sends that last, by event
        self._connecting: dict[int, Call] = {}  # by socket
        self._unbound: dict[Place, deque[Call]] = {}  # connects of which our own port isn't known yet
        self._syns: dict[Place, dict[Packet, None]] = {}  # those whose connect isn't known
        self._datagrams = Datagrams(trace, self.link)
        self.is_wire = False  # whether packets leave and arrive at times of their own
        self._by_inode: dict[int, Socket] = {}
        self._paired: set[int] = set()
        self._births: dict[int, Call] = {}
        self._open: set[int] = set()  # ports that are watched at every address
        self._homes: dict[int, dict[int, None]] = {}  # by port: its listeners and datagram sockets
        self._targets: dict[Place, None] = {}
        self._far: set[int] = set()  # the ports of targets

    @property
    def has_packets(self) -> bool:
        """Whether packets are seen. Without, calls of both ends are joined directly."""
        return self._datagrams.has_packets

    @has_packets.setter
    def has_packets(self, has: bool) -> None:
        self._datagrams.has_packets = has

    def watch(self, place: Place) -> None:
        """Packets of this place matter, whoever sends them."""
        if place.port:
            keep_newest(self._targets, MOST_STREAMS)
            self._targets[place] = None
            self._far.add(place.port)
            if place.is_any:
                self._open.add(place.port)

    def may_matter(self, source: int, destination: int) -> bool:
        """Whether packets between these ports may matter: quicker to say than `matters`."""
        homes, far = self._homes, self._far
        return source in homes or destination in homes or source in far or destination in far

    @property
    def ports(self) -> frozenset[int]:
        """The ports at which packets may matter."""
        return frozenset(self._homes) | self._far - {0}

    def matters(self, packet: Packet) -> bool:
        """Whether a packet is of a socket that was met. Everybody's packets are captured."""
        if (packet.source, packet.destination) in self._streams:
            return True
        return any(
            place in self._targets or self._home(packet, place) is not None or place.port in self._open
            for place in (packet.source, packet.destination)
        )

    def ends(self, packet: Packet) -> tuple[Socket | None, Socket | None]:
        """The sockets that send and receive a packet, as far as they are known by now.

        Until it is accepted, a connection is its listener's.
        """
        if packet.protocol == "tcp":
            stream = self._stream((packet.source, packet.destination))
            back = self._stream((packet.destination, packet.source))
            sender, receiver = stream.sender or back.receiver, stream.receiver or back.sender
        else:
            sender = receiver = None
        return sender or self._home(packet, packet.source), receiver or self._home(packet, packet.destination)

    def _home(self, packet: Packet, place: Place) -> Socket | None:
        kind = "stream" if packet.protocol == "tcp" else "datagram"
        found = None
        for number in self._homes.get(place.port or 0, ()):
            socket = self._trace.sockets.get(number)
            if (
                socket is None
                or socket.kind != kind
                or (kind == "stream" and not socket.is_listener)
                or socket.local is None
            ):
                continue
            if socket.local == place:
                return socket
            if socket.local.is_any:
                found = socket
        return found

    def forget(self) -> None:
        """Let go of the sockets that the trace has let go of; those of connections go with their streams."""
        known = self._trace.sockets
        for halves in (self._sending, self._receiving, self._connecting):
            for number in [each for each in halves if each not in known and each not in self._bound]:
                del halves[number]
        for inode in [each for each, socket in self._by_inode.items() if socket.number not in known]:
            del self._by_inode[inode]
        self._paired &= known.keys()
        for port, homes in list(self._homes.items()):
            self._homes[port] = {number: None for number in homes if number in known}
            if not self._homes[port]:
                del self._homes[port]

    def add(self, moment: Moment) -> None:
        """A moment has come to light."""
        match moment.event:
            case Packet() as packet:
                self._timeline.add(moment)
                if packet.reaches and not moment.is_end:
                    self._timeline.before(2 * packet.number, 2 * packet.number + 1)
                if not moment.is_end:
                    self._left(packet)
                if (moment.is_end or not packet.reaches) and not packet.lost:
                    self._came(packet)
            case Call() as call:
                self._timeline.add(moment)
                self._call(call, moment.is_end)
            case change:
                self._timeline.add(moment)
                if change.kind == "began" and (birth := self._births.pop(change.thread, None)):
                    self.link(birth, change.number, "starts", key(moment))

    # Calls

    def _call(self, call: Call, is_end: bool) -> None:
        if call.name in ("fork", "vfork", "clone", "clone3") and call.made is not None:
            self._births[call.made] = call
        socket = self._trace.sockets.get(call.socket) if call.socket is not None else None
        if socket is None:
            return
        self._know(socket)
        if call.name == "connect":
            self._connect(call, socket, is_end)
        elif call.name in ACCEPTING:
            made = self._trace.sockets.get(call.made) if is_end and call.made is not None else None
            if made is not None:
                self._know(made)
                self._accepted(call, made)
        elif call.name in ("close", "shutdown") and not is_end:
            self._stopping(call, socket)
        elif call.name in SENDING:
            if socket.kind == "stream":
                self._send(call, socket, is_end)
            elif socket.family != "netlink":
                self._send_datagram(call, socket, is_end)
        elif call.name in RECEIVING and is_end:
            if socket.kind == "stream":
                self._receive(call, socket)
            elif socket.family != "netlink":
                self._datagrams.received(call, socket)

    def _know(self, socket: Socket) -> None:
        """Take in what is known of a socket by now: its ends join it to a stream of packets."""
        if socket.inode and socket.family == "unix":
            self._know_pair(socket)
        if socket.family not in ("inet", "inet6"):
            return
        if (
            socket.local is not None
            and socket.local.port
            and (socket.peer is None or socket.kind != "stream")
        ):
            self._homes.setdefault(socket.local.port, {})[socket.number] = None
        if socket.peer is not None and socket.local is not None:
            self._far.add(socket.peer.port or 0)
            if socket.kind == "stream" and socket.local.port and not socket.local.is_any:
                ends = socket.local, socket.peer
                before = self._bound.get(socket.number)
                if before != ends:
                    if before is not None:
                        self._unbind(socket, before)
                    self._bound[socket.number] = ends
                    self._bind(socket, ends)

    def _know_pair(self, socket: Socket) -> None:
        """UNIX: two sockets are the ends of one stream as soon as either says so."""
        self._by_inode[socket.inode] = socket
        other = self._by_inode.get(socket.peer_inode) if socket.peer_inode else None
        if other is None or other.number in self._paired:
            return
        other.peer_inode = other.peer_inode or socket.inode
        self._paired |= {socket.number, other.number}
        if socket.kind == "stream":
            self._join_halves(socket, other)
            self._join_halves(other, socket)

    def _bind(self, socket: Socket, ends: tuple[Place, Place]) -> None:
        out, back = self._stream(ends), self._stream(ends[::-1])
        out.sender, back.receiver = socket, socket
        if not socket.is_wrapped:
            for span in self._half(self._sending, socket).spans:
                self._overlap(span, out.left.spans, "carries", span_is_cause=True)
            for span in self._half(self._receiving, socket).spans:
                self._overlap(span, back.came.spans, "feeds", span_is_cause=False)
        out.connecting = self._connecting.get(socket.number)
        if out.connecting is not None and out.connecting in self._unbound.get(ends[1], ()):
            self._unbound[ends[1]].remove(out.connecting)
        self._join_ends(out)
        self._join_ends(back)
        if out.receiver is not None:
            self._join_halves(socket, out.receiver)
        if back.sender is not None:
            self._join_halves(back.sender, socket)

    def _unbind(self, socket: Socket, ends: tuple[Place, Place]) -> None:
        """A guess was wrong. By now the stream may be known as another's."""
        out, back = self._stream(ends), self._stream(ends[::-1])
        out.sender = None if out.sender is socket else out.sender
        back.receiver = None if back.receiver is socket else back.receiver

    def _stream(self, ends: tuple[Place, Place]) -> Stream:
        if ends not in self._streams:
            if len(self._streams) >= MOST_STREAMS:
                self._forget_oldest()
            self._streams[ends] = Stream()
        return self._streams[ends]

    def _forget_oldest(self) -> None:
        """A server may have had any number of connections: who came first is let go first."""
        for ends in list(self._streams)[: MOST_STREAMS // 4]:
            stream = self._streams.pop(ends)
            for socket in (stream.sender, stream.receiver):
                if socket is not None:
                    for known in (self._bound, self._sending, self._receiving, self._connecting):
                        known.pop(socket.number, None)
                    self._births.pop(-socket.number, None)

    def _half(self, halves: dict[int, Half], socket: Socket) -> Half:
        if socket.number not in halves:
            halves[socket.number] = Half()
        return halves[socket.number]

    def _join_halves(self, sender: Socket, receiver: Socket) -> None:
        """Two sockets turn out to be the ends of one stream."""
        spans = self._half(self._sending, sender).spans if sender.is_wrapped == receiver.is_wrapped else ()
        for span in spans:
            self._overlap(span, self._half(self._receiving, receiver).spans, "reaches", span_is_cause=True)
        self._join_stops(sender, receiver)

    def _join_stops(self, sender: Socket, receiver: Socket) -> None:
        """EOF without packets: the receive of 0 bytes comes after the shutdown or close."""
        if sender.family in ("inet", "inet6") and (
            self._stream(self._bound[sender.number]).left.fin is not None
        ):
            return
        for eof in self._half(self._receiving, receiver).stops:
            # Who tells of himself tells of a shutdown when it is done: the peer may have read the end then.
            stop = _last_before(eof.until or eof.at, self._half(self._sending, sender).stops, late=LATE)
            if stop is not None:
                self.link(stop, eof.number, "ends", 2 * eof.number + 1)

    def _other_end(self, socket: Socket) -> Socket | None:
        """The socket at the other end, where it is one of ours."""
        if socket.family == "unix":
            return self._by_inode.get(socket.peer_inode) if socket.peer_inode else None
        ends = self._bound.get(socket.number)
        return self._stream(ends).receiver if ends else None

    def _send(self, call: Call, socket: Socket, is_end: bool) -> None:
        half = self._half(self._sending, socket)
        if not is_end:
            size = call.asked if call.asked is not None else len(call.data)
            span = Span(half.moved, half.moved + size, call.number)
            half.moved = span.end
            half.spans.append(span)
            self._ends[call.number] = span.end
            self._sent_span(socket, span)
        else:
            provisional = self._ends.pop(call.number, None)
            span = next((each for each in reversed(half.spans) if each.event == call.number), Span(0, 0, 0))
            if provisional is not None and span.event and span.end - span.start != call.size:
                # It took less than it was asked for, or nothing: whoever sent since then moves up.
                surplus = (span.end - span.start) - call.size
                span.end -= surplus
                for later in half.spans[half.spans.index(span) + 1 :]:
                    later.start, later.end = later.start - surplus, later.end - surplus
                half.moved -= surplus
                if surplus < 0:
                    self._sent_span(socket, span)
            if call.error in _RESET_ERRORS:
                self._failed(call, socket)
        shorten(half.spans)

    def _sent_span(self, socket: Socket, span: Span) -> None:
        ends = self._bound.get(socket.number)
        if ends is not None and not socket.is_wrapped:
            self._overlap(span, self._stream(ends).left.spans, "carries", span_is_cause=True)
        other = self._other_end(socket)
        if other is not None and other.is_wrapped == socket.is_wrapped:
            self._overlap(span, self._half(self._receiving, other).spans, "reaches", span_is_cause=True)

    def _receive(self, call: Call, socket: Socket) -> None:
        if call.error in _RESET_ERRORS:
            self._failed(call, socket)
        if call.failed or call.result is None or "MSG_PEEK" in call.flags or "MSG_ERRQUEUE" in call.flags:
            return
        half = self._half(self._receiving, socket)
        ends, other = self._bound.get(socket.number), self._other_end(socket)
        back = self._stream(ends[::-1]) if ends else None
        if call.size == 0:
            if call.asked != 0:
                half.stops.append(call)
                if back is not None:
                    self._join_ends(back)
                if other is not None:
                    self._join_stops(other, socket)
            return
        span = Span(half.moved, half.moved + call.size, call.number)
        half.moved = span.end
        half.spans.append(span)
        shorten(half.spans)
        if back is not None and not socket.is_wrapped:
            self._overlap(span, back.came.spans, "feeds", span_is_cause=False)
        if other is not None and other.is_wrapped == socket.is_wrapped:
            self._overlap(span, self._half(self._sending, other).spans, "reaches", span_is_cause=False)

    def _overlap(
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
                if missed > OUT_OF_ORDER:
                    break
                continue
            if other.start < span.end:
                cause, effect = (span, other) if span_is_cause else (other, span)
                is_end = kind != "carries"  # what is received is received when the call ends
                self._link_numbers(cause.event, effect.event, kind, 2 * effect.event + is_end)

    def _connect(self, call: Call, socket: Socket, is_end: bool) -> None:
        if call.place is None or not call.place.port or socket.kind != "stream":
            if call.place is not None and call.place.port:
                self.watch(call.place)
            return
        if not is_end:
            self.watch(call.place)
            self._connecting[socket.number] = call
            if socket.number in self._bound:  # by bind() before, to an address and a port
                self._bind(socket, self._bound[socket.number])
            else:
                keep_newest(self._unbound, MOST_STREAMS)
                self._unbound.setdefault(call.place, deque(maxlen=UNMATCHED)).append(call)
        for packet in list(self._syns.get(call.place, ())):
            self._match_syn(packet)
        if is_end and socket.number in self._bound:
            self._join_ends(self._stream(self._bound[socket.number][::-1]))

    def _match_syn(self, packet: Packet) -> None:
        """Find the connect that a SYN comes of, if only one can be meant: then the socket's port is known
        before strace tells it. Otherwise it is left for then.
        """
        candidates = [call for call in self._unbound.get(packet.destination, ()) if _may_cause(call, packet)]
        for call in candidates:
            self._timeline.before(2 * call.number, 2 * packet.number)
        if len(candidates) == 1:
            socket = self._trace.sockets.get(candidates[0].socket or 0)
            if socket is not None:
                socket.local, socket.peer = packet.source, packet.destination
                self._know(socket)

    def _accepted(self, call: Call, made: Socket) -> None:
        ends = self._bound.get(made.number)
        if ends is not None:
            back = self._stream(ends[::-1])
            back.receiver = made
            if back.came.syn is not None:
                self.link(back.came.syn, call.number, "opens", 2 * call.number + 1)
            if back.came.opened is not None:
                self._timeline.before(_arrival(back.came.opened), 2 * call.number + 1)
            self._births[-made.number] = call

    def _stopping(self, call: Call, socket: Socket) -> None:
        if call.name == "shutdown" and call.arguments[1:2] == ("SHUT_RD",):
            return
        half = self._half(self._sending, socket)
        half.stops.append(call)
        ends, other = self._bound.get(socket.number), self._other_end(socket)
        if ends is not None:
            self._join_ends(self._stream(ends))
        if other is not None:
            self._join_stops(socket, other)

    def _failed(self, call: Call, socket: Socket) -> None:
        self._half(self._receiving, socket).failures.append(call)
        if socket.number in self._bound:
            self._join_ends(self._stream(self._bound[socket.number][::-1]))

    def _send_datagram(self, call: Call, socket: Socket, is_end: bool) -> None:
        if is_end:
            self._datagrams.sent(call, socket)
            return
        for place in self._datagrams.sends(call, socket):
            self.watch(place)
        self._know(socket)

    # Packets

    def _left(self, packet: Packet) -> None:
        """A packet leaves: which bytes it carries, and what it comes of."""
        if packet.protocol == "udp":
            sender = self._datagrams.left(packet)
            if sender is not None:
                self._know(sender)
            return
        ends = packet.source, packet.destination
        if "SYN" in packet.flags and "ACK" not in packet.flags:
            before = self._stream(ends).left.syn
            if before is not None and before.sequence != packet.sequence:
                self._forget(ends)  # the same ports, used again
        out = self._stream(ends)
        if out.first is None or ("SYN" in packet.flags and out.left.syn is None):
            out.first = packet.sequence + ("SYN" in packet.flags)
        self._place(packet, out, self._stream(ends[::-1]))
        if packet.made:
            return
        if packet.size and out.sender is not None and not out.sender.is_wrapped:
            start = packet.offset or 0
            span = Span(start, start + packet.size, packet.number)
            self._overlap(span, self._half(self._sending, out.sender).spans, "carries", span_is_cause=False)
        is_first = "SYN" in packet.flags and "ACK" not in packet.flags and out.left.syn is None
        out.left.note(packet)
        if is_first:
            keep_newest(self._syns, MOST_STREAMS)
            waiting = self._syns.setdefault(packet.destination, {})
            keep_newest(waiting, UNMATCHED)
            waiting[packet] = None
            self._match_syn(packet)
        self._join_ends(out)

    def _place(self, packet: Packet, out: Stream, back: Stream) -> None:
        """Where in its stream a packet is, and which one before had the same bytes."""
        first = packet.sequence + ("SYN" in packet.flags)
        start = out.reached + signed(first - (out.first or 0) - out.reached)
        packet.offset = start
        if "ACK" in packet.flags and back.first is not None:
            packet.acks = back.reached + signed(packet.acknowledged - back.first - back.reached)
        end = start + packet.size
        if packet.made:
            return  # nobody has sent it
        packet.resent = packet.size > 0 and end <= out.reached
        out.reached = max(out.reached, end)
        before = out.left.syn if "SYN" in packet.flags else out.left.fin if "FIN" in packet.flags else None
        if packet.resent:
            packet.repeats = next(
                (each.event for each in out.left.spans if each.start <= start < each.end), None
            )
        elif before is not None and before.sequence == packet.sequence:
            packet.resent, packet.repeats = True, before.number
        if packet.repeats is not None:
            self._trace.link(Link(packet.repeats, packet.number, "repeats"))

    def _came(self, packet: Packet) -> None:
        """A packet arrives: what comes of it."""
        if packet.protocol == "udp":
            self._datagrams.came(packet)
            return
        ends = packet.source, packet.destination
        out, back = self._stream(ends), self._stream(ends[::-1])
        is_news = not packet.reaches or not out.came.has(packet)
        out.came.note(packet)
        if packet.size and is_news and out.receiver is not None and not out.receiver.is_wrapped:
            start = packet.offset or 0
            span = Span(start, start + packet.size, packet.number)
            self._overlap(span, self._half(self._receiving, out.receiver).spans, "feeds", span_is_cause=True)
        self._join_ends(out)
        self._join_ends(back)

    def _forget(self, ends: tuple[Place, Place]) -> None:
        for each in (ends, ends[::-1]):
            self._streams.pop(each, None)
        for number in [number for number, bound in self._bound.items() if bound in (ends, ends[::-1])]:
            del self._bound[number]

    def _join_ends(self, stream: Stream) -> None:
        """What opens and what ends a stream: each joined as soon as both sides are known."""
        if stream.sender is not None:
            self._join_stop(stream)
            if stream.connecting is not None and stream.left.syn is not None:
                self.link(stream.connecting, stream.left.syn.number, "opens", 2 * stream.left.syn.number)
                self._syns.get(stream.left.syn.destination, {}).pop(stream.left.syn, None)
        if stream.receiver is not None:
            self._join_opening(stream, stream.receiver)
            half = self._half(self._receiving, stream.receiver)
            if stream.came.fin is not None:
                for eof in half.stops:
                    self.link(stream.came.fin, eof.number, "ends", 2 * eof.number + 1)
            if stream.came.rst is not None:
                for failed in half.failures:
                    if failed.until is None or stream.came.rst.at <= failed.until + LATE:
                        self.link(stream.came.rst, failed.number, "resets", 2 * failed.number + 1)

    def _join_stop(self, stream: Stream) -> None:
        assert stream.sender is not None
        stops = self._half(self._sending, stream.sender).stops
        if stream.left.fin is not None and (stop := _last_before(stream.left.fin.at, stops)):
            shutdown = next((each for each in stops if each.name == "shutdown" and each.at <= stop.at), None)
            self.link(shutdown or stop, stream.left.fin.number, "ends", 2 * stream.left.fin.number)
        if stream.left.rst is not None and (stop := _last_before(stream.left.rst.at, stops)):
            self.link(stop, stream.left.rst.number, "resets", 2 * stream.left.rst.number)

    def _join_opening(self, stream: Stream, receiver: Socket) -> None:
        """The handshake: `stream` comes from the peer of `receiver`."""
        accepted = self._births.get(-receiver.number)
        if accepted is not None:
            if stream.came.syn is not None:
                self.link(stream.came.syn, accepted.number, "opens", 2 * accepted.number + 1)
            if stream.came.opened is not None:
                self._timeline.before(_arrival(stream.came.opened), 2 * accepted.number + 1)
        ends = self._bound.get(receiver.number)
        connecting = self._stream(ends).connecting if ends is not None else None
        if connecting is not None and connecting.until is not None and connecting.error != "EINPROGRESS":
            answer = stream.came.syn if not connecting.failed else stream.came.rst
            if answer is not None:
                self.link(answer, connecting.number, "opens", 2 * connecting.number + 1)

    # Links

    def link(self, cause: Call | Packet, effect: int, kind: Relation, effect_key: int) -> None:
        """One event came of another, which therefore comes before."""
        self._trace.link(Link(cause.number, effect, kind))
        came = _arrival(cause) if isinstance(cause, Packet) else 2 * cause.number
        self._timeline.before(came, effect_key)

    def _link_numbers(self, cause: int, effect: int, kind: Relation, effect_key: int) -> None:
        self._trace.link(Link(cause, effect, kind))
        self._timeline.before(2 * cause + (kind == "feeds" and self.is_wire), effect_key)


def _arrival(packet: Packet) -> int:
    """The number of the moment at which a packet is at its receiver."""
    return 2 * packet.number + bool(packet.reaches)


def _may_cause(call: Call, packet: Packet) -> bool:
    """Whether a SYN may come of a connect, by time."""
    is_over = call.until is not None and call.error != "EINPROGRESS" and call.until < packet.at - LATE
    return call.at <= packet.at + SKEW and not is_over


def _last_before(at: int, calls: list[Call], late: int = SKEW) -> Call | None:
    """The last of these calls that began by then; if there is none, the first one that is not `late`r."""
    before = [call for call in calls if call.at <= at]
    return before[-1] if before else next((call for call in calls if call.at <= at + late), None)
