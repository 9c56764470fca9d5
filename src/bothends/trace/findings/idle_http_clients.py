"""Rules about HTTP clients that have a whole response and wait for nothing that is needed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.http_messages import (
    is_whole_response,
    leaves_connection_open,
)
from bothends.trace.findings.reading import others_may_act
from bothends.trace.findings.standstill import Standstill, age, bytes_text, call_name, evidence, standstills
from bothends.trace.findings.turns import turns
from bothends.trace.rendering import formatting

UNANSWERED_NS: Final = 3_000_000_000  # nanoseconds: long enough for a thread that keeps a connection


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


def http_response_read_to_eof(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that has a whole response, and reads on until the server closes the idle connection."""
    done = set[int]()  # processes
    for each in standstills(trace_index):
        number, state = each.socket.number, each.waiter
        if each.socket.accepted_from is not None or each.peer is None or each.unread or each.unread_here:
            continue
        spoken = turns(trace_index, each.socket)
        if len(spoken) < 2 or spoken[-1].kind != "received" or state.process in done:
            continue
        request, response = spoken[-2], spoken[-1]
        is_persistent = leaves_connection_open(request.data, response.data, response.total)
        if not is_persistent or request.calls[-1].thread != state.thread or state.sockets != (number,):
            continue
        end = trace_index.later_calls(response.calls[-1])
        eof = next((call for call in end if call.name in RECEIVING and call.result == 0), None)
        is_last = each.moment.now >= trace_index.end and each.length >= UNANSWERED_NS
        if state.activity != "read" or not (is_last or (eof is not None and eof.thread == state.thread)):
            continue
        done.add(state.process)
        client = name_of(trace_index, state.process)
        outcome = " so far" if eof is None else ", until the server closed the idle connection"
        yield Finding(
            "http-response-read-to-eof",
            "An HTTP client has the whole response, and waits for the end of the connection",
            f"{capitalized(client)} read the whole response of {bytes_text(response.total)}, whose header "
            f"says where it ends, and waited in {call_name(state)} for more for "
            f"{formatting.duration(each.length)}{outcome}. In HTTP/1.1 the connection stays open after a "
            "response.",
            "Stop at the end that the header announces (Content-Length, chunked), or ask the server to close "
            "the connection, with Connection: close in the request (RFC 9112, sections 6.3 and 9.6).",
            evidence(request.calls[-1], response.calls[-1], state, eof),
            process=state.process,
            sockets=(number, each.peer.number),
            in_c='dprintf(fd, "GET / HTTP/1.1\\r\\nHost: %s\\r\\nConnection: close\\r\\n\\r\\n", host);',
            in_python='s.sendall(b"GET / HTTP/1.1\\r\\nHost: example\\r\\nConnection: close\\r\\n\\r\\n")',
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
