"""Notice when programs are so fast that analysing what they do would slow them."""

from __future__ import annotations

import time
from typing import Final

WINDOW: Final = 0.15  # seconds over which the load is judged
MAX_BUSY: Final = 0.75  # of the window: above it, what analyses is nearly always busy
MIN_RATE: Final = 10_000  # events a second: fewer are no reason, whatever else takes the time


class AnalysisLoad:
    """How busy the thread is that reads and analyses, in windows of `WINDOW` seconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._waited = 0.0
        self._events = 0

    def add(self, waited: float, events: int) -> None:
        """Add the seconds that the thread has waited for input, and the events that it then read."""
        self._waited += waited
        self._events += events

    def is_too_high(self) -> bool:
        """Return whether it was too high in the window that has just ended; False within a window."""
        taken = time.monotonic() - self._began
        if taken < WINDOW:
            return False
        found = self._waited < (1 - MAX_BUSY) * taken and self._events > MIN_RATE * taken
        self._began, self._waited, self._events = self._began + taken, 0.0, 0
        return found
