"""The bytes of a connection: which call and which packet transferred which of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bothends.trace.model import Call, Packet, Socket

MAX_OUT_OF_ORDER: Final = 64  # spans: retransmissions are out of order, but not by more than this
MAX_SPANS: Final = 10_000  # spans of each stream to remember; older ones have been matched


@dataclass(slots=True)
class Span:
    """The bytes of a stream from `start` up to `end`, which an event transferred."""

    start: int
    end: int
    event: int


class SpanList(list[Span]):
    """Spans in the order of their events. `in_order`: none begins before the end of the one before it."""

    in_order = True

    def add(self, span: Span) -> None:
        """Append a span, and drop old ones."""
        if self and span.start < self[-1].end:
            self.in_order = False
        self.append(span)
        trim_spans(self)


@dataclass(slots=True, eq=False)
class SocketStream:
    """One direction of one socket: the bytes that its calls transferred."""

    position: int = 0
    spans: SpanList = field(default_factory=SpanList)
    end_calls: list[Call] = field(default_factory=list)  # sending: close and shutdown; receiving: EOF
    failures: list[Call] = field(default_factory=list)  # receiving: ECONNRESET, EPIPE


@dataclass(slots=True, eq=False)
class SegmentLog:
    """The packets of one direction of a TCP connection at one end: spans, and the first of each kind."""

    spans: SpanList = field(default_factory=SpanList)
    syn: Packet | None = None
    first_ack: Packet | None = None  # the first that acknowledges a SYN
    fin: Packet | None = None
    rst: Packet | None = None

    def contains(self, packet: Packet) -> bool:
        """Return whether one earlier packet contained all bytes of this one."""
        start = packet.offset or 0
        return any(each.start <= start and start + packet.size <= each.end for each in self.spans)

    def record(self, packet: Packet) -> None:
        """Add a packet."""
        if packet.size:
            start = packet.offset or 0
            self.spans.add(Span(start, start + packet.size, packet.number))
        if "SYN" in packet.flags and self.syn is None:
            self.syn = packet
        elif "ACK" in packet.flags and self.first_ack is None and "RST" not in packet.flags:
            self.first_ack = packet
        if "FIN" in packet.flags and self.fin is None:
            self.fin = packet
        if "RST" in packet.flags and self.rst is None:
            self.rst = packet


@dataclass(slots=True, eq=False)
class Stream:
    """One direction of a TCP connection: its packets, as sent and as arrived, and its sockets."""

    first_sequence: int | None = None  # the sequence number of the first byte
    highest_offset: int = 0
    departed: SegmentLog = field(default_factory=SegmentLog)
    arrived: SegmentLog = field(default_factory=SegmentLog)
    sender: Socket | None = None
    receiver: Socket | None = None
    connect_call: Call | None = None


def may_open_or_close(packet: Packet, stream: Stream) -> bool:
    """Return whether a packet is part of the handshake or of the end: the first one with an ACK is."""
    flags = packet.flags
    if "SYN" in flags or "FIN" in flags or "RST" in flags:
        return True
    return stream.arrived.first_ack is None or stream.arrived.first_ack is packet


def sequence_difference(number: int) -> int:
    """Return a difference of sequence numbers, which wrap at 2**32, as a signed number."""
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


def first_after(spans: SpanList, offset: int) -> int:
    """Return an index from which on all spans start at `offset` or later, as near to the first as is quick.

    Spans are nearly sorted: a retransmission is out of order, by `MAX_OUT_OF_ORDER` at most.
    """
    low, high = 0, len(spans)
    if spans[-1].start < offset and spans.in_order:
        return high
    while low < high:
        middle = (low + high) // 2
        if spans[middle].start < offset:
            low = middle + 1
        else:
            high = middle
    if spans.in_order:
        return low
    high = min(low + MAX_OUT_OF_ORDER, len(spans))
    while high > low and spans[high - 1].start >= offset:
        high -= 1
    return high


def trim_spans(spans: list[Span]) -> None:
    """Drop the older half of the spans if there are more than `MAX_SPANS`."""
    if len(spans) > MAX_SPANS:
        del spans[: MAX_SPANS // 2]
