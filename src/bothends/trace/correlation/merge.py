"""Several traces on one time-line: a server's own, say, and that of its client under strace. Pure.

    traces ──> numbers made unique ──> in the order of their times ──> Matcher ──> Timeline ──> moments

1. Each trace numbers from 1: everything of the second is counted on from the first, and so on. So are its
   threads, which may be of another machine, or of another day.
2. What came of what within one trace stays known. Between traces it is found as in a run: by addresses and
   offsets, so that cause comes before effect whatever the clocks say.
3. A packet that several have captured is one. Which are the same is told by what is in them; of several that
   are alike, as many are drawn as the trace has that saw most of them.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from bothends.trace.correlation.correlator import Correlator
from bothends.trace.correlation.timeline import Timeline
from bothends.trace.model import Call, CausalLink, Packet, Point, Trace, TraceEvent

PacketKey: TypeAlias = tuple[object, ...]


def merge(traces: Sequence[Trace], into: Trace) -> Iterator[Point]:
    """The moments of all of them, in an order in which cause comes before effect. `into` has each by the time
    that it is given, and the processes, sockets and notes of all from the first.

    The traces are used up: their events are renumbered and become those of `into`.
    """
    links: list[CausalLink] = []
    highest = 0
    for trace in traces:
        by, highest = highest, highest + _highest_number(trace)
        links += _renumber_trace(trace, by, into)
    events = {event.number: event for trace in traces for event in trace.events()}
    same = _duplicate_packets(traces)
    timeline = Timeline()
    matcher = Correlator(into, timeline)
    matcher.has_packets = any(isinstance(event, Packet) for event in events.values())
    for link in links:
        cause, effect = same.get(link.cause, link.cause), same.get(link.effect, link.effect)
        if cause in events and effect in events:
            into.link(CausalLink(cause, effect, link.kind))
            timeline.add_constraint(2 * cause, 2 * effect + isinstance(events[effect], Call))
    for moment in heapq.merge(*(trace.points for trace in traces), key=lambda moment: moment.at):
        if moment.event.number not in same:
            if isinstance(moment.event, Packet):
                _assign_sockets(moment.event, matcher)
            matcher.add(moment)
    for moment in timeline.pop_ready():
        into.add(moment)
        yield moment
    if timeline.violations:
        into.notes.append(f"{timeline.violations} effects stand before what they came of")


def _assign_sockets(packet: Packet, correlator: Correlator) -> None:
    """Whose packet it is, as far as its own trace could not say."""
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
    """Add to every number, and give `into` the processes, sockets and notes. The links, renumbered too."""
    for process in trace.processes.values():
        process.number, process.parent = process.number + offset, _add_offset(process.parent, offset)
        into.processes[process.number] = process
    for socket in trace.sockets.values():
        socket.number += offset
        socket.welcomed_by, socket.process = (
            _add_offset(socket.welcomed_by, offset),
            _add_offset(socket.process, offset),
        )
        into.sockets[socket.number] = socket
    for event in trace.events():
        _renumber_event(event, offset)
    into.notes += trace.notes
    if trace.dropped:
        into.notes.append(f"{trace.dropped} earlier moments of one trace are left out: it is too long")
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
            event.socket, event.made = _add_offset(event.socket, offset), _add_offset(event.made, offset)
            event.sockets = tuple(each + offset for each in event.sockets)
        case _:
            event.process, event.thread = event.process + offset, event.thread + offset


def _add_offset(number: int | None, offset: int) -> int | None:
    return None if number is None else number + offset


def _duplicate_packets(traces: Sequence[Trace]) -> dict[int, int]:
    """The packets that another trace has too, and which of its packets each is."""
    seen: list[dict[PacketKey, list[int]]] = []
    for trace in traces:
        alike = defaultdict(list)
        for event in trace.events():
            if isinstance(event, Packet):
                alike[_packet_key(event)].append(event.number)
        seen.append(alike)
    same: dict[int, int] = {}
    for likeness in {each for alike in seen for each in alike}:
        found = [alike[likeness] for alike in seen if likeness in alike]
        most = max(found, key=len)
        for other in found:
            if other is not most:
                same |= dict(zip(other, most, strict=False))
    return same


def _packet_key(packet: Packet) -> PacketKey:
    header = packet.sequence, packet.acknowledged, packet.flags
    return packet.protocol, packet.source, packet.destination, header, packet.size, packet.data
