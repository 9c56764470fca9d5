"""Rules about the body of an HTTP message that one end waits for and the other will not send. Pure.

PUT / ... Expect: 100-continue    the client waits for 100, the server for the body    http-continue-awaited
HEAD / or 204, 304                the client waits for a body that does not exist      http-body-awaited
"""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.http_messages import expects_continue, why_without_body
from bothends.trace.findings.standstill import (
    Standstill,
    age,
    bytes_text,
    call_name,
    evidence,
    standstills,
)
from bothends.trace.findings.turns import Turn, turns
from bothends.trace.rendering import formatting


def http_continue_awaited(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that keeps its body back until 100 Continue, and a server that waits for the body."""
    for each in _all_read(trace_index):
        spoken = _turns_before(trace_index, each)
        if not spoken or spoken[-1].kind != "sent" or not expects_continue(spoken[-1].data, spoken[-1].total):
            continue
        reader = next((state for state in each.peers if state.waits_for(each.peer.number)), None)  # type: ignore[union-attr]
        if reader is None:
            continue
        client, server = name_of(trace_index, each.waiter.process), name_of(trace_index, reader.process)
        line = spoken[-1].data.partition(b"\r\n")[0]
        yield Finding(
            "http-continue-awaited",
            "The client waits for 100 Continue, and the server for the body",
            f"{capitalized(client)} sent the header of {formatting.quoted(line, len(line), 40)} with Expect: "
            f"100-continue, and waits in {call_name(each.waiter)} for the interim response before it sends "
            f"the body. {capitalized(server)} has read the header, sent no 100 Continue, and waits in "
            f"{call_name(reader)} for the body, for {age(each, reader)}.",
            'Let the server answer "HTTP/1.1 100 Continue" and an empty line before it reads the body, or a '
            "final status. Let the client send the body anyway after a second (RFC 9110, section 10.1.1).",
            evidence(spoken[-1].calls[-1], reader, each.waiter),
            process=reader.process,
            sockets=_ends(each),
            in_c='if (expects_continue) send(c, "HTTP/1.1 100 Continue\\r\\n\\r\\n", 25, 0);',
            in_python='connection.sendall(b"HTTP/1.1 100 Continue\\r\\n\\r\\n")   # before the body is read',
        )


def http_body_awaited(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that waits for the body of a response that has none."""
    for each in _all_read(trace_index):
        spoken = _turns_before(trace_index, each)
        # An event loop with an idle connection waits for its end, or for nothing.
        if each.waiter.activity != "read" or len(spoken) < 2 or spoken[-1].kind != "received":
            continue
        why = why_without_body(spoken[-2].data, spoken[-1].data, spoken[-1].total)
        if not why:
            continue
        client = name_of(trace_index, each.waiter.process)
        yield Finding(
            "http-body-awaited",
            "The client waits for a body that this response does not have",
            f"{capitalized(client)} has read all {bytes_text(spoken[-1].total)} of the response and waits in "
            f"{call_name(each.waiter)} for more, for {age(each, each.waiter)}. But {why}: it ends with the "
            "empty line after its header.",
            "Read no body after HEAD, nor with the status 1xx, 204 or 304, whatever Content-Length says (RFC "
            "9112, section 6.3).",
            evidence(spoken[-2].calls[-1], spoken[-1].calls[-1], each.waiter),
            process=each.waiter.process,
            sockets=_ends(each),
            in_c='if (strcmp(method, "HEAD") == 0 || status == 204 || status == 304) length = 0;',
            in_python='length = 0 if method == "HEAD" or status in (204, 304) else content_length',
        )


def _all_read(trace_index: TraceIndex) -> Iterator[Standstill]:
    """Return the standstills of clients in which each end has read all that the other one sent."""
    for each in standstills(trace_index):
        is_client = each.peer is not None and each.socket.accepted_from is None
        if (
            is_client
            and not each.unread
            and not each.unread_here
            and each.waiter.waits_for(each.socket.number)
        ):
            yield each


def _turns_before(trace_index: TraceIndex, each: Standstill) -> list[Turn]:
    return [turn for turn in turns(trace_index, each.socket) if (turn.calls[0].until or 0) <= each.moment.now]


def _ends(each: Standstill) -> tuple[int, ...]:
    return (each.socket.number,) if each.peer is None else (each.socket.number, each.peer.number)
