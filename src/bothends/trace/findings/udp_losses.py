"""A rule about datagrams that a full receive buffer could not hold: the kernel discards them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import Binding, bound_sockets, capitalized, name_of
from bothends.trace.findings.udp_requests import datagram_traffic
from bothends.trace.model import Call, Packet, Socket
from bothends.trace.rendering import formatting

DEFAULT_BUFFER: Final = 212_992  # bytes: net.core.rmem_default
# Options with which one call transfers several datagrams, or the socket discards some itself.
_GROUPING: Final = ("UDP_SEGMENT", "UDP_GRO", "SO_ATTACH_FILTER", "SO_ATTACH_BPF")


def receive_buffer_full(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find datagrams that were never received, although their socket was read until it was empty."""
    if trace_index.trace.dropped:
        return
    bound = [each for each in bound_sockets(trace_index, "datagram") if each.socket.family != "unix"]
    sharing = Counter(port for port, _ in {(each.address.port, each.socket.number) for each in bound})
    for binding in bound:
        socket = binding.socket
        shares = sharing[binding.address.port] > 1
        if shares or any(trace_index.has_option(socket, each, trace_index.end) for each in _GROUPING):
            continue
        sends = list(_sends_to(trace_index, binding))
        receives = [call for call in trace_index.receives(socket) if "MSG_ERRQUEUE" not in call.flags]
        if not sends or not receives:
            continue  # `udp_replies` explains a socket that is never read
        sent, received = sum(map(_count, sends)), sum(map(_count, receives))
        lost = sum(_lost_on_path(trace_index, each) for each in sends)
        missing = sent - lost - received
        unread = missing * sum(each.size for each in sends) // max(sent, 1)
        drained = _was_emptied(trace_index, socket, sends[-1])
        if missing <= 0 or not (drained or unread > _buffer_size(trace_index, socket)):
            continue
        reader = capitalized(name_of(trace_index, binding.process))
        sent_in = (sends[-1].until or sends[-1].at) - sends[0].at
        read_in = (receives[-1].until or receives[-1].at) - (receives[0].until or receives[0].at)
        yield Finding(
            "receive-buffer-full",
            "The receive buffer was full, and the kernel discarded datagrams",
            f"{sent:,} datagrams ({sum(each.size for each in sends):,} bytes) were sent to "
            f"{binding.address} within "
            f"{formatting.duration(sent_in)}; {reader[:1].lower()}{reader[1:]} received {received:,} "
            f"of them within {formatting.duration(read_in)}. "
            f"{f'{missing:,}' if drained else 'At least one'} did not fit into the receive buffer.",
            "Read faster: receive in one thread and work in another. Enlarge SO_RCVBUF for bursts, and "
            "let the sender pace itself or wait for confirmations. netstat -su counts the discarded "
            "datagrams.",
            (sends[0].number, sends[-1].number, receives[0].number, receives[-1].number),
            certainty="inferred",
            basis="more datagrams were sent than received, and the path lost none",
            process=binding.process,
            sockets=(socket.number, *dict.fromkeys(each.socket for each in sends if each.socket)),
            in_c="setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){8 << 20}, sizeof(int));",
            in_python="sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)",
        )


def _sends_to(trace_index: TraceIndex, binding: Binding) -> Iterator[Call]:
    """Return the completed sends to a socket while it was open, from the senders that it accepts."""
    peer = binding.socket.peer
    for call in datagram_traffic(trace_index).sends_to[binding.address.port or 0]:
        sender = trace_index.trace.sockets[call.socket or 0]
        if sender is binding.socket:
            continue
        target = call.address or sender.peer
        if target is None or not binding.is_reached_by(target) or not binding.is_open_at(call.at):
            continue
        if peer is None or not peer.port or sender.local is None or sender.local.port == peer.port:
            yield call


def _count(call: Call) -> int:
    return max(len(call.messages), 1)


def _lost_on_path(trace_index: TraceIndex, send: Call) -> int:
    events = (trace_index.trace.event(link.effect) for link in trace_index.trace.effects_of(send.number))
    return sum(isinstance(each, Packet) and bool(each.lost) for each in events)


def _was_emptied(trace_index: TraceIndex, socket: Socket, last: Call) -> bool:
    """Return whether the receive buffer was found empty after the last datagram was sent."""
    sent_at = last.until or last.at
    for call in trace_index.calls_by_socket[socket.number]:
        is_empty = call.error == "EAGAIN" or (call.until is None and call.result is None and not call.failed)
        if call.name in RECEIVING and is_empty and call.at >= sent_at:
            return True
    return any(
        call.at >= sent_at and (call.result == 0 or call.until is None)
        for call in datagram_traffic(trace_index).waits_by_socket[socket.number]
    )


def _buffer_size(trace_index: TraceIndex, socket: Socket) -> int:
    """Return the size of the receive buffer: twice what the program asked for, as far as known."""
    for call in reversed(trace_index.calls_by_socket[socket.number]):
        if call.name == "setsockopt" and "SO_RCVBUF" in call.arguments and len(call.arguments) > 3:
            value = call.arguments[3].strip("[]")
            return 2 * int(value) if value.isdigit() else DEFAULT_BUFFER
    return DEFAULT_BUFFER
