"""Rules about datagrams. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.capture.calls import RECEIVING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.model import Call, Packet, Socket
from bothends.trace.rendering import formatting


def truncated_datagram(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a datagram that is longer than the receive buffer: the kernel discards the rest."""
    for socket in trace_index.sockets("datagram", "seqpacket"):
        for receive in trace_index.receives(socket):
            causes = [link.cause for link in trace_index.trace.causes_of(receive.number)]
            size = max((_event_size(trace_index, each) for each in causes), default=0)
            if receive.messages or (size <= receive.size and "truncated" not in receive.flags):
                continue
            received = f"The datagram has {size} bytes" if size > receive.size else "The datagram is longer"
            yield Finding(
                "truncated-datagram",
                "A datagram was truncated",
                f"{received}, but the buffer has room for {receive.size}. The kernel discarded the rest.",
                "Pass recv() a buffer for the longest datagram that you allow (65,535 bytes hold any), "
                "and check MSG_TRUNC.",
                (*causes, receive.number),
            )
            break


def _event_size(trace_index: TraceIndex, number: int) -> int:
    event = trace_index.trace.event(number)
    return event.size if isinstance(event, Packet | Call) else 0


def unanswered_datagram(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a datagram whose sender waits for a reply that does not arrive."""
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
        long_waits = [
            call
            for call in waits
            if (call.until or trace_index.end) - call.at >= BLOCKED_NS or call.error == "ECONNREFUSED"
        ]
        if answered or not long_waits:
            continue
        effects = [link.effect for link in trace_index.trace.effects_of(last.number)]
        if any(call.error == "ECONNREFUSED" for call in long_waits):
            text = "No socket has that port: the other machine replied with an ICMP error (ECONNREFUSED)."
        elif any(_was_lost(trace_index, each) for each in effects):
            text = "It was lost on the path, which can happen to any datagram."
        elif any(_was_received(trace_index, each) for each in effects):
            text = "The other program received it and sent no reply."
        else:
            text = "No program received it."
        yield Finding(
            "unanswered-datagram",
            "A datagram got no reply",
            f"{formatting.quoted(last.data, last.size, 24)} to {last.address or socket.peer}. {text}",
            "UDP loses datagrams without an error: wait with a timeout (SO_RCVTIMEO, settimeout), "
            "then send again.",
            (last.number, long_waits[0].number),
        )


def _expects_reply(trace_index: TraceIndex, socket: Socket, send: Call) -> bool:
    """Return whether the sender expects a reply. A server that has replied waits for the next request."""
    before = [call for call in trace_index.receives(socket) if call.at < send.at]
    return not before or before[-1].address != send.address or send.address is None


def _was_received(trace_index: TraceIndex, number: int) -> bool:
    event = trace_index.trace.event(number)
    if isinstance(event, Call):
        return True
    return any(link.kind == "feeds" for link in trace_index.trace.effects_of(number))


def _was_lost(trace_index: TraceIndex, number: int) -> bool:
    event = trace_index.trace.event(number)
    return isinstance(event, Packet) and bool(event.lost)
