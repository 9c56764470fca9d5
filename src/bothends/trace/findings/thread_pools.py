"""A rule about a pool of threads that are all in use, while connections wait for one of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, MOVING
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
    listener_of,
    standstills,
)

_MIN_THREADS: Final = 2
_BLOCKED: Final = ("lock", "read", "sleep", "send", "other")


def pool_exhausted(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an accepted connection that no thread has touched, while every worker is at another one."""
    yield from _none_accepted(trace_index)
    for each in standstills(trace_index):
        if each.peer is None or not each.unread or each.peer.accepted_from is None:
            continue
        if any(call.name in MOVING for call in trace_index.calls_by_socket[each.peer.number]):
            continue
        workers = _workers(trace_index, each, each.peer.number)
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


def _none_accepted(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection in the accept queue, and a thread that waits for a lock instead of accepting it."""
    for each in standstills(trace_index):
        listener = listener_of(trace_index, each.socket) if each.peer is None else None
        accepts = trace_index.calls_by_socket[listener.number] if listener is not None else []
        accepts = [call for call in accepts if call.name in ACCEPTING and call.at <= each.moment.now]
        if listener is None or not accepts:
            continue
        state = each.moment.threads.get(accepts[-1].thread)
        if state is None or state.activity not in ("lock", "run") or accepts[-1].until is None:
            continue
        if each.moment.now - state.since < STANDSTILL_NS:
            continue
        workers = _workers(trace_index, each, listener.number)
        if len({socket for _, socket in workers}) < _MIN_THREADS:
            continue
        client, process = name_of(trace_index, each.waiter.process), each.waiter.process
        peers = [trace_index.peer_of(socket) for _, socket in workers]
        own = [peer for peer in peers if peer is not None and process in trace_index.holders_at(peer)]
        unused = [peer for peer in own if not each.moment.states_at(peer)] if len(own) > 1 else []
        held = (
            f" {capitalized(client)} itself holds {len(own)} of them, and has not closed them."
            if unused == own and own
            else ""
        )
        doing = f"is in {call_name(state)}" if state.activity == "lock" else "has not called accept() again"
        by_client = bool(held) and len(own) == len(workers)
        yield Finding(
            "pool-exhausted",
            "The server accepts no more connections, because those it has stay open",
            f"{capitalized(client)} is connected to {listener.local} and waits in {call_name(each.waiter)} "
            f"for {age(each, each.waiter)}: its connection is in the accept queue. The thread of "
            f"{name_of(trace_index, state.process)} that accepts {doing}, and probably waits for "
            f"one of {len(workers)} places: as many threads have a connection that is still open, and wait "
            f"({call_name(workers[0][0])}).{held}",
            "Close each connection when the conversation is over, after an error too. In the server set a "
            "time limit for idle connections, or serve them in an event loop.",
            evidence(state, *(worker for worker, _ in workers[:3]), each.waiter),
            certainty="inferred",
            basis="the thread that accepts waits for a lock, and every other one is at an open connection",
            process=process if by_client else state.process,
            sockets=(each.socket.number, listener.number, *own),
            in_c="close(fd);   /* on every path, also after an error */",
            in_python="with socket.create_connection(address) as s: ...",
        )
        return


def _workers(trace_index: TraceIndex, each: Standstill, held: int) -> list[tuple[ThreadState, int]]:
    """Return the threads that wait, each with the open connection that it used last; or none.

    They are those of the processes that hold a socket, a connection or a listener.

    If one of them is at no open connection, or works, it may yet serve this one: then there is no pool.
    """
    used = dict[int, int]()  # by thread: the accepted connection that it used last
    for process in trace_index.holders_at(held, each.moment.now):
        for call in trace_index.calls_by_process[process]:
            accepted = trace_index.trace.sockets.get(call.socket or 0)
            if call.name in MOVING and accepted is not None and accepted.accepted_from is not None:
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
