"""Rules about establishing connections: ports, addresses, and the order of events. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.findings.base import Finding, TraceIndex, listens_at
from bothends.trace.model import Call, Socket, SocketAddress


def swapped_port(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a byte-swapped port: 12000 (0x2ee0) becomes 57390 (0xe02e)."""
    bound = [
        (socket, call)
        for socket, call in _bound_sockets(trace_index)
        if socket.local is not None and socket.local.port
    ]
    for call in trace_index.calls:
        target = call.address
        if call.name not in ("connect", "sendto", "sendmsg") or target is None or not target.port:
            continue
        if any(socket.local is not None and socket.local.port == target.port for socket, _ in bound):
            continue
        for socket, bind in bound:
            if socket.local is not None and socket.local.port == _byte_swapped(target.port) != target.port:
                yield Finding(
                    "swapped-port",
                    "The bytes of a port are in the wrong order",
                    f"One program uses port {socket.local.port}, and the other end uses {target.port}: the "
                    f"same two bytes in reverse order (0x{socket.local.port:04x}, 0x{target.port:04x}).",
                    "In C, convert the port with htons() before you store it in sockaddr_in, at both ends.",
                    (bind.number, call.number),
                )
                return


def _byte_swapped(port: int) -> int:
    return (port & 0xFF) << 8 | port >> 8


def _bound_sockets(trace_index: TraceIndex) -> Iterator[tuple[Socket, Call]]:
    """Return the sockets that others can reach: listeners, and datagram sockets that were bound."""
    yield from trace_index.listeners()
    for call in trace_index.calls:
        if call.name == "bind" and not call.failed and call.socket is not None:
            socket = trace_index.trace.sockets[call.socket]
            if socket.kind == "datagram" and socket.family in ("inet", "inet6"):
                yield socket, call


def port_in_use(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find bind() with EADDRINUSE: another socket has the port, or connections are in TIME-WAIT."""
    for call in trace_index.calls:
        if call.name != "bind" or call.error != "EADDRINUSE" or call.socket is None:
            continue
        if trace_index.has_option(trace_index.trace.sockets[call.socket], "SO_REUSEADDR", call.at):
            text = f"Another socket is bound to {call.address}."
            remedy = (
                f"Find its process with bothends sockets or ss -ltnp, and end it; or use another port than "
                f"{_port_text(call)}."
            )
        else:
            text = (
                f"Another socket is bound to {call.address}, or connections of an earlier server are still "
                f"in TIME-WAIT there."
            )
            remedy = (
                "Set SO_REUSEADDR before bind(): a server need not wait for TIME-WAIT, which lasts a minute."
            )
        yield Finding("port-in-use", "The port is in use", text, remedy, (call.number,))


def _port_text(call: Call) -> object:
    return call.address.port if call.address is not None else "this"


def refused(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a refused connect() despite a listener: it listened later, or at another address."""
    for call in trace_index.calls:
        if call.name != "connect" or call.error not in ("ECONNREFUSED", "ENOENT") or call.address is None:
            continue
        if _connected_later(trace_index, call):
            continue  # it tried the next address, or tried again
        for listener, listen in trace_index.listeners():
            if listener.local is None or not _is_same_port_or_path(listener.local, call.address):
                continue
            ready = listen.until or listen.at
            if ready > call.at and (call.address.port is None or listens_at(listener.local, call.address)):
                yield Finding(
                    "refused-too-early",
                    "The client connected before the server listened",
                    f"The connection was refused {(ready - call.at) / 1e6:.3g} ms before the server listened "
                    f"on {listener.local}.",
                    "Retry after a delay, or start the client when the server reports that it is ready.",
                    (call.number, listen.number),
                )
                break
            if (
                ready <= call.at
                and not listens_at(listener.local, call.address)
                and call.address.port is not None
            ):
                yield Finding(
                    "refused-elsewhere",
                    "The server listens on another address than the client connects to",
                    f"The client connects to {call.address}; the server listens on {listener.local}"
                    + (
                        ", another address family."
                        if _family(call.address) != _family(listener.local)
                        else "."
                    ),
                    'Listen on every address of both families ("" and "::" with IPV6_V6ONLY off), or '
                    "connect to the address that the server listens on.",
                    (listen.number, call.number),
                )
                break


def _connected_later(trace_index: TraceIndex, refused_call: Call) -> bool:
    """Return whether the process connected to the same port or path after it was refused."""
    target = refused_call.address
    return target is not None and any(
        each.name == "connect"
        and each.result == 0
        and each.at > refused_call.at
        and each.address is not None
        and _is_same_port_or_path(each.address, target)
        for each in trace_index.calls_by_process[refused_call.process]
    )


def _is_same_port_or_path(local: SocketAddress, target: SocketAddress) -> bool:
    return local.port == target.port if target.port is not None else local.host == target.host


def _family(address: SocketAddress) -> int:
    return 6 if ":" in address.host else 4


def backlog_overflow(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a full accept queue: the kernel ignored a SYN, and the client sent it again a second later."""
    for listener, listen in trace_index.listeners():
        if listener.local is None:
            continue
        first: dict[tuple[SocketAddress, SocketAddress, int], int] = {}
        answered: set[tuple[SocketAddress, SocketAddress]] = set()
        for packet in trace_index.packets:
            if packet.flags == ("SYN", "ACK"):
                answered.add((packet.destination, packet.source))
            if packet.lost or (packet.source, packet.destination) in answered:
                continue  # the SYN, or the SYN ACK, was lost on the path
            if packet.flags != ("SYN",) or not listens_at(listener.local, packet.destination):
                continue
            ends = packet.source, packet.destination, packet.sequence
            if ends in first:
                backlog = listen.arguments[1] if len(listen.arguments) > 1 else "?"
                yield Finding(
                    "backlog-overflow",
                    "The listener's accept queue was full",
                    f"A SYN got no reply and was sent again: more connections waited than "
                    f"listen({backlog}) has room for.",
                    "Accept faster, and call listen() with a larger backlog (128 or more).",
                    (listen.number, first[ends], packet.number),
                )
                break
            first[ends] = packet.number
