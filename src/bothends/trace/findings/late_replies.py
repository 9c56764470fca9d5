"""A rule about a reply to an earlier request that a client takes for the reply to a later one. Pure.

The client sends one request at a time, and gives up waiting for one of them. Its reply comes late, after the
next request: the client takes it for the reply to that one. A client that compares an identifier receives
again; this one goes on with its next request, or ends.

client ── A ──> (gives up) ── B ──> <── a ── ── C ──> <── b ── close       c is never read

On a stream every later reply is then taken for the wrong one, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.capture.calls import RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.turns import close_of, peer_socket
from bothends.trace.findings.udp_requests import datagram_traffic, receives_data
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting


def late_reply(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reply to an earlier request that is probably taken for the reply to a later one."""
    yield from _late_datagrams(trace_index)
    yield from _late_on_streams(trace_index)


def _late_datagrams(trace_index: TraceIndex) -> Iterator[Finding]:
    answers = _answered_requests(trace_index)
    for socket in trace_index.sockets("datagram"):
        found = _first_mistake(trace_index, socket, answers)
        if found is None:
            continue
        asked, current, receive = found
        client = capitalized(name_of(trace_index, receive.process))
        yield Finding(
            "late-reply",
            "A late reply is probably taken for the reply to a later request",
            f"{client} asked {_data(asked)} and gave up waiting, then asked {_data(current)} and received "
            f"{_data(receive)}, which is the reply to the former. It went on without another receive.",
            "Put a number into each request and its reply, and discard replies with another number; or use a "
            "new socket for each request.",
            (asked.number, current.number, receive.number),
            certainty="inferred",
            basis="the server sent this reply after the earlier request, and the client read no other",
            process=receive.process,
            sockets=(socket.number,),
            in_c="do n = recv(fd, &reply, sizeof reply, 0); while (n > 0 && reply.number != number);",
            in_python="while reply[:4] != number: reply = sock.recv(65535)",
        )


def _answered_requests(trace_index: TraceIndex) -> dict[int, Call]:
    """Return the request that each reply answers: the one its thread received just before."""
    found, last = dict[int, Call](), dict[int, Call]()
    unprompted = set[int]()  # sockets that send without a request: a clock, a peer with its own timer
    if next(trace_index.sockets("datagram"), None) is None:
        return {}
    for call in trace_index.calls_named(*SENDING, *RECEIVING):
        if call.socket is None:
            continue
        if trace_index.trace.sockets[call.socket].kind != "datagram":
            continue
        if receives_data(call):
            last[call.thread] = call
        elif call.name in SENDING and not call.failed:
            receive = last.pop(call.thread, None)  # a second send is no reply
            if receive is None:
                unprompted.add(call.socket)
                continue
            senders = trace_index.senders_of(receive)
            if len(senders) == 1 and receive.socket == call.socket:
                found[call.number] = senders[0]
    return {
        number: request
        for number, request in found.items()
        if isinstance(reply := trace_index.trace.event(number), Call) and reply.socket not in unprompted
    }


def _first_mistake(
    trace_index: TraceIndex, socket: Socket, answers: dict[int, Call]
) -> tuple[Call, Call, Call] | None:
    """Return the request answered, the one that the client had asked last, and the receive."""
    waits = datagram_traffic(trace_index).waits_by_socket[socket.number]
    calls = sorted((*trace_index.calls_by_socket[socket.number], *waits), key=lambda call: call.at)
    current: Call | None = None
    gave_up = pending = False  # pending: the request has had neither an answer nor the end of a wait
    received: list[Call] = []
    mistakes = []
    for call in calls:
        if receives_data(call) and current is None:
            return None  # a server
        if call.name in SENDING and not call.failed and call.size:
            if pending:
                return None  # several requests at a time
            if current is not None and len(received) > 1:
                return None  # it looks at several replies
            mistakes += _mistake(trace_index, current, received, gave_up, answers)
            current, pending, received = call, True, []
        elif receives_data(call):
            received.append(call)
            pending = False
        elif (
            call.name in RECEIVING | WAITING
            and call.until is not None
            and (call.result == 0 or call.error == "EAGAIN")
        ):
            has_waited = call.until - call.at >= BLOCKED_NS // 4
            gave_up = gave_up or (has_waited and current is not None and not received)
            pending = pending and not has_waited
    mistakes += _mistake(trace_index, current, received, gave_up, answers)
    return mistakes[0] if mistakes else None


def _mistake(
    trace_index: TraceIndex,
    current: Call | None,
    received: list[Call],
    gave_up: bool,
    answers: dict[int, Call],
) -> list[tuple[Call, Call, Call]]:
    if current is None or len(received) != 1 or not gave_up:
        return []
    replies = trace_index.senders_of(received[0])
    asked = answers.get(replies[0].number) if len(replies) == 1 else None
    if (
        asked is None
        or asked.socket != current.socket
        or asked.at >= current.at
        or asked.data == current.data
    ):
        return []
    right = next((each for each, request in answers.items() if request is current), None)
    event = trace_index.trace.event(right) if right is not None else None
    if isinstance(event, Call) and event.data == received[0].data:
        return []  # all replies are alike
    return [(asked, current, received[0])]


def _late_on_streams(trace_index: TraceIndex) -> Iterator[Finding]:
    for socket in trace_index.sockets("stream"):
        server = peer_socket(trace_index, socket)
        if socket.accepted_from is not None or server is None:
            continue
        found = _first_on_stream(trace_index, socket, trace_index.sends(server))
        if found is None:
            continue
        asked, current, receive = found
        client = capitalized(name_of(trace_index, receive.process))
        yield Finding(
            "late-reply",
            "A late answer is probably taken for the answer to a later request",
            f"{client} sent {_data(asked)} and gave up waiting, then sent {_data(current)} on the same "
            f"connection and received {_data(receive)}, which answers the former. It read no other answer "
            "before it went on, so each later answer is taken for that of the next request.",
            "Close a connection when you give up waiting for an answer on it. Or put a number into each "
            "request and its answer, and discard answers with another number.",
            (asked.number, current.number, receive.number),
            certainty="inferred",
            basis="the server sent its answers in the order of the requests, and the last one was never read",
            process=receive.process,
            sockets=(socket.number,),
            in_c="if (poll(&p, 1, timeout) == 0) { close(fd); fd = reconnect(); }",
            in_python="except TimeoutError: sock.close(); sock = socket.create_connection(address)",
        )


def _first_on_stream(
    trace_index: TraceIndex, socket: Socket, replies: list[Call]
) -> tuple[Call, Call, Call] | None:
    """Return the request answered, the one that the client had sent last, and the receive.

    The n-th send of the server is taken for the answer to the n-th request. The client must have received
    once between two requests, and never the last answer. If the client ended before that was sent, another
    answer must have been sent before the request for which it was taken.
    """
    places = {reply.number: place for place, reply in enumerate(replies)}
    waits = datagram_traffic(trace_index).waits_by_socket[socket.number]
    if not any(_may_give_up(call) for call in (*trace_index.calls_by_socket[socket.number], *waits)):
        return None
    requests: list[Call] = []
    received = 0  # since the last request
    has_waited = False  # in vain, since then
    abandoned: tuple[Call, Call] | None = None  # the request, and the next one
    joined: Call | None = None  # the receive that brought the answers to both
    mistakes: list[tuple[Call, Call, Call]] = []
    calls = trace_index.in_causal_order(socket.number)
    for call in sorted((*calls, *waits), key=trace_index.position) if waits else calls:
        if call.name in SENDING and not call.failed and call.size:
            gave_up = bool(requests) and not received and has_waited and abandoned is None
            if requests and received != 1 and not gave_up:
                return None  # several requests at a time, or several answers
            if gave_up:
                abandoned = requests[-1], call
            requests.append(call)
            received, has_waited = 0, False
        elif receives_data(call) and call.size:
            senders = trace_index.senders_of(call)
            last = places.get(senders[-1].number, len(requests)) if senders else len(requests)
            if last >= len(requests) or (len(senders) > 1 and (joined is not None or abandoned is None)):
                return None
            received += 1
            if len(senders) > 1:
                joined = call
            elif last < len(requests) - 1:
                mistakes.append((requests[last], requests[-1], call))
            elif mistakes:
                return None
        elif _may_give_up(call):
            has_waited |= not received
    if abandoned is None or abandoned[0].data == abandoned[1].data:
        return None
    ended = (
        close_of(trace_index, socket) is not None or trace_index.ended_at(abandoned[0].process) is not None
    )
    if not ended:
        return None
    if joined is not None and not mistakes:
        # It sent a request like the others, and ended without waiting for the answer to it.
        is_alike = len(requests) > 2 and requests[-1].data.split()[:1] == requests[-2].data.split()[:1]
        return (*abandoned, joined) if not received and not has_waited and is_alike else None
    if not mistakes or received != 1:
        return None
    was_early = any(
        trace_index.position(trace_index.senders_of(receive)[0]) < trace_index.position(request)
        for _, request, receive in mistakes[1:]
    )
    if len(replies) == len(requests) or (len(replies) == len(requests) - 1 and was_early):
        return mistakes[0]
    return None


def _may_give_up(call: Call) -> bool:
    """Return whether a call waited for data for a while, and there were none."""
    is_empty = call.result == 0 or call.error == "EAGAIN"
    return is_empty and call.name in RECEIVING | WAITING and call.duration >= BLOCKED_NS // 4


def _data(call: Call) -> str:
    return formatting.quoted(call.data, call.size, 24)
