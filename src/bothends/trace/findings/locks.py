"""A rule about a request whose thread waits for another thread: for a lock, or for its result. Pure.

A futex that was free leaves no system call when it is taken, so its holder is inferred: from the threads
that were blocked in something else before the request's thread began to wait.
"""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.capture.calls import MOVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, holder_name, name_of
from bothends.trace.findings.standstill import (
    STANDSTILL_NS,
    Standstill,
    ThreadState,
    age,
    bytes_text,
    call_name,
    evidence,
    standstills,
)
from bothends.trace.findings.turns import turns
from bothends.trace.model import Socket
from bothends.trace.rendering import formatting


def lock_held(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a request that was read, by a thread that waits for one that waits for something else itself."""
    waiting = [found for each in standstills(trace_index) if (found := _request(trace_index, each))]
    done = set[int]()
    for each, peer, state in waiting:
        if state.thread in done:
            continue
        others = [
            other
            for other in each.moment.threads.values()
            if other.process == state.process and other.thread != state.thread
        ]
        holders = [other for other in others if _may_hold(trace_index, each, other, state)]
        rivals = [other for other in others if _has_request(trace_index, other)]
        works = any(other.activity in ("run", "child") for other in others)
        if works or (len(holders) != 1 and (holders or not rivals)):
            continue
        done |= {state.thread, *(other.thread for other in rivals)}
        yield _finding(trace_index, each, peer, state, holders, rivals)


def _request(trace_index: TraceIndex, each: Standstill) -> tuple[Standstill, Socket, ThreadState] | None:
    """Return a connection with a request, its socket in the server, and the state of its thread there.

    The thread has read the request, or has used the connection before, and took the lock first.
    """
    if each.peer is None or each.unread_here or each.socket.accepted_from is not None:
        return None
    spoken = turns(trace_index, each.peer)
    is_read = bool(spoken) and spoken[-1].kind == "received"
    if not spoken or is_read == bool(each.unread) or not each.waiter.waits_for(each.socket.number):
        return None
    if each.unread and any(other.waits_for(each.peer.number) for other in each.peers):
        return None
    state = each.moment.threads.get(spoken[-1].calls[-1].thread)
    if state is None or state.activity != "lock" or each.moment.now - state.since < STANDSTILL_NS:
        return None
    return each, each.peer, state


def _has_request(trace_index: TraceIndex, state: ThreadState) -> bool:
    """Return whether a thread waits for another one, and read a request that has no answer."""
    if state.activity != "lock":
        return False
    for call in reversed(trace_index.calls_by_process[state.process]):
        socket = trace_index.trace.sockets.get(call.socket or 0)
        if call.thread != state.thread or socket is None or call.name not in MOVING:
            continue
        spoken = turns(trace_index, socket)
        is_last = bool(spoken) and spoken[-1].kind == "received" and spoken[-1].calls[-1] is call
        return socket.accepted_from is not None and is_last
    return False


def _may_hold(trace_index: TraceIndex, each: Standstill, other: ThreadState, waiter: ThreadState) -> bool:
    """Return whether a thread was blocked before, in the middle of a conversation or in a sleep."""
    if other.since > waiter.since or each.moment.now - other.since < STANDSTILL_NS:
        return False
    if other.activity == "sleep":
        return True
    if other.activity not in ("read", "send", "connect") or len(other.sockets) != 1:
        return False
    socket = trace_index.trace.sockets[other.sockets[0]]
    return (
        socket.kind == "stream"
        and not socket.is_listener
        and (bool(trace_index.sends(socket)) or other.activity == "connect")
    )


def _finding(
    trace_index: TraceIndex,
    each: Standstill,
    peer: Socket,
    state: ThreadState,
    holders: list[ThreadState],
    rivals: list[ThreadState],
) -> Finding:
    server, client = name_of(trace_index, state.process), name_of(trace_index, each.waiter.process)
    request = turns(trace_index, peer)[-1]
    what = (
        f"{capitalized(server)} has not read the {bytes_text(each.unread)} that {client} sent, "
        f"and the thread that serves it waits for another thread in futex() for {age(each, state)}"
        if each.unread
        else f"{capitalized(server)} has read {formatting.quoted(request.data, request.total, 24)} from "
        f"{client}, and the thread that read it waits for another thread in futex() for {age(each, state)}"
    )
    if holders:
        holder = holders[0]
        title = "A request waits for a thread that waits for something else"
        cause = (
            f"Probably for the one that {_blocked(trace_index, each, holder)}: it holds the lock meanwhile"
        )
        basis = "that thread was blocked before, and no other one is"
        remedy = (
            "Hold no lock while you wait for a peer, or sleep: take what is needed, release it, then wait. "
            "Give such waits a time limit."
        )
    else:
        title = "Threads that serve requests wait for each other"
        cause = (
            f"So {'does another thread' if len(rivals) == 1 else f'do {len(rivals)} other threads'} with a "
            "request of its own, and no thread is left that could release them: probably each holds a lock "
            "that the other one waits for"
        )
        basis = "every thread that has a request waits in futex()"
        remedy = "Take several locks in the same order in every thread, or one lock for all."
    return Finding(
        "lock-held",
        title,
        f"{what}. {cause}. {capitalized(client)} waits in {call_name(each.waiter)}.",
        remedy,
        evidence(request.calls[-1], *holders, state, *rivals[:2], each.waiter),
        "inferred",
        basis,
        process=state.process,
        sockets=(each.socket.number, peer.number),
        in_c="pthread_mutex_unlock(&lock); n = recv(fd, buf, sizeof buf, 0); pthread_mutex_lock(&lock);",
        in_python="line = read_line(connection)\nwith lock: apply(line)   # not the other way round",
    )


def _blocked(trace_index: TraceIndex, each: Standstill, holder: ThreadState) -> str:
    if holder.activity == "sleep":
        return f"sleeps, for {age(each, holder)}"
    peer = trace_index.peer_of(holder.sockets[0])
    source = holder_name(trace_index, peer, each.moment.now, "the other end")
    verb = "is blocked in" if holder.activity == "send" else "waits in"
    return f"{verb} {call_name(holder)} for {source}, for {age(each, holder)}"
