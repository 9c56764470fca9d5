"""A rule about connections that a client uses again while the server closes them. Pure.

The server closes a connection that has been idle for a while. The FIN may arrive before the next request or
cross it: the client finds out when it has sent the request, and cannot know whether it was processed.

    client          server
    request ──────> answer        the connection has served
        ...  idle  ...
            <────── FIN           the server's time limit for idle connections
    request ──────> RST           ECONNRESET, EPIPE, or EOF instead of an answer
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import MOVING, RECEIVING, SENDING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.reading import has_timed_out
from bothends.trace.findings.turns import peer_socket
from bothends.trace.model import Call, Socket
from bothends.trace.protocols.tls_records import last_record
from bothends.trace.rendering import formatting

IDLE_NS: Final = 200_000_000  # nanoseconds without a byte after which a connection counts as idle
SHOWN: Final = 24  # bytes of a request in a text

_FAILED: Final = frozenset({"EPIPE", "ECONNRESET"})


def keep_alive_race(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a request on a connection that had served one, and that the server had closed as idle."""
    for client in trace_index.sockets("stream"):
        server = peer_socket(trace_index, client)
        if server is None or client.accepted_from is not None or server.accepted_from is None:
            continue
        close = _close_when_idle(trace_index, server)
        found = _late_request(trace_index, client, server, close[0]) if close is not None else None
        if close is None or found is None:
            continue
        request, outcome = found
        if _has_reconnected(trace_index, client, outcome):
            continue
        yield _finding(trace_index, client, server, close, request, outcome)


def _close_when_idle(trace_index: TraceIndex, server: Socket) -> tuple[Call, int] | None:
    """Return the call by which a server closed an idle connection, and since when it was idle; or None."""
    last, served = 0, False
    for call in trace_index.calls_by_socket[server.number]:
        if call.error or call.result is None:
            continue
        if call.name in MOVING:
            if call.name in RECEIVING and call.result == 0 and call.requested:
                return None  # the client had closed
            last = (call.until or call.at) if call.size else last
            served = served or (call.name in SENDING and call.size > 0)
        elif call.name == "close" or (call.name == "shutdown" and call.arguments[1:2] != ("SHUT_RD",)):
            ended = trace_index.ended_at(call.process)
            exits = ended is not None and ended - call.at < BLOCKED_NS
            exits = exits and not _has_timed_out(trace_index, server, call)
            return (call, last) if served and call.at - last >= IDLE_NS and not exits else None
    return None


def _has_timed_out(trace_index: TraceIndex, server: Socket, close: Call) -> bool:
    """Return whether a server closed a connection because a wait for its data had ended in vain."""
    for call in reversed(trace_index.calls_by_process[close.process]):
        if call.until is not None and call.until <= close.at and has_timed_out(call, server):
            return close.at - call.until < BLOCKED_NS
    return False


def _late_request(
    trace_index: TraceIndex, client: Socket, server: Socket, close: Call
) -> tuple[Call, Call] | None:
    """Return the request that met the close of the server, and the call that failed after it; or None."""
    arrived = sum(each.size for each in trace_index.receives(server))
    sent, request = 0, None
    for call in trace_index.calls_by_socket[client.number]:
        if request is not None and call.name in MOVING:
            is_eof = call.name in RECEIVING and call.result == 0
            if call.error in _FAILED or is_eof:
                return request, call
            if call.name in RECEIVING and call.size:
                return None  # it was answered
        elif call.name in RECEIVING and call.result == 0 and call.requested:
            return None  # it knew, and sends nothing more
        elif call.name in SENDING:
            if call.error in _FAILED:
                return (call, call) if call.at > close.at else None
            sent += call.size
            record = last_record([call])
            if call.size and sent > arrived and (record is None or not record.may_be_alert):
                request = call
    return None


def _has_reconnected(trace_index: TraceIndex, client: Socket, outcome: Call) -> bool:
    """Return whether the client connected to the same address again and got an answer there."""
    for call in trace_index.calls_by_process[outcome.process]:
        if call.name == "connect" and call.number > outcome.number and call.address == client.peer:
            again = trace_index.trace.sockets.get(call.socket or 0)
            if again is not None and any(each.size for each in trace_index.receives(again)):
                return True
    return False


def _finding(
    trace_index: TraceIndex,
    client: Socket,
    server: Socket,
    close: tuple[Call, int],
    request: Call,
    outcome: Call,
) -> Finding:
    name, other = name_of(trace_index, request.process), name_of(trace_index, close[0].process)
    idle = formatting.duration(close[0].at - close[1])
    apart = request.at - close[0].at
    when = f"{formatting.duration(abs(apart))} {'later' if apart >= 0 else 'earlier'}"
    result = outcome.error or "EOF"
    data = request.data[: request.size] or request.data
    return Finding(
        "keep-alive-race",
        "A request was sent on a connection that the server closed because it was idle",
        f"{capitalized(other)} closed the connection after {idle} without a request, and {name} sent "
        f"{formatting.quoted(data, request.size or len(data), SHOWN)} on it {when}: "
        f"{name} got {result} instead of an answer, and did not connect again.",
        "Connect again and send the request again, if it may be processed twice; keep idle connections in "
        "the client for a shorter time than the server does; read EOF before you send. If the client needs "
        "the time between two messages, give the server a longer time limit.",
        tuple(dict.fromkeys((close[0].number, request.number, outcome.number))),
        process=request.process,
        sockets=(client.number, server.number),
        in_c="if (recv(fd, &b, 1, MSG_PEEK | MSG_DONTWAIT) == 0) fd = reconnect();  /* before send() */",
        in_python="except (ConnectionError, http.client.RemoteDisconnected): reconnect and send it again",
    )
