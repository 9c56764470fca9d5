"""The transcript of a case: what each side sent, received and did, and when. Bounded, and safe to print.

It retains the first entries and the last, because the beginning shows the intended exchange and the end shows
the failure, and only the first bytes of each message. Bytes from a peer are escaped when they are recorded.
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
MAX_QUOTED_BYTES: Final = 72  # of a message: enough to recognise it, and one line on most terminals


@dataclass(frozen=True, slots=True)
class TranscriptEntry:
    """One line: `seconds` since the first entry, `actor` ("client", "server", ...), `event`, escaped."""

    seconds: float
    actor: str
    event: str


def quote_bytes(data: bytes) -> str:
    """Return bytes as a quoted and escaped string with their number; long ones are truncated."""
    if not data:
        return "nothing"
    text = f'"{escape(data[:MAX_QUOTED_BYTES])}"'
    if len(data) > MAX_QUOTED_BYTES:
        text += "..."
    return f"{text} ({len(data):,} byte{'s' * (len(data) != 1)})"


class Transcript:
    """The entries of one case. `clock` returns seconds.

    `observer` is called with the actor and the event of each entry, also of those that are not retained.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The first entry is at 0, because the time to start the program is not part of the exchange.
        self._started_at: float | None = None
        self._head: list[TranscriptEntry] = []
        self._tail: deque[TranscriptEntry] = deque(maxlen=TAIL_ENTRIES)
        self._count = 0
        self.observer: Callable[[str, str], None] | None = None

    def add(self, actor: str, event: str) -> None:
        """Record an entry. Quotations of a peer in `event` must be escaped already."""
        now = self._clock()
        if self._started_at is None:
            self._started_at = now
        entry = TranscriptEntry(round(now - self._started_at, 4), actor, event)
        self._count += 1
        if len(self._head) < HEAD_ENTRIES:
            self._head.append(entry)
        else:
            self._tail.append(entry)
        if self.observer is not None:
            self.observer(actor, event)

    def entries(self) -> list[TranscriptEntry]:
        """Return the retained entries; one in the middle gives the number of omitted entries."""
        omitted = self._count - len(self._head) - len(self._tail)
        gap = [TranscriptEntry(self._tail[0].seconds, "", f"... {omitted:,} more ...")] if omitted > 0 else []
        return [*self._head, *gap, *self._tail]
