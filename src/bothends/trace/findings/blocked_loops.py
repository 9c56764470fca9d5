"""Rules about event loops: one thread serves several connections, and is blocked while others wait. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import MOVING, RECEIVING, WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, holder_name, name_of
from bothends.trace.findings.standstill import (
    STANDSTILL_NS,
    Moment,
    ThreadState,
    activity_of,
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

_SPIN_NS: Final = 3_000_000_000  # nanoseconds in no system call: longer than most healthy computations
MOMENTS: Final = 5  # times during a block at which the clients are looked at


def loop_blocked(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a thread that serves several connections, and sleeps, computes or reads from one peer."""
    for length, call, what in _long_blocks(trace_index):
        victims = [each for each in _victims(trace_index, call, length) if each[2].thread != call.thread]
        if not victims:
            continue
        socket, unread, waiter = victims[0]
        name, other = name_of(trace_index, call.process), name_of(trace_index, waiter.process)
        more = f", as do {len(victims) - 1} more" if len(victims) > 1 else ""
        yield Finding(
            "loop-blocked",
            "An event loop stands still while clients wait",
            f"{capitalized(name)} {what} for {formatting.duration(length)}, in the thread that serves all "
            f"connections. Meanwhile {other} waited for an answer in {call_name(waiter)}{more}: "
            f"{_lay_unread(trace_index, socket, unread)}.",
            "Never block in an event loop: use its own timer in place of sleep(), read from sockets that are "
            "ready and non-blocking only, and run long work in another thread or process.",
            evidence(call, waiter),
            process=call.process,
            sockets=(socket.number,),
            in_c="pthread_create(&thread, NULL, work, job);  /* and timerfd_create() in place of sleep() */",
            in_python="await asyncio.sleep(2)   # long work: await asyncio.to_thread(work)",
        )
        return
    yield from _spins_before_its_data(trace_index)


def _spins_before_its_data(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an event loop that runs, without a system call, while the data that it waits for is there."""
    for each in standstills(trace_index):
        if each.peer is None or not each.unread or each.moment.now < trace_index.end:
            continue
        used = [call for call in trace_index.calls_by_socket[each.peer.number] if call.name in MOVING]
        state = each.moment.threads.get(used[-1].thread) if used else None
        if state is None or state.activity != "run" or each.moment.now - state.since < _SPIN_NS:
            continue
        trace = trace_index.trace
        if trace.frozen_at is None or any(call.thread == state.thread for call in trace.blocked):
            continue  # it is not known that it runs
        own = trace_index.calls_by_process[state.process]
        if not any(call.thread == state.thread and call.name.startswith("epoll_") for call in own):
            continue
        name, other = name_of(trace_index, state.process), name_of(trace_index, each.waiter.process)
        yield Finding(
            "loop-blocked",
            "An event loop stands still, and the data that it waits for lies unread",
            f"{capitalized(name)} has made no system call for {age(each, state)}, in the thread of its event "
            f"loop: it computes, or loops until a variable changes. Meanwhile the {bytes_text(each.unread)} "
            f"that {other} sent lie unread. A callback for them runs only when the event loop does.",
            "Never wait in a loop for what a callback sets: go on in the callback, or await a promise or a "
            "future. Run long work in another thread or process.",
            evidence(used[-1], *each.sends(each.socket)[-1:], each.waiter),
            process=state.process,
            sockets=(each.peer.number, each.socket.number),
            in_c="for (;;) { epoll_wait(ep, &event, 1, -1); handle(event); }   /* not: while (!done); */",
            in_python="answer = await future   # in Node.js: const answer = await once(socket, 'data')",
        )
        return


def _lay_unread(trace_index: TraceIndex, socket: Socket, unread: int) -> str:
    where = "its connection was not accepted" if socket.accepted_from is None else ""
    return " and ".join(filter(None, (f"{bytes_text(unread)} of it lay unread" if unread else "", where)))


def blocked_by_slow_reader(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a thread that is blocked in a send to one client while data of other clients waits."""
    for call in trace_index.calls:
        length = (call.until or trace_index.end) - call.at
        if length < STANDSTILL_NS or activity_of(call) != "send":
            continue
        socket = trace_index.trace.sockets.get(call.socket or 0)
        if socket is None:
            continue
        victims = list(_victims(trace_index, call, length)) or list(_waiting_for_lock(trace_index, call))
        if not victims:
            continue
        victim, unread, waiter = victims[0]
        reader = holder_name(trace_index, trace_index.peer_of(socket.number), call.at, str(socket.peer or ""))
        name = name_of(trace_index, call.process)
        yield Finding(
            "blocked-by-slow-reader",
            "A blocking send to a slow reader holds up all other clients",
            f"{capitalized(name)} was blocked in {call_name(call)} to {reader}, which does not read, for "
            f"{formatting.duration(length)}. Meanwhile {name_of(trace_index, waiter.process)} waited for an "
            f"answer in {call_name(waiter)}: "
            f"{_lay_unread(trace_index, victim, unread) or 'the thread that serves it waits for a lock'}.",
            "Make the sockets non-blocking, keep unsent bytes in a buffer for each connection, and send them "
            "when the socket is writable. Close clients whose buffer grows too large.",
            evidence(call, waiter),
            process=call.process,
            sockets=(socket.number, victim.number),
            in_c="fcntl(fd, F_SETFL, O_NONBLOCK);  /* on EAGAIN wait for POLLOUT */",
            in_python="connection.setblocking(False)  # then n = connection.send(buffer); del buffer[:n]",
        )
        return


def _waiting_for_lock(trace_index: TraceIndex, send: Call) -> Iterator[tuple[Socket, int, ThreadState]]:
    """Return the connections that other threads of a blocked sender serve, if they wait for a lock."""
    if send.until is not None:
        return
    moment = Moment(trace_index, trace_index.end)
    locked = {
        state.thread
        for state in moment.threads.values()
        if state.process == send.process and state.activity == "lock" and state.thread != send.thread
    }
    for number in {
        call.socket for call in trace_index.calls_by_process[send.process] if call.thread in locked
    }:
        socket = trace_index.trace.sockets.get(number or 0)
        peer = trace_index.peer_of(number or 0)
        if socket is None or peer is None or socket.accepted_from is None or number == send.socket:
            continue
        last = [call for call in trace_index.calls_by_socket[socket.number] if call.size][-1:]
        waiter = next((each for each in moment.states_at(peer) if each.waits_for(peer)), None)
        if waiter is not None and last and last[0].name in RECEIVING and last[0].thread in locked:
            yield socket, moment.sent(peer) - moment.received(socket.number), waiter


def _long_blocks(trace_index: TraceIndex) -> Iterator[tuple[int, Call, str]]:
    """Return the long sleeps, and the long gaps between two calls of a thread: the length, and the call."""
    last: dict[int, Call] = {}
    for call in trace_index.calls:
        before = last.get(call.thread)
        last[call.thread] = call
        if before is not None and before.until is not None and call.at - before.until >= STANDSTILL_NS:
            yield call.at - before.until, before, "made no call on a socket"
        length = (call.until or trace_index.end) - call.at
        if length < STANDSTILL_NS:
            continue
        if activity_of(call) == "sleep":
            yield length, call, "slept"
        elif activity_of(call) == "read" and (peer := _only_peer(trace_index, call)):
            yield length, call, f"waited in {call.name}() for {peer}"
    for call in last.values():
        ended = trace_index.ended_at(call.process)
        if call.until is not None and ended is None and trace_index.end - call.until >= STANDSTILL_NS:
            blocked = next((each for each in trace_index.trace.blocked if each.thread == call.thread), None)
            if blocked is None or activity_of(blocked) in ("sleep", "lock", "child", "other"):
                verb = (
                    "slept"
                    if blocked is not None and activity_of(blocked) == "sleep"
                    else "made no call on a socket"
                )
                yield trace_index.end - call.until, blocked or call, verb


def _only_peer(trace_index: TraceIndex, call: Call) -> str:
    """Return the one peer from which a call waits for data; "" if it waits for something else."""
    number = call.socket if call.socket is not None else next(iter(call.sockets), 0)
    socket = trace_index.trace.sockets.get(number)
    if socket is None or socket.kind != "stream" or socket.is_listener:
        return ""
    if socket.accepted_from is not None:
        return "one client"
    return holder_name(trace_index, trace_index.peer_of(socket.number), call.at, str(socket.peer or ""))


def _victims(trace_index: TraceIndex, call: Call, length: int) -> Iterator[tuple[Socket, int, ThreadState]]:
    """Return the connections that wait meanwhile for the thread of a call: a socket, and what lies unread.

    The socket is the server's, or the client's if its connection has not been accepted. Only a thread that
    waits for several sockets at once, or has read from several, serves them all.
    """
    own = [each for each in trace_index.calls_by_process[call.process] if each.thread == call.thread]
    if not any(each.name in WAITING and len(each.sockets) > 1 for each in own):
        return
    is_gap = activity_of(call) not in ("sleep", "send", "read") and call.until is not None
    start = call.until or 0 if is_gap else call.at
    for part in range(MOMENTS, 0, -1):  # a client may give up before the end
        found = list(
            _waiting(trace_index, call, own, Moment(trace_index, start + length * part // MOMENTS - 1))
        )
        if found:
            yield from found
            return


def _waiting(
    trace_index: TraceIndex, call: Call, own: list[Call], moment: Moment
) -> Iterator[tuple[Socket, int, ThreadState]]:
    watched = {number for each in own for number in each.sockets}
    read = {each.socket for each in own if each.name in RECEIVING}
    for socket in trace_index.sockets("stream"):
        client, server = socket, peer_socket(trace_index, socket)
        listener = listener_of(trace_index, client)
        if socket.accepted_from is not None or socket.is_listener or listener is None:
            continue
        waiter = next(
            (each for each in moment.states_at(client.number) if each.waits_for(client.number)), None
        )
        if waiter is None or moment.now - waiter.since < STANDSTILL_NS // 2 or listener.number not in watched:
            continue
        holders = trace_index.holders_at(server.number, moment.now) if server is not None else {}
        if server is not None and holders:
            unread = moment.sent(client.number) - moment.received(server.number)
            is_served = call.process in holders and server.number in watched | read
            if unread > 0 and server.number != call.socket and is_served:
                yield server, unread, waiter
        elif call.process in trace_index.holders_at(listener.number, moment.now):
            yield client, moment.sent(client.number), waiter
