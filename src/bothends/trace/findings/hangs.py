"""Rules about hangs: data or connections wait, and the threads that should take them do something else. Pure.

Each rule looks at connections that stand still (`standstill.py`). Those on which both ends wait to read, with
nothing unread, are judged by `hanging_reads.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.reading import beyond_nfds
from bothends.trace.findings.standstill import (
    STANDSTILL_NS,
    Moment,
    Standstill,
    ThreadState,
    age,
    bytes_text,
    call_name,
    evidence,
    listener_of,
    standstills,
)
from bothends.trace.findings.turns import peer_socket
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

PILED_UP: Final = 65_536  # unread bytes: more than a program leaves in the buffer while it prepares a request

_READ_AND_SEND_IN_C: Final = (
    "poll(&(struct pollfd){fd, POLLIN | POLLOUT}, 1, -1);  /* recv() or send(), non-blocking */"
)
_READ_AND_SEND_IN_PYTHON: Final = "threading.Thread(target=s.sendall, args=(data,)).start(); read_answers(s)"


def both_send(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection whose ends are both blocked in a send, because neither reads."""
    done = set[int]()
    for each in standstills(trace_index):
        other = next((peer for peer in each.peers if each.peer and _is_sending(peer, each.peer)), None)
        if other is None or each.peer is None or each.socket.number in done:
            continue
        if not _is_sending(each.waiter, each.socket) or each.peer.number not in other.sockets:
            continue
        if not (each.unread and each.unread_here) and "send" not in (each.waiter.activity, other.activity):
            continue
        done |= {each.socket.number, each.peer.number}
        one, two = name_of(trace_index, each.waiter.process), name_of(trace_index, other.process)
        yield Finding(
            "both-send",
            "Both ends send and neither reads: a deadlock",
            f"{capitalized(one)} {_sending(each.waiter)} for {age(each, each.waiter)} with "
            f"{bytes_text(each.unread)} that {two} has not read, and {two} {_sending(other)} "
            f"for {age(each, other)} with {bytes_text(each.unread_here)} that {one} has not read: all "
            "buffers are full.",
            f"Read while you send: in {one}, send in one thread and read in another, or send only when the "
            "socket is writable and read whenever it is readable. Larger buffers only move the limit.",
            evidence(each.waiter, other),
            process=each.waiter.process,
            sockets=(each.socket.number, each.peer.number),
            in_c=_READ_AND_SEND_IN_C,
            in_python=_READ_AND_SEND_IN_PYTHON,
        )

    yield from _send_without_reading(trace_index, done)


def _is_sending(state: ThreadState, socket: Socket) -> bool:
    """Return whether a thread is blocked in a send, or its event loop waits for room in a socket alone."""
    return state.activity == "send" or state.awaits_room(socket.number)


def _sending(state: ThreadState) -> str:
    if state.activity == "send":
        return f"is blocked in {call_name(state)}"
    return f"waits in {call_name(state)} for room in its send buffer, and not for data,"


def _send_without_reading(trace_index: TraceIndex, done: set[int]) -> Iterator[Finding]:
    """Find an end that goes on sending at the end of the trace, while what the peer sent piles up unread."""
    moment = Moment(trace_index, trace_index.end)
    for socket in trace_index.sockets("stream"):
        peer = peer_socket(trace_index, socket)
        if peer is None or socket.number in done or socket.is_wrapped:
            continue
        received = moment.received(socket.number)
        unread = moment.sent(peer.number) - received
        if unread < PILED_UP:
            continue
        first = next(
            (each for each in trace_index.sends(peer) if trace_index.bytes_sent_by[each.number] > received),
            None,
        )
        if first is None or moment.now - first.at < STANDSTILL_NS:
            continue
        sends = [each for each in trace_index.sends(socket) if each.at > first.at]
        state = next((each for each in moment.states_at(socket.number)), None)
        if len(sends) < 2 or state is None or state.activity not in ("send", "run"):
            continue
        if moment.now - state.since > STANDSTILL_NS and state.activity == "run":
            continue
        one, two = name_of(trace_index, sends[-1].process), name_of(trace_index, first.process)
        yield Finding(
            "both-send",
            "One end sends and does not read, while the other answers: a deadlock to come",
            f"{capitalized(one)} has sent {bytes_text(sum(each.size for each in sends))} in {len(sends):,} "
            f"calls for {formatting.duration(moment.now - first.at)}, and has not read the "
            f"{bytes_text(unread)} that {two} sent meanwhile. When the buffers are full, {two} will block in "
            f"send and stop reading, and then {one} will block too.",
            f"Read while you send: in {one}, send in one thread and read in another, or send only when the "
            "socket is writable and read whenever it is readable. Larger buffers only move the limit.",
            evidence(first, sends[-1]),
            "inferred",
            "the answers pile up unread",
            process=sends[-1].process,
            sockets=(socket.number, peer.number),
            in_c=_READ_AND_SEND_IN_C,
            in_python=_READ_AND_SEND_IN_PYTHON,
        )
        return


def edge_not_drained(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find data, or connections, that an edge-triggered epoll instance reported once and that are left."""
    yield from _edge_of_listener(trace_index)
    for each in _unread(trace_index):
        assert each.peer is not None
        for state in each.peers:
            if state.call is None or not state.waits_for(each.peer.number) or state.activity != "events":
                continue
            if state.awaits_room(each.peer.number):
                continue  # `not_read`
            wanted = dict(zip(state.call.sockets, state.call.wanted_events, strict=False))
            reads = each.receives(each.peer)
            if "EPOLLONESHOT" in wanted.get(each.peer.number, "") and reads:
                yield _oneshot(trace_index, each, state, reads[-1])
                break
            if "EPOLLET" not in wanted.get(each.peer.number, "") or not reads:
                continue
            yield _edge(trace_index, each, state, reads[-1])
            break


def _edge_of_listener(trace_index: TraceIndex) -> Iterator[Finding]:
    for each in standstills(trace_index):
        listener = listener_of(trace_index, each.socket) if each.peer is None else None
        if listener is None:
            continue
        for state in each.moment.states_at(listener.number):
            call = state.call
            if call is None or state.activity != "events" or listener.number not in call.sockets:
                continue
            wanted = dict(zip(call.sockets, call.wanted_events, strict=False))
            accepts = [
                accept
                for accept in trace_index.calls_by_socket[listener.number]
                if accept.name in ACCEPTING and accept.at < call.at
            ]
            if "EPOLLET" not in wanted[listener.number] or not accepts or accepts[-1].failed:
                continue
            server, client = name_of(trace_index, state.process), name_of(trace_index, each.waiter.process)
            yield Finding(
                "edge-not-drained",
                "Edge-triggered epoll, and not every connection was accepted",
                f"{capitalized(server)} called accept() once and went back to epoll_wait() while more "
                f"connections were in the accept queue. The listener is registered with EPOLLET, so no event "
                f"comes for them: {client} waits in {call_name(each.waiter)}, for {age(each, each.waiter)}.",
                "After each event call accept() in a loop until it fails with EAGAIN (the listener must be "
                "non-blocking), or leave out EPOLLET for the listener.",
                evidence(accepts[-1], state, each.waiter),
                process=state.process,
                sockets=(each.socket.number, listener.number),
                in_c="while ((c = accept(listener, NULL, NULL)) >= 0) add(c);  /* until EAGAIN */",
                in_python="epoll.register(listener, select.EPOLLIN)  # without EPOLLET",
            )
            return


def _oneshot(trace_index: TraceIndex, each: Standstill, state: ThreadState, read: Call) -> Finding:
    assert each.peer is not None
    name, other = name_of(trace_index, state.process), name_of(trace_index, each.waiter.process)
    return Finding(
        "edge-not-drained",
        "EPOLLONESHOT, and the socket was not armed again",
        f"{capitalized(name)} read {bytes_text(read.size)} in {call_name(read)} and went back to "
        f"epoll_wait(). The socket is registered with EPOLLONESHOT, so epoll reports it once: "
        f"{bytes_text(each.unread)} that {other} sent later lie unread for {age(each, each.waiter)}.",
        "After each event arm the socket again with EPOLL_CTL_MOD, or leave out EPOLLONESHOT.",
        evidence(read, state, each.waiter),
        process=state.process,
        sockets=(each.peer.number, each.socket.number),
        in_c="epoll_ctl(ep, EPOLL_CTL_MOD, fd, &(struct epoll_event){EPOLLIN | EPOLLONESHOT, {.fd = fd}});",
        in_python="epoll.modify(connection, select.EPOLLIN | select.EPOLLONESHOT)",
    )


def _edge(trace_index: TraceIndex, each: Standstill, state: ThreadState, read: Call) -> Finding:
    name = name_of(trace_index, state.process)
    assert each.peer is not None
    return Finding(
        "edge-not-drained",
        "Edge-triggered epoll, and the socket was not read until EAGAIN",
        f"{capitalized(name)} read {bytes_text(read.size)} in {call_name(read)} and went back to "
        f"epoll_wait() while {bytes_text(each.unread)} were still in the receive buffer. The socket is "
        f"registered with EPOLLET, so without new data no event comes: {name} has waited {age(each, state)}, "
        f"and {name_of(trace_index, each.waiter.process)} waits in {call_name(each.waiter)}.",
        "After each event read in a loop until recv() fails with EAGAIN, or leave out EPOLLET.",
        evidence(read, state, each.waiter),
        process=state.process,
        sockets=(each.peer.number, each.socket.number),
        in_c="while ((n = recv(fd, buf, sizeof buf, 0)) > 0) handle(buf, n);  /* until EAGAIN */",
        in_python="epoll.register(connection, select.EPOLLIN)  # without EPOLLET",
    )


def not_accepted(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that waits in an accept queue, because the server never accepts again."""
    for each in standstills(trace_index):
        listener = listener_of(trace_index, each.socket) if each.peer is None else None
        if listener is None or each.waiter.activity not in ("read", "events", "send"):
            continue
        owners = [
            state
            for state in each.moment.threads.values()
            if state.process in trace_index.holders_at(listener.number, each.moment.now)
        ]
        if not owners or any(listener.number in state.sockets for state in owners):
            continue
        if any(state.activity == "send" or _serves(trace_index, state, listener) for state in owners):
            continue  # it serves clients in turn: other rules
        accepts = [
            call
            for call in trace_index.calls_by_socket[listener.number]
            if call.name in ACCEPTING and call.created_id is not None and not call.failed
        ]
        server, client = (name_of(trace_index, owners[0].process), name_of(trace_index, each.waiter.process))
        selecting = next((state for state in owners if beyond_nfds(trace_index, listener, state)), None)
        if selecting is not None:
            yield not_selected(
                trace_index, each, listener, selecting, "not-accepted",
                f"That is its listener at {listener.local}: {client} is connected and waits in "
                f"{call_name(each.waiter)} for {age(each, each.waiter)}, and accept() is not called.",
            )  # fmt: skip
            continue
        accepts = [call for call in accepts if any(call.process == state.process for state in owners)]
        often = "never called accept()" if not accepts else _times(len(accepts))
        often += _limit_passed(trace_index, each, listener)
        yield Finding(
            "not-accepted",
            "A connection was never accepted",
            f"{capitalized(client)} is connected to {listener.local} and waits in {call_name(each.waiter)} "
            f"for {age(each, each.waiter)}, but the connection is still in the accept queue: {server} "
            f"{often}, and {doing(each, owners[0])}.",
            "Call accept() in a loop for as long as clients may come: each call takes one connection from "
            "the queue. The kernel completes the handshake without the program.",
            evidence(*accepts[-1:], owners[0], each.waiter),
            process=owners[0].process,
            sockets=(each.socket.number, listener.number),
            in_c="for (;;) { int c = accept(listener, NULL, NULL); serve(c); close(c); }",
            in_python="while True: connection, _ = listener.accept(); serve(connection)",
        )


def not_selected(
    trace_index: TraceIndex, each: Standstill, socket: Socket, state: ThreadState, rule: str, harm: str
) -> Finding:
    """Return the finding of a rule for a socket whose descriptor a select() does not look at.

    `harm`: sentences about what the peer waits for.
    """
    nfds = beyond_nfds(trace_index, socket, state)
    descriptor = min(trace_index.holders_at(socket.number)[state.process])
    return Finding(
        rule,
        "select() does not look at the last descriptor",
        f"{capitalized(name_of(trace_index, state.process))} waits in select() with {nfds} as the first "
        f"argument, so it looks at the descriptors 0 to {nfds - 1} and not at {descriptor}. {harm}",
        "The first argument is the highest descriptor plus 1 (select(2)).",
        evidence(*each.sends(each.socket)[-1:], state, each.waiter),
        process=state.process,
        sockets=(each.socket.number, socket.number),
        in_c="select(highest + 1, &readable, NULL, NULL, NULL);",
        in_python="",
    )


def _limit_passed(trace_index: TraceIndex, each: Standstill, listener: Socket) -> str:
    """Say that the last wait for a connection ended with its time limit, if it did."""
    waits = [
        call
        for call in trace_index.calls_named(*WAITING, *ACCEPTING)
        if listener.number in (call.socket, *call.sockets)
        and not (call.name in ACCEPTING and call.error == "EAGAIN")
    ]
    waits = [call for call in waits if call.until is not None and call.until <= each.moment.now]
    last = max(waits, key=lambda call: call.at, default=None)
    if last is None or not last.timeout_ns or last.result != 0 or last.name not in WAITING:
        return ""
    ago = formatting.duration(each.moment.now - (last.until or last.at))
    return f" (its last wait ended {ago} ago, with its time limit of {formatting.duration(last.timeout_ns)})"


def _times(count: int) -> str:
    return f"called accept() {'once' if count == 1 else f'{count} times'} and never again"


def _serves(trace_index: TraceIndex, state: ThreadState, listener: Socket) -> bool:
    """Return whether a thread waits for one of the connections that a listener accepted."""
    return state.activity == "read" and any(
        trace_index.trace.sockets[each].accepted_from == listener.number for each in state.sockets
    )


def keyboard(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that waits at the keyboard while a message lies unread in its socket."""
    moment = Moment(trace_index, trace_index.end)
    for state in moment.threads.values():
        if state.activity != "keyboard" or state.call is None or moment.now - state.since < STANDSTILL_NS:
            continue
        for socket in trace_index.sockets("stream"):
            peer = trace_index.peer_of(socket.number)
            held = trace_index.holders_at(socket.number, moment.now)
            if peer is None or state.process not in held or socket.is_listener or socket.is_wrapped:
                continue
            unread = moment.sent(peer) - moment.received(socket.number)
            watching = any(each.waits_for(socket.number) for each in moment.threads.values())
            sends = trace_index.sends(trace_index.trace.sockets[peer])
            if unread <= 0 or watching or not sends:
                continue
            name = name_of(trace_index, state.process)
            yield Finding(
                "keyboard",
                "A program waits at the keyboard while data lies unread",
                f"{capitalized(name)} waits for input from descriptor "
                f"{(state.call.descriptors_waited or (state.call.descriptor,))[0]} in {call_name(state)} for "
                f"{formatting.duration(moment.now - state.since)}. Meanwhile {bytes_text(unread)} that "
                f"{name_of(trace_index, sends[-1].process)} sent lie unread in its socket.",
                "Wait for the keyboard and the socket at once, with select() or poll(), or read the socket "
                "in another thread.",
                evidence(state, sends[-1]),
                process=state.process,
                sockets=(socket.number, peer),
                in_c="struct pollfd p[] = {{0, POLLIN}, {fd, POLLIN}}; poll(p, 2, -1);",
                in_python="readable, _, _ = select.select([sys.stdin, s], [], [])",
            )
            return


def doing(each: Standstill, state: ThreadState) -> str:
    """Return what a thread does, as the end of a sentence."""
    match state.activity:
        case "sleep":
            return f"sleeps ({age(each, state)} so far)"
        case "run" if each.moment.now - state.since < STANDSTILL_NS:
            return "has done other work meanwhile"
        case "run":
            return f"is in no system call that concerns sockets ({age(each, state)} so far)"
        case "accept":
            return f"waits in {call_name(state)} for a new connection"
        case "child":
            return f"waits for a child process ({age(each, state)} so far)"
        case "keyboard":
            return f"waits for input ({age(each, state)} so far)"
        case "lock":
            return f"waits for another thread ({age(each, state)} so far)"
        case _:
            return f"is in {call_name(state)} ({age(each, state)} so far)"


def _unread(trace_index: TraceIndex) -> Iterator[Standstill]:
    return (each for each in standstills(trace_index) if each.unread and each.peer is not None)
