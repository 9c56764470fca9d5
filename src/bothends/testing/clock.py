"""A clock that moves when it is told to."""

from __future__ import annotations


class FakeClock:
    """Stands in wherever a clock is passed in: calling it gives the seconds it shows.

    clock = FakeClock()
    service = Timed(now=clock)
    clock.advance(60)
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        """What it shows, in seconds. Not 0 to begin with: code that takes 0 for "never" would pass."""

    def __call__(self) -> float:
        """The time now."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError for less than none: clocks that go backwards are another test."""
        if seconds < 0:
            raise ValueError(f"{seconds} s is in the past")
        self.now += seconds
