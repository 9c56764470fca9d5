"""A rule about a line that is longer than the stream of its reader takes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs
from bothends.trace.findings.turns import both_ends, turns
from bothends.trace.model import Call, Socket

_READ: Final = 262_144  # bytes that a transport of asyncio asks for
_LIMIT: Final = 65_536  # bytes of a line: the default limit of asyncio's streams


def line_over_limit(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an asyncio program that stopped reading in the middle of a line of more than 64 KiB.

    `StreamReader.readline()` raises ValueError then, and `readuntil()` LimitOverrunError (Streams, in the
    documentation of Python's asyncio); the task ends, and its connection is closed.
    """
    for socket in trace_index.sockets("stream"):
        reads = reads_over_limit(trace_index, socket)
        if not reads:
            continue
        last, total = reads[-1], sum(call.size for call in reads)
        sent = trace_index.senders_of(last)[-1]
        sender = capitalized(name_of(trace_index, sent.process))
        reader = capitalized(name_of(trace_index, last.process))
        yield Finding(
            "line-over-limit",
            "The reader gave up a line that is longer than its limit",
            f"{sender} sent {sent.size:,} bytes in one send. {reader} read {total:,} of them, in which no "
            "line ends, and closed the connection without an answer: probably readline() of an asyncio "
            "stream failed, whose limit is 64 KiB.",
            "Raise the limit of the stream, or send the length first and use readexactly(). Handle the error "
            "of a line that is too long, a ValueError of readline(), with an answer.",
            (sent.number, last.number),
            "inferred",
            "reads of 256 KiB, as asyncio makes them, more than 64 KiB without a newline, and no answer",
            process=last.process,
            sockets=both_ends(trace_index, socket),
            in_python="await asyncio.start_server(handle, host, port, limit=16 * 2**20)",
        )


def reads_over_limit(trace_index: TraceIndex, socket: Socket) -> list[Call]:
    """Return the reads of a line that asyncio gave up; none if the last message was no such line."""
    spoken = turns(trace_index, socket)
    if not spoken or spoken[-1].kind != "received" or spoken[-1].total <= _LIMIT:
        return []
    reads = spoken[-1].calls
    last = reads[-1]
    if last.requested != _READ or any(b"\n" in call.data for call in reads):
        return []
    senders = trace_index.senders_of(last)
    is_cut = bool(senders) and senders[-1].size > spoken[-1].total
    is_closed = any(call.name == "close" for call in trace_index.calls_by_socket[socket.number])
    return reads if is_cut and is_closed and runs(trace_index, last.process, "python") else []
