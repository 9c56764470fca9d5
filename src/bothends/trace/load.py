"""Notice when programs are so fast that analysing what they do would slow them."""

from __future__ import annotations

import time
from typing import Final

WINDOW: Final = 0.15  # seconds over which the load is judged
MAX_BUSY: Final = 0.75  # of the window: above it, what analyses is nearly always busy
MIN_RATE: Final = 10_000  # events a second: fewer are no reason, whatever else takes the time
MAX_LAG: Final = 0.3  # seconds by which what is read may be older than now
MIN_EVENTS: Final = 1_500  # in a window: fewer are no reason either


class AnalysisLoad:
    """How busy the thread is that reads and analyses, in windows of `WINDOW` seconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._waited = 0.0
        self._events = 0
        self._lag = 0.0

    def add(self, waited: float, events: int, lag: float = 0.0) -> None:
        """Add a turn of the thread.

        Args:
            waited: the seconds that it has waited for input.
            events: how many it then read.
            lag: the seconds by which the next event is older than now, if that is known.
        """
        self._waited += waited
        self._events += events
        self._lag = lag

    def is_too_high(self) -> bool:
        """Return whether it was too high in the window that has just ended; False within a window."""
        taken = time.monotonic() - self._began
        if taken < WINDOW:
            return False
        found = self._waited < (1 - MAX_BUSY) * taken and self._events > MIN_RATE * taken
        found = found or (self._lag > MAX_LAG and self._events > MIN_EVENTS)
        self._began, self._waited, self._events = self._began + taken, 0.0, 0
        return found
