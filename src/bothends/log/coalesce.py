"""`LineCoalescer`: an observer wrapper that joins the fragments of a line.

Some programs write a line one byte at a time (Java's `DataOutputStream.writeBytes` does), and on a fast path
each byte arrives in a read of its own. Their log would be a column of letters. So a read of a few bytes
without a newline is held until its line ends, the connection emits another event, or HOLD_SECONDS have
passed, because many clients send no newline and wait for an answer.

For text logs only: a JSON log must have each read as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bothends.events import Event, LineFormat, Observer, Received, Sent
from bothends.log.throttle import Scheduler, schedule_in_thread

# Longer than the gap between two bytes of one line, shorter than a reader notices.
HOLD_SECONDS: Final = 0.05

# Bytes: a shorter read may be a fragment of a line. A longer one is treated as a message.
MAX_FRAGMENT: Final = 3

# Bytes after which an unfinished line is passed on.
MAX_LINE: Final = 1024


@dataclass(slots=True)
class _PartialLine:
    """The fragments of a line so far, and a function that cancels the timer."""

    event: Received
    cancel: Callable[[], object]


class LineCoalescer:
    """Forward events, but merge the fragments of one line into one Received event."""

    def __init__(
        self, observe: Observer, *, hold: float = HOLD_SECONDS, schedule: Scheduler = schedule_in_thread
    ) -> None:
        self._observe = observe
        self._hold = hold
        self._schedule = schedule
        self._partial_lines: dict[int, _PartialLine] = {}
        # Connections may emit events in threads of their own, and the timer runs in another.
        self._lock = threading.Lock()

    def line_format(self, line_format: LineFormat) -> LineFormat:
        """Return a format of the wrapped log in which fragments come here."""
        return line_format._replace(max_fragment=MAX_FRAGMENT, end_fragment=self._flush)

    def __call__(self, event: Event) -> None:
        """Handle one event."""
        connection = getattr(event, "connection", 0)
        if not connection or isinstance(event, Sent):
            self._observe(event)
        elif isinstance(event, Received):
            self._add(event)
        else:
            self._flush(connection)
            self._observe(event)

    def _add(self, event: Received) -> None:
        with self._lock:
            held = self._partial_lines.get(event.connection)
            if held is not None:
                data = held.event.data + event.data
                event = Received(event.connection, event.peer, data, at=held.event.at)
            is_partial = not event.data.endswith(b"\n") and len(event.data) < MAX_LINE
            if is_partial and (held is not None or len(event.data) <= MAX_FRAGMENT):
                if held is not None:
                    held.event = event
                else:
                    number = event.connection
                    self._partial_lines[number] = _PartialLine(
                        event, self._schedule(self._hold, lambda: self._flush(number))
                    )
                return
            if held is not None:
                del self._partial_lines[event.connection]
                held.cancel()
        self._observe(event)

    def _flush(self, connection: int) -> None:
        with self._lock:
            held = self._partial_lines.pop(connection, None)
        if held is not None:
            held.cancel()
            self._observe(held.event)
