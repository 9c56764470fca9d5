"""What a path does to packets, and what TCP makes of it. Pure.

Elsewhere one guesses; on a wire of ours each packet was seen at both ends. So it is known whether what was
sent again had been lost, and at which end an acknowledgement waited. A closed window is seen anywhere.

A path is nobody's mistake: what stands here is why a program is slow on it, or hangs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.retransmissions import NEARBY_PACKETS, Retransmission, sequence_range
from bothends.trace.findings.streams import DELAYED_ACK_NS
from bothends.trace.model import Call, Packet, Socket, SocketAddress
from bothends.trace.rendering import formatting

MTU: Final = "mtu"  # what a packet is lost to that is too large: no loss of the path's, a limit of it

_AddressPair: TypeAlias = tuple[SocketAddress, SocketAddress]


def retransmission(trace_index: TraceIndex) -> Iterator[Finding]:
    """The path has lost segments, and TCP has sent them again."""
    found, count = trace_index.retransmissions
    for way, again in _by_direction(each for each in found if each.was_lost and each.reason != MTU):
        waits = [each.packet.until - each.original.at for each in again if each.packet.until is not None]
        longest = f" The longest wait for one was {formatting.duration(max(waits))}." if waits else ""
        yield Finding(
            "retransmission",
            "The path loses segments, and TCP sends them again",
            f"{len(again)} of {count[way]} segments from {way[0]} to {way[1]} carried what had been lost "
            f"({_count_names(each.reason for each in again)}).{longest}",
            "No byte is missing, but time is: a loss at the end of what was sent is noticed after 200 ms at "
            "least, and after twice that each further time. Give your time limits room for it.",
            _evidence(again),
        )


def spurious_retransmission(trace_index: TraceIndex) -> Iterator[Finding]:
    """Segments were sent again although they had arrived."""
    found, _ = trace_index.retransmissions
    for way, again in _by_direction(each for each in found if not each.was_lost):
        yield Finding(
            "spurious-retransmission",
            "Segments are sent again although none was lost",
            f"{len(again)} from {way[0]} to {way[1]}. The acknowledgement was: "
            f"{_count_names(each.reason for each in again)}.",
            "Look at the way back, and for a delay that jumps: the sender took late for lost (RFC 6298, "
            "RFC 5681). Timestamps and RACK (net.ipv4.tcp_timestamps, net.ipv4.tcp_recovery), on by default, "
            "keep it rare.",
            _evidence(again),
        )


def _by_direction(found: Iterable[Retransmission]) -> Iterator[tuple[tuple[str, str], list[Retransmission]]]:
    ways: dict[tuple[str, str], list[Retransmission]] = {}
    for each in found:
        ways.setdefault((each.packet.interface, each.packet.reaches), []).append(each)
    yield from ways.items()


def _evidence(retransmissions: Iterable[Retransmission]) -> tuple[int, ...]:
    return tuple(
        dict.fromkeys(
            number for each in retransmissions for number in (each.original.number, each.packet.number)
        )
    )


def _count_names(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(names).most_common())


def zero_window(trace_index: TraceIndex) -> Iterator[Finding]:
    """A receiver's buffer was full, and the sender was held up by it."""
    closed: dict[_AddressPair, Packet] = {}
    held: dict[_AddressPair, list[tuple[Packet, Packet | None, int]]] = {}
    for packet in trace_index.packets:
        ends = packet.source, packet.destination
        if packet.protocol != "tcp" or packet.made or "SYN" in packet.flags:
            continue
        if packet.window == 0 and "RST" not in packet.flags:
            closed.setdefault(ends, packet)
        elif ends in closed:
            first = closed.pop(ends)
            over = packet.until if packet.until is not None else packet.at
            held.setdefault(ends, []).append((first, packet, over - first.at))
    for ends, first in closed.items():
        held.setdefault(ends, []).append((first, None, trace_index.end - first.at))
    for times in held.values():
        total = sum(length for _, _, length in times)
        if total < BLOCKED_NS:
            continue
        first, opened, length = max(times, key=lambda each: each[2])
        often = "once" if len(times) == 1 else f"{len(times)} times"
        yield Finding(
            "zero-window",
            "A receiver's buffer was full, and the sender had to wait",
            f"{_role_of(trace_index, first.sender, first.source)} said {often} that it has no room (window 0), for "
            f"{formatting.duration(total)} in all: it did not read what had come.",
            "Read as fast as it comes: hand what takes long to a thread or process of its own. A larger "
            "SO_RCVBUF only puts it off.",
            (
                first.number,
                *_blocked_calls(trace_index, first, length),
                *((opened.number,) if opened is not None else ()),
            ),
        )


def _role_of(trace_index: TraceIndex, socket: int | None, address: SocketAddress) -> str:
    """Whose socket it is, in a word."""
    roles = [trace_index.process(call.process).role for call in trace_index.calls_by_socket[socket or 0]]
    return next((f"{role[0].upper()}{role[1:]}" for role in reversed(roles) if role), str(address))


def _blocked_calls(trace_index: TraceIndex, closed: Packet, length: int) -> Iterator[int]:
    """The send that waits for room, and the read that makes it."""
    until = closed.at + length
    for call in trace_index.calls_by_socket[closed.receiver or 0]:
        if call.name in SENDING and call.at < until and (call.until or trace_index.end) > closed.at:
            yield call.number
            break
    for call in trace_index.calls_by_socket[closed.sender or 0]:
        if call.name in RECEIVING and call.at >= closed.at:
            yield call.number
            break


def delayed_ack(trace_index: TraceIndex) -> Iterator[Finding]:
    """What one end had to send waited for an acknowledgement that the other end kept back."""
    for socket in trace_index.sockets("stream"):
        for call in trace_index.sends(socket)[1:]:
            found = _find_delayed_ack(trace_index, socket, call)
            if found is None:
                continue
            data, ack, waited = found
            yield Finding(
                "delayed-ack",
                "A send waited for an acknowledgement that the other end kept back",
                f"A segment reached {data.reaches}, which acknowledged it only after "
                f"{formatting.duration(_ack_delay(data, ack))}, having nothing to send with it. What "
                f"{data.interface} had to send next waited for that.",
                "Answer each message at once, and the acknowledgement goes with it; or let the sender not "
                "wait: one send for what belongs together, or TCP_NODELAY. (TCP_QUICKACK at the receiver "
                "holds for a while only: tcp(7).)",
                (data.number, call.number, ack.number, waited.number),
            )
            break


def _find_delayed_ack(
    trace_index: TraceIndex, socket: Socket, call: Call
) -> tuple[Packet, Packet, Packet] | None:
    """What had arrived, its late acknowledgement, and the packet with which the call's bytes then left."""
    waited = _first_packet(trace_index, call)
    if waited is None or not waited.reaches or waited.at - call.at < DELAYED_ACK_NS:
        return None
    ack = _last_arrival(trace_index.packets_to[socket.number], waited.at)
    if ack is None or ack.size or ack.flags != ("ACK",) or (ack.until or 0) <= call.at:
        return None
    data = _last_arrival(trace_index.packets_from[socket.number], ack.at, min_size=1)
    if data is None or ack.acks != sequence_range(data)[1] or _ack_delay(data, ack) < DELAYED_ACK_NS:
        return None
    return data, ack, waited


def _last_arrival(packets: list[Packet], before: int, min_size: int = 0) -> Packet | None:
    """Of packets in the order in which they left, what arrived last by a time, with so many bytes."""
    high = bisect_right(packets, before, key=lambda each: each.at)
    near = packets[max(high - NEARBY_PACKETS, 0) : high]
    came = [
        (each.until, each.number, each)
        for each in near
        if each.until is not None and each.until <= before and not each.lost and each.size >= min_size
    ]
    return max(came)[2] if came else None


def _ack_delay(data: Packet, ack: Packet) -> int:
    """How long an acknowledgement was kept back, in nanoseconds."""
    return ack.at - (data.until or 0)


def _first_packet(trace_index: TraceIndex, call: Call) -> Packet | None:
    """The first packet that carries a call's bytes."""
    packets = (trace_index.trace.event(each.effect) for each in trace_index.trace.effects_of(call.number))
    return next((each for each in packets if isinstance(each, Packet)), None)


def mtu_black_hole(trace_index: TraceIndex) -> Iterator[Finding]:
    """Packets are too large for the path, and their sender isn't told: it sends them again as they are."""
    flows: dict[tuple[SocketAddress, str], list[Packet]] = {}
    arrived: dict[str, int] = {}
    for packet in trace_index.packets:
        if packet.lost == MTU:
            flows.setdefault((packet.destination, packet.protocol), []).append(packet)
        elif packet.reaches and not packet.lost and packet.until is not None:
            host = packet.destination.host
            arrived[host] = max(arrived.get(host, 0), packet.length)
    for (place, _), lost in flows.items():
        # Who is told sends smaller ones at once; what had left by then doesn't count.
        later = [
            each for each in lost if each.at - lost[0].at >= BLOCKED_NS and each.length >= lost[0].length
        ]
        if not later:
            continue
        largest = arrived.get(place.host)
        passing = f" Smaller ones arrive, up to {largest} bytes." if largest else ""
        yield Finding(
            "mtu-black-hole",
            "Large packets vanish, and nobody tells their sender",
            f"{len(lost)} packets of up to {max(each.length for each in lost)} bytes for {place} were too "
            f"large for the path (MTU). No ICMP error came back, so they are sent again as large as they "
            f"were.{passing}",
            'Let ICMP "fragmentation needed" and "packet too big" pass (RFC 2923). Where you can\'t: a '
            "smaller MTU, TCP_MAXSEG, or net.ipv4.tcp_mtu_probing=1 (RFC 4821).",
            (lost[0].number, *(each.number for each in later)),
        )
