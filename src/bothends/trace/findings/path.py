"""Rules about the path: losses, delays and limits, and how TCP reacts. Pure.

On a wire each packet is observed at both ends. So it is known whether a retransmitted segment had been lost,
and at which end an acknowledgement was delayed. On other networks only a zero window can be observed.

A bad path is not a mistake in a program. These findings explain why a program is slow on it, or hangs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.correlation.retransmissions import NEARBY_PACKETS, Retransmission, sequence_range
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import program_of
from bothends.trace.findings.streams import DELAYED_ACK_NS
from bothends.trace.model import Call, Packet, Socket, SocketAddress
from bothends.trace.rendering import formatting

MTU: Final = "mtu"  # `Packet.lost` of a packet that is too large: not a random loss, but a limit of the path

STALLED_NS: Final = 1_000_000_000  # nanoseconds with a full receive buffer: a slow reader takes less

_AddressPair: TypeAlias = tuple[SocketAddress, SocketAddress]


def retransmission(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find segments that the path lost and TCP retransmitted."""
    found, segments = trace_index.retransmissions
    lost = [each for each in found if each.was_lost and each.reason != MTU]
    count = Counter(_ends(trace_index, each) for each in segments) if lost else Counter()
    for ends, resent in _by_direction(trace_index, lost):
        waits = [each.packet.until - each.original.at for each in resent if each.packet.until is not None]
        longest = f" The longest delay was {formatting.duration(max(waits))}." if waits else ""
        yield Finding(
            "retransmission",
            "The path loses segments, and TCP retransmits them",
            f"{len(resent)} of {count[ends]} segments from {' to '.join(ends)} are "
            f"retransmissions of lost segments ({_count_names(each.reason for each in resent)}).{longest}",
            "No data is lost, but it is late. TCP detects the loss of the last segment only by its timeout, "
            "which is 200 ms at least and doubles each time. Choose timeouts that allow for it.",
            _evidence(resent),
        )


def spurious_retransmission(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find segments that TCP retransmitted although they had arrived."""
    found, _ = trace_index.retransmissions
    for ends, resent in _by_direction(trace_index, (each for each in found if not each.was_lost)):
        yield Finding(
            "spurious-retransmission",
            "TCP retransmits segments that were not lost",
            f"{len(resent)} from {' to '.join(ends)}. State of the acknowledgement: "
            f"{_count_names(each.reason for each in resent)}.",
            "Look for losses in the other direction, and for a delay that varies: the sender assumed that a "
            "late segment was lost (RFC 6298, RFC 5681). Timestamps and RACK (net.ipv4.tcp_timestamps, "
            "net.ipv4.tcp_recovery), on by default, make this rare.",
            _evidence(resent),
        )


def _by_direction(
    trace_index: TraceIndex, found: Iterable[Retransmission]
) -> Iterator[tuple[tuple[str, str], list[Retransmission]]]:
    """Group retransmissions by direction: the names of sender and receiver."""
    by_direction: dict[tuple[str, str], list[Retransmission]] = {}
    for each in found:
        by_direction.setdefault(_ends(trace_index, each.packet), []).append(each)
    yield from by_direction.items()


def _ends(trace_index: TraceIndex, packet: Packet) -> tuple[str, str]:
    """Name the sender and the receiver of a packet: by their hosts, or on one host by their programs."""
    if packet.interface != packet.reaches:
        return packet.interface, packet.reaches
    return (
        _program_name(trace_index, packet.sender, packet.source),
        _program_name(trace_index, packet.receiver, packet.destination),
    )


def _program_name(trace_index: TraceIndex, number: int | None, address: SocketAddress) -> str:
    """Return the name of the program with a socket or its listener, or else the address."""
    sockets = trace_index.trace.sockets
    known = sockets.get(number or 0)
    listeners = (each.number for each in sockets.values() if each.is_listener and each.local == address)
    for each in (number, known.accepted_from if known is not None else next(listeners, None)):
        if calls := trace_index.calls_by_socket[each or 0]:
            role = program_of(trace_index, calls[-1].process)
            return f"the {role}" if role in ("server", "client") else role
    return str(address)


def _evidence(retransmissions: Iterable[Retransmission]) -> tuple[int, ...]:
    return tuple(
        dict.fromkeys(
            number for each in retransmissions for number in (each.original.number, each.packet.number)
        )
    )


def _count_names(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(names).most_common())


def zero_window(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a receive buffer that was full for long, so that the sender had to wait."""
    closed: dict[_AddressPair, Packet] = {}
    stalls: dict[_AddressPair, list[tuple[Packet, Packet | None, int]]] = {}
    for packet in trace_index.packets:
        ends = packet.source, packet.destination
        if packet.protocol != "tcp" or packet.synthesized or "SYN" in packet.flags:
            continue
        if packet.window == 0 and "RST" not in packet.flags:
            closed.setdefault(ends, packet)
        elif ends in closed:
            first = closed.pop(ends)
            opened_at = packet.until if packet.until is not None else packet.at
            stalls.setdefault(ends, []).append((first, packet, opened_at - first.at))
    for ends, first in closed.items():
        stalls.setdefault(ends, []).append((first, None, trace_index.end - first.at))
    for times in stalls.values():
        total = sum(length for _, _, length in times)
        first, opened, length = max(times, key=lambda each: each[2])
        if length < STALLED_NS or (opened is not None and not _held_up(trace_index, first, length)):
            continue  # the sender was faster than the receiver, and TCP adapted it
        count = "once" if len(times) == 1 else f"{len(times)} times"
        yield Finding(
            "zero-window",
            "The receive buffer was full, and the sender had to wait",
            f"{_role_of(trace_index, first.sender, first.source)} announced a window of 0 {count}, for "
            f"{formatting.duration(total)} in total: it did not read the data in its receive buffer.",
            "Read as fast as data arrives: do slow work in another thread or process. A larger SO_RCVBUF "
            "only delays the problem.",
            (
                first.number,
                *_blocked_calls(trace_index, first, length),
                *((opened.number,) if opened is not None else ()),
            ),
        )


def _role_of(trace_index: TraceIndex, socket: int | None, address: SocketAddress) -> str:
    """Return the role of a socket's process, capitalized, or else the address."""
    roles = [trace_index.process(call.process).role for call in trace_index.calls_by_socket[socket or 0]]
    return next((f"{role[0].upper()}{role[1:]}" for role in reversed(roles) if role), str(address))


def _held_up(trace_index: TraceIndex, closed: Packet, length: int) -> bool:
    """Return whether a thread of the sender was blocked in a send meanwhile, and could do nothing else."""
    return any(
        call.name in SENDING
        and min(call.until or trace_index.end, closed.at + length) - max(call.at, closed.at)
        >= STALLED_NS // 2
        for call in trace_index.calls_by_socket[closed.receiver or 0]
    )


def _blocked_calls(trace_index: TraceIndex, closed: Packet, length: int) -> Iterator[int]:
    """Return the send that waits for buffer space, and the read that frees it."""
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
    """Find a send that waited for an acknowledgement that the other end delayed."""
    if not any(packet.reaches for packet in trace_index.packets):
        return  # a packet that is seen once only does not show when it arrived
    for socket in trace_index.sockets("stream"):
        for call in trace_index.sends(socket)[1:]:
            found = _find_delayed_ack(trace_index, socket, call)
            if found is None:
                continue
            data, ack, delayed = found
            sender, receiver = _ends(trace_index, data)
            yield Finding(
                "delayed-ack",
                "A send waited for a delayed acknowledgement",
                f"A segment reached {receiver}, which acknowledged it only after "
                f"{formatting.duration(_ack_delay(data, ack))}, because it had no data to send with the "
                f"acknowledgement. The next data of {sender} waited for that.",
                "Reply to each message at once, so that the reply carries the acknowledgement. Or make the "
                "sender not wait: put a message into one send, or set TCP_NODELAY. (TCP_QUICKACK at the "
                "receiver is not permanent: tcp(7).)",
                (data.number, call.number, ack.number, delayed.number),
            )
            break


def _find_delayed_ack(
    trace_index: TraceIndex, socket: Socket, call: Call
) -> tuple[Packet, Packet, Packet] | None:
    """Return a segment, its delayed acknowledgement, and the packet that then carried the call's bytes."""
    delayed = _first_packet(trace_index, call)
    if delayed is None or not delayed.reaches or delayed.at - call.at < DELAYED_ACK_NS:
        return None
    ack = _last_arrival(trace_index.packets_to[socket.number], delayed.at)
    if ack is None or ack.size or ack.flags != ("ACK",) or (ack.until or 0) <= call.at:
        return None
    data = _last_arrival(trace_index.packets_from[socket.number], ack.at, min_size=1)
    if data is None or ack.acks != sequence_range(data)[1] or _ack_delay(data, ack) < DELAYED_ACK_NS:
        return None
    return data, ack, delayed


def _last_arrival(packets: list[Packet], before: int, min_size: int = 0) -> Packet | None:
    """Return the last packet that arrived by a time, with `min_size` bytes. `packets` are sorted by `at`."""
    high = bisect_right(packets, before, key=lambda each: each.at)
    near = packets[max(high - NEARBY_PACKETS, 0) : high]
    arrived = [
        (each.until, each.number, each)
        for each in near
        if each.until is not None and each.until <= before and not each.lost and each.size >= min_size
    ]
    return max(arrived)[2] if arrived else None


def _ack_delay(data: Packet, ack: Packet) -> int:
    """Return how long an acknowledgement was delayed, in nanoseconds."""
    return ack.at - (data.until or 0)


def _first_packet(trace_index: TraceIndex, call: Call) -> Packet | None:
    """Return the first packet that carries a call's bytes."""
    packets = (trace_index.trace.event(each.effect) for each in trace_index.trace.effects_of(call.number))
    return next((each for each in packets if isinstance(each, Packet)), None)


def mtu_black_hole(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find packets that are too large for the path, and no ICMP error: the sender repeats them unchanged."""
    flows: dict[tuple[SocketAddress, str], list[Packet]] = {}
    arrived: dict[str, int] = {}
    for packet in trace_index.packets:
        if packet.lost == MTU:
            flows.setdefault((packet.destination, packet.protocol), []).append(packet)
        elif packet.reaches and not packet.lost and packet.until is not None:
            host = packet.destination.host
            arrived[host] = max(arrived.get(host, 0), packet.length)
    for (destination, _), lost in flows.items():
        # A sender that gets the ICMP error sends smaller packets at once; those sent before that don't count.
        later = [
            each for each in lost if each.at - lost[0].at >= BLOCKED_NS and each.length >= lost[0].length
        ]
        if not later:
            continue
        largest = arrived.get(destination.host)
        passing = f" Smaller packets arrive, up to {largest} bytes." if largest else ""
        yield Finding(
            "mtu-black-hole",
            "Large packets are lost without an error to their sender",
            f"{len(lost)} packets of up to {max(each.length for each in lost)} bytes to {destination} were "
            f"too large for the path (MTU). No ICMP error came back, so the sender repeats them with the "
            f"same size.{passing}",
            'Let ICMP "fragmentation needed" and "packet too big" pass (RFC 2923). If you cannot, use a '
            "smaller MTU, TCP_MAXSEG, or net.ipv4.tcp_mtu_probing=1 (RFC 4821).",
            (lost[0].number, *(each.number for each in later)),
        )
