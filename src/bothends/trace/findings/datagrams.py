"""Mistakes with datagrams, children and descriptors. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.capture.calls import FORKING, REAPING, RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.model import Call, Packet, Socket
from bothends.trace.rendering import formatting


def truncated_datagram(trace_index: TraceIndex) -> Iterator[Finding]:
    """A datagram was longer than the room that it was given: the rest is gone."""
    for socket in trace_index.sockets("datagram", "seqpacket"):
        for receive in trace_index.receives(socket):
            size = max(
                (
                    _event_size(trace_index, link.cause)
                    for link in trace_index.trace.causes_of(receive.number)
                ),
                default=0,
            )
            if receive.messages or (size <= receive.size and "truncated" not in receive.flags):
                continue
            came = f"{size} bytes" if size > receive.size else "more"
            yield Finding(
                "truncated-datagram",
                "A datagram was cut off",
                f"{came[0].upper()}{came[1:]} came, there was room for {receive.size}, and the kernel "
                f"threw the rest away.",
                "Give recv() room for the longest datagram that you allow (65,535 bytes hold any), "
                "and look at MSG_TRUNC.",
                (*(link.cause for link in trace_index.trace.causes_of(receive.number)), receive.number),
            )
            break


def _event_size(trace_index: TraceIndex, number: int) -> int:
    event = trace_index.trace.event(number)
    return event.size if isinstance(event, Packet | Call) else 0


def unanswered_datagram(trace_index: TraceIndex) -> Iterator[Finding]:
    """Somebody waits for the answer to a datagram, and none comes."""
    for socket in trace_index.sockets("datagram"):
        if socket.family == "unix":
            continue
        sends = trace_index.sends(socket)
        if not sends or not _expects_reply(trace_index, socket, sends[-1]):
            continue
        last = sends[-1]
        waits = [
            call
            for call in trace_index.calls_by_process[last.process]
            if call.at >= last.at
            and (call.socket == socket.number or socket.number in call.sockets)
            and call.name in RECEIVING | WAITING
        ]
        answered = any(
            call.name in RECEIVING and not call.failed and call.result is not None for call in waits
        )
        patient = [
            call
            for call in waits
            if (call.until or trace_index.end) - call.at >= BLOCKED_NS or call.error == "ECONNREFUSED"
        ]
        if answered or not patient:
            continue
        was_read = any(
            _was_received(trace_index, link.effect) for link in trace_index.trace.effects_of(last.number)
        )
        refused = any(call.error == "ECONNREFUSED" for call in patient)
        text = "It was received, and no answer was sent." if was_read else "No program received it."
        if any(_was_lost(trace_index, link.effect) for link in trace_index.trace.effects_of(last.number)):
            text = "It was lost on the way, which can happen to any datagram."
        if refused:
            text = "Nobody has that port: the other machine said so (ICMP, which shows as ECONNREFUSED)."
        yield Finding(
            "unanswered-datagram",
            "A datagram got no answer",
            f"{formatting.quoted(last.data, last.size, 24)} to {last.place or socket.peer}. {text}",
            "UDP loses datagrams without a word: wait with a time limit (SO_RCVTIMEO, settimeout), "
            "then send again.",
            (last.number, patient[0].number),
        )


def _expects_reply(trace_index: TraceIndex, socket: Socket, send: Call) -> bool:
    """Whether who sent waits for an answer: a server that has answered waits for the next question."""
    before = [call for call in trace_index.receives(socket) if call.at < send.at]
    return not before or before[-1].place != send.place or send.place is None


def _was_received(trace_index: TraceIndex, number: int) -> bool:
    event = trace_index.trace.event(number)
    if isinstance(event, Call):
        return True
    return any(link.kind == "feeds" for link in trace_index.trace.effects_of(number))


def children_never_waited_for(trace_index: TraceIndex) -> Iterator[Finding]:
    """Children have ended, and their parent never asked how: they stay as zombies."""
    for number, calls in trace_index.calls_by_process.items():
        process = trace_index.process(number)
        if not process.role or process.ignores_children:
            continue
        children = {call.made: call for call in calls if call.name in FORKING and call.made}
        reaped = {call.made for call in calls if call.name in REAPING and call.made}
        left = trace_index.ended_at(number) or trace_index.end
        zombies = []
        for change in trace_index.process_events:
            pid = trace_index.process(change.process).pid
            if (
                change.kind == "ended"
                and pid in children
                and pid not in reaped
                and left - change.at >= BLOCKED_NS
            ):
                zombies += [children[pid].number, change.number]
        if zombies:
            count = len(zombies) // 2
            yield Finding(
                "children-not-waited-for",
                "Children are never waited for",
                f"{count} {'child' if count == 1 else 'children'} ended, and stayed behind as zombies.",
                "Call waitpid(-1, &status, WNOHANG) now and then, or ignore SIGCHLD, and the kernel does it.",
                tuple(zombies),
            )


def descriptor_never_closed(trace_index: TraceIndex) -> Iterator[Finding]:
    """A connection is over for the peer, and this process keeps its descriptor."""
    for call in trace_index.calls:
        if not call.name.startswith("accept") or not call.made or call.made not in trace_index.trace.sockets:
            continue
        socket = trace_index.trace.sockets[call.made]
        mine = [each for each in trace_index.calls_by_socket[socket.number] if each.process == call.process]
        if any(each.name == "close" and not each.failed for each in mine):
            continue
        over, left = (
            _peer_finished(trace_index, socket),
            trace_index.ended_at(call.process) or trace_index.end,
        )
        if over is None or left - over[1] < BLOCKED_NS:
            continue
        forked = any(
            each.name in FORKING and each.made for each in trace_index.calls_by_process[call.process]
        )
        yield Finding(
            "never-closed",
            "A connection's descriptor is never closed",
            f"The peer of descriptor {call.result} has finished, and the process keeps it"
            + (
                ": after fork() the parent has to close its copy too, or the peer never sees the end."
                if forked
                else "."
            ),
            "Close every connection when it is over (in Python: with connection:); else descriptors "
            "run out (EMFILE).",
            (call.number, over[0]),
        )
        return


def _peer_finished(trace_index: TraceIndex, socket: Socket) -> tuple[int, int] | None:
    """The event by which the peer has finished, and when; None if it has not."""
    for packet in trace_index.packets_to[socket.number]:
        if "RST" in packet.flags and not packet.lost:
            return packet.number, packet.at
        if "FIN" in packet.flags and _is_fin_acked(trace_index, socket, (packet.offset or 0) + packet.size):
            return packet.number, packet.at
    for call in trace_index.receives(socket):
        if call.size == 0 and call.asked != 0:
            return call.number, call.until or call.at
    for call in trace_index.calls_by_socket[socket.number]:
        if call.name in SENDING and call.error in ("EPIPE", "ECONNRESET"):
            return call.number, call.until or call.at
    return None


def _is_fin_acked(trace_index: TraceIndex, socket: Socket, end: int) -> bool:
    """Whether the peer's FIN, which follows byte `end`, was acknowledged: one that came too soon isn't."""
    return any(each.acks is not None and each.acks > end for each in trace_index.packets_from[socket.number])


def _was_lost(trace_index: TraceIndex, number: int) -> bool:
    event = trace_index.trace.event(number)
    return isinstance(event, Packet) and bool(event.lost)
