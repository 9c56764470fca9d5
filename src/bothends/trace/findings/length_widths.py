"""A rule about the length of a message that the two ends write and read with different widths. Pure.

    sender  |  0b 00 00 00 00 00 00 00  |  hello world         size_t, or struct.pack("L"): 8 bytes
    reader  |  0b 00 00 00  |  00 00 00 00 hello w  |  orld    uint32_t: 4 bytes

`long` and `size_t` have 8 bytes on 64-bit Linux and 4 on a 32-bit system; "L" of Python's struct has 8
without a byte order in front, and 4 with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.framing import (
    PrefixFormat,
    binary_lengths,
    is_stuck,
    next_read,
    read_of_header,
)
from bothends.trace.findings.turns import Turn, ended_without_reading, peer_socket, stream_of
from bothends.trace.model import Call, Socket

_WIDTHS: Final = (4, 8, 2)  # bytes of a length
_FORMATS: Final = tuple(PrefixFormat(width, order) for width in _WIDTHS for order in ("big", "little"))


class _Widths(NamedTuple):
    """The length as it is sent, how wide it is read, what happened then, and the calls that show it."""

    sent: PrefixFormat
    size: int
    read: int
    text: str
    calls: tuple[Call, ...]


def length_width(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader that takes a length for wider or narrower than the sender writes it."""
    for writer in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, writer)
        if reader is None:
            continue
        sent, received = stream_of(trace_index, writer, "sent"), stream_of(trace_index, reader, "received")
        found = _widths(trace_index, sent, received, reader) if sent.calls and received.calls else None
        if found is None:
            continue
        name, other = (
            name_of(trace_index, sent.calls[0].process),
            name_of(trace_index, found.calls[0].process),
        )
        yield Finding(
            "length-width",
            "The two ends have different widths for the length of a message",
            f"{capitalized(name)} sends the length {found.size:,} in {found.sent.width} bytes, "
            f"{found.sent.length(sent.data).hex(' ')}, and {other} reads {found.read} bytes for it"
            f"{found.text}",
            "Use a type of a fixed width, in network byte order, at both ends: uint32_t in C, and in Python "
            'struct with "!I". long, size_t and the "L" of struct have another width elsewhere.',
            (sent.calls[0].number, *(call.number for call in found.calls)),
            process=found.calls[0].process,
            sockets=(writer.number, reader.number),
            in_c="uint32_t n = htonl(size);   /* the reader: uint32_t n; size = ntohl(n); */",
            in_python='n, = struct.unpack("!I", header)   # the sender: struct.pack("!I", n)',
        )


def _widths(trace_index: TraceIndex, sent: Turn, received: Turn, reader: Socket) -> _Widths | None:
    for framing in _FORMATS:
        sizes = framing.sizes(sent.data, sent.total)
        if not sizes or not sizes[0]:
            continue
        for width in _WIDTHS:
            header = read_of_header(received, width) if width != framing.width else None
            if header is None:
                continue
            find = _narrower if width < framing.width else _wider
            shown = find(trace_index, framing, sizes[0], sent, reader, header, width)
            if shown is not None:
                return _Widths(framing, sizes[0], width, *shown)
    return None


def _wider(
    trace_index: TraceIndex,
    framing: PrefixFormat,
    size: int,
    sent: Turn,
    reader: Socket,
    header: Call,
    width: int,
) -> tuple[str, tuple[Call, ...]] | None:
    """Return what shows that a reader took the first bytes of the message for a part of the length."""
    numbers = binary_lengths(sent.data[:width])
    following = next_read(trace_index, header)
    taken = f", with {width - framing.width} bytes of the message"
    if following is not None and following.requested in numbers:
        return f"{taken}: it then asks for {following.requested:,} bytes.", (header, following)
    ends = following is None and ended_without_reading(trace_index, reader, header)
    if ends and (trace_index.process(header.process).status or 0) > 0 and min(numbers) > sent.total:
        return f"{taken}. It exits with an error before it reads more.", (header,)
    rest = size - (width - framing.width)
    is_chunk = following is not None and rest < (following.requested or 0) <= min(numbers)
    if following is not None and is_chunk and is_stuck(trace_index, reader, following):
        return f"{taken}. It waits for more than the message holds.", (header, following)
    return None


def _narrower(
    trace_index: TraceIndex,
    framing: PrefixFormat,
    size: int,
    sent: Turn,
    reader: Socket,
    header: Call,
    width: int,
) -> tuple[str, tuple[Call, ...]] | None:
    """Return what shows that a reader took the last bytes of the length for the message."""
    following = next_read(trace_index, header)
    if following is None or following.requested != size or framing.order != "little":
        return None
    reads = [
        call
        for call in trace_index.later_calls(following)
        if call.name in RECEIVING and call.process == header.process
    ]
    extra = framing.width - width
    left = following.size == size and (
        (reads and is_stuck(trace_index, reader, reads[0]))
        or ended_without_reading(trace_index, reader, following)
    )
    if not left:
        return None
    what = f": the other {extra} are taken for the beginning of the message, and its last {extra} bytes for "
    return f"{what}the next length.", (header, following)
