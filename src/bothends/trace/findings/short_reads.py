"""A rule about reads that return fewer bytes than a program relies on. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.capture.calls import RECEIVING, WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.model import Call, Socket


def waitall_returned_early(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a recv() with MSG_WAITALL on a non-blocking socket, after which the rest was never read.

    The flag has no effect there, and Python makes a socket with a time limit non-blocking (recv(2)).
    """
    for socket in trace_index.sockets("stream"):
        if socket.blocks:
            continue
        for call in trace_index.receives(socket):
            wanted = call.requested or 0
            if "MSG_WAITALL" not in call.flags or not 0 < call.size < wanted:
                continue
            if _reads_on(trace_index, call) or _had_ended(trace_index, socket, call):
                continue
            name = name_of(trace_index, call.process)
            yield Finding(
                "waitall-returned-early",
                "MSG_WAITALL does not wait on a non-blocking socket",
                f"{capitalized(name)} asked for all {wanted:,} bytes with MSG_WAITALL. The socket is "
                f"non-blocking, so recv returned the {call.size:,} that were there, and {name} did not read "
                "the rest.",
                "Read in a loop until the message is complete. A time limit makes a Python socket "
                "non-blocking; SO_RCVTIMEO does not.",
                (call.number,),
                process=call.process,
                sockets=(socket.number,),
                in_c="while (n < length && (r = recv(fd, buf + n, length - n, 0)) > 0) n += r;",
                in_python="while len(data) < length and (piece := s.recv(length - len(data))): data += piece",
            )
            break


def _reads_on(trace_index: TraceIndex, call: Call) -> bool:
    following = trace_index.next_call(call)
    if following is None:
        return trace_index.ended_at(call.process) is None  # it may read on after the end of the trace
    return following.name in RECEIVING | WAITING


def _had_ended(trace_index: TraceIndex, socket: Socket, call: Call) -> bool:
    """Return whether the peer had ended its direction before: then there was no rest."""
    return any(
        ("FIN" in packet.flags or "RST" in packet.flags) and packet.at <= (call.until or call.at)
        for packet in trace_index.packets_to[socket.number]
    )
