"""Rules about descriptors that are no sockets: 0 instead of a connection, and -1 after close(). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, RECEIVING, SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import INTERPRETERS, capitalized, name_of, runs
from bothends.trace.findings.standstill import call_name
from bothends.trace.findings.turns import both_ends
from bothends.trace.model import Call

CRASH_NS: Final = 1_000_000_000  # nanoseconds between an error that is not handled and the exit

_MOVING: Final = SENDING | RECEIVING
_CREATING: Final = ACCEPTING | {"socket"}


def not_a_socket(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a compiled program that uses descriptor 0 or 1 in place of the socket that it has just got.

    `fd = accept(...) < 0` assigns the comparison, which has precedence: 0, or 1 where it is true.
    """
    done = set[int]()
    for call in trace_index.calls:
        if call.error != "ENOTSOCK" or call.descriptor not in (0, 1) or call.process in done:
            continue
        created = _unused_socket(trace_index, call)
        if created is None or runs(trace_index, call.process, *INTERPRETERS):
            continue
        done.add(call.process)
        name, result = name_of(trace_index, call.process), created.result
        creating = "accept" if created.name in ACCEPTING else "socket"
        yield Finding(
            "not-a-socket",
            f"The result of a comparison is used as the descriptor that {creating}() returned",
            f"{capitalized(name)} called {call_name(call)} and got ENOTSOCK: descriptor {call.descriptor} is "
            f"no socket. {creating}() had returned {result}, which {name} never used. Probably it stored a "
            f"comparison: in `fd = {creating}(...) < 0` the comparison comes first, so fd is 0 (false) or 1.",
            f"Put the assignment into parentheses of its own: (fd = {creating}(...)) < 0.",
            (created.number, call.number),
            "inferred",
            f"descriptor {result} is a new socket, and no call uses it",
            process=call.process,
            sockets=both_ends(trace_index, trace_index.trace.sockets[created.created_id or 0])
            if created.created_id in trace_index.trace.sockets
            else (),
            in_c=f'if ((fd = {creating}(...)) < 0) {{ perror("{creating}"); return 1; }}',
        )


def _unused_socket(trace_index: TraceIndex, wrong: Call) -> Call | None:
    """Return the call that made the last socket of a thread before a call, if nothing uses that socket."""
    created = None
    for call in trace_index.calls_by_process[wrong.process]:
        if call.number >= wrong.number:
            break
        if call.name in _CREATING and call.thread == wrong.thread and not call.failed:
            created = call
    if created is None or created.result is None or created.result in (0, 1):
        return None
    used = _MOVING | {"bind", "connect", "listen"} | ACCEPTING
    own = trace_index.calls_by_process[wrong.process]
    is_used = any(
        call.name in used and call.descriptor == created.result and call.number > created.number
        for call in own
    )
    return None if is_used else created


def closed_object_used(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a Python program that uses a socket object that it has closed: its descriptor is -1 then."""
    done = set[int]()
    for call in trace_index.calls:
        if call.error != "EBADF" or call.descriptor != -1 or call.process in done:
            continue
        close = _close_before(trace_index, call)
        if close is None or not runs(trace_index, call.process, "python", "pypy"):
            continue
        harm = _harm(trace_index, call, close)
        if not harm:
            continue
        done.add(call.process)
        name, is_accept = name_of(trace_index, call.process), call.name in ACCEPTING
        what = "the listening socket" if is_accept else "the connection"
        method = "accept()" if is_accept else "recv()" if call.name in RECEIVING else "send()"
        yield Finding(
            "closed-object-used",
            f"A socket is used after close(): {method} of a closed socket",
            f"{capitalized(name)} closed {what} (descriptor {close.descriptor}), and then called {method} on "
            f"it again: EBADF, because a closed socket object has the descriptor -1. {harm}",
            "Close the listening socket only when no connection is to be accepted any more: after the loop."
            if is_accept
            else "Close the connection after its last use: after the loop that serves it, or leave the loop "
            "there (break).",
            (close.number, call.number),
            process=call.process,
            sockets=both_ends(trace_index, trace_index.trace.sockets[close.socket or 0]),
            in_python="while True: connection, _ = listener.accept(); serve(connection)   # then close"
            if is_accept
            else "while data := connection.recv(4096): connection.sendall(answer(data))   # then close",
        )


def _close_before(trace_index: TraceIndex, wrong: Call) -> Call | None:
    """Return the last close() of a socket of that kind by the thread of a call."""
    found = None
    for call in trace_index.calls_by_process[wrong.process]:
        if call.number >= wrong.number:
            break
        if call.name != "close" or call.failed or call.socket is None or call.thread != wrong.thread:
            continue
        socket = trace_index.trace.sockets[call.socket]
        if socket.kind == "stream" and socket.is_listener == (wrong.name in ACCEPTING):
            found = call
    return found


def _harm(trace_index: TraceIndex, wrong: Call, close: Call) -> str:
    """Return what followed: the program failed, or the peer went on; "" if neither did."""
    ended, status = trace_index.ended_at(wrong.process), trace_index.process(wrong.process).status
    if ended is not None and status and status > 0 and ended - wrong.at < CRASH_NS:
        return f"The program exited with status {status}."
    peer = trace_index.peer_of(close.socket or 0)
    later = trace_index.calls_by_socket[peer] if peer is not None else []
    if any(call.name in SENDING and call.size and call.at > close.at for call in later):
        return "The peer had gone on to send."
    return ""
