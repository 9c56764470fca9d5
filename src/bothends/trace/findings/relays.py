"""Rules about a program that has what its peer waits for, and is not told so. Pure.

A relay that copies one direction to its end before the other one leaves the answers unread meanwhile. An
event loop that waits for sockets alone is not woken by a thread that has made an answer. A relay that keeps
the EOF of one side to itself leaves the other one waiting for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import MOVING, RECEIVING, WAITING
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
from bothends.trace.findings.turns import close_of, peer_socket, stream_of, turns
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

_COMPARED_BYTES: Final = 16


def relay_one_way(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a relay that waits for more from one side, while the answer of the other side lies unread."""
    for each in standstills(trace_index):
        if each.peer is None or not each.unread:
            continue
        if any(state.waits_for(each.peer.number) for state in each.moment.threads.values()):
            continue
        for state in each.moment.threads.values():
            found = _relayed(trace_index, each, each.peer, state)
            if found is None:
                continue
            read, send = found
            relay, peer = name_of(trace_index, state.process), trace_index.peer_of(state.sockets[0])
            source = holder_name(trace_index, peer, each.moment.now, "one end")
            answers = each.sends(each.socket)
            yield Finding(
                "relay-one-way",
                "A relay waits for one side, and the answer of the other side lies unread",
                f"{capitalized(relay)} passed on {formatting.quoted(send.data, send.size, 24)} from {source} "
                f"and waits in {call_name(state)} for more of it, for {age(each, state)}. Meanwhile the "
                f"answer has come, {formatting.quoted(answers[-1].data, answers[-1].size, 24)}, and "
                f"{bytes_text(each.unread)} are unread: no thread waits for that connection.",
                "Relay both directions at once: one thread for each, or wait for both sockets in poll().",
                evidence(read, send, *answers[-1:], state),
                process=state.process,
                sockets=(each.socket.number, each.peer.number, *state.sockets),
                in_c="struct pollfd p[] = {{client, POLLIN}, {upstream, POLLIN}}; poll(p, 2, -1);",
                in_python="threading.Thread(target=copy, args=(upstream, client)).start(); "
                "copy(client, upstream)",
            )
            return


def _relayed(
    trace_index: TraceIndex, each: Standstill, socket: Socket, state: ThreadState
) -> tuple[Call, Call] | None:
    """Return what a thread read where it waits now, and the send by which it passed that on to a socket."""
    if state.activity != "read" or each.moment.now - state.since < STANDSTILL_NS or len(state.sockets) != 1:
        return None
    sends = [call for call in each.sends(socket) if call.thread == state.thread]
    reads = trace_index.receives(trace_index.trace.sockets[state.sockets[0]])
    for send in reversed(sends):
        start = send.data[:_COMPARED_BYTES]
        for read in reversed(reads):
            if read.size and read.at < send.at and read.data[:_COMPARED_BYTES] == start:
                return read, send
    return None


def half_close_not_relayed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a relay that has read EOF of a client and keeps the connection onward open for writing."""
    for each in standstills(trace_index):
        onward = each.peer
        if onward is None or onward.accepted_from is not None or each.unread_here:
            continue
        if not each.waiter.waits_for(each.socket.number) or close_of(trace_index, onward) is not None:
            continue
        source = _source(trace_index, onward, each.moment.now)
        end = peer_socket(trace_index, source) if source is not None else None
        if source is None or end is None:
            continue
        eof, sends = trace_index.receives(source)[-1], trace_index.sends(onward)
        states = each.moment.states_at(end.number)
        asker = next((state for state in states if state.waits_for(end.number)), None)
        began = max(eof.until or eof.at, each.waiter.since)
        if asker is None or each.moment.now - began < STANDSTILL_NS:
            continue
        relay, server = name_of(trace_index, eof.process), name_of(trace_index, each.waiter.process)
        client = name_of(trace_index, asker.process)
        yield Finding(
            "half-close-not-relayed",
            "A relay does not pass on that one side has finished",
            f"{capitalized(client)} has finished its direction, and {relay} read EOF (0 bytes) on descriptor "
            f"{eof.descriptor}. It had passed on all {bytes_text(sum(call.size for call in sends))}, but did "
            f"not shut down that connection, descriptor {sends[-1].descriptor}. So {server} waits in "
            f"{call_name(each.waiter)} for more, or for EOF, and {client} in {call_name(asker)} for the "
            f"answer, for {formatting.duration(each.moment.now - began)}.",
            "When a read returns 0 bytes, call shutdown(SHUT_WR) on the socket to which it copies. Close "
            "both only when both directions have ended.",
            evidence(sends[-1], eof, each.waiter, asker),
            process=eof.process,
            sockets=(each.socket.number, onward.number, source.number, end.number),
            in_c="if (n == 0) shutdown(upstream, SHUT_WR);   /* and go on with the other direction */",
            in_python="while data := client.recv(8192): upstream.sendall(data)\n"
            "upstream.shutdown(socket.SHUT_WR)",
        )
        return


def _source(trace_index: TraceIndex, onward: Socket, at: int) -> Socket | None:
    """Return the accepted connection that was read to EOF, and whose bytes alone another one carries."""
    sent = stream_of(trace_index, onward, "sent")
    for process in trace_index.holders_at(onward.number, at):
        numbers = {call.socket for call in trace_index.calls_by_process[process] if call.name in RECEIVING}
        for number in sorted(each for each in numbers if each is not None):
            source = trace_index.trace.sockets[number]
            reads = trace_index.receives(source) if source.accepted_from is not None else []
            if not reads or reads[-1].size or not reads[-1].requested:
                continue
            received = stream_of(trace_index, source, "received")
            start = received.data[:_COMPARED_BYTES]
            if sent.total and sent.total == received.total and sent.data[:_COMPARED_BYTES] == start:
                return source
    return None


def loop_not_woken(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an event loop that has read a request and waits for sockets alone, beside threads that wait."""
    for each in standstills(trace_index):
        if each.peer is None or each.unread or each.unread_here or each.socket.accepted_from is not None:
            continue
        state = next((state for state in each.peers if state.waits_for(each.peer.number)), None)
        spoken = turns(trace_index, each.peer)
        if state is None or state.call is None or state.call.name not in WAITING or not spoken:
            continue
        if spoken[-1].kind != "received" or not each.waiter.waits_for(each.socket.number):
            continue
        if state.has_limit or state.call.timeout_ns or _has_wakeup(trace_index, state):
            continue
        others = _idle_threads(trace_index, state)
        if not others or not _is_at_the_end(trace_index, each):
            continue
        server, client = name_of(trace_index, state.process), name_of(trace_index, each.waiter.process)
        request = spoken[-1]
        beside = "another thread waits" if len(others) == 1 else f"{len(others)} other threads wait"
        yield Finding(
            "loop-not-woken",
            "Nothing wakes the event loop when another thread has the answer",
            f"{capitalized(server)} read {formatting.quoted(request.data, request.total, 24)} from {client} "
            f"and waits in {call_name(state)} for {age(each, state)}, without a time limit and for sockets "
            f"alone. Beside it {beside} in futex(): probably a thread got the request and has made the "
            "answer, which lies in a queue that the loop looks at only when a client sends.",
            "Let the loop wait for a pipe, a pair of sockets or an eventfd too, and write to it whenever "
            "there is something to send. In asyncio use call_soon_threadsafe().",
            evidence(request.calls[-1], state, each.waiter),
            "inferred",
            "the loop waits for no pipe, and the process has threads that use no socket",
            process=state.process,
            sockets=(each.socket.number, each.peer.number),
            in_c="eventfd_write(wake, 1);   /* by the worker; the loop has wake in its set */",
            in_python='answers.put(answer); wake.send(b"x")   # wake, woken = socket.socketpair()',
        )
        return


def _has_wakeup(trace_index: TraceIndex, state: ThreadState) -> bool:
    """Return whether an event loop waits for a pipe, an eventfd or a pair of sockets of its own too."""
    if state.call_waits_for_files:
        return True
    sockets = trace_index.trace.sockets
    for number in state.sockets:
        peer = trace_index.peer_of(number)
        if sockets[number].is_listener or (peer is not None and sockets[number].accepted_from is not None):
            continue
        if peer is None or state.process in trace_index.holders_at(peer):
            return True
    return False


def _idle_threads(trace_index: TraceIndex, state: ThreadState) -> set[int]:
    """Return the other threads of a program that wait in futex() and have used no socket."""
    used = {
        call.thread for call in trace_index.calls_by_process[state.process] if call.name in MOVING | WAITING
    }
    return {
        call.thread
        for call in trace_index.trace.blocked
        if call.process == state.process and call.name.startswith("futex") and call.thread not in used
    } - {state.thread}


def _is_at_the_end(trace_index: TraceIndex, each: Standstill) -> bool:
    return each.moment.now >= trace_index.end
