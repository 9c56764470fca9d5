"""A limit on costly requests of a class: one at a time for each student, and some in a while."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator


class TooManyRequests(Exception):
    """A visitor asks too often."""


class RequestRate:
    """The requests of each visitor, by its number.

    Args:
        most: requests in a window.
        window: its length, seconds.
        clock: seconds since any moment.
    """

    def __init__(self, most: int, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._window = window
        self._clock = clock
        self._begun: defaultdict[int, deque[float]] = defaultdict(deque)
        self._busy: set[int] = set()

    @contextlib.contextmanager
    def turn(self, visitor: int) -> Iterator[None]:
        """Carry out a request of a visitor in this context. Raises TooManyRequests."""
        now, begun = self._clock(), self._begun[visitor]
        while begun and now - begun[0] >= self._window:
            begun.popleft()
        if visitor in self._busy or len(begun) >= self._most:
            raise TooManyRequests
        begun.append(now)
        self._busy.add(visitor)
        try:
            yield
        finally:
            self._busy.discard(visitor)

    def forget(self, visitor: int) -> None:
        """Forget a visitor that is gone."""
        self._begun.pop(visitor, None)
