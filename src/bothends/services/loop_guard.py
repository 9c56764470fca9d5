"""Detect that a datagram service and its peer answer each other's answers, and end it.

A service that answers any datagram never stops when its peer is another one: a single datagram with a forged
source starts it (CVE-2024-2169; amplification_guard.py has the other attack of this kind). What tells such a
peer from a fast client:

1. A reflector sends back exactly the bytes it was sent. A client that numbers its requests, or whose requests
   differ from the answers, never does. So for each peer the hashes of the last answers are kept, and a score
   counts the datagrams that equal one of them.
2. A client that always sends one payload, and gets the same back, cannot be told apart by content. But a loop
   only repeats datagrams that exist, and never makes new ones: each one that is not answered is gone. So a
   detected loop is ended by leaving the next datagrams unanswered, DROPS of them at most, or until the peer
   has been silent for PAUSE seconds. A client that sends again after this is answered again, and each
   detection doubles the number of answers until the next one.

So a client of the second kind loses a few datagrams in thousands at first, then in millions; a loop ends
after MATCHES answers, however fast or slow it is. Peers that send other bytes each time, such as chargen, are
limited by their port and by the rate (amplification_guard.py).

Pure: the clock is passed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from bothends.events import Rejection, RejectReason

# native/datagram_server.c has the same values.
MATCHES: Final = 4096
"""Returned answers until a loop is detected, for the first time."""

MAX_MATCHES: Final = 1 << 20
"""The number that MATCHES grows to, by doubling at each detection."""

DROPS: Final = 512
"""Datagrams that a detected loop loses at most: more than circulate in any."""

PAUSE: Final = 0.1
"""Seconds. A peer that has been silent for so long is answered again, and its score begins at 0."""

_SLOTS: Final = 256  # answers remembered for each peer, a power of two

# One match outweighs many others: datagrams of a large loop replace each other in the slots, and with worker
# processes another process may have sent the answer.
_MATCH_SCORE: Final = 32

LOOP_REJECTION: Final = Rejection(
    "it sends back what it was sent, thousands of times: a loop of two services, which ends here",
    RejectReason.LOOP,
)


class LoopGuard:
    """Decides which datagrams of one peer are answered.

    Args:
        now: a monotonic clock, in seconds.
        matches: see MATCHES.
    """

    __slots__ = ("_drops_left", "_last", "_matches", "_now", "_score", "_sent")

    def __init__(self, *, now: Callable[[], float] = time.monotonic, matches: int = MATCHES) -> None:
        self._now = now
        self._matches = matches
        self._score = 0
        self._last = 0.0  # time of the last datagram that matched or was dropped
        self._drops_left = 0
        self._sent: list[int | None] = [None] * _SLOTS

    def check(self, datagram: bytes) -> Rejection | None:
        """Return why a datagram of the peer must not be answered, or None."""
        if self._drops_left:
            return self._drop()
        key = hash(datagram)
        if self._sent[key % _SLOTS] != key:
            if self._score:
                self._score -= 1
            return None
        now = self._now()
        self._score = _MATCH_SCORE + (self._score if now - self._last < PAUSE else 0)
        self._last = now
        if self._score < self._matches * _MATCH_SCORE:
            return None
        self._score = 0
        self._matches = min(2 * self._matches, MAX_MATCHES)
        self._drops_left = DROPS - 1
        return LOOP_REJECTION

    def sent(self, answer: bytes) -> None:
        """Remember an answer to the peer."""
        key = hash(answer)
        self._sent[key % _SLOTS] = key

    def _drop(self) -> Rejection | None:
        now = self._now()
        paused = now - self._last >= PAUSE
        self._last = now
        self._drops_left = 0 if paused else self._drops_left - 1
        return None if paused else LOOP_REJECTION
