"""`LineCoalescer`: an observer around another, which puts back together what came byte by byte.

Some programs write a line one byte at a time (Java's `DataOutputStream.writeBytes` does), and on a fast
path each byte is read for itself. Their log would be a column of letters. So a read of a few bytes without
a line's end is held back until its line ends, the connection does something else, or HOLD seconds have
passed: many clients never send a newline, and wait for their answer.

For a log that people read only: what records for programs must tell is what each read gave.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bothends.events import Event, Observer, Received, Sent
from bothends.log.throttle import Scheduler, schedule_in_thread

# Longer than a machine takes between two bytes of one line, shorter than a reader notices.
HOLD_SECONDS: Final = 0.05

# A read of so few bytes may be a part of something. A longer one is a message, or stands for one.
MAX_FRAGMENT: Final = 3

# A line that is still going on after so many bytes is shown as far as it is.
MAX_LINE: Final = 1024


@dataclass(slots=True)
class _PartialLine:
    """What has come of a line, and what calls off showing it."""

    event: Received
    cancel: Callable[[], object]


class LineCoalescer:
    """Passes events on, but reads that are pieces of one line as one."""

    def __init__(
        self, observe: Observer, *, hold: float = HOLD_SECONDS, schedule: Scheduler = schedule_in_thread
    ) -> None:
        self._observe = observe
        self._hold = hold
        self._schedule = schedule
        self._partial_lines: dict[int, _PartialLine] = {}
        # Connections may tell of themselves in threads of their own, and time does.
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Take one event."""
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
            goes_on = not event.data.endswith(b"\n") and len(event.data) < MAX_LINE
            if goes_on and (held is not None or len(event.data) <= MAX_FRAGMENT):
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
