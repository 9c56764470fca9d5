"""Rules about conversations that one end leaves too early: by a crash or by its time limit. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, MOVING, RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs, runs_node
from bothends.trace.findings.standstill import Moment, ThreadState, call_name, evidence
from bothends.trace.findings.turns import close_of, peer_socket, turns
from bothends.trace.model import Call, ProcessEvent, Socket
from bothends.trace.rendering import formatting

TIMER_NS: Final = 10_000_000_000  # nanoseconds: timers that run longer are limits for idle connections
PROMPT_EXIT_NS: Final = 1_000_000_000  # nanoseconds between an error that is not handled and the exit


def exited_mid_conversation(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that exited with an error after it had read a request, and before it sent an answer."""
    for event in trace_index.process_events:
        if event.kind != "ended" or not event.status:
            continue
        for socket in trace_index.sockets("stream"):
            peer = trace_index.peer_of(socket.number)
            if peer is None or socket.accepted_from is None:
                continue
            if not _held_at_exit(trace_index, socket, event):
                continue
            finding = _left_behind(trace_index, event, socket, peer)
            if finding is not None:
                yield finding
                break


def exited_on_timeout(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that exited with an error when its time limit for a new connection had passed."""
    for event in trace_index.process_events:
        if event.kind != "ended" or not event.status or event.status < 0:
            continue
        waits = [
            call
            for call in trace_index.calls_by_process[event.process]
            if call.name in WAITING | ACCEPTING | MOVING
            and call.until is not None
            and not (call.name in ACCEPTING and call.error == "EAGAIN" and call.duration < BLOCKED_NS)
        ]
        last = max(waits, key=lambda call: call.until or 0, default=None)
        if last is None or event.at - (last.until or 0) > PROMPT_EXIT_NS:
            continue
        awaited = {*last.sockets, *((last.socket,) if last.socket is not None else ())}
        listeners = [each for each in awaited if trace_index.trace.sockets[each].is_listener]
        passed = (last.name in WAITING and last.result == 0 and bool(last.timeout_ns)) or (
            last.name in ACCEPTING and last.error == "EAGAIN" and last.duration >= BLOCKED_NS
        )
        if not passed or len(listeners) != 1 or len(awaited) != 1 or runs_node(trace_index, event.process):
            continue  # Node.js waits until its next timer, whatever that is for
        server = name_of(trace_index, event.process)
        yield Finding(
            "exited-on-timeout",
            "A time limit for new connections ended the server",
            f"{capitalized(server)} waited {formatting.duration(last.duration)} for a connection, which was "
            f"its time limit. None came, and it exited with status {event.status} "
            f"{formatting.duration(max(0, event.at - (last.until or 0)))} later.",
            "Handle the end of the time limit: wait again. Or let the listener wait without one, and set "
            "time limits on the connections only.",
            (last.number, event.number),
            process=event.process,
            sockets=tuple(listeners),
            in_c="if (c < 0 && errno == EAGAIN) continue;   /* SO_RCVTIMEO of the listener */",
            in_python="except TimeoutError: continue   # or listener.settimeout(None)",
        )


def exited_on_reset(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that exited with an error just after a client had reset one connection."""
    for event in trace_index.process_events:
        if event.kind != "ended" or not event.status or event.status < 0:
            continue
        failed = next(
            (
                call
                for call in reversed(trace_index.calls_by_process[event.process])
                if call.error in ("ECONNRESET", "EPIPE", "ETIMEDOUT") and call.until is not None
            ),
            None,
        )
        socket = trace_index.trace.sockets.get(failed.socket or 0) if failed is not None else None
        if failed is None or socket is None or socket.accepted_from is None:
            continue
        after = event.at - (failed.until or failed.at)
        if after > PROMPT_EXIT_NS or _served_since(trace_index, event, failed):
            continue
        if event.process not in trace_index.holders_at(socket.accepted_from, failed.at):
            continue  # a child that serves one connection ends with it
        server = name_of(trace_index, event.process)
        yield Finding(
            "exited-on-reset",
            "An error of one connection ended the server",
            f"{capitalized(server)} exited with status {event.status} {formatting.duration(max(0, after))} "
            f"after {call_name(failed)} had failed with {failed.error}, because a client closed or reset its "
            "connection.",
            "Handle the errors of each connection, close only that one, and go on serving the others.",
            (failed.number, event.number),
            process=event.process,
            sockets=(socket.number, socket.accepted_from),
            in_c="if (n < 0) { close(c); continue; }  /* in place of exit(1) */",
            in_python='except ConnectionError: connection.close()   # in Node.js: socket.on("error", ...)',
        )


def _served_since(trace_index: TraceIndex, event: ProcessEvent, failed: Call) -> bool:
    return any(
        call.size and call.socket is not None and failed.at < call.at <= event.at
        for call in trace_index.calls_by_process[event.process]
    )


def _held_at_exit(trace_index: TraceIndex, socket: Socket, event: ProcessEvent) -> bool:
    """Return whether a process had a connection open, and to itself, until its last moment."""
    calls = [call for call in trace_index.calls_by_socket[socket.number] if call.process == event.process]
    closes = [call for call in calls if call.name == "close" and not call.failed]
    # An exception closes the sockets of a Python program just before it exits.
    late = not closes or event.at - closes[-1].at < BLOCKED_NS
    held = trace_index.holders_at(socket.number, event.at - 1)
    return bool(calls) and late and not (held.keys() - {event.process})


def _left_behind(trace_index: TraceIndex, event: ProcessEvent, socket: Socket, peer: int) -> Finding | None:
    """Return the finding for a peer that waited for an answer when a process exited; or None."""
    spoken = turns(trace_index, socket)
    got_eof = any(
        call.name in RECEIVING and call.result == 0 and call.requested
        for call in trace_index.calls_by_socket[socket.number]
    )
    if not spoken or spoken[-1].kind != "received" or got_eof:
        return None
    request = spoken[-1].calls[-1]
    waiter = next(
        (
            call
            for call in trace_index.calls_by_socket[peer]
            if call.name in RECEIVING and not call.size and (call.until is None or call.until >= request.at)
        ),
        None,
    )
    if waiter is None:
        return None
    server, client = name_of(trace_index, event.process), name_of(trace_index, waiter.process)
    signalled = (event.status or 0) < 0
    how = f"was {formatting.truncate(event.text, 40)}" if signalled else f"exited with status {event.status}"
    outcome = (
        f"failed with {waiter.error}"
        if waiter.failed
        else "returned EOF"
        if waiter.result == 0
        else "still waits"
    )
    after = formatting.duration(max(0, event.at - (request.until or request.at)))
    close = close_of(trace_index, socket) if runs(trace_index, event.process, "java") else None
    return Finding(
        "exited-mid-conversation",
        "A server exited in the middle of a conversation",
        f"{capitalized(server)} {how} {after} after it had read "
        f"{formatting.quoted(request.data, request.size, 24)}, and sent no answer: {call_name(waiter)} of "
        f"{client} {outcome}."
        + (_closed_before_exit(event, close) if close is not None and not signalled else ""),
        "Look at the error that the program printed. Catch errors for each connection, answer with an "
        "error and close only that connection, so that bad input does not end the server.",
        (request.number, event.number, waiter.number),
        process=event.process,
        sockets=(socket.number, peer),
        in_c="if (parse(buf, n, &value) < 0) { reply_error(c); close(c); continue; }",
        in_python="try: serve(connection)\nexcept Exception: logging.exception('connection failed')",
    )


def _closed_before_exit(event: ProcessEvent, close: Call) -> str:
    """Say what else may have ended a server of Java that had closed the connection just before."""
    before = formatting.duration(max(0, event.at - close.at))
    return (
        f" It closed the connection {before} before it exited: because of an exception, or this caused one. "
        "In Java close() of one stream of a socket closes all of it, and the other stream cannot be used "
        "after that."
    )


def closed_without_answer(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that closed a connection after a request, and a client that failed because of it."""
    yield from _closed_before_request(trace_index)
    for socket in trace_index.sockets("stream"):
        peer = peer_socket(trace_index, socket)
        spoken = turns(trace_index, socket)
        if peer is None or socket.accepted_from is None or not spoken or spoken[-1].kind != "received":
            continue
        request = spoken[-1].calls[-1]
        is_half_closed = any(call.result == 0 and call.requested for call in trace_index.receives(socket))
        ending = ("close", "shutdown") if is_half_closed else ("close",)
        close = next((call for call in trace_index.later_calls(request) if call.name in ending), None)
        eof = next(
            (
                call
                for call in trace_index.calls_by_socket[peer.number]
                if call.name in RECEIVING
                and call.result == 0
                and call.requested
                and call.at >= request.at - BLOCKED_NS
            ),
            None,
        )
        if close is None or close.failed or eof is None or eof.until is None or eof.until < close.at:
            continue
        status = trace_index.process(eof.process).status
        ended = trace_index.ended_at(eof.process)
        if not status or status < 0 or ended is None or ended - eof.until > PROMPT_EXIT_NS:
            continue
        fin = close_of(trace_index, peer)
        has_ended = is_half_closed or (fin is not None and fin.at < eof.until)
        if has_ended and any(call.size for call in trace_index.receives(peer)):
            continue  # it had answers, and may have expected no more
        server, client = name_of(trace_index, close.process), name_of(trace_index, eof.process)
        after = formatting.duration(max(0, close.at - (request.until or request.at)))
        yield Finding(
            "closed-without-answer",
            "The server closed the connection in place of an answer",
            f"{capitalized(server)} read {formatting.quoted(request.data, request.size, 24)} and closed the "
            f"connection {after} later, without an answer. {capitalized(client)} "
            + ("had ended its own direction only" if has_ended else "had sent no FIN")
            + f" and waited for one: its {call_name(eof)} returned EOF, and it exited with status {status}.",
            "EOF from the client ends one direction only: send the answer, then close. In Node.js create the "
            "server with allowHalfOpen: true."
            if is_half_closed
            else "Look at what the server does with this request: it ends the conversation as if the client "
            "had closed it. A read of 0 bytes that were asked for is no EOF, and an error needs an answer.",
            (request.number, close.number, eof.number),
            process=close.process,
            sockets=(socket.number, peer.number),
            in_c="if (n == 0 && wanted > 0) { /* EOF */ }",
            in_python="value = read_exactly(c, size) if size else b''   # recv(0) returns b'' too",
        )
        return


def _closed_before_request(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that closed a connection without reading from it, and a client that failed with it."""
    for socket in trace_index.sockets("stream"):
        peer = peer_socket(trace_index, socket)
        if peer is None or socket.accepted_from is None or socket.is_wrapped:
            continue
        calls = trace_index.calls_by_socket[socket.number]
        if any(call.name in MOVING | WAITING for call in calls):
            continue
        close = next((call for call in calls if call.name in ("close", "shutdown") and not call.failed), None)
        request = next(iter(trace_index.sends(peer)), None)
        outcome = next(
            (
                call
                for call in trace_index.calls_by_socket[peer.number]
                if call.name in RECEIVING and call.until is not None and not call.size and call.requested
            ),
            None,
        )
        if (
            close is None
            or request is None
            or outcome is None
            or any(
                call.socket == socket.number or socket.number in call.sockets
                for call in trace_index.calls_by_process[close.process]
                if call.name in WAITING
            )
        ):
            continue
        ended, status = trace_index.ended_at(outcome.process), trace_index.process(outcome.process).status
        if not status or status < 0 or ended is None or ended - (outcome.until or 0) > PROMPT_EXIT_NS:
            continue
        server_ended = trace_index.ended_at(close.process)
        if server_ended is not None and server_ended - close.at < PROMPT_EXIT_NS:
            continue  # it failed, and that is the cause
        server, client = name_of(trace_index, close.process), name_of(trace_index, outcome.process)
        since = close.at - (calls[0].until or calls[0].at)
        when = (
            f"{formatting.duration(request.at - close.at)} later"
            if request.at > close.at
            else f"{formatting.duration(close.at - request.at)} earlier"
        )
        yield Finding(
            "closed-without-answer",
            "The server closed the connection before it had read a request",
            f"{capitalized(server)} closed the connection {formatting.duration(max(0, since))} after it had "
            f"accepted it, and called no read on it. {capitalized(client)} sent "
            f"{formatting.quoted(request.data, request.size, 24)} {when}: its {call_name(outcome)} "
            f"{'failed with ' + outcome.error if outcome.failed else 'returned EOF'}, and it exited with "
            f"status {status}.",
            "Wait for the request: a blocking read does, or poll() with a time limit. That nothing has "
            "arrived yet (available() == 0, FIONREAD) does not mean that nothing will come.",
            (close.number, request.number, outcome.number),
            process=close.process,
            sockets=(socket.number, peer.number),
            in_c="n = recv(c, buf, sizeof buf, 0);   /* waits; without asking FIONREAD first */",
            in_python="line = connection.makefile().readline()   # Java: in.readLine(), not in.available()",
        )
        return


def timeout_too_short(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client whose time limit ended before the server sent its answer."""
    for socket in trace_index.sockets("stream"):
        peer = trace_index.peer_of(socket.number)
        if peer is None or socket.accepted_from is not None:
            continue
        limited, gave_up = _gave_up(trace_index, socket)
        if limited is None or gave_up is None:
            continue
        spoken = turns(trace_index, socket)
        if not spoken or spoken[-1].kind != "sent":
            continue
        states = Moment(trace_index, gave_up).states_at(peer)
        request = spoken[-1].calls[-1]
        is_whole = request.data[: request.size].endswith(b"\n")
        if any(state.waits_for(peer) and not (is_whole and _has_timer(state)) for state in states):
            continue
        late = _late_answer(trace_index, socket, peer, request, states, gave_up)
        if late is None:
            continue
        text, last = late
        client = name_of(trace_index, limited.process)
        is_seen = last.name in SENDING
        if not is_seen and not trace_index.process(limited.process).status:
            continue  # it may give up on purpose
        if _is_answered_later(trace_index, socket, limited.process, gave_up):
            continue
        yield Finding(
            "timeout-too-short",
            "The client's time limit is shorter than the server takes",
            f"{capitalized(client)} waited {formatting.duration(limited.duration)} for the answer in "
            f"{call_name(limited)} and closed the connection. {text}",
            "Set a time limit longer than the slowest answer, or make the server answer faster or send "
            "progress. The server must expect EPIPE and ECONNRESET from clients that have gone.",
            evidence(request, limited, last),
            "seen" if is_seen else "inferred",
            "" if is_seen else "the server had read the request and was busy",
            process=limited.process,
            sockets=(socket.number, peer),
            in_c="struct timeval t = {30, 0}; setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);",
            in_python="s.settimeout(30)",
        )


def _late_answer(
    trace_index: TraceIndex,
    socket: Socket,
    peer: int,
    request: Call,
    states: list[ThreadState],
    gave_up: int,
) -> tuple[str, Call] | None:
    """Return when a server answered a client that had gone, or what it did meanwhile; and a call of it."""
    calls = trace_index.calls_by_socket[peer]
    for call in calls:
        if call.name in SENDING and (call.size or call.failed) and call.at >= gave_up:
            took = formatting.duration(call.at - (request.until or request.at))
            server = capitalized(name_of(trace_index, call.process))
            return (
                f"{server} sent its answer {took} after the request, "
                f"{formatting.duration(call.at - gave_up)} too late."
            ), call
    reads = [call for call in calls if call.name in RECEIVING and call.size and call.at < gave_up]
    sent = sum(call.size for call in trace_index.sends(socket))
    if not reads or sum(call.size for call in reads) < sent:
        return None
    users = [state for state in states if state.thread == reads[-1].thread]
    if not users or not (users[0].activity in ("sleep", "run", "child") or _has_timer(users[0])):
        return None
    if any(call.name in ("close", "shutdown") and call.at < gave_up for call in calls):
        return None
    took = formatting.duration(gave_up - (reads[-1].until or reads[-1].at))
    doing = ": it was in sleep()" if users[0].activity == "sleep" else ""
    doing = ": it waited with a timer" if users[0].activity == "events" else doing
    return (
        f"{capitalized(name_of(trace_index, reads[-1].process))} had read the request {took} before and had "
        f"sent no answer{doing}."
    ), reads[-1]


def _is_answered_later(trace_index: TraceIndex, socket: Socket, process: int, since: int) -> bool:
    """Return whether a program connected to the same place again, got an answer, and exited without error."""
    if trace_index.process(process).status != 0:
        return False
    return any(
        other.peer == socket.peer and other.number != socket.number and other.accepted_from is None
        for call in trace_index.calls_by_process[process]
        if call.at > since and call.name in RECEIVING and call.size and call.socket is not None
        for other in [trace_index.trace.sockets[call.socket]]
        if other.peer is not None
    )


def _has_timer(state: ThreadState) -> bool:
    """Return whether an event loop waits for a time that is near, as a server does that answers later."""
    limit = state.call.timeout_ns if state.call is not None else None
    return state.activity == "events" and limit is not None and limit <= TIMER_NS


def _gave_up(trace_index: TraceIndex, socket: Socket) -> tuple[Call | None, int | None]:
    """Return the last call that timed out on a socket, and when the socket was closed right after it."""
    limited = None
    waits = _timed_out_waits(trace_index).get(socket.number, [])
    for call in sorted(waits + trace_index.calls_by_socket[socket.number], key=lambda each: each.at):
        timed_out = (call.name in WAITING and call.result == 0) or (
            call.name in RECEIVING and call.error == "EAGAIN"
        )
        if timed_out and call.duration >= BLOCKED_NS:
            limited = call
        elif call.name in MOVING and call.size:
            limited = None
        elif call.name == "close" and not call.failed and limited is not None:
            return limited, call.at
    if limited is not None:
        return limited, trace_index.ended_at(limited.process)
    return None, None


@lru_cache(maxsize=1)
def _timed_out_waits(trace_index: TraceIndex) -> dict[int, list[Call]]:
    """Return the long waits that ended without an event, by socket."""
    found: dict[int, list[Call]] = defaultdict(list)
    for call in trace_index.calls_named(*WAITING):
        if call.result == 0 and call.duration >= BLOCKED_NS:
            for number in call.sockets:
                found[number].append(call)
    return found
