"""A fair queue: a number of places, and turns by key, each key once in a round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

_NEVER: Final = -1


@dataclass(slots=True)
class _Waiting:
    """An entry of the queue. `on_wait` is called with the number of turns before it."""

    key: Hashable
    arrival: int
    on_wait: Callable[[int], None]
    ready: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class QueuePlace:
    """A place, until it is released."""

    def __init__(self, queue: FairQueue) -> None:
        self._queue: FairQueue | None = queue

    def release(self) -> None:
        """Give the place to the next one. Idempotent."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue._release()


class FairQueue:
    """Round robin by key: the next turn is for the key whose last turn was the longest ago.

    So a student that runs a program again and again has one turn of each round, like all others.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._turns = 0
        self._last: dict[Hashable, int] = {}  # key -> number of its last turn
        self._waiting: list[_Waiting] = []

    async def enter(self, key: Hashable, on_wait: Callable[[int], None] = lambda _: None) -> QueuePlace:
        """Wait for a turn. Cancelled, it leaves the queue."""
        if self._free > 0 and not self._waiting:
            self._take(key)
            return QueuePlace(self)
        entry = _Waiting(key, self._turns + len(self._waiting), on_wait)
        self._waiting.append(entry)
        self._tell()
        try:
            await entry.ready
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._tell()
            else:
                self._release()
            raise
        return QueuePlace(self)

    def position(self, key: Hashable) -> int | None:
        """Return how many turns are before that of a key; None if it does not wait."""
        keys = [each.key for each in self._in_order()]
        return keys.index(key) if key in keys else None

    def _in_order(self) -> list[_Waiting]:
        return sorted(self._waiting, key=lambda each: (self._last.get(each.key, _NEVER), each.arrival))

    def _take(self, key: Hashable) -> None:
        self._free -= 1
        self._turns += 1
        self._last[key] = self._turns

    def _release(self) -> None:
        self._free += 1
        while self._free > 0 and self._waiting:
            entry = self._in_order()[0]
            self._waiting.remove(entry)
            self._take(entry.key)
            if entry.ready.done():  # it was cancelled, and its task has not run yet
                self._free += 1
                continue
            entry.ready.set_result(None)
        self._tell()

    def _tell(self) -> None:
        for ahead, entry in enumerate(self._in_order()):
            entry.on_wait(ahead)
