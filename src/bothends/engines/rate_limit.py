"""Reading no faster than a rate: a token bucket that holds one second's worth.

Pure: it is told what was read and when, and answers how long to rest. Nothing is lost while we rest:
what the peer sends waits in the kernel's buffers, and when those are full the peer's own sends do.
"""

from __future__ import annotations


class Pace:
    """`rate` in bytes a second. A peer that was silent for a second may send so much at once."""

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._left = float(rate)
        self._at = now

    def read(self, size: int, now: float) -> float:
        """So many bytes were read: seconds to rest before the next read, 0 for none."""
        self._left = min(self._rate, self._left + (now - self._at) * self._rate) - size
        self._at = now
        return max(0.0, -self._left / self._rate)

    def is_rested(self, now: float) -> bool:
        """Whether the peer has been slow for so long that all is as in the beginning."""
        return self._left + (now - self._at) * self._rate >= self._rate
