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

from bothends.trace.correlation.correlator import Matcher
from bothends.trace.correlation.timeline import Timeline
from bothends.trace.model import Call, Event, Link, Moment, Packet, Trace

Likeness: TypeAlias = tuple[object, ...]


def merge(traces: Sequence[Trace], into: Trace) -> Iterator[Moment]:
    """The moments of all of them, in an order in which cause comes before effect. `into` has each by the time
    that it is given, and the processes, sockets and notes of all from the first.

    The traces are used up: their events are renumbered and become those of `into`.
    """
    links: list[Link] = []
    highest = 0
    for trace in traces:
        by, highest = highest, highest + _highest(trace)
        links += _renumbered(trace, by, into)
    events = {event.number: event for trace in traces for event in trace.events()}
    same = _same_packets(traces)
    timeline = Timeline()
    matcher = Matcher(into, timeline)
    matcher.has_packets = any(isinstance(event, Packet) for event in events.values())
    for link in links:
        cause, effect = same.get(link.cause, link.cause), same.get(link.effect, link.effect)
        if cause in events and effect in events:
            into.link(Link(cause, effect, link.kind))
            timeline.before(2 * cause, 2 * effect + isinstance(events[effect], Call))
    for moment in heapq.merge(*(trace.moments for trace in traces), key=lambda moment: moment.at):
        if moment.event.number not in same:
            if isinstance(moment.event, Packet):
                _place(moment.event, matcher)
            matcher.add(moment)
    for moment in timeline.take():
        into.add(moment)
        yield moment
    if timeline.broken:
        into.notes.append(f"{timeline.broken} effects stand before what they came of")


def _place(packet: Packet, matcher: Matcher) -> None:
    """Whose packet it is, as far as its own trace could not say."""
    sender, receiver = matcher.ends(packet)
    if packet.sender is None and sender is not None:
        packet.sender = sender.number
    if packet.receiver is None and receiver is not None:
        packet.receiver = receiver.number


def _highest(trace: Trace) -> int:
    numbers = {event.number for event in trace.events()}
    threads = {event.thread for event in trace.events() if not isinstance(event, Packet)}
    return max((*trace.processes, *trace.sockets, *numbers, *threads), default=0)


def _renumbered(trace: Trace, by: int, into: Trace) -> Iterator[Link]:
    """Add to every number, and give `into` the processes, sockets and notes. The links, renumbered too."""
    for process in trace.processes.values():
        process.number, process.parent = process.number + by, _more(process.parent, by)
        into.processes[process.number] = process
    for socket in trace.sockets.values():
        socket.number += by
        socket.welcomed_by, socket.process = _more(socket.welcomed_by, by), _more(socket.process, by)
        into.sockets[socket.number] = socket
    for event in trace.events():
        _renumber(event, by)
    into.notes += trace.notes
    if trace.dropped:
        into.notes.append(f"{trace.dropped} earlier moments of one trace are left out: it is too long")
    for link in trace.links():
        yield Link(link.cause + by, link.effect + by, link.kind)


def _renumber(event: Event, by: int) -> None:
    event.number += by
    match event:
        case Packet():
            event.sender, event.receiver = _more(event.sender, by), _more(event.receiver, by)
            event.repeats = _more(event.repeats, by)
        case Call():
            event.process, event.thread = event.process + by, event.thread + by
            event.socket, event.made = _more(event.socket, by), _more(event.made, by)
            event.sockets = tuple(each + by for each in event.sockets)
        case _:
            event.process, event.thread = event.process + by, event.thread + by


def _more(number: int | None, by: int) -> int | None:
    return None if number is None else number + by


def _same_packets(traces: Sequence[Trace]) -> dict[int, int]:
    """The packets that another trace has too, and which of its packets each is."""
    seen: list[dict[Likeness, list[int]]] = []
    for trace in traces:
        alike = defaultdict(list)
        for event in trace.events():
            if isinstance(event, Packet):
                alike[_likeness(event)].append(event.number)
        seen.append(alike)
    same: dict[int, int] = {}
    for likeness in {each for alike in seen for each in alike}:
        found = [alike[likeness] for alike in seen if likeness in alike]
        most = max(found, key=len)
        for other in found:
            if other is not most:
                same |= dict(zip(other, most, strict=False))
    return same


def _likeness(packet: Packet) -> Likeness:
    header = packet.sequence, packet.acknowledged, packet.flags
    return packet.protocol, packet.source, packet.destination, header, packet.size, packet.data
