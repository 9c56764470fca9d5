"""One order for what several observers saw, in which cause comes before effect. Pure.

A call's time is taken when it begins, a packet's when an interface has it, and each is taken by
another program: sorted by time, a packet may stand before the call that sent it, and a receive ends before
what it received. So time decides only where nothing else does:

1. A thread does one thing after the other.
2. An interface carries one packet after the other.
3. Whoever matches events says what came of what (`before`); `correlator.py` does.

It is a topological order (Kahn), the earliest first among those that may come next. It is given out piece by
piece, up to a time before which nobody has anything to tell any more.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

from bothends.trace.model import Call, Packet, Point, TraceEvent

FOREVER: Final = 1 << 63
MAX_EMITTED: Final = 100_000  # moments that were given out: no cause comes to light so much later


def key(point: Point) -> int:
    """A moment's number: twice its event's, and one more for a call's end."""
    return 2 * point.event.number + point.is_end


class Timeline:
    """Takes moments and what must come before what, and gives the moments in order.

    `broken` counts causes that had to be passed over: the cause came to light after its effect was
    given out, or two events were each said to come before the other.
    """

    def __init__(self) -> None:
        self._pending: dict[int, Point] = {}
        self._causes: dict[int, set[int]] = {}
        self._effects: dict[int, list[int]] = {}
        self._ready: list[tuple[int, int]] = []
        self._last_of_source: dict[object, int] = {}
        self._emitted: set[int] = set()
        self._oldest_emitted = 0  # what is below and not waiting was given out long ago
        self.violations = 0

    def pending(self) -> Iterator[TraceEvent]:
        """What is not given out yet."""
        return (moment.event for moment in self._pending.values())

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, point: Point) -> None:
        """A moment has come to light. Those of one thread, and of one interface, come in their order."""
        number = key(point)
        self._pending[number] = point
        causes = self._causes.setdefault(number, set())
        stream = _source_of(point)
        if stream is not None:
            before = self._last_of_source.get(stream)
            self._last_of_source[stream] = number
            if before is not None and before in self._pending:
                self._add_edge(before, number)
        if not causes:
            heapq.heappush(self._ready, (point.at, number))

    def add_constraint(self, cause: int, effect: int) -> None:
        """A moment of this `key` comes before another. Both may still be unknown."""
        if cause == effect or self._is_emitted(cause):
            return
        if self._is_emitted(effect):
            self.violations += 1
            return
        self._add_edge(cause, effect)

    def _is_emitted(self, number: int) -> bool:
        return number in self._emitted or (
            number < self._oldest_emitted and number % 2 == 0 and number not in self._pending
        )

    def _add_edge(self, cause: int, effect: int) -> None:
        causes = self._causes.setdefault(effect, set())
        if cause not in causes:
            causes.add(cause)
            self._effects.setdefault(cause, []).append(effect)

    def pop_ready(self, until: int = FOREVER) -> Iterator[Point]:
        """The moments that come next, as far as the earliest of them is not later than `until`.

        With `FOREVER` everything comes, and a circle of causes is cut where it is earliest.
        """
        while True:
            while self._ready and self._ready[0][0] <= until:
                _, number = heapq.heappop(self._ready)
                if number in self._pending and not self._causes.get(number):
                    yield self._emit(number)
            if until < FOREVER or not self._pending:
                return
            # Causes that never came to light, or a circle.
            number = min(self._pending, key=lambda each: (self._pending[each].at, each))
            self.violations += sum(cause in self._pending for cause in self._causes[number])
            self._causes[number] = set()
            heapq.heappush(self._ready, (self._pending[number].at, number))

    def _emit(self, number: int) -> Point:
        moment = self._pending.pop(number)
        self._causes.pop(number, None)
        self._emitted.add(number)
        if len(self._emitted) > 2 * MAX_EMITTED:
            newest = sorted(self._emitted)[MAX_EMITTED:]
            self._oldest_emitted, self._emitted = newest[0], set(newest)
            self._last_of_source = {
                stream: last for stream, last in self._last_of_source.items() if last in self._pending
            }
        for effect in self._effects.pop(number, ()):
            causes = self._causes.get(effect)
            if causes is None:
                continue
            causes.discard(number)
            if not causes and effect in self._pending:
                heapq.heappush(self._ready, (self._pending[effect].at, effect))
        return moment


def _source_of(point: Point) -> object:
    match point.event:
        case Call() as call:
            return call.thread
        case Packet() as packet:
            return (packet.reaches if point.is_end else packet.interface) or None
        case change:
            return change.thread
