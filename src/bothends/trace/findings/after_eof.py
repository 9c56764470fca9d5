"""Connections whose end a program has read, and that it neither answers nor closes. Pure; for `eof-ignored`.

A thread may also go back to accept(), or an event loop to its listeners alone. Node.js reads into its own
memory until it is full: if no handler takes the data, the program is never told of the end.

Java reads EOF from the kernel once: from then on read() returns -1 without a system call. A loop that takes
-1 for "nothing yet" shows only as a thread that sleeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import MOVING, RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs_node
from bothends.trace.findings.standstill import (
    STANDSTILL_NS,
    Moment,
    ThreadState,
    bytes_text,
    call_name,
    evidence,
)
from bothends.trace.findings.turns import peer_socket
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

_USING: Final = MOVING | {"close", "shutdown"}
_SERVING_NS: Final = 3_000_000_000  # nanoseconds in which another thread, or a timer, would have answered


def neither_answers_nor_closes(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a thread that sleeps, or accepts, after it has read EOF, while the peer waits for an answer."""
    moment: Moment | None = None
    for socket in trace_index.sockets("stream"):
        peer = peer_socket(trace_index, socket)
        eof = _last_is_eof(trace_index, socket)
        if eof is None or peer is None or socket.accepted_from is None or socket.is_wrapped:
            continue
        # What threads are blocked in is read a little after the last event.
        end = max([trace_index.end, *(call.at for call in trace_index.trace.blocked)])
        moment = moment or Moment(trace_index, end)
        reader = moment.threads.get(eof.thread)
        waiter = next((each for each in moment.states_at(peer.number) if each.waits_for(peer.number)), None)
        if reader is None or waiter is None:
            continue
        others = [each for each in moment.threads.values() if each.process == eof.process and each != reader]
        if any(each.activity in ("run", "child", "sleep") for each in others):
            continue  # another thread may work on it
        if _accepts_only(trace_index, reader) and end - (eof.until or eof.at) >= _SERVING_NS:
            if all(each.activity == "lock" or _accepts_only(trace_index, each) for each in others):
                yield _forgotten(trace_index, socket, peer, eof, reader, waiter)
            continue
        if reader.activity not in ("sleep", "lock"):
            continue
        name, other = name_of(trace_index, eof.process), name_of(trace_index, waiter.process)
        since = formatting.duration(trace_index.end - (eof.until or eof.at))
        yield Finding(
            "eof-ignored",
            "The program ignores EOF",
            f"{call_name(eof)} of {name} returned 0 bytes {since} before the end. Since then {name} neither "
            f"sends nor closes and only sleeps: probably it waits for more data. {capitalized(other)} waits "
            f"in {call_name(waiter)} for an answer.",
            "0 bytes (in Java -1) mean EOF, not that there is no data yet: stop reading, answer, and close.",
            evidence(eof, waiter),
            "inferred",
            "the thread that read EOF sleeps",
            process=eof.process,
            sockets=(socket.number, peer.number),
            in_c="if (n == 0) { close(fd); break; }",
            in_python="if not data: break",
        )


def _accepts_only(trace_index: TraceIndex, state: ThreadState) -> bool:
    """Return whether a thread waits for new connections, and for nothing else that a socket may bring."""
    if state.activity == "accept":
        return True
    sockets = trace_index.trace.sockets
    listens = bool(state.sockets) and all(sockets[number].is_listener for number in state.sockets)
    return state.activity in ("read", "events") and listens and not state.has_limit


def _forgotten(
    trace_index: TraceIndex,
    socket: Socket,
    peer: Socket,
    eof: Call,
    reader: ThreadState,
    waiter: ThreadState,
) -> Finding:
    name, other = name_of(trace_index, eof.process), name_of(trace_index, waiter.process)
    size = sum(call.size for call in trace_index.receives(socket))
    answered = sum(call.size for call in trace_index.sends(socket))
    is_node = runs_node(trace_index, eof.process)
    since = formatting.duration(trace_index.end - (eof.until or eof.at))
    return Finding(
        "eof-ignored",
        "The client has ended its direction, and the server neither answers nor closes",
        f"{capitalized(name)} read {bytes_text(size)} and then EOF, {since} before the end, and "
        f"{'sent nothing' if not answered else 'has sent nothing since'}. It waits in {call_name(reader)} "
        f"for new connections only, with this one open (descriptor {eof.descriptor}), and {other} waits in "
        f"{call_name(waiter)} for an answer or EOF."
        + " Probably no handler takes the data, so Node.js never emits 'end'."
        * is_node,
        "After EOF send the answer, if there is one, and close the connection."
        + " In Node.js add a handler for 'data', or call socket.resume(): 'end' comes when all data is taken."
        * is_node,
        evidence(eof, reader, waiter),
        "inferred",
        "no thread of it waits for this connection any more",
        process=eof.process,
        sockets=(socket.number, peer.number),
        in_c="if (n == 0) { send(c, answer, size, MSG_NOSIGNAL); close(c); }",
        in_python="if not data: connection.sendall(answer); connection.close()",
    )


def _last_is_eof(trace_index: TraceIndex, socket: Socket) -> Call | None:
    """Return the read of EOF after which nothing was done with a socket for long, or None."""
    last = None
    for call in reversed(trace_index.calls_by_socket[socket.number]):
        if call.name in _USING:
            last = call
            break
    if last is None or last.name not in RECEIVING or last.result != 0 or not last.requested:
        return None
    return last if trace_index.end - (last.until or last.at) >= STANDSTILL_NS else None
