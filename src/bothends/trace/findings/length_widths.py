"""A rule about a length prefix that one end writes in fewer or more bytes than the other end reads. Pure.

sender                     reader
1c temperature=...         1c 74 65 6d: 477,390,189 bytes, write(int) of Java sends one byte
00 05 hello                00 05 68 65: 353,381 bytes
05 00 00 00 00 00 00 00    05 00 00 00: 5 bytes, and the zeros are taken for the message
hello

`long` and `size_t` have 8 bytes on 64-bit Linux and 4 on a 32-bit system; "L" of Python's struct has 8
without a byte order in front, and 4 with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs
from bothends.trace.findings.framing import (
    LARGE_READ,
    PrefixFormat,
    binary_lengths,
    is_stuck,
    next_read,
    read_of_header,
)
from bothends.trace.findings.standstill import bytes_text
from bothends.trace.findings.turns import Turn, ended_without_reading, peer_socket, stream_of
from bothends.trace.model import Call, Socket

_WRITTEN: Final = tuple(PrefixFormat(width, order) for width in (1, 2, 4) for order in ("big", "little"))
_LONG: Final = PrefixFormat(8, "little")
_READ: Final = (8, 4, 2)  # bytes
_CALLS: Final = {1: "write(n) or writeByte(n)", 2: "writeShort(n)", 4: "writeInt(n)", 8: "writeLong(n)"}
_IN_C: Final = {
    2: "uint16_t n = htons(length); send(s, &n, sizeof n, 0);",
    4: "uint32_t n = htonl(length); send(s, &n, sizeof n, 0);",
    8: "uint64_t n = htobe64(length); send(s, &n, sizeof n, 0);",
}
_FORMATS: Final = {1: "!B", 2: "!H", 4: "!I", 8: "!Q"}


class _Misreading(NamedTuple):
    """What a reader took for a length: how many bytes, the number, and the calls that show it.

    `following` is the read of the message; `stuck` is the one after it, which waits.
    """

    width: int
    length: int
    header: Call
    following: Call | None
    stuck: Call | None = None


def length_width(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a length that the reader takes for a wider or a narrower one, and what it then waits for."""
    for writer in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, writer)
        if reader is None or writer.is_wrapped:
            continue
        sent, received = stream_of(trace_index, writer, "sent"), stream_of(trace_index, reader, "received")
        if not sent.calls or not received.calls:
            continue
        for framing in _WRITTEN:
            sizes = framing.sizes(sent.data, sent.total)
            if not sizes or not all(sizes) or (framing.width == 1 and len(sizes) > 1):
                continue
            found = _misreading(trace_index, framing, sent, received, reader, sizes[0])
            if found is not None:
                yield _finding(trace_index, framing, sent, sizes[0], found, (writer.number, reader.number))
                break
        else:
            sizes = _LONG.sizes(sent.data, sent.total)
            found = _narrower(trace_index, received, reader, sizes[0]) if sizes and sizes[0] else None
            if found is not None:
                yield _finding(trace_index, _LONG, sent, sizes[0], found, (writer.number, reader.number))


def _misreading(
    trace_index: TraceIndex, framing: PrefixFormat, sent: Turn, received: Turn, reader: Socket, size: int
) -> _Misreading | None:
    """Return how a reader took the first bytes of a stream for a wider length, or None."""
    for width in _READ:
        header = read_of_header(received, width)
        if header is None or width <= framing.width:
            continue
        following = next_read(trace_index, header)
        for length in binary_lengths(sent.data[:width]):
            if length <= sent.total:
                continue
            if following is None:
                status = trace_index.process(header.process).status or 0
                if status > 0 and ended_without_reading(trace_index, reader, header):
                    return _Misreading(width, length, header, None)
                continue
            asked = following.requested or 0
            # A length of 4 bytes agrees with a stream by chance less often than one of 1 or 2.
            least = size + 1 if framing.width >= 4 else LARGE_READ
            is_asked = asked == length or least <= asked <= length
            if is_asked and asked > size and is_stuck(trace_index, reader, following):
                return _Misreading(width, length, header, following)
    return None


def _narrower(trace_index: TraceIndex, received: Turn, reader: Socket, size: int) -> _Misreading | None:
    """Return how a reader took the first bytes of a length of 8 for all of it, or None."""
    for width in _READ[1:]:
        header = read_of_header(received, width)
        following = next_read(trace_index, header) if header is not None else None
        if header is None or following is None or not following.requested == following.size == size:
            continue
        later = trace_index.later_calls(following)
        reads = [call for call in later if call.name in RECEIVING and call.process == header.process]
        if reads and is_stuck(trace_index, reader, reads[0]):
            return _Misreading(width, size, header, following, reads[0])
        if ended_without_reading(trace_index, reader, following):
            return _Misreading(width, size, header, following)
    return None


def _finding(
    trace_index: TraceIndex,
    framing: PrefixFormat,
    sent: Turn,
    size: int,
    found: _Misreading,
    sockets: tuple[int, ...],
) -> Finding:
    sender, reader = (name_of(trace_index, call.process) for call in (sent.calls[0], found.header))
    prefix, taken = sent.data[: framing.width].hex(" "), sent.data[: found.width].hex(" ")
    extra = framing.width - found.width
    if extra > 0:
        outcome = f"and took the other {extra} for the beginning of the message"
        outcome += ", its last bytes for the next length" * (found.stuck is not None)
    elif found.following is not None:
        outcome = f"and waits for {bytes_text(found.length)}"
    else:
        outcome = f"which is {found.length:,}, and exited with an error"
    is_java = runs(trace_index, sent.calls[0].process, "java")
    hint = " In Java write(int) sends one byte, the lowest." if is_java and framing.width == 1 else ""
    calls = sent.calls[0], found.header, found.following, found.stuck
    return Finding(
        "length-width",
        "The two ends use a different number of bytes for the length of a message",
        f"{capitalized(sender)} sent the length {size:,} in {bytes_text(framing.width)} ({prefix}), and "
        f"{reader} read {bytes_text(found.width)} for it ({taken}), {outcome}.{hint}",
        f"Use the same number of bytes at both ends: {_CALLS[found.width]} of Java, or struct.pack() with "
        f'"{_FORMATS[found.width]}", writes the {found.width} that are read.',
        tuple(call.number for call in calls if call is not None),
        "inferred",
        f"{prefix} at the start of the stream is the length of what follows, "
        f"and the reader asks for {'as much' if extra > 0 else 'more'}",
        process=sent.calls[0].process,
        sockets=sockets,
        in_c=_IN_C[found.width],
        in_python=f's.sendall(struct.pack("{_FORMATS[found.width]}", len(data)) + data)',
    )
