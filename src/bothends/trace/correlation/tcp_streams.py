"""What is remembered of a TCP stream, by `correlator.py`: values, and their arithmetic. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bothends.trace.model import Call, Packet, Socket

MAX_SPANS: Final = 2_000  # remembered of each stream: what is matched is matched


@dataclass(slots=True)
class Span:
    """The bytes from `start` up to `end` of a stream, which an event moved."""

    start: int
    end: int
    event: int


@dataclass(slots=True, eq=False)
class SocketStream:
    """One direction of one socket: what its calls moved."""

    position: int = 0
    spans: list[Span] = field(default_factory=list)
    end_calls: list[Call] = field(default_factory=list)  # sending: close and shutdown; receiving: EOF
    failures: list[Call] = field(default_factory=list)  # receiving: ECONNRESET, EPIPE


@dataclass(slots=True, eq=False)
class SegmentLog:
    """What an end has seen of one direction of a TCP connection: the first packet of each kind."""

    spans: list[Span] = field(default_factory=list)
    syn: Packet | None = None
    first_ack: Packet | None = None  # the first that acknowledges a SYN
    fin: Packet | None = None
    rst: Packet | None = None

    def contains(self, packet: Packet) -> bool:
        """Whether all bytes of a packet were seen before, in one other."""
        start = packet.offset or 0
        return any(each.start <= start and start + packet.size <= each.end for each in self.spans)

    def record(self, packet: Packet) -> None:
        """One more packet."""
        if packet.size:
            start = packet.offset or 0
            self.spans.append(Span(start, start + packet.size, packet.number))
            trim_spans(self.spans)
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
    """One direction of a TCP connection, as its packets show it: as they left, and as they came."""

    first_sequence: int | None = None  # the sequence number of the first byte
    highest_offset: int = 0
    departed: SegmentLog = field(default_factory=SegmentLog)
    arrived: SegmentLog = field(default_factory=SegmentLog)
    sender: Socket | None = None
    receiver: Socket | None = None
    connect_call: Call | None = None


def sequence_difference(number: int) -> int:
    """A difference of sequence numbers, which wrap at 2**32, as the nearest number that it may mean."""
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


def trim_spans(spans: list[Span]) -> None:
    """Keep so many."""
    if len(spans) > MAX_SPANS:
        del spans[: MAX_SPANS // 2]
