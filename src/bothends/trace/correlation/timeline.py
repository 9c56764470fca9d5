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

from bothends.trace.model import Call, Event, Moment, Packet

FOREVER: Final = 1 << 63
REMEMBERED: Final = 100_000  # moments that were given out: no cause comes to light so much later


def key(moment: Moment) -> int:
    """A moment's number: twice its event's, and one more for a call's end."""
    return 2 * moment.event.number + moment.is_end


class Timeline:
    """Takes moments and what must come before what, and gives the moments in order.

    `broken` counts causes that had to be passed over: the cause came to light after its effect was
    given out, or two events were each said to come before the other.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Moment] = {}
        self._causes: dict[int, set[int]] = {}
        self._effects: dict[int, list[int]] = {}
        self._ready: list[tuple[int, int]] = []
        self._last: dict[object, int] = {}
        self._done: set[int] = set()
        self._oldest = 0  # what is below and not waiting was given out long ago
        self.broken = 0

    def waiting(self) -> Iterator[Event]:
        """What is not given out yet."""
        return (moment.event for moment in self._waiting.values())

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, moment: Moment) -> None:
        """A moment has come to light. Those of one thread, and of one interface, come in their order."""
        number = key(moment)
        self._waiting[number] = moment
        causes = self._causes.setdefault(number, set())
        stream = _stream(moment)
        if stream is not None:
            before = self._last.get(stream)
            self._last[stream] = number
            if before is not None and before in self._waiting:
                self._join(before, number)
        if not causes:
            heapq.heappush(self._ready, (moment.at, number))

    def before(self, cause: int, effect: int) -> None:
        """A moment of this `key` comes before another. Both may still be unknown."""
        if cause == effect or self._is_done(cause):
            return
        if self._is_done(effect):
            self.broken += 1
            return
        self._join(cause, effect)

    def _is_done(self, number: int) -> bool:
        return number in self._done or (
            number < self._oldest and number % 2 == 0 and number not in self._waiting
        )

    def _join(self, cause: int, effect: int) -> None:
        causes = self._causes.setdefault(effect, set())
        if cause not in causes:
            causes.add(cause)
            self._effects.setdefault(cause, []).append(effect)

    def take(self, until: int = FOREVER) -> Iterator[Moment]:
        """The moments that come next, as far as the earliest of them is not later than `until`.

        With `FOREVER` everything comes, and a circle of causes is cut where it is earliest.
        """
        while True:
            while self._ready and self._ready[0][0] <= until:
                _, number = heapq.heappop(self._ready)
                if number in self._waiting and not self._causes.get(number):
                    yield self._give(number)
            if until < FOREVER or not self._waiting:
                return
            # Causes that never came to light, or a circle.
            number = min(self._waiting, key=lambda each: (self._waiting[each].at, each))
            self.broken += sum(cause in self._waiting for cause in self._causes[number])
            self._causes[number] = set()
            heapq.heappush(self._ready, (self._waiting[number].at, number))

    def _give(self, number: int) -> Moment:
        moment = self._waiting.pop(number)
        self._causes.pop(number, None)
        self._done.add(number)
        if len(self._done) > 2 * REMEMBERED:
            newest = sorted(self._done)[REMEMBERED:]
            self._oldest, self._done = newest[0], set(newest)
            self._last = {stream: last for stream, last in self._last.items() if last in self._waiting}
        for effect in self._effects.pop(number, ()):
            causes = self._causes.get(effect)
            if causes is None:
                continue
            causes.discard(number)
            if not causes and effect in self._waiting:
                heapq.heappush(self._ready, (self._waiting[effect].at, effect))
        return moment


def _stream(moment: Moment) -> object:
    match moment.event:
        case Call() as call:
            return call.thread
        case Packet() as packet:
            return (packet.reaches if moment.is_end else packet.interface) or None
        case change:
            return change.thread
