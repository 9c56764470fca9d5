"""Mistakes in how a program treats a stream: as if it had messages, as if it had no end. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

BUSY_LOOP_CALLS: Final = 20  # the same useless answer so often, with nothing between, is a loop
IGNORED_EOFS: Final = 3  # a reader may ask once more to be sure; three ends are not heard
DELAYED_ACK_NS: Final = (
    25_000_000  # nanoseconds: Linux delays an acknowledgement by 40 ms, and nothing else here by so much
)


def one_recv_per_message(trace_index: TraceIndex) -> Iterator[Finding]:
    """A read got a part of what was sent at once, and the program went on as if that were all."""
    for socket in trace_index.sockets("stream"):
        received = 0
        for receive in trace_index.receives(socket):
            received += receive.size
            senders = trace_index.senders_of(receive)
            if not receive.size or not senders:
                continue
            last = senders[-1]
            sent_to_here = trace_index.bytes_sent_by[last.number]
            following = trace_index.next_call(receive)
            if sent_to_here <= received or (following is not None and following.name in RECEIVING | WAITING):
                continue
            if following is None and trace_index.ended_at(receive.process) is None:
                continue  # it may read on: the trace stops here
            rest = sent_to_here - received
            yield Finding(
                "one-recv-per-message",
                "One recv is taken for one message",
                f"The peer sent {last.size} bytes at once; this read got {receive.size}, and "
                f"the program went "
                f"on without the other {rest}.",
                "TCP has no messages: read in a loop until the message is whole (its length, a "
                "line's end, or EOF).",
                (last.number, receive.number, *((following.number,) if following else ())),
            )
            break


def short_send(trace_index: TraceIndex) -> Iterator[Finding]:
    """The kernel took less than it was given, and nobody sent the rest."""
    for socket in trace_index.sockets("stream"):
        sends = [call for call in trace_index.calls_by_socket[socket.number] if call.name in SENDING]
        for index, call in enumerate(sends):
            if call.failed or call.result is None or call.asked is None or call.size >= call.asked:
                continue
            if call.name in ("sendfile", "splice") or (
                index + 1 < len(sends) and _continues(call, sends[index + 1])
            ):
                continue
            yield Finding(
                "short-send",
                "A short send isn't looked for",
                f"send took {call.size} of {call.asked} bytes, and the rest was never sent.",
                "Send in a loop from where it stopped; in Python use sendall().",
                (call.number, *((sends[index + 1].number,) if index + 1 < len(sends) else ())),
            )
            break


def _continues(call: Call, following: Call) -> bool:
    rest = call.data[call.size : call.size + 64]
    if rest:
        return following.data[: len(rest)] == rest
    return following.asked == (call.asked or 0) - call.size


def two_sends_one_read(trace_index: TraceIndex) -> Iterator[Finding]:
    """Two sends came in one read, and the program answered once."""
    for socket in trace_index.sockets("stream"):
        for receive in trace_index.receives(socket):
            senders = trace_index.senders_of(receive)
            if len(senders) < 2 or not receive.size or sum(each.size for each in senders) != receive.size:
                continue
            answers = 0
            for call in trace_index.later_calls(receive):
                if call.name in RECEIVING or call.name == "close":
                    break
                answers += call.name in SENDING
            if answers == 1:
                pieces = " and ".join(formatting.quoted(each.data, each.size, 16) for each in senders[:2])
                yield Finding(
                    "two-sends-one-read",
                    "Two sends were read as one",
                    f"{len(senders)} sends of the peer, {pieces}, came in one read, and were answered once.",
                    "Cut the stream into messages by length or by a line's end, whatever the reads give.",
                    (*(each.number for each in senders), receive.number),
                )
                break


def closed_with_unread_data(trace_index: TraceIndex) -> Iterator[Finding]:
    """A connection was closed although there was something to read: the kernel answers that with RST."""
    for packet in trace_index.packets:
        if "RST" not in packet.flags or packet.sender is None:
            continue
        socket = trace_index.trace.sockets.get(packet.sender)
        closes = [link.cause for link in trace_index.trace.causes_of(packet.number) if link.kind == "resets"]
        if socket is None or not closes:
            continue
        came = [each for each in trace_index.packets_to[socket.number] if each.size and each.at <= packet.at]
        unread = sum(each.size for each in came if not each.resent) - sum(
            each.size for each in trace_index.receives(socket)
        )
        if unread > 0:
            yield Finding(
                "closed-with-unread-data",
                "A connection was closed with unread data, and so reset",
                f"{unread} bytes had come that nobody had read. Closing then sends RST, not FIN, and "
                f"the peer may lose "
                "what it had not read yet.",
                "Read to the peer's EOF before you close: shutdown(SHUT_WR) first, then recv() until "
                "it gives 0 bytes.",
                (came[-1].number, closes[-1], packet.number),
            )


def eof_ignored(trace_index: TraceIndex) -> Iterator[Finding]:
    """The peer's end was read again and again."""
    for socket in trace_index.sockets("stream"):
        ends = [call for call in trace_index.receives(socket) if call.size == 0 and call.asked != 0]
        if len(ends) >= IGNORED_EOFS:
            yield Finding(
                "eof-ignored",
                "The peer's EOF is ignored",
                f"recv gave 0 bytes {len(ends)} times: the peer had finished after the first.",
                "0 bytes are the end, not an empty message: stop reading and close.",
                tuple(call.number for call in ends),
            )


def write_after_close(trace_index: TraceIndex) -> Iterator[Finding]:
    """Something was sent to a peer that had closed."""
    for socket in trace_index.sockets("stream"):
        failed = [
            call
            for call in trace_index.calls_by_socket[socket.number]
            if call.name in SENDING and call.error in ("EPIPE", "ECONNRESET")
        ]
        if failed:
            died = [
                change.number
                for change in trace_index.process_events
                if change.kind == "signal"
                and change.text == "SIGPIPE"
                and change.process == failed[0].process
            ]
            yield Finding(
                "write-after-close",
                "Something was sent to a peer that had closed",
                f"The peer was gone: {failed[0].error}"
                + (", and SIGPIPE, which ends a program that doesn't expect it." if died else "."),
                "Expect it: handle EPIPE (MSG_NOSIGNAL keeps SIGPIPE away), and read, since 0 bytes "
                "say it before.",
                (*(call.number for call in failed[:4]), *died[:1]),
            )


def busy_loop(trace_index: TraceIndex) -> Iterator[Finding]:
    """A non-blocking socket is asked again and again instead of waited for."""
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
            lasted = (streak[-1].until or streak[-1].at) - streak[0].at
            yield Finding(
                "busy-loop",
                "A busy loop on a non-blocking socket",
                f"{len(streak)} calls in a row had nothing to do (EAGAIN), "
                f"within {formatting.duration(lasted)}.",
                "Wait with select, poll or epoll until the socket has something to do.",
                tuple(call.number for call in streak),
            )


def nagle_delayed_ack(trace_index: TraceIndex) -> Iterator[Finding]:
    """A small send waited for the acknowledgement of the one before, which the peer delays."""
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
                f"The second of two small sends left {formatting.duration(packets[0].at - call.at)} after "
                f"it was made, when the first was acknowledged.",
                "Put what belongs together into one send, or set TCP_NODELAY.",
                (sends[sends.index(call) - 1].number, call.number, packets[0].number),
            )
            break


def _acked_between(trace_index: TraceIndex, socket: Socket, start: int, end: int) -> bool:
    return any(not each.size and start < each.at <= end for each in trace_index.packets_to[socket.number])


def idle_client(trace_index: TraceIndex) -> Iterator[Finding]:
    """A server waits for one client while another waits to be accepted."""
    for listener, _ in trace_index.listeners():
        accepted = [
            call
            for call in trace_index.calls_by_socket[listener.number]
            if call.name.startswith("accept") and call.made
        ]
        for process in {call.process for call in trace_index.calls_by_socket[listener.number]}:
            for waiting in trace_index.calls_by_process[process]:
                socket = trace_index.trace.sockets.get(waiting.socket or 0)
                until = waiting.until or trace_index.end
                if socket is None or socket.welcomed_by != listener.number or waiting.name not in RECEIVING:
                    continue
                if until - waiting.at < BLOCKED_NS:
                    continue
                knocks = [
                    at
                    for at, made in _connects_to(trace_index, listener)
                    if waiting.at - BLOCKED_NS < at < until - BLOCKED_NS and made != socket.number
                ]
                late = [call for call in accepted if (call.until or 0) > until and call.made != socket.number]
                alone = not any(waiting.at < (call.until or 0) < until for call in accepted)
                if knocks and alone:
                    yield Finding(
                        "idle-client",
                        "An idle client holds up a server that serves one at a time",
                        f"The server waited {formatting.duration(until - waiting.at)} for one client, "
                        f"while another had "
                        "connected and was not accepted.",
                        "Serve several at once (threads, fork, select), and give each client a time limit.",
                        (waiting.number, *(call.number for call in late[:1])),
                    )
                    return


def _connects_to(trace_index: TraceIndex, listener: Socket) -> Iterator[tuple[int, int]]:
    """When clients connected, by their calls: time, and the number of the accepted socket (0: not "
    "accepted)."""
    sockets = trace_index.trace.sockets
    made = {each.peer: each.number for each in sockets.values() if each.welcomed_by == listener.number}
    for call in trace_index.calls:
        target, door = call.place, listener.local
        if call.name != "connect" or call.result != 0 or target is None or door is None:
            continue
        if target.port == door.port and (target.port or target.host == door.host):
            mine = sockets.get(call.socket or 0)
            yield call.until or call.at, made.get(mine.local if mine else None, 0)
