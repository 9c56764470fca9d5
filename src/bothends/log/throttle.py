"""`RepeatThrottle`: an observer wrapper that rate-limits repeated events.

A rejected client may reconnect at once, a thousand times a second. A line for each would bury the log and
fill the disk, and a peer must not be able to do that. So of events that peers can cause at will without being
served (rejected connections, unanswered datagrams, failed handshakes), the first of a kind is forwarded,
later ones are counted, and one Repeated event every PERIOD seconds has their number. After a period without
any, the next one is forwarded at once again.

Each process has its own state: after a fork the child starts with none.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, TypeAlias

from bothends.errors import PeerError
from bothends.events import (
    ConnectionRejected,
    DatagramDropped,
    Event,
    Observer,
    RateLimited,
    ServiceFailed,
    Stopped,
)

PERIOD: Final = 10.0  # seconds

# Calls a function after some seconds. Returns a function that cancels the call.
Scheduler: TypeAlias = Callable[[float, Callable[[], None]], Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Repeated(Event):
    """`count` events of a kind within `seconds`, which were not forwarded. `like` is the last of them."""

    like: Event
    count: int
    seconds: float


@dataclass(slots=True)
class _Run:
    """Events of one kind: the time of the last forwarded one, and those held back since."""

    since: float
    count: int = 0
    last: Event | None = None
    cancel: Callable[[], object] | None = None


def schedule_in_thread(seconds: float, callback: Callable[[], None]) -> Callable[[], object]:
    """Call `callback` after some seconds, in a new thread. Returns a function that cancels the call."""
    timer = threading.Timer(seconds, callback)
    timer.name = "bothends-log"
    timer.daemon = True
    timer.start()
    return timer.cancel


class RepeatThrottle:
    """Forward events, but of repeated ones only the first and then their count.

    Args:
        observe: the wrapped observer.
        now: a monotonic clock, in seconds.
        schedule: calls a function after some seconds; by default in a thread, which exists only while events
            are held back.
    """

    def __init__(
        self,
        observe: Observer,
        *,
        now: Callable[[], float] = time.monotonic,
        schedule: Scheduler = schedule_in_thread,
    ) -> None:
        self._observe = observe
        self._now = now
        self._schedule = schedule
        self._reset()

    def __call__(self, event: Event) -> None:
        """Forward, count or drop one event."""
        kind = _repeat_key(event)
        if kind is None:
            self._observe(event)
            if isinstance(event, Stopped):
                self._flush_all()
            return
        if self._process != os.getpid():
            self._reset()  # after a fork: the timer threads exist in the parent only
        with self._lock:
            run, now = self._runs.get(kind), self._now()
            first = run is None or (not run.count and now - run.since >= PERIOD)
            if run is None or first:
                self._runs[kind] = _Run(now)
            else:
                run.count += 1
                run.last = event
                if run.cancel is None:
                    due = functools.partial(self._flush, kind)
                    run.cancel = self._schedule(max(0.0, run.since + PERIOD - now), due)
        if first:
            self._observe(event)

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._runs: dict[Hashable, _Run] = {}

    def _flush(self, kind: Hashable) -> None:
        """Emit how many events of a kind were held back."""
        with self._lock:
            run = self._runs[kind]
            cancel, last, count, since = run.cancel, run.last, run.count, run.since
            self._runs[kind] = _Run(self._now())
            seconds = self._now() - since
        if cancel is not None:
            cancel()
        if last is not None:
            self._observe(Repeated(last, count, seconds))

    def _flush_all(self) -> None:
        for kind in list(self._runs):
            self._flush(kind)


def _repeat_key(event: Event) -> Hashable | None:
    """Return the kind by which repeated events are counted, or None if each is forwarded."""
    if isinstance(event, ConnectionRejected | DatagramDropped):
        return type(event), event.why
    if isinstance(event, RateLimited):
        return type(event), None
    if isinstance(event, ServiceFailed) and isinstance(event.error, PeerError):
        return type(event), type(event.error)
    return None
