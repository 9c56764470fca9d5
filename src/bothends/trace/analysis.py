"""From what the sources report to the points of a trace, in order. Pure: no I/O.

    lines of a program ──> decoder ──┐
                                     ├─> Correlator ──> Timeline ──> on_point(point)
    packets, events of the kernel ───┘

`TraceSession` feeds it while programs run, `SourceReader` from a recording of the sources.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from bothends.trace.capture.blocked_threads import ThreadSnapshot
from bothends.trace.capture.calls import CallDecoder
from bothends.trace.capture.descriptors import SocketRegistry
from bothends.trace.capture.packets import RawPacket, parse_packet
from bothends.trace.correlation.correlator import Correlator
from bothends.trace.correlation.kernel_reasons import KernelEventMatcher
from bothends.trace.correlation.timeline import Timeline
from bothends.trace.correlation.transit import TransitTracker
from bothends.trace.model import (
    Call,
    KernelEvent,
    Packet,
    Point,
    ProcessEvent,
    Trace,
    referenced_ids,
)

MAX_KERNEL_EVENTS: Final = 20_000  # drops, resets and so on in one run; more are not kept
_ENDING_SIGNALS: Final = frozenset({"SIGINT", "SIGTERM"})
_MAX_INTERRUPTS: Final = 100
_INTERRUPT_WINDOW: Final = 1_000_000_000  # nanoseconds before the handler in which a SIGINT belongs to it


class TraceAnalysis:
    """Decodes, joins and orders what the sources report.

    Args:
        trace: where everything is added.
        on_point: called for each point, in an order in which a cause precedes its effects.
        assign_sockets: sets the sockets of a packet; from the traced calls by default.
        is_wanted: whether a point is added; all are by default.
    """

    def __init__(
        self,
        trace: Trace,
        on_point: Callable[[Point], None],
        assign_sockets: Callable[[Packet], None] | None = None,
        is_wanted: Callable[[Point], bool] | None = None,
    ) -> None:
        self.trace = trace
        self._is_wanted = is_wanted
        self.decoders: list[CallDecoder] = []
        self.event_numbers = itertools.count(1)
        self.timeline = Timeline()
        self.correlator = Correlator(trace, self.timeline)
        self.kernel_events = self.other_kernel_events = 0  # of this run, and of other programs
        self._on_point = on_point
        self._assign_sockets = assign_sockets if assign_sockets is not None else self._assign_sockets_by_calls
        self._sockets = SocketRegistry()
        self._transit = TransitTracker()
        self._kernel_matcher = KernelEventMatcher(self.correlator.sockets_of, self.correlator.is_relevant)
        self._last_ends: dict[int, Call] = {}  # by thread
        self._interrupts: list[int] = []  # when a signal that ends programs interrupted one

    def add_decoder(self, role: str, command: str) -> CallDecoder:
        """Return the decoder of another program."""
        decoder = CallDecoder(self.trace, self._sockets, self.event_numbers, role, command)
        self.decoders.append(decoder)
        return decoder

    def add_point(self, point: Point) -> None:
        """Add a point that a decoder has returned."""
        self._note_interrupt(point)
        self.correlator.add(point)

    def may_be_relevant(self, raw: RawPacket) -> bool:
        """Return whether a packet may be one of the traced programs: a quick check before it is parsed.

        The ports of a packet that NAT has translated may be those of no program.
        """
        ports = raw.ports
        if ports is None or (raw.transit is not None and raw.transit.arrived_as):
            return True
        return self.correlator.may_be_relevant(*ports)

    def add_packet(self, raw: RawPacket) -> bool:
        """Add a packet, unless it is that of other programs. Returns whether it is added."""
        if not self.may_be_relevant(raw):
            return False
        packet = raw.packet(0)
        if raw.transit is not None and raw.transit.arrived_as:
            self._add_translation(raw.transit.arrived_as, packet)
        if packet is None or not self.correlator.is_relevant(packet):
            return False
        packet.number = next(self.event_numbers)
        if raw.transit is None:
            self.correlator.add(Point(packet))
            return True
        for point in self._transit.track(raw, raw.transit, packet):
            self.correlator.add(point)
        return True

    def _add_translation(self, arrived_as: bytes, packet: Packet | None) -> None:
        """Note that NAT has translated a packet's addresses, if it is one of a traced program."""
        arrived = parse_packet(arrived_as)
        if arrived is None or packet is None or packet.protocol != "tcp":
            return
        if self.correlator.is_relevant(packet) or self.correlator.is_relevant(arrived):
            self.correlator.add_translation(
                (packet.source, packet.destination), (arrived.source, arrived.destination)
            )

    def add_kernel_events(self, events: Iterable[KernelEvent]) -> None:
        """Add the events of the kernel whose ports are known. Called when the calls have been added."""
        for event in events:
            ends = event.source, event.destination
            ports = [each.port or 0 for each in ends if each is not None]
            if len(ports) == len(ends) and not self.correlator.may_be_relevant(ports[0], ports[1]):
                self.other_kernel_events += 1
                continue
            self.kernel_events += 1
            if self.kernel_events <= MAX_KERNEL_EVENTS:
                event.number = next(self.event_numbers)
                self.correlator.add(Point(event))

    def emit_until(self, until: int) -> bool:
        """Emit the points up to a time, for which no source will add points any more.

        Returns whether there were any.
        """
        trace, observe, on_point = self.trace, self._kernel_matcher.observe, self._on_point
        has_any = False
        for point in self.timeline.pop_ready(until):
            if trace.frozen_at is not None and point.at > trace.frozen_at:
                continue  # what bothends causes when it ends the programs is not part of the trace
            has_any = True
            event = point.event
            if isinstance(event, Packet):
                self._assign_sockets(event)
            elif isinstance(event, KernelEvent) and not self._kernel_matcher.match(event):
                self.other_kernel_events += 1
                continue
            observe(point)
            if self._is_wanted is not None:
                if not self._is_wanted(point):
                    continue
                if point.is_end and trace.event(event.number) is None:  # it started before
                    trace.add(Point(event))
                    on_point(Point(event))
            trace.add(point)
            on_point(point)
        if trace.needs_pruning:
            self._prune()
        return has_any

    def freeze(self, at: int, *, by_interrupt: bool) -> None:
        """Note when bothends, or ^C, began to end the programs. What is later is not part of the trace."""
        self.trace.frozen_at = at
        if not by_interrupt:
            self._interrupts = []

    def _prune(self) -> None:
        """Forget closed sockets and ended processes that no kept event refers to."""
        decoders = self.decoders
        sockets, processes = referenced_ids(self.timeline.pending())
        self.trace.prune(
            sockets.union(*(each.referenced_sockets for each in decoders)),
            processes.union(*(each.live_processes for each in decoders)),
        )
        self._sockets.retain(self.trace.sockets)
        self.correlator.prune()

    def _assign_sockets_by_calls(self, packet: Packet) -> None:
        sender, receiver = self.correlator.sockets_of(packet)
        packet.sender = sender.number if sender else None
        packet.receiver = receiver.number if receiver else None

    def _note_interrupt(self, point: Point) -> None:
        """Set the time at which the trace is frozen to the first call that our ending interrupted.

        The end of a call is its start on the wall clock plus a duration on another clock, which may differ.
        """
        event = point.event
        if isinstance(event, Call) and point.is_end:
            if event.error.startswith(("ERESTART", "EINTR")):
                self._last_ends[event.thread] = event
        elif isinstance(event, ProcessEvent) and event.kind == "signal" and event.text in _ENDING_SIGNALS:
            interrupted = self._last_ends.pop(event.thread, None)
            until = interrupted.until if interrupted is not None and interrupted.until else event.at
            self._interrupts = [*self._interrupts[-_MAX_INTERRUPTS:], min(until, event.at) - 1]
            if self.trace.frozen_at is None and event.text != "SIGINT":
                self._interrupts.pop()  # a program sent it
        if self._interrupts and self.trace.frozen_at is not None:
            earliest = self.trace.frozen_at - _INTERRUPT_WINDOW
            self.trace.frozen_at = min(
                [self.trace.frozen_at, *(each for each in self._interrupts if each >= earliest)]
            )
            self._interrupts.clear()

    def unfinished(self) -> dict[int, Call]:
        """Return the last call of each thread on the timeline; it is blocked if its `until` is None."""
        found: dict[int, Call] = {}
        for event in self.trace.events():
            if isinstance(event, Call) and (event.thread not in found or event.at >= found[event.thread].at):
                found[event.thread] = event
        return found

    def record_blocked_calls(
        self, snapshots: Mapping[int, ThreadSnapshot], undrawn: Mapping[int, Call], snapshot_at: int
    ) -> None:
        """Complete the unfinished calls of the trace, and set `trace.blocked`.

        Args:
            snapshots: what threads were blocked in at `snapshot_at`, by thread.
            undrawn: calls that were blocked and are not on the timeline, by thread.
        """
        self.trace.blocked.clear()
        last_calls = self.unfinished()
        for thread in {**snapshots, **undrawn}:
            snapshot, hidden, last = snapshots.get(thread), undrawn.get(thread), last_calls.get(thread)
            number = snapshot.process if snapshot is not None else hidden.process if hidden is not None else 0
            process = self.trace.processes.get(number)
            exited_at = self.trace.thread_exits.get(thread)
            if process is None or process.ended is not None or (exited_at or snapshot_at) < snapshot_at:
                continue
            if last is not None and last.until is None:
                if snapshot is not None and last.at < snapshot_at:
                    snapshot.complete(last)
                continue
            since = 0 if last is None or last.until is None else last.until
            if hidden is not None and hidden.at >= since:
                call = hidden
            elif snapshot is not None and snapshot.name and since < snapshot_at:
                call = Call(next(self.event_numbers), number, thread, snapshot.name, snapshot_at)
                call.descriptor = snapshot.call.waits[0].fd if snapshot.call.direct else None
            else:
                continue
            if snapshot is not None:
                snapshot.complete(call)
            self.trace.blocked.append(call)
