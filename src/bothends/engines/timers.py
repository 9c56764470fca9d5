"""A hashed timing wheel: many timers, most of which never expire.

A timer such as "close after 60 idle seconds" is postponed by every byte and almost never expires. So
postponing it costs nothing: an item stays in the slot of its earliest possible deadline, and when that slot
expires the item returns its real deadline and moves to that slot. Adding and removing an item takes O(1), and
a removed item uses no memory. (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987. A heap
would hold closed connections until their timers expire, which at 10,000 connections a second is most of a
server's memory.)
"""

from __future__ import annotations

import heapq
import math
from typing import Final, Generic, Protocol, TypeVar

# Seconds, the width of a slot: short enough to be unnoticeable, long enough to need few wakeups.
TICK: Final = 0.02


class TimerItem(Protocol):
    """An item of the wheel. The wheel owns `slot`, which is None at first."""

    slot: int | None

    def on_timer(self, now: float) -> float | None:
        """Handle the expired timers. Returns the next deadline, or None if there is none."""


Item = TypeVar("Item", bound=TimerItem)


class TimerWheel(Generic[Item]):
    """Items by deadline, in seconds on the caller's clock."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Item]] = {}
        self._order: list[int] = []

    def schedule(self, item: Item, deadline: float) -> None:
        """Call `item.on_timer()` at `deadline`, or earlier if the item is already in an earlier slot."""
        slot = math.ceil(deadline / TICK)
        if item.slot is not None:
            if item.slot <= slot:
                return
            self.cancel(item)
        item.slot = slot
        if slot not in self._slots:
            self._slots[slot] = set()
            heapq.heappush(self._order, slot)
        self._slots[slot].add(item)

    def cancel(self, item: Item) -> None:
        """Remove an item. Does nothing if it is not scheduled."""
        if item.slot is not None:
            self._slots[item.slot].discard(item)
            item.slot = None

    def next_timeout(self, now: float) -> float | None:
        """Return the seconds until the next slot expires, or None if the wheel is empty."""
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heapq.heappop(self._order)]
        if not self._order:
            return None
        return max(0.0, self._order[0] * TICK - now)

    def run_expired(self, now: float) -> None:
        """Call `on_timer()` of each item whose slot has expired."""
        while self._order and self._order[0] * TICK <= now:
            items = self._slots.pop(heapq.heappop(self._order))
            for item in items:
                item.slot = None
            for item in items:
                deadline = item.on_timer(now)
                if deadline is not None:
                    self.schedule(item, max(deadline, now + TICK))
