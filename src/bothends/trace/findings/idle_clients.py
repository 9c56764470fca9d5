"""A rule about servers that wait for clients that send nothing, while others are not accepted. Pure.

The thread that waits accepts too       a server that serves one client at a time
another one accepts, or would           it waits for the first, as join() does
several threads or processes wait       each has a client, and there is none for the next
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, MOVING, RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, closed_at, name_of
from bothends.trace.findings.standstill import Moment, call_name, evidence
from bothends.trace.model import Call, Socket
from bothends.trace.protocols.tls_records import HEADER_SIZE
from bothends.trace.rendering import formatting

IDLE_NS: Final = 1_000_000_000  # nanoseconds: a server that serves clients in turn may make one wait a little
_HELD_UP: Final = ("lock", "run", "child")  # what a thread that accepts does until another one has finished


def idle_client(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that waits for one client while another is in the accept queue."""
    for listener, _ in trace_index.listeners():
        connections = list(_connections_to(trace_index, listener))
        for receive, socket in _long_receives(trace_index, listener):
            until = receive.until or trace_index.end
            waiting = [
                accept
                for connected_at, accept in connections
                if until - max(connected_at, receive.at) >= IDLE_NS
                and (accept is None or (accept.until or trace_index.end) >= until)
                and (accept is None or accept.created_id != socket.number)
            ]
            if not waiting:
                continue
            moment = Moment(trace_index, until if receive.until is None else until - 1)
            served = _served(trace_index, moment, listener)
            accepts_itself = _accepts_itself(trace_index, moment, listener, receive, served, waiting[0])
            if accepts_itself is not None:
                yield _finding(trace_index, listener, receive, waiting, served, accepts_itself=accepts_itself)
                return


def _long_receives(trace_index: TraceIndex, listener: Socket) -> Iterator[tuple[Call, Socket]]:
    """Return the receives on connections of a listener that took long, each with its socket."""
    for process in sorted({call.process for call in trace_index.calls_by_socket[listener.number]}):
        for receive in trace_index.calls_by_process[process]:
            socket = trace_index.trace.sockets.get(receive.socket or 0)
            if socket is None or socket.accepted_from != listener.number or receive.name not in RECEIVING:
                continue
            if (receive.until or trace_index.end) - receive.at >= IDLE_NS:
                yield receive, socket


def _served(trace_index: TraceIndex, moment: Moment, listener: Socket) -> dict[int, set[int]]:
    """Return the open connections of a listener at a time, by the threads that used them last."""
    found = dict[int, set[int]]()
    for socket in trace_index.sockets("stream"):
        holders = trace_index.holders_at(socket.number, moment.now)
        if socket.accepted_from != listener.number or not holders:
            continue
        users = [
            call.thread
            for call in trace_index.calls_by_socket[socket.number]
            if call.name in MOVING and call.at <= moment.now and call.process in holders
        ]
        if users and users[-1] in moment.threads:
            found.setdefault(users[-1], set()).add(socket.number)
    return found


def _accepts_itself(
    trace_index: TraceIndex,
    moment: Moment,
    listener: Socket,
    receive: Call,
    served: dict[int, set[int]],
    accept: Call | None,
) -> bool | None:
    """Return whether the thread that waits for a client accepts too, or every one that does waits for one.

    False: another one accepts, and probably waits until a client has left. None: it does something else, so
    the client is not the reason.

    Args:
        accept: the call by which the connection in the queue was accepted in the end, if it was.
    """
    threads = {call.thread for call in trace_index.calls_by_socket[listener.number] if call.name in ACCEPTING}
    others = [state for thread, state in moment.threads.items() if thread in threads - served.keys()]
    if not others:
        return receive.thread in threads
    if any(state.activity not in _HELD_UP for state in others):
        return None
    closes = [closed_at(trace_index, socket) for sockets in served.values() for socket in sockets]
    if accept is not None and not any(at is not None and at <= accept.at for at in closes):
        return None
    return False


def _finding(
    trace_index: TraceIndex,
    listener: Socket,
    receive: Call,
    waiting: list[Call | None],
    served: dict[int, set[int]],
    *,
    accepts_itself: bool,
) -> Finding:
    server = name_of(trace_index, receive.process)
    clients = len(set().union(*served.values()))
    waited = formatting.duration((receive.until or trace_index.end) - receive.at)
    text = (
        f"{capitalized(server)} waited in {call_name(receive)} for one client for {waited}, while another "
        "had connected and was not accepted"
    )
    remedy = "Serve several clients at once (threads, fork, select), and set a timeout for each."
    basis = ""  # of what is inferred
    in_c = "pthread_create(&thread, NULL, serve, connection);"
    in_python = "threading.Thread(target=serve, args=(connection,)).start()"
    if len(served) > 1:
        title = "Clients that are idle take all the places of a server"
        text += (
            f". It had {clients} connections open, in {len(served)} threads or processes: probably it serves "
            f"at most {clients} clients at once."
        )
        remedy = (
            "Set a timeout for idle clients, have more threads or processes than clients that stay "
            "connected, or wait for all clients in an event loop (select, epoll)."
        )
        basis = f"{len(served)} threads or processes each have a client"
        in_c = "setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){30}, sizeof(struct timeval));"
        in_python = "connection.settimeout(30)"
    elif not accepts_itself:
        title = "A server waits for a client that is idle before it accepts the next one"
        text += (
            ". Another thread or process accepts, and has not called accept() meanwhile: probably it waits "
            "until this client is served, as with join() or waitpid()."
        )
        remedy = (
            "Accept again at once, and don't wait for the thread or the process that serves a client. Set a "
            "timeout for each client."
        )
        basis = "the next connection is not accepted before this client has left"
        in_c = "pthread_create(&thread, NULL, serve, connection); pthread_detach(thread);"
        in_python = "threading.Thread(target=serve, args=(connection,)).start()   # and no join()"
    elif clients > 1:
        title = "A receive from a client that is idle blocks a server"
        text += f". It has {clients} connections, and served none of the others meanwhile."
    elif receive.requested == HEADER_SIZE and receive.name == "read" and not _has_read(trace_index, receive):
        title = "A TLS handshake with an idle client blocks the loop that accepts"
        text += (
            ". 5 bytes are the header of a TLS record: probably the handshake is done in the thread that "
            "accepts, and this client has not begun it."
        )
        remedy = (
            "Accept connections without TLS, and do the handshake in the thread that serves the connection, "
            "with a time limit."
        )
        basis = "the read has the size of the header of a TLS record, and is the first on the connection"
        in_c = "pthread_create(&thread, NULL, handshake_and_serve, connection);   /* SSL_accept() in it */"
        in_python = "c.settimeout(10); c = context.wrap_socket(c, server_side=True)   # in the thread"
    else:
        title = "An idle client blocks a server that serves one client at a time"
        text += "."
    return Finding(
        "idle-client",
        title,
        text,
        remedy,
        evidence(receive, *waiting[:1]),
        certainty="inferred" if basis else "seen",
        basis=basis,
        process=receive.process,
        sockets=(receive.socket or 0, listener.number),
        in_c=in_c,
        in_python=in_python,
    )


def _has_read(trace_index: TraceIndex, receive: Call) -> bool:
    """Return whether something was received on the connection of a call."""
    return any(
        call.name in RECEIVING and call.size for call in trace_index.calls_by_socket[receive.socket or 0]
    )


def _connections_to(trace_index: TraceIndex, listener: Socket) -> Iterator[tuple[int, Call | None]]:
    """Return the time of each connect() to a listener, and the call that accepted it, or None."""
    sockets = trace_index.trace.sockets
    accepts = {
        sockets[call.created_id].peer: call
        for call in trace_index.calls_by_socket[listener.number]
        if call.name.startswith("accept") and call.created_id in sockets
    }
    for call in trace_index.calls_named("connect"):
        target, local = call.address, listener.local
        if call.result != 0 or target is None or local is None:
            continue
        if target.port == local.port and (target.port or target.host == local.host):
            client = sockets.get(call.socket or 0)
            if client is not None and client.kind == "stream" and client.family != "unix" and client.local:
                yield call.until or call.at, accepts.get(client.local)
