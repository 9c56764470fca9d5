"""A hashed timing wheel: many time limits, most of which never come due.

A limit such as "closed after 60 idle seconds" is renewed by every byte and almost never fires. So
nothing is moved when it is renewed: an item lies in the slot of its earliest possible moment, and
when that slot's turn comes it is asked when it is really due, and laid there. Adding and removing
cost the same however many there are, and an item that is gone leaves nothing behind. (Varghese and
Lauck, "Hashed and Hierarchical Timing Wheels", 1987. A heap would keep closed connections until
their limit passes, which at 10,000 new ones a second is most of the memory of a server.)
"""

from __future__ import annotations

import heapq
import math
from typing import Final, Generic, Protocol, TypeVar

# How late a limit may fire, in seconds: below what a person notices, and few enough wake-ups.
TICK: Final = 0.02


class TimerItem(Protocol):
    """What the wheel holds. `slot` belongs to the wheel; None to begin with."""

    slot: int | None

    def on_timer(self, now: float) -> float | None:
        """Act if something is due; return when to ask again, or None for never."""


Item = TypeVar("Item", bound=TimerItem)


class TimerWheel(Generic[Item]):
    """Items by the moment at which each wants to be asked."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Item]] = {}
        self._order: list[int] = []

    def schedule(self, item: Item, deadline: float) -> None:
        """Ask the item at `due`, or earlier where it already lies in an earlier slot."""
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
        """Forget the item. Harmless if it isn't here."""
        if item.slot is not None:
            self._slots[item.slot].discard(item)
            item.slot = None

    def next_timeout(self, now: float) -> float | None:
        """Seconds until somebody must be asked; None when the wheel is empty."""
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heapq.heappop(self._order)]
        if not self._order:
            return None
        return max(0.0, self._order[0] * TICK - now)

    def run_expired(self, now: float) -> None:
        """Ask everybody whose moment has come."""
        while self._order and self._order[0] * TICK <= now:
            items = self._slots.pop(heapq.heappop(self._order))
            for item in items:
                item.slot = None
            for item in items:
                due = item.on_timer(now)
                if due is not None:
                    self.schedule(item, max(due, now + TICK))
