"""A rule about a greeting that the client takes for the answer to its first request. Pure.

server ── +OK ready ──>              sent as soon as the connection is accepted
       <── LIST ──────── client      sends first, and then reads one line: the greeting
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.turns import turns
from bothends.trace.model import Socket
from bothends.trace.rendering import formatting

_PROMPTLY_NS: Final = 500_000_000  # nanoseconds from the read to the exit
_SHOWN: Final = 24  # bytes of a greeting in a text


def greeting_not_read(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that sends before it has read the greeting, and fails with what it reads then."""
    for socket in trace_index.sockets("stream"):
        number = trace_index.peer_of(socket.number)
        if number is None or socket.accepted_from is not None or socket.is_wrapped:
            continue
        spoken, other = turns(trace_index, socket), turns(trace_index, trace_index.trace.sockets[number])
        if len(spoken) < 2 or not other or spoken[0].kind != "sent" or other[0].kind != "sent":
            continue
        greeting, read = other[0], spoken[1].calls[0]
        is_line = greeting.data.endswith(b"\n") and len(greeting.data) == greeting.total
        if not is_line or not read.data.startswith(greeting.data) or not _fails(trace_index, socket):
            continue
        client, server = name_of(trace_index, read.process), name_of(trace_index, greeting.calls[0].process)
        yield Finding(
            "greeting-not-read",
            "The client probably takes the greeting for the answer to its request",
            f"{capitalized(server)} sent {formatting.quoted(greeting.data, greeting.total, _SHOWN)} before "
            f"it had read anything. {capitalized(client)} sent its first request without reading that, so "
            "the first answer that it read is the greeting, and each later one that to the request before. "
            f"It then exited with status {trace_index.process(read.process).status}.",
            "Read the greeting before the first request. Then read one answer for each request.",
            (greeting.calls[0].number, spoken[0].calls[0].number, read.number),
            "inferred",
            "the server spoke first, and the client did not read before it sent",
            process=read.process,
            sockets=(socket.number, number),
            in_c="read_line(fd, greeting);  /* before the first send() */",
            in_python="greeting = stream.readline()   # before the first sendall()",
        )


def _fails(trace_index: TraceIndex, socket: Socket) -> bool:
    """Return whether the client exits with an error right after its last read, which was no EOF."""
    reads = [
        call for call in trace_index.calls_by_socket[socket.number] if call.name in RECEIVING and call.size
    ]
    if not reads or any(call.result == 0 and call.requested for call in trace_index.later_calls(reads[-1])):
        return False
    ended, status = trace_index.ended_at(reads[-1].process), trace_index.process(reads[-1].process).status
    is_prompt = ended is not None and ended - (reads[-1].until or reads[-1].at) < _PROMPTLY_NS
    return is_prompt and (status or 0) > 0
