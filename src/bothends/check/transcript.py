"""Who said what and when, during one case. Bounded, and safe to show.

Kept are the first entries and the last, for the beginning tells how it was meant and the end what went wrong;
of each entry the first bytes. What a peer sent is escaped when it is written down.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bothends.escaping import escape

HEAD_ENTRIES: Final = 24
TAIL_ENTRIES: Final = 24
MAX_QUOTED_BYTES: Final = 72  # bytes of what was said: enough to know it by, and one line on most terminals


@dataclass(frozen=True, slots=True)
class TranscriptEntry:
    """One line: `seconds` since the case began, `who` ("A", "server", ...), `what` in words, escaped."""

    seconds: float
    who: str
    what: str


def quote_bytes(data: bytes) -> str:
    """Bytes in quotes, escaped, with their number; cut where they are many."""
    if not data:
        return "nothing"
    text = f'"{escape(data[:MAX_QUOTED_BYTES])}"'
    if len(data) > MAX_QUOTED_BYTES:
        text += "..."
    return f"{text} ({len(data):,} byte{'s' * (len(data) != 1)})"


class Transcript:
    """What happened, entry by entry. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_at: float | None = (
            None  # the first entry is at 0: how long it took to start is no part of it
        )
        self._head: list[TranscriptEntry] = []
        self._tail: deque[TranscriptEntry] = deque(maxlen=TAIL_ENTRIES)
        self._count = 0

    def add(self, who: str, what: str) -> None:
        """Write down one thing. `what` must be escaped already where it quotes a peer."""
        now = self._clock()
        if self._started_at is None:
            self._started_at = now
        entry = TranscriptEntry(round(now - self._started_at, 4), who, what)
        self._count += 1
        if len(self._head) < HEAD_ENTRIES:
            self._head.append(entry)
        else:
            self._tail.append(entry)

    def entries(self) -> list[TranscriptEntry]:
        """What was kept; an entry in the middle says how many were not."""
        left_out = self._count - len(self._head) - len(self._tail)
        gap = (
            [TranscriptEntry(self._tail[0].seconds, "", f"... {left_out:,} more ...")] if left_out > 0 else []
        )
        return [*self._head, *gap, *self._tail]
