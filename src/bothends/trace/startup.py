"""How long servers that do not listen yet have done nothing, without what a busy machine adds to that.

The kernel counts how long each thread was runnable, but waited for a processor (proc(5), schedstat). This
time says nothing about a server, so it does not count. A server that sleeps, or that computes on an idle
machine, is not waited for any longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from bothends.osutil.process_info import scheduling_times

_MAX_FACTOR: Final = 6.0  # how much longer than its limit a wait may take on a busy machine


def _waited_for_processor(pid: int) -> float:
    return scheduling_times(pid)[1]


class StartupWait:
    """The wait for servers to listen.

    `limit`: seconds without an event after which it is over; `waited_for_processor`: returns how many seconds
    a process has waited for a processor.
    """

    def __init__(
        self, limit: float, now: float, waited_for_processor: Callable[[int], float] = _waited_for_processor
    ) -> None:
        self.limit = limit
        self.delay = 0.0
        """Seconds that the servers have waited for a processor so far: by so much everything is later."""
        self._waited_for_processor = waited_for_processor
        self._waited: dict[int, float] = {}  # pid -> seconds, at the last look
        self.looked_at = now
        """When `look` was last called, in seconds."""
        self._last_event = now
        self._delay_before = 0.0  # `delay` at the last event

    def look(self, now: float, last_event: float, pids: Iterable[int]) -> None:
        """Look how long the processes have waited for a processor since the last look.

        Args:
            now: the time, in seconds.
            last_event: when a server last made a call that is traced, in seconds.
            pids: those of the servers that do not listen yet, and of what traces them.
        """
        if last_event != self._last_event:
            self._last_event, self._delay_before = last_event, self.delay
        waited = {pid: self._waited_for_processor(pid) for pid in pids}
        new = sum(max(0.0, waited[pid] - self._waited.get(pid, 0.0)) for pid in waited)
        # Threads wait at the same time, so the sum may exceed the time that has passed since the event.
        self.delay = min(self.delay + new, self._delay_before + max(0.0, now - last_event))
        self._waited, self.looked_at = waited, now

    def is_over(self, now: float) -> bool:
        """Whether the servers have done nothing for the limit, or for far longer on a busy machine."""
        quiet = now - self._last_event
        return quiet - (self.delay - self._delay_before) > self.limit or quiet > self.limit * _MAX_FACTOR
