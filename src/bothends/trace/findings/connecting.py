"""Mistakes in how ends find each other: ports, addresses, the order of things. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.findings.base import Finding, TraceIndex, listens_at
from bothends.trace.model import Call, Socket, SocketAddress


def swapped_port(trace_index: TraceIndex) -> Iterator[Finding]:
    """A port stands with its bytes the wrong way round: 12000 (0x2ee0) becomes 57390 (0xe02e)."""
    homes = [
        (socket, call)
        for socket, call in _bound_sockets(trace_index)
        if socket.local is not None and socket.local.port
    ]
    for call in trace_index.calls:
        target = call.place
        if call.name not in ("connect", "sendto", "sendmsg") or target is None or not target.port:
            continue
        if any(socket.local is not None and socket.local.port == target.port for socket, _ in homes):
            continue
        for socket, home in homes:
            if socket.local is not None and socket.local.port == _byte_swapped(target.port) != target.port:
                yield Finding(
                    "swapped-port",
                    "A port's bytes are in the wrong order",
                    f"Somebody listens at port {socket.local.port}, and the other end goes to "
                    f"{target.port}: the same two "
                    f"bytes the other way round (0x{socket.local.port:04x}, 0x{target.port:04x}).",
                    "In C, a port goes through htons() on its way into sockaddr_in, at both ends.",
                    (home.number, call.number),
                )
                return


def _byte_swapped(port: int) -> int:
    return (port & 0xFF) << 8 | port >> 8


def _bound_sockets(trace_index: TraceIndex) -> Iterator[tuple[Socket, Call]]:
    """Where somebody can be found: listeners, and datagram sockets that were bound."""
    yield from trace_index.listeners()
    for call in trace_index.calls:
        if call.name == "bind" and not call.failed and call.socket is not None:
            socket = trace_index.trace.sockets[call.socket]
            if socket.kind == "datagram" and socket.family in ("inet", "inet6"):
                yield socket, call


def port_in_use(trace_index: TraceIndex) -> Iterator[Finding]:
    """bind() failed, since the port is taken or not free yet."""
    for call in trace_index.calls:
        if call.name != "bind" or call.error != "EADDRINUSE" or call.socket is None:
            continue
        if trace_index.has_option(trace_index.trace.sockets[call.socket], "SO_REUSEADDR", call.at):
            text = f"Another socket has {call.place} now."
            remedy = (
                f"Find it: bothends sockets, or ss -ltnp; then end it, or take another port than "
                f"{_port_text(call)}."
            )
        else:
            text = (
                f"Another socket has {call.place}, or connections of an earlier server are still in "
                f"TIME-WAIT there."
            )
            remedy = (
                "Set SO_REUSEADDR before bind(): TIME-WAIT lasts a minute, and is no reason to wait for a "
                "server."
            )
        yield Finding("port-in-use", "The port is in use", text, remedy, (call.number,))


def _port_text(call: Call) -> object:
    return call.place.port if call.place is not None else "this"


def refused(trace_index: TraceIndex) -> Iterator[Finding]:
    """connect() was refused although there is a listener: too early, or at another address."""
    for call in trace_index.calls:
        if call.name != "connect" or call.error not in ("ECONNREFUSED", "ENOENT") or call.place is None:
            continue
        for listener, listen in trace_index.listeners():
            if listener.local is None or not _is_same_port_or_path(listener.local, call.place):
                continue
            ready = listen.until or listen.at
            if ready > call.at and (call.place.port is None or listens_at(listener.local, call.place)):
                yield Finding(
                    "refused-too-early",
                    "The client came before the server listened",
                    f"It was refused {(ready - call.at) / 1e6:.3g} ms before {listener.local} was "
                    f"listened at.",
                    "Try again after a while, or start the client when the server says that it is ready.",
                    (call.number, listen.number),
                )
                break
            if (
                ready <= call.at
                and not listens_at(listener.local, call.place)
                and call.place.port is not None
            ):
                yield Finding(
                    "refused-elsewhere",
                    "The server listens at another address than the client goes to",
                    f"The client goes to {call.place}; the server listens at {listener.local}"
                    + (", another family." if _family(call.place) != _family(listener.local) else "."),
                    'Listen at every address of both families ("" and "::" with IPV6_V6ONLY off), or '
                    "connect to the one "
                    "that is listened at.",
                    (listen.number, call.number),
                )
                break


def _is_same_port_or_path(local: SocketAddress, target: SocketAddress) -> bool:
    return local.port == target.port if target.port is not None else local.host == target.host


def _family(address: SocketAddress) -> int:
    return 6 if ":" in address.host else 4


def backlog_overflow(trace_index: TraceIndex) -> Iterator[Finding]:
    """A listener's queue was full: the kernel ignored a SYN, and the client sent it again a second later."""
    for listener, listen in trace_index.listeners():
        if listener.local is None:
            continue
        first: dict[tuple[SocketAddress, SocketAddress, int], int] = {}
        answered: set[tuple[SocketAddress, SocketAddress]] = set()
        for packet in trace_index.packets:
            if packet.flags == ("SYN", "ACK"):
                answered.add((packet.destination, packet.source))
            if packet.lost or (packet.source, packet.destination) in answered:
                continue  # it was the path's fault
            if packet.flags != ("SYN",) or not listens_at(listener.local, packet.destination):
                continue
            ends = packet.source, packet.destination, packet.sequence
            if ends in first:
                backlog = listen.arguments[1] if len(listen.arguments) > 1 else "?"
                yield Finding(
                    "backlog-overflow",
                    "The listener's queue was full",
                    f"A SYN got no answer and was sent again: more clients waited than "
                    f"listen({backlog}) has room for.",
                    "Accept faster, and give listen() a larger backlog (128 or more).",
                    (listen.number, first[ends], packet.number),
                )
                break
            first[ends] = packet.number
