"""A rule about a timeout in the middle of a message, after which the reader starts over. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.framing import FRAMINGS, PrefixFormat
from bothends.trace.findings.reading import has_timed_out
from bothends.trace.findings.turns import peer_socket, stream_of
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting


def message_abandoned(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader whose timeout struck in the middle of a message, and that then read a length there."""
    for writer in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, writer)
        sent = stream_of(trace_index, writer, "sent")
        if reader is None or not sent.calls:
            continue
        for framing in FRAMINGS:
            sizes = framing.sizes(sent.data, sent.total)
            found = _restart(trace_index, reader, framing, sizes) if len(sizes) > 1 else None
            if found is None:
                continue
            wait, read, left = found
            name = name_of(trace_index, read.process)
            yield Finding(
                "message-abandoned",
                "A timeout in the middle of a message, and the reader starts over",
                f"{capitalized(name)} had read a part of a message when its timeout of "
                f"{formatting.duration(wait.timeout_ns or wait.duration)} passed. It went on as if a new "
                f"message began, and took {formatting.quoted(read.data, read.size, 12)} for a length: "
                f"{left} bytes of the old message were still to come.",
                "Keep what has been read of a message across timeouts, and go on where it stopped; or close "
                "the connection after a timeout.",
                (wait.number, read.number),
                process=read.process,
                sockets=(writer.number, reader.number),
                in_c="/* have and buf belong to the connection, and survive a timeout */",
                in_python="self.buffer += sock.recv(4096)  # kept when TimeoutError is raised",
            )
            break


def _restart(
    trace_index: TraceIndex, reader: Socket, framing: PrefixFormat, sizes: list[int]
) -> tuple[Call, Call, int] | None:
    """Return the wait that timed out, the read of a length in mid-message, and what was left of it."""
    ends = {0}
    at = 0
    for size in sizes:
        at += framing.width + size
        ends.add(at)
    reads = trace_index.receives(reader)
    offset = 0
    for before, read in pairwise(reads):
        offset += before.size
        if offset in ends or read.requested != framing.width or offset >= at:
            continue
        following = min(each for each in ends if each > offset)
        if before.size < (before.requested or 0) or following - offset == framing.width:
            continue
        wait = _timed_out(trace_index, reader, before, read)
        if wait is not None:
            return wait, read, following - offset
    return None


def _timed_out(trace_index: TraceIndex, reader: Socket, before: Call, read: Call) -> Call | None:
    for call in trace_index.calls_by_process[read.process]:
        if before.at < call.at < read.at and call.thread == read.thread and has_timed_out(call, reader):
            return call
    return None
