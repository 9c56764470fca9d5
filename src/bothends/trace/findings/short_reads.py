"""Rules about reads that return fewer bytes than a program relies on, or none yet. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import MOVING, RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

PROMPTLY_NS: Final = 100_000_000  # nanoseconds from EAGAIN to the close


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


def eagain_as_error(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a receive that returned EAGAIN, after which the program closed a connection still in use."""
    for socket in trace_index.sockets("stream"):
        peer = trace_index.peer_of(socket.number)
        calls = trace_index.calls_by_socket[socket.number] if peer is not None and not socket.blocks else []
        failed = [call for call in calls if call.name in RECEIVING and call.error == "EAGAIN"]
        call = failed[-1] if failed else None
        close = trace_index.next_call(call) if call is not None else None
        if call is None or close is None or close.name not in ("close", "shutdown"):
            continue
        late = next(
            (
                each
                for each in trace_index.calls_by_socket[peer or 0]
                if each.name in SENDING and each.at > close.at
            ),
            None,
        )
        moved = [each for each in calls if each.size and each.name in MOVING]
        is_asked = bool(moved) and moved[-1].name in SENDING
        if (
            not is_asked
            or _had_ended(trace_index, socket, call)
            or close.at - call.at > PROMPTLY_NS
            or call.duration > PROMPTLY_NS
        ):
            continue
        waits = [each for each in trace_index.calls_by_process[call.process] if socket.number in each.sockets]
        if any(each.at < call.at and each.duration > PROMPTLY_NS for each in waits):
            continue  # it has waited, and gives up
        holders = trace_index.holders_at(peer or 0, call.at)
        if not holders:
            continue
        name, other = name_of(trace_index, call.process), name_of(trace_index, min(holders))
        yield Finding(
            "eagain-as-error",
            "The program takes EAGAIN for the end of a connection",
            f"The socket of {name} is non-blocking, and nothing had arrived yet: {call.name} failed with "
            f"EAGAIN, and {name} closed the connection {formatting.duration(close.at - call.at)} later. "
            + (
                f"{capitalized(other)} sent its answer {formatting.duration(late.at - close.at)} after that."
                if late is not None
                else f"{capitalized(other)} had not answered yet."
            ),
            "EAGAIN (EWOULDBLOCK, in Python BlockingIOError) means that nothing has arrived yet: wait in "
            "poll() and receive again.",
            tuple(each.number for each in (call, close, late) if each is not None),
            process=call.process,
            sockets=(socket.number, peer or 0),
            in_c="if (n < 0 && errno == EAGAIN) poll(&(struct pollfd){fd, POLLIN}, 1, timeout);",
            in_python="except BlockingIOError: select.select([s], [], [], timeout)",
        )
        return


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
