"""Rules about a peer that no longer takes part: its packets stopped, or its process was stopped. Pure.

The kernel sends unacknowledged bytes again, after 200 ms at first and then after twice as long each
time, until `net.ipv4.tcp_retries2` is exceeded (15: 15 minutes or more; tcp(7)), or TCP_USER_TIMEOUT.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import (
    STANDSTILL_NS,
    Standstill,
    age,
    bytes_text,
    call_name,
    evidence,
    standstills,
)
from bothends.trace.model import Packet, ProcessEvent, SocketAddress
from bothends.trace.rendering import formatting

RESENT: Final = 3  # times that the same bytes were sent again without an answer

_AddressPair: TypeAlias = tuple[SocketAddress, SocketAddress]


@dataclass(slots=True)
class _Direction:
    """One direction of a TCP connection: its segments that the peer has not acknowledged."""

    acked: int = 0
    unacked: list[Packet] = field(default_factory=list)  # first transmissions, in order
    resent: int = 0
    last: Packet | None = None


def peer_vanished(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find bytes that are sent again and again, while nothing comes from the peer any more."""
    for (source, destination), each in _directions(trace_index).items():
        if each.resent < RESENT or not each.unacked or each.last is None:
            continue
        first = each.unacked[0]
        if trace_index.end - first.at < STANDSTILL_NS:
            continue
        size = max((packet.offset or 0) + packet.size for packet in each.unacked) - each.acked
        sender = next((packet.sender for packet in each.unacked if packet.sender is not None), None)
        limit = _user_timeout(trace_index, sender)
        until = (
            f"until {formatting.duration(limit)} after the first time (TCP_USER_TIMEOUT)"
            if limit is not None
            else "until about 15 minutes after the first time (net.ipv4.tcp_retries2), then calls fail with "
            "ETIMEDOUT"
        )
        sockets = {number for number in (first.sender, first.receiver) if number is not None}
        yield Finding(
            "peer-vanished",
            "The peer no longer answers: not even its kernel acknowledges",
            f"{bytes_text(size)} from {source} to {destination} are unacknowledged since "
            f"{formatting.duration(trace_index.end - first.at)} before the end. They were sent again "
            f"{each.resent} times, and no packet came back: {_lost_by(each.unacked)}. The kernel sends them "
            f"again {until}.",
            "Set a time limit for answers in the program, or TCP_USER_TIMEOUT. At an idle connection only "
            "SO_KEEPALIVE, or messages of the program itself, detect that the peer has gone.",
            tuple(dict.fromkeys((first.number, each.last.number))),
            sockets=tuple(sorted(sockets)),
            in_c="setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &(int){10000}, sizeof(int));",
            in_python="s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000)",
        )


def _directions(trace_index: TraceIndex) -> dict[_AddressPair, _Direction]:
    """Return, for each direction of each connection, what is unacknowledged and came after the peer's last
    packet."""
    found: dict[_AddressPair, _Direction] = defaultdict(_Direction)
    for packet in trace_index.packets:
        if packet.protocol != "tcp" or packet.synthesized:
            continue
        ends = packet.source, packet.destination
        back = found.get(ends[::-1])
        if back is not None and not packet.lost and (packet.acks is not None or "RST" in packet.flags):
            back.acked = max(back.acked, packet.acks or 0)
            back.unacked = (
                [each for each in back.unacked if (each.offset or 0) + each.size > back.acked]
                if "RST" not in packet.flags
                else []
            )
            back.resent = 0
        if packet.size:
            direction = found[ends]
            if packet.resent:
                direction.resent += 1
            else:
                direction.unacked.append(packet)
            direction.last = packet
        elif "SYN" in packet.flags:
            found[ends] = _Direction()
    return found


def _user_timeout(trace_index: TraceIndex, socket: int | None) -> int | None:
    """Return TCP_USER_TIMEOUT of a socket in nanoseconds, if it was set."""
    for call in reversed(trace_index.calls_by_socket[socket or 0]):
        if call.name == "setsockopt" and not call.failed and "TCP_USER_TIMEOUT" in call.arguments:
            value = call.arguments[3].strip("[]") if len(call.arguments) > 3 else ""
            return int(value) * 1_000_000 if value.isdigit() and int(value) else None
    return None


def _lost_by(packets: list[Packet]) -> str:
    lost = next((each.lost for each in packets if each.lost), "")
    return f"the path lost them ({formatting.truncate(lost, 30)})" if lost else "the path or the peer is down"


def peer_stopped(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a process that a signal stopped, while its peer waits for it."""
    for process, event in _stopped(trace_index).items():
        each = next(
            (each for each in standstills(trace_index) if _waits_for(trace_index, each, process)), None
        )
        if each is None or each.moment.now < event.at:
            continue
        name, waiter = name_of(trace_index, process), name_of(trace_index, each.waiter.process)
        yield Finding(
            "peer-stopped",
            "A process is stopped, and its peer waits for it",
            f"{capitalized(name)} was {event.text} {formatting.duration(each.moment.now - event.at)} ago and "
            f"does not run, but its kernel still acknowledges what arrives. {capitalized(waiter)} waits in "
            f"{call_name(each.waiter)} for {age(each, each.waiter)}.",
            "Continue the process (fg, or kill -CONT). A time limit in the peer ends its wait.",
            (event.number, *evidence(each.waiter)),
            process=process,
            sockets=tuple(end.number for end in (each.socket, each.peer) if end is not None),
            in_c="kill(pid, SIGCONT);",
            in_python="os.kill(pid, signal.SIGCONT); s.settimeout(30)  # in the peer",
        )


def _stopped(trace_index: TraceIndex) -> dict[int, ProcessEvent]:
    """Return the processes that are stopped at the end, each with the event that stopped it."""
    found: dict[int, ProcessEvent] = {}
    for event in trace_index.process_events:
        if event.kind == "signal" and event.text.startswith("stopped by "):
            found[event.process] = event
        elif event.kind == "ended" or event.text == "SIGCONT":
            found.pop(event.process, None)
    return found


def _waits_for(trace_index: TraceIndex, each: Standstill, process: int) -> bool:
    """Return whether a connection stands still whose other end a process holds, or has not accepted."""
    if each.waiter.process == process or each.length < STANDSTILL_NS:
        return False
    if each.peer is not None:
        return process in trace_index.holders_at(each.peer.number, each.moment.now)
    return any(
        call.process == process
        and socket.local is not None
        and each.socket.peer is not None
        and socket.local.port == each.socket.peer.port
        for socket, call in trace_index.listeners()
    )
