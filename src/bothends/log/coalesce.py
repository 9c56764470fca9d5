"""`Pieces`: an observer around another, which puts back together what came byte by byte.

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
from bothends.log.throttle import Later, in_a_thread

# Longer than a machine takes between two bytes of one line, shorter than a reader notices.
HOLD: Final = 0.05

# A read of so few bytes may be a part of something. A longer one is a message, or stands for one.
FEW: Final = 3

# A line that is still going on after so many bytes is shown as far as it is.
MOST: Final = 1024


@dataclass(slots=True)
class _Held:
    """What has come of a line, and what calls off showing it."""

    event: Received
    call_off: Callable[[], object]


class Pieces:
    """Passes events on, but reads that are pieces of one line as one."""

    def __init__(self, observe: Observer, *, hold: float = HOLD, later: Later = in_a_thread) -> None:
        self._observe = observe
        self._hold = hold
        self._later = later
        self._held: dict[int, _Held] = {}
        # Connections may tell of themselves in threads of their own, and time does.
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        connection = getattr(event, "connection", 0)
        if not connection or isinstance(event, Sent):
            self._observe(event)
        elif isinstance(event, Received):
            self._take(event)
        else:
            self._show(connection)
            self._observe(event)

    def _take(self, event: Received) -> None:
        with self._lock:
            held = self._held.get(event.connection)
            if held is not None:
                data = held.event.data + event.data
                event = Received(event.connection, event.peer, data, at=held.event.at)
            goes_on = not event.data.endswith(b"\n") and len(event.data) < MOST
            if goes_on and (held is not None or len(event.data) <= FEW):
                if held is not None:
                    held.event = event
                else:
                    number = event.connection
                    self._held[number] = _Held(event, self._later(self._hold, lambda: self._show(number)))
                return
            if held is not None:
                del self._held[event.connection]
                held.call_off()
        self._observe(event)

    def _show(self, connection: int) -> None:
        with self._lock:
            held = self._held.pop(connection, None)
        if held is not None:
            held.call_off()
            self._observe(held.event)
