"""A rule about the sets of select(), which it overwrites with what is ready. Pure.

A program that fills its fd_set once, before its loop, passes the result of one call to the next: descriptors
that were not ready have left the set for good (select(2)).

select(4, [3], ..., {1, 0}) = 0        nothing was ready, so the set is empty now
select(4, [], ..., {1, 0})             never looks at descriptor 3 again
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

from bothends.trace.capture.calls import SELECTS
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import (
    Standstill,
    ThreadState,
    age,
    bytes_text,
    call_name,
    evidence,
    listener_of,
    standstills,
)
from bothends.trace.model import Call, Socket

_MAX_CALLS: Final = 1_000  # of select() that are looked at, back from the last one


class _Loss(NamedTuple):
    """The last select() that looked at a socket, and the next one that is known."""

    last: Call
    following: Call


def select_set_reused(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a socket that left the set of a select() loop, because it was not ready once."""
    done = set[int]()
    for each in standstills(trace_index, BLOCKED_NS):
        target = each.peer if each.peer is not None else listener_of(trace_index, each.socket)
        if target is None or target.number in done or (each.peer is not None and not each.unread):
            continue
        for state in each.moment.threads.values():
            loss = _loss(trace_index, each, target, state)
            if loss is not None:
                done.add(target.number)
                yield _finding(trace_index, each, target, state, loss)
                break


def _loss(trace_index: TraceIndex, each: Standstill, target: Socket, state: ThreadState) -> _Loss | None:
    """Return how a socket left the set of the loop that a thread is in; None if it did not leave it so."""
    held = trace_index.holders_at(target.number, each.moment.now).get(state.process)
    if not held or state.call is None or state.call.name not in SELECTS:
        return None
    if any(target.number in other.sockets for other in each.moment.threads.values()):
        return None
    selects = [
        call
        for call in trace_index.calls_by_process[state.process]
        if call.thread == state.thread and call.name in SELECTS and call.at <= each.moment.now
    ]
    if selects and selects[-1] is not state.call:
        selects.append(state.call)  # a trace holds no call without sockets, except the one that lasts
    for before, after in reversed(list(itertools.pairwise(selects[-_MAX_CALLS:]))):
        is_result = before.result is not None and set(after.sockets) <= set(before.ready)
        # The first argument is as high as before: this is no select() that is used as a sleep.
        if not is_result or before.failed or after.descriptors_waited or _nfds(after) <= min(held):
            return None
        if target.number in before.sockets:
            return None if target.number in before.ready else _Loss(before, after)
    return None


def _nfds(call: Call) -> int:
    return int(call.arguments[0]) if call.arguments[:1] and call.arguments[0].isdecimal() else 0


def _finding(
    trace_index: TraceIndex, each: Standstill, target: Socket, state: ThreadState, loss: _Loss
) -> Finding:
    server, client = name_of(trace_index, state.process), name_of(trace_index, each.waiter.process)
    descriptor = min(trace_index.holders_at(target.number, each.moment.now)[state.process])
    is_empty = not loss.following.sockets
    which = f"its listener at {target.local}" if target.is_listener else f"the connection of {client}"
    how = "reported nothing within its time limit" if loss.last.result == 0 else "reported others only"
    rest = "with an empty set" if is_empty else "with the descriptors that had been ready, and no other"
    harm = (
        f"{client} is connected and waits in {call_name(each.waiter)} for {age(each, each.waiter)}, and is "
        "not accepted"
        if target.is_listener
        else f"{bytes_text(each.unread)} that {client} sent lie unread for {age(each, each.waiter)}"
    )
    return Finding(
        "select-set-reused",
        "select() has emptied the set, and it was not filled again",
        f"{capitalized(server)} waited in select() for descriptor {descriptor}, {which}. That call {how}, "
        f"and the next one was made {rest}: select() overwrites its sets with what is ready, so {descriptor} "
        f"is not looked at any more. {capitalized(harm)}.",
        "Fill the sets before each call of select(), or pass a copy of a set that you keep; or use poll(), "
        "which does not change what it waits for.",
        evidence(loss.last, loss.following, state, each.waiter),
        "seen" if is_empty else "inferred",
        "" if is_empty else "each call has only descriptors that the one before reported",
        process=state.process,
        sockets=(each.socket.number, target.number),
        in_c="readable = all;  /* in the loop */  select(highest + 1, &readable, NULL, NULL, &limit);",
        in_python="readable, _, _ = select.select(connections, [], [], 1)  # a list that is not the result",
    )
