"""Reading no faster than a rate: a token bucket that holds one second's worth.

Pure: it is told what was read and when, and answers how long to rest. Nothing is lost while we rest:
what the peer sends waits in the kernel's buffers, and when those are full the peer's own sends do.
"""

from __future__ import annotations


class TokenBucket:
    """`rate` in bytes a second. A peer that was silent for a second may send so much at once."""

    __slots__ = ("_rate", "_tokens", "_updated_at")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate)
        self._updated_at = now

    def consume(self, size: int, now: float) -> float:
        """So many bytes were read: seconds to rest before the next read, 0 for none."""
        self._tokens = min(self._rate, self._tokens + (now - self._updated_at) * self._rate) - size
        self._updated_at = now
        return max(0.0, -self._tokens / self._rate)

    def is_full(self, now: float) -> bool:
        """Whether the peer has been slow for so long that all is as in the beginning."""
        return self._tokens + (now - self._updated_at) * self._rate >= self._rate
