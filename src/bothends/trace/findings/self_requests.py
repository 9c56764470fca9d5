"""A rule about a server that waits for an answer of its own: the connection is in its accept queue. Pure.

While the only thread that accepts handles a request, it connects to its own listener, or asks another server
that asks it in turn. That connection stays in the accept queue until the first request is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import (
    Standstill,
    ThreadState,
    age,
    call_name,
    evidence,
    listener_of,
    standstills,
)
from bothends.trace.model import Call, Socket

_LONGEST: Final = 5  # threads in a cycle


def waits_for_itself(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a thread that waits for a connection which it would have to accept itself."""
    for each in standstills(trace_index):
        listener = listener_of(trace_index, each.socket) if each.peer is None else None
        if listener is None or each.waiter.activity != "read":
            continue
        acceptor, accepts = _only_acceptor(trace_index, each, listener)
        path = _path(trace_index, each, acceptor) if acceptor is not None else ()
        if acceptor is None or not path:
            continue
        name = name_of(trace_index, acceptor.process)
        connects = [
            call for call in trace_index.calls_by_socket[each.socket.number] if call.name == "connect"
        ]
        if len(path) == 1:
            title = "The server waits for itself"
            text = (
                f"While {name} handles a request it connects to its own listener at {listener.local} and "
                f"waits in {call_name(each.waiter)} for the answer, for {age(each, each.waiter)}. The thread "
                "that waits is the only one that calls accept(), so the connection stays in the accept queue."
            )
        else:
            others = ", which waits for ".join(name_of(trace_index, state.process) for state in path[1:])
            title = "Servers wait for each other in a circle"
            text = (
                f"{capitalized(name)} is the only thread that accepts at {listener.local}, and waits for "
                f"{others}, which is connected to {listener.local} and waits in {call_name(each.waiter)} for "
                f"an answer, for {age(each, each.waiter)}: that connection stays in the accept queue."
            )
        yield Finding(
            "waits-for-itself",
            title,
            text,
            "Serve each connection in a thread or a process of its own, or in an event loop without blocking "
            "calls; or call the function directly instead of a request to the own port.",
            evidence(*accepts[-1:], *connects[-1:], each.waiter, acceptor),
            process=acceptor.process,
            sockets=(each.socket.number, listener.number),
            in_c="int c = accept(listener, NULL, NULL); pthread_create(&t, NULL, serve, (void *)(long)c);",
            in_python="server = ThreadingHTTPServer(address, Handler)   # not HTTPServer",
        )


def _only_acceptor(
    trace_index: TraceIndex, each: Standstill, listener: Socket
) -> tuple[ThreadState | None, list[Call]]:
    """Return the state of the thread that accepts at a listener, and its calls, if it is the only one."""
    accepts = [call for call in trace_index.calls_by_socket[listener.number] if call.name in ACCEPTING]
    threads = {call.thread for call in accepts}
    waiting = any(listener.number in state.sockets for state in each.moment.threads.values())
    if len(threads) != 1 or waiting:
        return None, []
    return each.moment.threads.get(threads.pop()), accepts


def _path(trace_index: TraceIndex, each: Standstill, acceptor: ThreadState) -> tuple[ThreadState, ...]:
    """Return the threads from the acceptor to the one that waits in the queue; () if it waits for others.

    Each waits for an answer of the next one.
    """
    path = [acceptor]
    while path[-1].thread != each.waiter.thread:
        state = path[-1]
        peer = trace_index.peer_of(state.sockets[0]) if len(state.sockets) == 1 else None
        if state.activity != "read" or peer is None or len(path) == _LONGEST:
            return ()
        if trace_index.trace.sockets[state.sockets[0]].accepted_from is not None:
            return ()  # it waits for a request of its client, and for no answer
        holders = trace_index.holders_at(peer, each.moment.now)
        following = [other for other in each.moment.states_at(peer) if other.process in holders]
        if len(following) != 1 or following[0] in path:
            return ()
        path.append(following[0])
    return tuple(path)
