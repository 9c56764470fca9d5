"""A rule about a pool of threads that are all in use, while connections wait for one of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import (
    STANDSTILL_NS,
    Standstill,
    ThreadState,
    age,
    bytes_text,
    call_name,
    evidence,
    standstills,
)
from bothends.trace.model import Socket

_MIN_THREADS: Final = 2
_MOVING: Final = SENDING | RECEIVING
_BLOCKED: Final = ("lock", "read", "sleep", "send", "other")


def pool_exhausted(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an accepted connection that no thread has touched, while every worker is at another one."""
    for each in standstills(trace_index):
        if each.peer is None or not each.unread or each.peer.accepted_from is None:
            continue
        if any(call.name in _MOVING for call in trace_index.calls_by_socket[each.peer.number]):
            continue
        workers = _workers(trace_index, each, each.peer)
        if len({socket for _, socket in workers}) < _MIN_THREADS:
            continue
        if any(each.peer.number in state.sockets for state in each.peers):
            continue
        states = [state for state, _ in workers]
        server, client = name_of(trace_index, states[0].process), name_of(trace_index, each.waiter.process)
        yield Finding(
            "pool-exhausted",
            "All threads of a pool serve other connections, and none is left for this one",
            f"{capitalized(server)} accepted a connection, and no thread has read the "
            f"{bytes_text(each.unread)} that {client} sent on it: {len(states)} other threads each have "
            f"another connection, which is still open, and wait ({call_name(states[0])}). "
            f"{capitalized(client)} waits in {call_name(each.waiter)} for {age(each, each.waiter)}: probably "
            f"for a thread of a pool of {len(states)}.",
            "Give each connection a thread of its own, make the pool larger than the number of connections "
            "that stay open, or wait for idle connections in an event loop.",
            evidence(*each.sends(each.socket)[-1:], *states[:3], each.waiter),
            certainty="inferred",
            basis="every other thread that used a connection is at one that is open, and waits",
            process=states[0].process,
            sockets=(each.socket.number, each.peer.number),
            in_c="pthread_create(&thread, NULL, serve, connection);  /* one for each connection */",
            in_python="threading.Thread(target=serve, args=(connection,), daemon=True).start()",
        )
        return


def _workers(trace_index: TraceIndex, each: Standstill, peer: Socket) -> list[tuple[ThreadState, int]]:
    """Return the threads of the server that wait, each with the open connection that it used last; or none.

    If one of them is at no open connection, or works, it may yet serve this one: then there is no pool.
    """
    used = dict[int, int]()  # by thread: the accepted connection that it used last
    for process in trace_index.holders_at(peer.number, each.moment.now):
        for call in trace_index.calls_by_process[process]:
            accepted = trace_index.trace.sockets.get(call.socket or 0)
            if call.name in _MOVING and accepted is not None and accepted.accepted_from is not None:
                used[call.thread] = accepted.number
    found = []
    for thread, socket in used.items():
        state = each.moment.threads.get(thread)
        if state is None:
            continue
        is_open = bool(trace_index.holders_at(socket, each.moment.now))
        is_old = each.moment.now - state.since >= STANDSTILL_NS
        if not is_open or not is_old or state.activity not in _BLOCKED:
            return []
        found.append((state, socket))
    return found
