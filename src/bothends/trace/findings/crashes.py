"""A rule about servers that exit with an error, and clients that suffer from it. Pure.

The other rules about exits need a request that was read (exits.py). An error in a callback, or in the
handling of an event, comes before it or after its answer:

last call of the server    what it shows
accept() = EAGAIN          an event was handled twice: no connection was there
close() after an answer    nothing came from a client: a callback of an earlier request failed
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, RECEIVING, SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import (
    REFUSED,
    attempts,
    capitalized,
    connects_later,
    listeners,
    name_of,
    runs,
    runs_node,
)
from bothends.trace.findings.exits import (
    PROMPT_EXIT_NS,
    exited_mid_conversation,
    exited_on_reset,
    exited_on_timeout,
)
from bothends.trace.findings.http_messages import is_whole_response
from bothends.trace.findings.standstill import bytes_text, call_name
from bothends.trace.findings.turns import turns
from bothends.trace.model import Call, ProcessEvent, Socket
from bothends.trace.rendering import formatting

_READ_FIRST: Final = (
    "Read the error that the program printed: it has the line. Handle the errors of each connection, close "
    "only that one, and go on serving the others."
)


def exited_with_error(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that exited with an error, and a client that was reset or refused because of it."""
    explained = {
        finding.process
        for rule in (exited_mid_conversation, exited_on_reset, exited_on_timeout)
        for finding in rule(trace_index)
    }
    for event in trace_index.process_events:
        if event.kind != "ended" or not event.status or event.status < 0 or event.process in explained:
            continue
        listener = next(
            (
                each.socket
                for each in listeners(trace_index)
                if each.process == event.process
                and each.until is not None
                and event.at - each.until < PROMPT_EXIT_NS
            ),
            None,
        )
        if listener is None or not _has_accepted(trace_index, event.process):
            continue
        harm = _reset_client(trace_index, event) or _refused_client(trace_index, event, listener)
        last = _last_call(trace_index, event, listener)
        if harm is not None or (last is not None and _accepted_nothing(last)):
            yield _finding(trace_index, event, listener, last, *(harm or ("", None)))


def _has_accepted(trace_index: TraceIndex, process: int) -> bool:
    return any(
        call.name in ACCEPTING and call.created_id is not None
        for call in trace_index.calls_by_process[process]
    )


def _reset_client(trace_index: TraceIndex, event: ProcessEvent) -> tuple[str, Call] | None:
    """Return what became of a client whose connection the exit ended, and its call; or None."""
    for socket in trace_index.sockets("stream"):
        number = trace_index.peer_of(socket.number)
        held = trace_index.holders_at(socket.number, event.at - 1)
        if number is None or socket.accepted_from is None or set(held) != {event.process}:
            continue
        request = trace_index.sends(trace_index.trace.sockets[number])[-1:]
        outcome = next(
            (
                call
                for call in reversed(trace_index.calls_by_socket[number])
                if call.name in RECEIVING
                and not call.size
                and call.requested
                and (call.until is None or call.until >= event.at - PROMPT_EXIT_NS)
            ),
            None,
        )
        received = sum(call.size for call in trace_index.receives(socket))
        if outcome is None or not request or received:
            continue
        client = name_of(trace_index, outcome.process)
        how = (
            f"failed with {outcome.error}"
            if outcome.failed
            else "returned EOF"
            if outcome.result == 0
            else "still waits"
        )
        sent = formatting.quoted(request[0].data, request[0].size, 24)
        return f"{capitalized(client)} had sent {sent}, and its {call_name(outcome)} {how}", outcome
    return None


def _refused_client(
    trace_index: TraceIndex, event: ProcessEvent, listener: Socket
) -> tuple[str, Call] | None:
    """Return what became of a client that connected after the exit, and its call; or None."""
    for each in attempts(trace_index):
        if each.error not in REFUSED or each.connect.at < event.at or connects_later(trace_index, each):
            continue
        if listener.local is None or each.target.port != listener.local.port:
            continue
        after = formatting.duration(each.connect.at - event.at)
        client = name_of(trace_index, each.process)
        return f"{capitalized(client)} connected {after} later, and was refused", each.connect
    return None


def _last_call(trace_index: TraceIndex, event: ProcessEvent, listener: Socket) -> Call | None:
    """Return the last call by which a process used a connection or a listener before it exited."""
    for call in reversed(trace_index.calls_by_process[event.process]):
        is_use = call.name in SENDING | RECEIVING | ACCEPTING or call.name in ("shutdown", "close")
        at_exit = call.name == "close" and call.socket == listener.number
        if call.socket is not None and call.until is not None and is_use and not at_exit:
            return call
    return None


def _accepted_nothing(last: Call) -> bool:
    return last.error == "EAGAIN" and last.name in ACCEPTING


def _finding(
    trace_index: TraceIndex,
    event: ProcessEvent,
    listener: Socket,
    last: Call | None,
    harm: str,
    shown_by: Call | None,
) -> Finding:
    server = name_of(trace_index, event.process)
    text = f"{capitalized(server)} exited with status {event.status}"
    remedy, basis = _READ_FIRST, ""
    if last is not None and _accepted_nothing(last):
        after = formatting.duration(max(0, event.at - (last.until or last.at)))
        text += (
            f" {after} after {call_name(last)} had failed with EAGAIN: no connection was there to accept, "
            "and probably it used the result all the same."
        )
        remedy = (
            "accept() on a listener that does not block may return no connection: go on with the next event "
            "then."
        )
        basis = "the exit follows an accept() without a connection"
        if runs(trace_index, event.process, "java"):
            text += (
                " In Java accept() then returns null: probably a key that was handled before is still among "
                "the selected ones."
            )
            remedy = (
                "Call remove() of the iterator for each key of selectedKeys(): select() adds keys to this "
                "set and removes none. And go on with the next key if accept() returns null."
            )
    elif last is not None:
        after = formatting.duration(max(0, event.at - (last.until or last.at)))
        moved = f", {bytes_text(last.size)}" if last.size else ""
        text += f" {after} after its last call on a connection, {call_name(last)}{moved}."
        if runs_node(trace_index, event.process) and _answered_last(trace_index, last):
            text += (
                " It had answered everything that it had read, so probably a callback of a request that was "
                "answered failed: a second response to it throws ERR_HTTP_HEADERS_SENT."
            )
            basis = "nothing was read between the last answer and the exit"
            remedy = (
                "Read the error that the program printed: it has the line. Return after each response, so "
                "that nothing answers the request again, and catch errors in callbacks."
            )
    else:
        text += "."
    return Finding(
        "exited-with-error",
        "The server exited with an error",
        f"{text} {harm}." if harm else text,
        remedy,
        tuple(sorted({event.number, *(each.number for each in (last, shown_by) if each is not None)})),
        "inferred" if basis else "seen",
        basis,
        process=event.process,
        sockets=(listener.number, *([shown_by.socket] if shown_by is not None and shown_by.socket else [])),
        in_c="int c = accept(listener, NULL, NULL);\nif (c < 0) continue;",
        in_python="try: serve(connection)\nexcept Exception: logging.exception('connection failed')",
    )


def _answered_last(trace_index: TraceIndex, last: Call) -> bool:
    """Return whether the last turn on the connection of a call was an HTTP response."""
    socket = trace_index.trace.sockets[last.socket or 0]
    spoken = turns(trace_index, socket)
    return bool(spoken) and spoken[-1].kind == "sent" and is_whole_response(spoken[-1].data, spoken[-1].total)
