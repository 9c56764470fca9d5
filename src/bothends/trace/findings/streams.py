"""Rules about the use of streams: message boundaries, EOF, short sends, waiting. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

BUSY_LOOP_CALLS: Final = 20  # EAGAIN this many times in a row is a loop
IGNORED_EOFS: Final = 3  # a reader may check EOF once more; three times means that it ignores EOF
DELAYED_ACK_NS: Final = 25_000_000  # nanoseconds: Linux delays an acknowledgement by 40 ms, and nothing else


def one_recv_per_message(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a read that received part of what was sent, after which the program did not read the rest."""
    for socket in trace_index.sockets("stream"):
        received = 0
        for receive in trace_index.receives(socket):
            received += receive.size
            senders = trace_index.senders_of(receive)
            if not receive.size or not senders:
                continue
            last = senders[-1]
            total_sent = trace_index.bytes_sent_by[last.number]
            following = trace_index.next_call(receive)
            if total_sent <= received or (following is not None and following.name in RECEIVING | WAITING):
                continue
            if following is None and trace_index.ended_at(receive.process) is None:
                continue  # it may read on after the end of the trace
            yield Finding(
                "one-recv-per-message",
                "The program takes one recv for one message",
                f"The peer sent {last.size} bytes in one send. This read got {receive.size}, and the program "
                f"continued without the other {total_sent - received}.",
                "TCP has no messages: read in a loop until the message is complete (by its length, a "
                "line's end, or EOF).",
                (last.number, receive.number, *((following.number,) if following else ())),
            )
            break


def short_send(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a send that accepted fewer bytes than it was given, after which the rest was not sent."""
    for socket in trace_index.sockets("stream"):
        sends = [call for call in trace_index.calls_by_socket[socket.number] if call.name in SENDING]
        for index, call in enumerate(sends):
            if call.failed or call.result is None or call.requested is None or call.size >= call.requested:
                continue
            if call.name in ("sendfile", "splice") or (
                index + 1 < len(sends) and _continues(call, sends[index + 1])
            ):
                continue
            yield Finding(
                "short-send",
                "The program ignores a short send",
                f"send accepted {call.size} of {call.requested} bytes, and the rest was never sent.",
                "Call send in a loop with the remaining bytes; in Python use sendall().",
                (call.number, *((sends[index + 1].number,) if index + 1 < len(sends) else ())),
            )
            break


def _continues(call: Call, following: Call) -> bool:
    """Return whether a call sends the bytes that a short send did not accept."""
    rest = call.data[call.size : call.size + 64]
    if rest:
        return following.data[: len(rest)] == rest
    return following.requested == (call.requested or 0) - call.size


def two_sends_one_read(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find two sends that arrived in one read, which the program answered once."""
    for socket in trace_index.sockets("stream"):
        for receive in trace_index.receives(socket):
            senders = trace_index.senders_of(receive)
            if len(senders) < 2 or not receive.size or sum(each.size for each in senders) != receive.size:
                continue
            replies = 0
            for call in trace_index.later_calls(receive):
                if call.name in RECEIVING or call.name == "close":
                    break
                replies += call.name in SENDING
            if replies == 1:
                pieces = " and ".join(formatting.quoted(each.data, each.size, 16) for each in senders[:2])
                yield Finding(
                    "two-sends-one-read",
                    "The program takes two sends for one message",
                    f"{len(senders)} sends of the peer, {pieces}, arrived in one read, and got one reply.",
                    "Split the stream into messages by length or by line ends, independently of the reads.",
                    (*(each.number for each in senders), receive.number),
                )
                break


def closed_with_unread_data(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection that was closed with unread data: the kernel sends RST."""
    for packet in trace_index.packets:
        if "RST" not in packet.flags or packet.sender is None:
            continue
        socket = trace_index.trace.sockets.get(packet.sender)
        closes = [link.cause for link in trace_index.trace.causes_of(packet.number) if link.kind == "resets"]
        if socket is None or not closes:
            continue
        arrived = [
            each for each in trace_index.packets_to[socket.number] if each.size and each.at <= packet.at
        ]
        unread = sum(each.size for each in arrived if not each.resent) - sum(
            each.size for each in trace_index.receives(socket)
        )
        if unread > 0:
            count = "1 byte was" if unread == 1 else f"{unread} bytes were"
            yield Finding(
                "closed-with-unread-data",
                "A connection was closed with unread data, and so reset",
                f"{count} in the receive buffer, unread. close() then sends RST, not FIN, and the peer "
                "may lose data that it has not read yet.",
                "Read to EOF before you close: call shutdown(SHUT_WR), then recv() until it returns 0 bytes.",
                (arrived[-1].number, closes[-1], packet.number),
            )


def eof_ignored(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that reads EOF repeatedly."""
    for socket in trace_index.sockets("stream"):
        eofs = [call for call in trace_index.receives(socket) if call.size == 0 and call.requested != 0]
        if len(eofs) >= IGNORED_EOFS:
            yield Finding(
                "eof-ignored",
                "The program ignores EOF",
                f"recv returned 0 bytes {len(eofs)} times. The peer had finished before the first.",
                "0 bytes mean EOF, not an empty message: stop reading, and close the socket.",
                tuple(call.number for call in eofs),
            )


def write_after_close(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a send to a peer that had closed the connection."""
    for socket in trace_index.sockets("stream"):
        failed = [
            call
            for call in trace_index.calls_by_socket[socket.number]
            if call.name in SENDING and call.error in ("EPIPE", "ECONNRESET")
        ]
        if failed:
            signals = [
                event.number
                for event in trace_index.process_events
                if event.kind == "signal" and event.text == "SIGPIPE" and event.process == failed[0].process
            ]
            yield Finding(
                "write-after-close",
                "The program sends to a peer that has closed the connection",
                f"The send failed with {failed[0].error}"
                + (", and SIGPIPE terminates a program that does not handle it." if signals else "."),
                "Handle EPIPE (MSG_NOSIGNAL prevents SIGPIPE). Also read from the socket: 0 bytes show "
                "earlier that the peer has closed.",
                (*(call.number for call in failed[:4]), *signals[:1]),
            )


def busy_loop(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that calls a non-blocking socket repeatedly instead of waiting for it."""
    for number in trace_index.calls_by_process:
        streak: list[Call] = []
        for call in trace_index.calls_by_process[number]:
            if call.error == "EAGAIN":
                streak.append(call)
                continue
            if len(streak) >= BUSY_LOOP_CALLS:
                break
            streak = []
        if len(streak) >= BUSY_LOOP_CALLS:
            duration = (streak[-1].until or streak[-1].at) - streak[0].at
            yield Finding(
                "busy-loop",
                "A busy loop on a non-blocking socket",
                f"{len(streak)} calls in a row returned EAGAIN, within {formatting.duration(duration)}.",
                "Wait with select, poll or epoll until the socket is ready.",
                tuple(call.number for call in streak),
            )


def nagle_delayed_ack(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a small send that waited for the acknowledgement of the one before, which the peer delayed."""
    for socket in trace_index.sockets("stream"):
        sends = trace_index.sends(socket)
        for call in sends[1:]:
            packets = [
                trace_index.trace.event(link.effect)
                for link in trace_index.trace.effects_of(call.number)
                if link.kind == "carries"
            ]
            if not packets or packets[0] is None or packets[0].at - call.at < DELAYED_ACK_NS:
                continue
            if trace_index.has_option(socket, "TCP_NODELAY", call.at) or not _acked_between(
                trace_index, socket, call.at, packets[0].at
            ):
                continue
            yield Finding(
                "nagle-delayed-ack",
                "Nagle's algorithm waited for an acknowledgement",
                "The second of two small sends was delayed by "
                f"{formatting.duration(packets[0].at - call.at)}, until the first was acknowledged.",
                "Put a whole message into one send, or set TCP_NODELAY.",
                (sends[sends.index(call) - 1].number, call.number, packets[0].number),
            )
            break


def _acked_between(trace_index: TraceIndex, socket: Socket, start: int, end: int) -> bool:
    return any(not each.size and start < each.at <= end for each in trace_index.packets_to[socket.number])


def idle_client(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that waits for one client while another is in the accept queue."""
    for listener, _ in trace_index.listeners():
        accepted = [
            call
            for call in trace_index.calls_by_socket[listener.number]
            if call.name.startswith("accept") and call.created_id
        ]
        for process in {call.process for call in trace_index.calls_by_socket[listener.number]}:
            for receive in trace_index.calls_by_process[process]:
                socket = trace_index.trace.sockets.get(receive.socket or 0)
                until = receive.until or trace_index.end
                if socket is None or socket.accepted_from != listener.number or receive.name not in RECEIVING:
                    continue
                if until - receive.at < BLOCKED_NS:
                    continue
                connects = [
                    at
                    for at, accepted_socket in _connects_to(trace_index, listener)
                    if receive.at - BLOCKED_NS < at < until - BLOCKED_NS and accepted_socket != socket.number
                ]
                later = [
                    call
                    for call in accepted
                    if (call.until or 0) > until and call.created_id != socket.number
                ]
                accepts_meanwhile = any(receive.at < (call.until or 0) < until for call in accepted)
                if connects and not accepts_meanwhile:
                    yield Finding(
                        "idle-client",
                        "An idle client blocks a server that serves one client at a time",
                        f"The server waited {formatting.duration(until - receive.at)} for one client, while "
                        "another had connected and was not accepted.",
                        "Serve several clients at once (threads, fork, select), and set a timeout for each.",
                        (receive.number, *(call.number for call in later[:1])),
                    )
                    return


def _connects_to(trace_index: TraceIndex, listener: Socket) -> Iterator[tuple[int, int]]:
    """Return time and accepted socket of each connect() to a listener. 0: not accepted."""
    sockets = trace_index.trace.sockets
    accepted = {each.peer: each.number for each in sockets.values() if each.accepted_from == listener.number}
    for call in trace_index.calls:
        target, local = call.address, listener.local
        if call.name != "connect" or call.result != 0 or target is None or local is None:
            continue
        if target.port == local.port and (target.port or target.host == local.host):
            client = sockets.get(call.socket or 0)
            yield call.until or call.at, accepted.get(client.local if client else None, 0)
