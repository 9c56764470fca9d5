"""Merge several traces into one timeline: for example a server's recording and its client under strace. Pure.

    traces ──> unique numbers ──> sorted by time ──> Correlator ──> Timeline ──> points

1. Each trace numbers its objects from 1, so the numbers of the second continue after those of the first, and
   so on. Thread ids are renumbered too, because the traces may be from several machines, or from several
   days.
2. The causal links within a trace are kept. Between traces they are found as during a run, by addresses and
   offsets, so that a cause precedes its effects even if the clocks disagree.
3. A packet that several traces captured is drawn once. Packets are the same if their headers and data are. Of
   n identical packets, as many are drawn as in the trace that has most of them.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from bothends.trace.correlation.correlator import Correlator
from bothends.trace.correlation.timeline import Timeline, key
from bothends.trace.model import Call, CausalLink, KernelEvent, Packet, Point, ProcessEvent, Trace, TraceEvent

PacketKey: TypeAlias = tuple[object, ...]


def merge(traces: Sequence[Trace], into: Trace) -> Iterator[Point]:
    """Return the points of all traces, in an order in which a cause precedes its effects.

    Each point is added to `into` before it is returned; processes, sockets and notes are added before the
    first. The events of the traces are renumbered and shared with `into`: don't use the traces afterwards.
    """
    links: list[CausalLink] = []
    highest = 0
    for trace in traces:
        offset, highest = highest, highest + _highest_number(trace)
        links += _renumber_trace(trace, offset, into)
    events = {event.number: event for trace in traces for event in trace.events()}
    duplicates = _duplicate_packets(traces)
    timeline = Timeline()
    correlator = Correlator(into, timeline)
    correlator.has_packets = any(isinstance(event, Packet) for event in events.values())
    for link in links:
        cause, effect = duplicates.get(link.cause, link.cause), duplicates.get(link.effect, link.effect)
        if cause in events and effect in events:
            into.link(CausalLink(cause, effect, link.kind))
            timeline.add_constraint(key(cause), key(effect, isinstance(events[effect], Call)))
    for point in heapq.merge(*(trace.points for trace in traces), key=lambda point: point.at):
        if point.event.number not in duplicates:
            if isinstance(point.event, Packet):
                _assign_sockets(point.event, correlator)
            correlator.add(point)
    for point in timeline.pop_ready():
        into.add(point)
        yield point
    if timeline.violations:
        into.notes.append(f"{timeline.violations} effects are drawn before their cause")


def _assign_sockets(packet: Packet, correlator: Correlator) -> None:
    """Set a packet's sockets, where its own trace did not know them."""
    sender, receiver = correlator.sockets_of(packet)
    if packet.sender is None and sender is not None:
        packet.sender = sender.number
    if packet.receiver is None and receiver is not None:
        packet.receiver = receiver.number


def _highest_number(trace: Trace) -> int:
    numbers = {event.number for event in trace.events()}
    threads = {event.thread for event in trace.events() if not isinstance(event, Packet)}
    return max((*trace.processes, *trace.sockets, *numbers, *threads), default=0)


def _renumber_trace(trace: Trace, offset: int, into: Trace) -> Iterator[CausalLink]:
    """Add an offset to every number, and copy processes, sockets and notes. Returns the new links."""
    for process in trace.processes.values():
        process.number, process.parent = process.number + offset, _add_offset(process.parent, offset)
        into.processes[process.number] = process
    for socket in trace.sockets.values():
        socket.number += offset
        socket.accepted_from, socket.process = (
            _add_offset(socket.accepted_from, offset),
            _add_offset(socket.process, offset),
        )
        into.sockets[socket.number] = socket
    for event in trace.events():
        _renumber_event(event, offset)
    for change in trace.descriptor_changes():
        into.add_descriptor_change(
            change._replace(socket=change.socket + offset, process=change.process + offset)
        )
    for call in trace.blocked:
        _renumber_event(call, offset)
        into.blocked.append(call)
    if trace.frozen_at is not None:
        into.frozen_at = max(into.frozen_at or 0, trace.frozen_at)
    into.ended_by = into.ended_by or trace.ended_by
    into.tls_secrets += trace.tls_secrets
    into.translations |= trace.translations
    for name, count in trace.counters.items():
        into.counters[name] = into.counters.get(name, 0) + count
    into.notes += trace.notes
    if trace.dropped:
        into.notes.append(f"{trace.dropped} earlier events of one trace are left out: it is too long")
    for link in trace.links():
        yield CausalLink(link.cause + offset, link.effect + offset, link.kind)


def _renumber_event(event: TraceEvent, offset: int) -> None:
    event.number += offset
    match event:
        case Packet():
            event.sender, event.receiver = (
                _add_offset(event.sender, offset),
                _add_offset(event.receiver, offset),
            )
            event.repeats = _add_offset(event.repeats, offset)
        case Call():
            event.process, event.thread = event.process + offset, event.thread + offset
            event.socket, event.created_id = (
                _add_offset(event.socket, offset),
                _add_offset(event.created_id, offset),
            )
            event.sockets = tuple(each + offset for each in event.sockets)
            event.ready = tuple(each + offset for each in event.ready)
        case KernelEvent():
            event.socket, event.packet = _add_offset(event.socket, offset), _add_offset(event.packet, offset)
            event.thread += offset if event.thread else 0
        case ProcessEvent():
            event.process, event.thread = event.process + offset, event.thread + offset


def _add_offset(number: int | None, offset: int) -> int | None:
    return None if number is None else number + offset


def _duplicate_packets(traces: Sequence[Trace]) -> dict[int, int]:
    """Return the packets that another trace has too, and the packet there that replaces each."""
    by_trace: list[dict[PacketKey, list[int]]] = []
    for trace in traces:
        numbers = defaultdict(list)
        for event in trace.events():
            if isinstance(event, Packet):
                numbers[_packet_key(event)].append(event.number)
        by_trace.append(numbers)
    duplicates: dict[int, int] = {}
    for packet_key in {each for numbers in by_trace for each in numbers}:
        found = [numbers[packet_key] for numbers in by_trace if packet_key in numbers]
        longest = max(found, key=len)
        for other in found:
            if other is not longest:
                duplicates |= dict(zip(other, longest, strict=False))
    return duplicates


def _packet_key(packet: Packet) -> PacketKey:
    header = packet.sequence, packet.acknowledged, packet.flags
    return packet.protocol, packet.source, packet.destination, header, packet.size, packet.data
