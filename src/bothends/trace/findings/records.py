"""A rule about records of a fixed size that the two ends count differently: a struct with padding. Pure.

The reader asks for the same number of bytes again and again. The sender's records are smaller: each send has
one, or a header says how many there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.turns import Turn, peer_socket, stream_of, turns
from bothends.trace.model import Call, Socket

_WIDTHS: Final = (1, 2, 4, 8)  # bytes of a number
_MAX_HEADER: Final = 16
_ALIGNMENTS: Final = (8, 4, 2)
_MAX_RECORD: Final = 4_096  # bytes
_MIN_RECORD: Final = 3  # bytes: a smaller one has no padding
_REMEDY: Final = (
    "Define the format byte by byte: write and read each field by itself, in network byte order, or use a "
    "packed struct at both ends."
)
_IN_C: Final = "struct __attribute__((packed)) record { uint8_t kind; uint32_t value; };"
_IN_PYTHON: Final = 'struct.unpack("!BI", data)  # "!" has no padding, as opposed to "@", the default'


class _Sizes(NamedTuple):
    """The sizes of a record at both ends, and what shows the sender's."""

    sent: int
    read: int
    basis: str


def record_size_differs(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader of records, or of a header, that have another size than those that are sent."""
    yield from _header_size_differs(trace_index)
    for writer in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, writer)
        if reader is None:
            continue
        reads = _reads_of_records(trace_index, reader)
        if not reads:
            continue
        sent, received = stream_of(trace_index, writer, "sent"), stream_of(trace_index, reader, "received")
        sizes = _sizes(sent, received, reads) if sent.calls else None
        if sizes is None or sent.total == received.total == sum(call.size for call in reads):
            continue
        name, other = name_of(trace_index, sent.calls[0].process), name_of(trace_index, reads[0].process)
        yield Finding(
            "record-size-differs",
            "The two ends have different sizes for one record",
            f"{capitalized(name)} sends records of {sizes.sent} bytes, and {other} reads {sizes.read} bytes "
            f"for each: all records after the first are shifted, and the last read waits for bytes that "
            "never come. Probably the compiler pads a struct at one end.",
            _REMEDY,
            (sent.calls[-1].number, *(call.number for call in reads[:2]), reads[-1].number),
            certainty="inferred",
            basis=sizes.basis,
            process=reads[0].process,
            sockets=(writer.number, reader.number),
            in_c=_IN_C,
            in_python=_IN_PYTHON,
        )


class _Header(NamedTuple):
    """A header of `size` bytes that ends with a length of `width` bytes, as one end lays it out."""

    size: int
    width: int
    length: int


def _header_size_differs(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader that takes the length of a message from another place than where the sender puts it."""
    for writer in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, writer)
        if reader is None:
            continue
        received = stream_of(trace_index, reader, "received")
        sent = turns(trace_index, writer)[:1]
        if not sent or sent[0].kind != "sent" or not received.calls:
            continue
        read = received.calls[0]
        following = next(
            (call for call in trace_index.later_calls(read) if call.name in RECEIVING and not call.failed),
            None,
        )
        if read.size != read.requested or read.size > _MAX_HEADER or following is None:
            continue
        found = _headers(sent[0], read.size, following.requested or 0)
        if found is None:
            continue
        written, taken = found
        name, other = name_of(trace_index, sent[0].calls[0].process), name_of(trace_index, read.process)
        yield Finding(
            "record-size-differs",
            "The two ends lay out the header of a message differently",
            f"{capitalized(name)} sent a header of {written.size} bytes, whose last {written.width} are the "
            f"length {written.length:,} of what follows. {capitalized(other)} read {taken.size} bytes for it "
            f"and then asked for {taken.length:,}: that is the number in the last {taken.width} bytes of "
            "those. Probably the compiler pads a struct at one end.",
            _REMEDY,
            (sent[0].calls[0].number, read.number, following.number),
            process=read.process if taken.size > written.size else sent[0].calls[0].process,
            sockets=(writer.number, reader.number),
            in_c=_IN_C,
            in_python=_IN_PYTHON,
        )


def _headers(sent: Turn, size: int, asked: int) -> tuple[_Header, _Header] | None:
    """Return the header as it is sent and as it is read, if the reader asked for a length from its own."""
    for width, order in itertools.product((4, 2, 8), ("big", "little")):
        taken = _length_at_end(sent.data, size, width, order)
        if taken != asked or not asked or size + asked == sent.total:
            continue
        for other in range(width, _MAX_HEADER + 1):
            length = _length_at_end(sent.data, other, width, order)
            is_padded = max(other, size) % width == 0 and min(other, size) % width != 0
            if (
                length
                and is_padded
                and max(other, size) <= 2 * min(other, size)
                and other + length == sent.total
            ):
                return _Header(other, width, length), _Header(size, width, asked)
    return None


def _length_at_end(data: bytes, size: int, width: int, order: str) -> int:
    """Return the number in the last `width` bytes of a header, or 0 if there is none."""
    byte_order: Literal["big", "little"] = "big" if order == "big" else "little"
    return int.from_bytes(data[size - width : size], byte_order) if width <= size <= len(data) else 0


def _reads_of_records(trace_index: TraceIndex, reader: Socket) -> list[Call]:
    """Return the reads of the size that the last one asks for, if there are several."""
    reads = [
        call
        for call in trace_index.calls_by_socket[reader.number]
        if call.name in RECEIVING
        and call.requested
        and (call.size or call.until is None)
        and "MSG_PEEK" not in call.flags
    ]
    if not reads:
        return []
    wanted = reads[-1].requested or 0
    same = [call for call in reads if call.requested == wanted]
    is_exact = all(call.size == wanted for call in same[:-1])
    is_short = same[-1].size < wanted
    return same if len(same) > 1 and is_exact and is_short and _MIN_RECORD < wanted <= _MAX_RECORD else []


def _sizes(sent: Turn, received: Turn, reads: list[Call]) -> _Sizes | None:
    read = reads[0].requested or 0
    header = sum(call.size for call in received.calls if call.number < reads[0].number)
    if header > _MAX_HEADER:
        return None
    records = sent.total - header
    sizes = {call.size for call in sent.calls if not header or call is not sent.calls[0]}
    if len(sizes) == 1 and len(sent.calls) > 2 and _is_padded(size := sizes.pop(), read):
        return _Sizes(size, read, f"each send has {size} bytes")
    for width in _WIDTHS:
        for at in range(header - width + 1):
            for order in ("big", "little"):
                count = int.from_bytes(sent.data[at : at + width], order)
                if count > 1 and records % count == 0 and _is_padded(records // count, read):
                    basis = f"{count} records, as the header says, in {records} bytes"
                    return _Sizes(records // count, read, basis)
    return None


def _is_padded(size: int, padded: int) -> bool:
    """Return whether a compiler may pad a record of `size` bytes to `padded` bytes."""
    is_aligned = any(padded % each == 0 and size % each for each in _ALIGNMENTS)
    return is_aligned and size >= _MIN_RECORD and size < padded <= 2 * size
