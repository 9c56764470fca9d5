"""A rule about a server that accepts a connection and does nothing with it until another one comes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.capture.calls import ACCEPTING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import Standstill, ThreadState, age, call_name, evidence, standstills
from bothends.trace.findings.turns import turns


def waits_for_more_clients(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server in accept() whose only thread has an accepted client, which waits for its first bytes."""
    done = set[int]()
    for each in standstills(trace_index):
        state = _accepting(trace_index, each)
        if state is None or each.peer is None or state.process in done:
            continue
        done.add(state.process)
        accept = next(
            (
                call
                for call in trace_index.calls_by_process[state.process]
                if call.name in ACCEPTING and call.created_id == each.peer.number
            ),
            None,
        )
        server, client = name_of(trace_index, state.process), name_of(trace_index, each.waiter.process)
        yield Finding(
            "waits-for-more-clients",
            f"{capitalized(server)} waits for another connection, and {client} for its first bytes",
            f"{capitalized(server)} accepted the connection of {client}, sent nothing on it, and waits in "
            f"{call_name(state)} for another one, in its only thread. {capitalized(client)} waits in "
            f"{call_name(each.waiter)} for {age(each, each.waiter)}, and has sent nothing either. Probably "
            f"{server} collects several clients before it begins, or does not serve the ones it accepts.",
            f"Start as many clients as {server} waits for; or let it greet each client when it has accepted "
            "it, and wait for all of them in select() or in threads.",
            evidence(accept, each.waiter, state),
            "inferred",
            "no byte was sent on the connection, and the only thread of the server is in accept()",
            process=state.process,
            sockets=(each.socket.number, each.peer.number),
            in_c="fds[n].fd = accept(listener, NULL, NULL);   /* poll() waits for it and the listener */",
            in_python="threading.Thread(target=serve, args=(connection,)).start()   # at once",
        )


def _accepting(trace_index: TraceIndex, each: Standstill) -> ThreadState | None:
    """Return the state of a server's only thread, if it is in accept() and nothing was sent; or None."""
    if each.peer is None or each.waiter.activity != "read" or each.socket.accepted_from is not None:
        return None
    if each.moment.now < trace_index.end or turns(trace_index, each.socket) or turns(trace_index, each.peer):
        return None
    holders = trace_index.holders_at(each.peer.number, each.moment.now)
    states = [state for state in each.moment.threads.values() if state.process in holders]
    if len(states) != 1 or states[0].activity != "accept":
        return None
    # A thread that waits for a lock, an event or a queue has no call of its own on the timeline.
    others = (call for call in trace_index.trace.blocked if call.process == states[0].process)
    return None if any(call.thread != states[0].thread for call in others) else states[0]
