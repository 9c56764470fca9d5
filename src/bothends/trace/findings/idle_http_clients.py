"""A rule about an HTTP client that has all its answers and waits for nothing that could come. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.http_messages import is_whole_response
from bothends.trace.findings.reading import others_may_act
from bothends.trace.findings.standstill import Standstill, age, bytes_text, call_name, evidence, standstills
from bothends.trace.findings.turns import turns


def http_body_not_consumed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client in an event loop whose connections are all idle, each after a complete response.

    Without a timer, a listener or a keyboard only those connections could wake it, and none has a request.
    """
    idle = {each.socket.number: each for each in standstills(trace_index) if _is_answered(trace_index, each)}
    done = set[int]()
    for each in idle.values():
        state = each.waiter
        if state.process in done or state.call is None or state.call.timeout_ns is not None:
            continue
        connections = [
            number for number in state.sockets if trace_index.trace.sockets[number].peer is not None
        ]
        listens = any(trace_index.trace.sockets[number].is_listener for number in state.sockets)
        known = [number for number in connections if number in idle]
        own_pairs = len(connections) - len(known)
        if listens or own_pairs or others_may_act(trace_index, each):
            continue
        done.add(state.process)
        name = name_of(trace_index, state.process)
        count = f"{len(known)} connections are" if len(known) > 1 else "only connection is"
        last = turns(trace_index, each.socket)[-1]
        yield Finding(
            "http-body-not-consumed",
            "An HTTP client waits on connections that have nothing more to bring",
            f"{capitalized(name)} waits in {call_name(state)} for {age(each, state)}, without a timer, and "
            f"its {count} idle: each response came as a whole (the last has {bytes_text(last.total)}), and "
            "no request was sent after it. Probably the body of a response is not consumed, so the "
            "connection is not given back to the pool, and the next request waits for it.",
            "Read or discard the body of every response, of those with an error status too; or let the pool "
            "have more connections.",
            evidence(last.calls[-1], state),
            certainty="inferred",
            basis="all responses are complete, and the client has neither sent nor closed since",
            process=state.process,
            sockets=tuple(known),
            in_c="",
            in_python="await response.read()  # Node.js: response.resume()",
        )


def _is_answered(trace_index: TraceIndex, each: Standstill) -> bool:
    if each.socket.accepted_from is not None or each.peer is None or each.unread or each.unread_here:
        return False
    if each.waiter.call is None or not each.waiter.call.name.startswith("epoll"):
        return False
    spoken = turns(trace_index, each.socket)
    if len(spoken) < 2 or spoken[-1].kind != "received" or each.moment.now < trace_index.end:
        return False
    return is_whole_response(spoken[-1].data, spoken[-1].total)
