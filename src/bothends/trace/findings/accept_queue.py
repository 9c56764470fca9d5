"""Rules about accept queues and shared ports: connections and datagrams that no program picks up. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, MOVING, SENDING
from bothends.trace.findings.base import Finding, TraceIndex, listens_at
from bothends.trace.findings.endpoints import (
    Attempt,
    Binding,
    attempts,
    bound_sockets,
    capitalized,
    connects_later,
    is_read,
    listeners,
    name_of,
)
from bothends.trace.model import Call, Packet, Socket, SocketAddress

SYN_TIMEOUT_NS: Final = 950_000_000  # nanoseconds: a SYN without a reply is sent again after one second


def backlog_overflow(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a full accept queue: the kernel ignored a SYN, and the client sent it again a second later."""
    repeated = _repeated_syns(trace_index.packets)
    recovered = {
        each.connect.number
        for each in attempts(trace_index)
        if each.error == "EAGAIN" and connects_later(trace_index, each)
    }
    for binding in listeners(trace_index):
        ignored = {
            key: pair
            for key, pair in repeated.items()
            if listens_at(binding.address, pair[1].destination)
            and all(binding.is_open_at(packet.at) for packet in pair)
        }
        slow = _slow_connects(trace_index, binding)
        full = [
            each
            for each in trace_index.calls_named("connect")
            if each.error == "EAGAIN"
            and each.address is not None
            and each.address.port is None
            and binding.is_reached_by(each.address)
        ]
        full = [call for call in full if call.number not in recovered]
        if not ignored and not slow and not full:
            continue
        words = binding.call.arguments
        backlog = int(words[1]) if len(words) > 1 and words[1].isdigit() else None
        first = min([*(packet.at for _, packet in ignored.values()), *(each.at for each in (*slow, *full))])
        waiting = _count_waiting(trace_index, binding, first)
        count = max(len(ignored), len(slow)) + len(full)
        server = name_of(trace_index, binding.process)
        room = f"listen({backlog}) has room for {backlog + 1}" if backlog is not None else "there is room for"
        if full:
            text = f"{_connections(count)} to {binding.address} failed with EAGAIN"
        elif ignored:
            text = (
                f"{_connections(count)} to {binding.address} had to repeat the SYN, which the kernel ignored"
            )
        else:
            text = f"{_connections(count)} to {binding.address} took a second or longer"
        yield Finding(
            "backlog-overflow",
            "The listener's accept queue was full",
            f"{text}: {_connections(waiting)} waited for accept(), {room}, and {server} did not accept.",
            "Accept faster: call accept() in a loop, and serve connections elsewhere (threads, processes, an "
            "event loop). A larger backlog only helps with short bursts.",
            (
                binding.call.number,
                *(packet.number for pair in ignored.values() for packet in pair),
                *(each.number for each in (*slow, *full)),
            ),
            certainty="seen" if ignored or full else "inferred",
            basis="" if ignored or full else "a SYN without a reply is sent again after one second",
            process=binding.process,
            sockets=(binding.socket.number,),
            in_c="listen(fd, SOMAXCONN);",
            in_python="sock.listen(128)",
        )


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def _repeated_syns(packets: list[Packet]) -> dict[tuple[SocketAddress, int], tuple[Packet, Packet]]:
    """Return the SYNs without a reply that the client repeated, by client."""
    first: dict[tuple[SocketAddress, int], Packet] = {}
    answered: set[tuple[SocketAddress, SocketAddress]] = set()
    found: dict[tuple[SocketAddress, int], tuple[Packet, Packet]] = {}
    for packet in packets:
        if packet.flags == ("SYN", "ACK"):
            answered.add((packet.destination, packet.source))
        if packet.lost or (packet.source, packet.destination) in answered:
            continue  # the SYN, or the SYN ACK, was lost on the path
        if packet.flags != ("SYN",):
            continue
        key = packet.source, packet.sequence
        if key in first:
            found[key] = first[key], packet
        first.setdefault(key, packet)
    return found


def _slow_connects(trace_index: TraceIndex, binding: Binding) -> list[Call]:
    """Return the connects to a listener of this machine that took a second, if there are no packets."""
    if trace_index.packets or binding.address.port is None:
        return []
    return [
        each.connect
        for each in attempts(trace_index)
        if binding.is_reached_by(each.target)
        and binding.is_open_at(each.connect.at)
        and not each.was_in_progress
        and (each.connect.until or trace_index.end) - each.connect.at >= SYN_TIMEOUT_NS
    ]


def _count_waiting(trace_index: TraceIndex, binding: Binding, at: int) -> int:
    connected = sum(
        each.is_connected
        and binding.is_reached_by(each.target)
        and (each.connect.until or each.connect.at) <= at
        for each in attempts(trace_index)
    )
    accepted = sum((call.until or call.at) <= at for call in _accepts(trace_index, binding))
    return max(connected - accepted, 0)


def _accepts(trace_index: TraceIndex, binding: Binding) -> list[Call]:
    return [
        call
        for call in trace_index.calls_by_socket[binding.socket.number]
        if call.name in ACCEPTING and call.created_id is not None and not call.failed
    ]


def listener_closed_with_queue(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a listener that was closed while connections waited in its accept queue: they are reset."""
    for binding in listeners(trace_index):
        if binding.until is None:
            continue
        close = _last_close(trace_index, binding)
        closed = binding.until if close is None else min(close.at, binding.until)  # resets come meanwhile
        accepted = {call.address for call in _accepts(trace_index, binding)}
        accepted_sockets = {call.created_id for call in _accepts(trace_index, binding)}
        left, known = [], 0
        for each in attempts(trace_index):
            at = each.connect.until or each.connect.at
            if not each.is_connected or not binding.is_reached_by(each.target) or not binding.is_open_at(at):
                continue
            peer = trace_index.peer_of(each.socket.number)
            if peer in accepted_sockets or (each.socket.local in accepted and each.socket.local is not None):
                known += 1
                continue
            if _was_closed_before(trace_index, each, closed):
                continue
            left.append(each)
        if binding.socket.family == "unix":
            left = left[max(len(accepted_sockets) - known, 0) :]
        harmed = [(each, call) for each in left if (call := _harm(trace_index, each, closed)) is not None]
        if not harmed or _is_shared(trace_index, binding):
            continue
        ended = trace_index.ended_at(binding.process)
        how = "exited" if close is None and ended is not None else "closed its listener"
        attempt, call = harmed[0]
        yield Finding(
            "listener-closed-with-queue",
            "The listener was closed while connections waited in its queue",
            f"{capitalized(name_of(trace_index, binding.process))} {how} with {_connections(len(left))} to "
            f"{binding.address} that it had not accepted. The kernel had completed the handshake, and reset "
            f"{'it' if len(left) == 1 else 'them'}: {call.name} of {name_of(trace_index, attempt.process)} "
            f"{f'failed with {call.error}' if call.failed else 'returned EOF'}.",
            "Accept in a loop as long as clients may come. Before you close the listener, set it "
            "non-blocking and accept until EAGAIN. Clients should try again.",
            tuple(
                number
                for number in (
                    attempt.connect.number,
                    close.number if close is not None else None,
                    call.number,
                )
                if number is not None
            ),
            process=binding.process,
            sockets=(binding.socket.number, *(each.socket.number for each in left)),
            in_c="while ((c = accept(listener, NULL, NULL)) >= 0) serve(c);  /* then close(listener) */",
            in_python="while True: connection, _ = listener.accept(); serve(connection)",
        )


def _was_closed_before(trace_index: TraceIndex, attempt: Attempt, at: int) -> bool:
    calls = trace_index.calls_by_socket[attempt.socket.number]
    if any(call.name == "close" and call.at < at for call in calls):
        return True
    ended = trace_index.ended_at(attempt.process)
    return ended is not None and ended < at


def _harm(trace_index: TraceIndex, attempt: Attempt, closed: int) -> Call | None:
    """Return the call of the client that the reset ended."""
    for call in trace_index.later_calls(attempt.connect):
        until = call.until or 0
        if until < closed or call.name == "close":
            continue
        if call.error in ("ECONNRESET", "EPIPE", "ENOTCONN") and call.name in MOVING:
            return call
        if call.name in ("read", "recv", "recvfrom", "recvmsg") and call.result == 0 and call.requested:
            return call
    return None


def _is_shared(trace_index: TraceIndex, binding: Binding) -> bool:
    """Return whether another listener has the same address meanwhile: it may have accepted them."""
    return any(
        each.address.port == binding.address.port
        and each.socket is not binding.socket
        and (binding.until is None or each.since < binding.until)
        and (each.until is None or each.until > binding.since)
        for each in listeners(trace_index)
        if binding.address.port is not None
    )


def _last_close(trace_index: TraceIndex, binding: Binding) -> Call | None:
    calls = trace_index.calls_by_socket[binding.socket.number]
    return next((call for call in reversed(calls) if call.name == "close" and not call.failed), None)


def shared_port_unread(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find sockets that share a port (SO_REUSEPORT), one of which no program reads."""
    groups: dict[tuple[str, SocketAddress], list[Binding]] = defaultdict(list)
    for each in [*listeners(trace_index), *bound_sockets(trace_index, "datagram")]:
        if each.address.port:
            groups[each.socket.kind, each.address].append(each)
    for (kind, address), group in groups.items():
        sharing = [each for each in group if trace_index.has_option(each.socket, "SO_REUSEPORT", each.since)]
        unread = [each for each in sharing if not is_read(trace_index, each.socket.number)]
        others = [each for each in sharing if each not in unread]
        if not unread or not others:
            continue
        since = max(min(each.since for each in unread), min(each.since for each in others))
        sent, received, first = _count(trace_index, kind, address, group, since)
        open_then = [each for each in unread if first is not None and each.is_open_at(first.at)]
        if not open_then or received >= sent or first is None:
            continue
        stale = open_then[0]
        what = "connections" if kind == "stream" else "datagrams"
        verb = "accepted" if kind == "stream" else "received"
        total = len({each.socket.number for each in sharing})
        yield Finding(
            "shared-port-unread",
            "A socket shares the port, and no program reads it",
            f"{total} sockets share {address} (SO_REUSEPORT), and the kernel distributes the {what} among "
            f"them. Nothing reads descriptor {stale.call.descriptor} of "
            f"{name_of(trace_index, stale.process)}: only {received} of {sent} {what} were {verb}.",
            "Close the socket that is not used, or read every one. Without SO_REUSEPORT the second bind() "
            "would have failed with EADDRINUSE.",
            (stale.call.number, others[0].call.number, first.number),
            certainty="inferred",
            basis=f"{sent - received} {what} were {verb} nowhere, and one of the sockets is never read",
            process=stale.process,
            sockets=tuple(each.socket.number for each in sharing),
            in_c="close(stale_fd);",
            in_python="stale.close()",
        )


def _count(
    trace_index: TraceIndex, kind: str, address: SocketAddress, group: list[Binding], since: int
) -> tuple[int, int, Call | None]:
    """Return how many connections or datagrams came, and how many were picked up; and the first one."""
    numbers = {each.socket.number for each in group}
    if kind == "stream":
        incoming = [
            each.connect
            for each in attempts(trace_index)
            if each.connect.at >= since
            and each.is_connected
            and any(other.is_reached_by(each.target) for other in group)
        ]
        picked_up = sum(
            call.at >= since or (call.until or 0) >= since
            for each in group
            for call in _accepts(trace_index, each)
        )
        return len(incoming), picked_up, incoming[0] if incoming else None
    incoming = [
        call
        for call in trace_index.calls
        if call.at >= since and _sends_to(trace_index, call, address) and call.socket not in numbers
    ]
    picked_up = sum(
        max(len(call.messages), 1)
        for number in numbers
        for call in trace_index.receives(trace_index.trace.sockets[number])
        if (call.until or call.at) >= since
    )
    return sum(max(len(call.messages), 1) for call in incoming), picked_up, incoming[0] if incoming else None


def _sends_to(trace_index: TraceIndex, call: Call, address: SocketAddress) -> bool:
    if call.name not in SENDING or call.failed or call.result is None or call.socket is None:
        return False
    socket: Socket = trace_index.trace.sockets[call.socket]
    target = call.address or socket.peer
    return socket.kind == "datagram" and target is not None and listens_at(address, target)
