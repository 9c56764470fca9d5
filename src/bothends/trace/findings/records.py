"""A rule about records of a fixed size that the two ends count differently: a struct with padding. Pure.

The reader asks for the same number of bytes again and again. The sender's records are smaller: each send has
one, or a header says how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.turns import Turn, peer_socket, stream_of
from bothends.trace.model import Call, Socket

_WIDTHS: Final = (1, 2, 4, 8)  # bytes of a number
_MAX_HEADER: Final = 16
_ALIGNMENTS: Final = (8, 4, 2)
_MAX_RECORD: Final = 4_096  # bytes
_MIN_RECORD: Final = 3  # bytes: a smaller one has no padding


class _Sizes(NamedTuple):
    """The sizes of a record at both ends, and what shows the sender's."""

    sent: int
    read: int
    basis: str


def record_size_differs(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader of records that are larger than those that are sent."""
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
            "Define the format byte by byte: write and read each field by itself, in network byte order, or "
            "use a packed struct at both ends.",
            (sent.calls[-1].number, *(call.number for call in reads[:2]), reads[-1].number),
            certainty="inferred",
            basis=sizes.basis,
            process=reads[0].process,
            sockets=(writer.number, reader.number),
            in_c="struct __attribute__((packed)) record { uint8_t kind; uint32_t value; };",
            in_python='struct.unpack("!BI", data)  # "!" has no padding, as opposed to "@", the default',
        )


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
