"""Order the points of several sources so that a cause precedes its effects. Pure.

strace timestamps calls when they start, the kernel timestamps packets on an interface. Sorted by time alone,
a packet can precede the call that sent it, and a receive can end before the packet it received. So timestamps
decide only between points that nothing else orders:

1. The points of one thread are in order.
2. The packets of one interface are in order.
3. `correlator.py` adds constraints between causes and effects (`add_constraint`).

The order is topological (Kahn's algorithm), with the earliest of the unconstrained points first. It is
emitted incrementally, up to a time for which no source will add points any more.

`Timeline` is in C (native/trace/timeline.c) where the extension is built, and otherwise `PythonTimeline`,
which does the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from bothends.trace.model import Call, KernelEvent, Packet, Point, TraceEvent

FOREVER: Final = 1 << 63
MAX_EMITTED: Final = 100_000  # emitted keys to remember: a constraint on an older point is not expected


def key(event: int, is_end: bool = False) -> int:
    """Return the key of a point, by the number of its event. Starts have even keys, ends odd ones."""
    return 2 * event + is_end


def key_of(point: Point) -> int:
    """Return the key of a point."""
    return key(point.event.number, point.is_end)


class PythonTimeline:
    """Collects points and constraints, and emits the points in order.

    `violations` counts ignored constraints: the effect had been emitted before the cause was known, or
    constraints formed a cycle.
    """

    def __init__(self) -> None:
        self._pending: dict[int, Point] = {}
        self._causes: dict[int, set[int]] = {}
        self._effects: dict[int, list[int]] = {}
        self._ready: list[tuple[int, int]] = []
        self._last_of_source: dict[object, int] = {}
        self._emitted: set[int] = set()
        self._oldest_emitted = 0  # smaller keys that are not pending were emitted long ago
        self.violations = 0

    def pending(self) -> Iterator[TraceEvent]:
        """Iterate over the events of the points that have not been emitted."""
        return (point.event for point in self._pending.values())

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, point: Point) -> None:
        """Add a point. Add the points of one thread, and of one interface, in order."""
        self._add(point, in_order=True)

    def add_unordered(self, point: Point) -> None:
        """Add a point that need not follow the points of its thread that were added before."""
        self._add(point, in_order=False)

    def _add(self, point: Point, *, in_order: bool) -> None:
        event, is_end = point
        number = 2 * event.number + is_end
        self._pending[number] = point
        source: object
        if type(event) is Call:
            source = event.thread if in_order else None
            at = event.until if is_end and event.until is not None else event.at
        else:
            source, at = _source_of(point), point.at
        if source is not None:
            before = self._last_of_source.get(source)
            self._last_of_source[source] = number
            if before is not None and before in self._pending:
                self._add_edge(before, number)
        if not self._causes.get(number):
            heapq.heappush(self._ready, (at, number))

    def add_constraint(self, cause: int, effect: int) -> None:
        """Require one point to precede another, by their keys. The points may be added later."""
        if cause == effect or self._is_emitted(cause):
            return
        if self._is_emitted(effect):
            self.violations += 1
            return
        self._add_edge(cause, effect)

    def _is_emitted(self, number: int) -> bool:
        return number in self._emitted or (
            number < self._oldest_emitted and not _is_end_key(number) and number not in self._pending
        )

    def _add_edge(self, cause: int, effect: int) -> None:
        causes = self._causes.get(effect)
        if causes is None:
            causes = self._causes[effect] = set()
        elif cause in causes:
            return
        causes.add(cause)
        effects = self._effects.get(cause)
        if effects is None:
            self._effects[cause] = [effect]
        else:
            effects.append(effect)

    def pop_ready(self, until: int = FOREVER) -> Iterable[Point]:
        """Emit the next points, while the earliest unconstrained one is not later than `until`.

        With `FOREVER` all points are emitted; a cycle of constraints is broken at its earliest point.
        """
        while True:
            while self._ready and self._ready[0][0] <= until:
                _, number = heapq.heappop(self._ready)
                if number in self._pending and not self._causes.get(number):
                    yield self._emit(number)
            if until < FOREVER or not self._pending:
                return
            # Unknown causes, or a cycle.
            number = min(self._pending, key=lambda each: (self._pending[each].at, each))
            self.violations += sum(cause in self._pending for cause in self._causes.get(number, ()))
            self._causes.pop(number, None)
            heapq.heappush(self._ready, (self._pending[number].at, number))

    def _emit(self, number: int) -> Point:
        point = self._pending.pop(number)
        self._causes.pop(number, None)
        self._emitted.add(number)
        if len(self._emitted) > 2 * MAX_EMITTED:
            newest = sorted(self._emitted)[MAX_EMITTED:]
            self._oldest_emitted, self._emitted = newest[0], set(newest)
            self._last_of_source = {
                source: last for source, last in self._last_of_source.items() if last in self._pending
            }
        effects = self._effects.pop(number, None)
        if effects is None:
            return point
        for effect in effects:
            causes = self._causes.get(effect)
            if causes is None:
                continue
            causes.discard(number)
            if not causes and effect in self._pending:
                heapq.heappush(self._ready, (self._pending[effect].at, effect))
        return point


def _is_end_key(number: int) -> bool:
    return number % 2 == 1


def _source_of(point: Point) -> object:
    """Return the thread or interface whose points are in order, or None."""
    match point.event:
        case Call() as call:
            return call.thread
        case Packet() as packet:
            return (packet.reaches if point.is_end else packet.interface) or None
        case KernelEvent():
            return None  # of whatever thread or interrupt
        case process_event:
            return process_event.thread


if TYPE_CHECKING:
    Timeline = PythonTimeline
else:
    try:
        from bothends.trace._pipeline import Timeline as _CompiledTimeline
    except ImportError:
        Timeline = PythonTimeline
    else:

        class Timeline(_CompiledTimeline):
            """As `PythonTimeline`."""

            def __new__(cls) -> Timeline:
                """Return an empty timeline."""
                return super().__new__(cls, Call, _source_of, MAX_EMITTED)
