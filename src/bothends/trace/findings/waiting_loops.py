"""Event loops that have read a request and do not answer it: what else may hold the answer up. Pure.

A loop that waits in epoll_wait() reads whatever comes, so its reads do not show what it waits for. What it
did for other clients does: a request that was answered elsewhere needs no EOF here.
"""

from __future__ import annotations

import itertools
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import runs_node
from bothends.trace.findings.standstill import Standstill, ThreadState
from bothends.trace.findings.turns import Turn, turns
from bothends.trace.model import Socket
from bothends.trace.rendering import formatting

ANSWER_EVERY_REQUEST: Final = (
    "Look at what the server does with this request: one that it does not know, or that fails, needs an "
    "answer too. If it is not complete, send the rest."
)
"""The remedy for a request that is not answered, if nothing shows why."""


def answered_elsewhere(
    trace_index: TraceIndex, each: Standstill, peer: Socket, request: Turn
) -> list[tuple[Socket, Turn]]:
    """Return the server's other connections on which a request like this was answered, with their last turns.

    Both requests end in a newline, or neither does. An answer that came after EOF does not count.
    """
    found = []
    for other in trace_index.sockets("stream"):
        if (
            other.number == peer.number
            or other.accepted_from != peer.accepted_from
            or peer.accepted_from is None
        ):
            continue
        spoken = turns(trace_index, other)
        answered = next(
            (
                (first, after)
                for first, after in itertools.pairwise(spoken)
                if first.kind == "received" and _ends_alike(first, request)
            ),
            None,
        )
        if answered is not None and not _ended_before(trace_index, other, answered[1]):
            found.append((other, spoken[-1]))
    return found


def _ends_alike(one: Turn, other: Turn) -> bool:
    return one.data.endswith(b"\n") == other.data.endswith(b"\n")


def _ended_before(trace_index: TraceIndex, socket: Socket, answer: Turn) -> bool:
    """Return whether a socket had received EOF when an answer was sent."""
    at = trace_index.position(answer.calls[0])
    ends = (call for call in trace_index.receives(socket) if call.result == 0)
    return any(trace_index.position(call) < at for call in ends)


def unanswered_here(
    trace_index: TraceIndex,
    each: Standstill,
    peer: Socket,
    reader: ThreadState,
    elsewhere: list[tuple[Socket, Turn]],
    state: str,
    events: tuple[int, ...],
) -> Finding:
    """Return the finding for a request that waits, in an event loop that answers such requests.

    Args:
        elsewhere: see `answered_elsewhere`.
        state: what both ends do, without the end of the sentence.
        events: the evidence of `state`.
    """
    held = [
        (socket, turn)
        for socket, turn in elsewhere
        if turn.kind == "sent"
        and socket.number in reader.sockets
        and trace_index.holders_at(socket.number, each.moment.now)
    ]
    text = f"{state}. It answered a request of this form on another connection, so it needs no EOF here."
    if len(held) == 1:
        _, turn = held[0]
        said = formatting.quoted(turn.data, turn.total, 24)
        text += (
            f" There it sent {said} last, and waits for that client: if the handler holds a lock meanwhile, "
            "or is the only one that serves, this request waits for that client too."
        )
        events = tuple(sorted({*events, turn.calls[-1].number}))
    return Finding(
        "request-ignored",
        "A request waits, while the event loop waits for the client of another connection"
        if len(held) == 1
        else "The server has not answered a request, and has answered one like it elsewhere",
        text,
        "Hold no lock while a handler waits for its client: read first, then take the lock. Give each wait "
        "for a client a time limit."
        if len(held) == 1
        else ANSWER_EVERY_REQUEST,
        events,
        "inferred",
        "a request that ends in the same way was answered on another connection",
        process=reader.process,
        sockets=(each.socket.number, peer.number),
        in_c="n = recv(fd, buf, sizeof buf, 0); pthread_mutex_lock(&lock); apply(buf, n);",
        in_python="line = await reader.readline()\nasync with lock: apply(line)   # not the other way round",
    )


def may_await_wakeup(trace_index: TraceIndex, reader: ThreadState) -> bool:
    """Return whether a reader is an event loop beside threads that wait, and can be woken by a descriptor.

    Node.js sends from its loop alone; its threads make no answers.
    """
    if (
        reader.activity != "events"
        or not reader.call_waits_for_files
        or runs_node(trace_index, reader.process)
    ):
        return False
    return any(
        call.process == reader.process and call.thread != reader.thread and call.name.startswith("futex")
        for call in trace_index.trace.blocked
    )
