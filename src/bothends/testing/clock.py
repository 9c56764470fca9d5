"""A fake clock for tests."""

from __future__ import annotations


class FakeClock:
    """A clock that moves only by `advance`. Calling it returns its time in seconds.

    clock = FakeClock()
    service = Timed(now=clock)
    clock.advance(60)
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        """The time, in seconds. Does not start at 0, because code that takes 0 for "never" would pass."""

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Advance the time. Raises ValueError if `seconds` is negative."""
        if seconds < 0:
            raise ValueError(f"cannot advance a clock by {seconds} s, into the past")
        self.now += seconds
