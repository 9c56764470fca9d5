"""`RepeatThrottle`: an observer around another, through which no flood gets.

Whoever is turned away can come again at once, a thousand times a second, and a line for each would bury the
log and fill the disk: a peer must not be able to do that. So of what peers can cause at will without
being served (refusals, unanswered datagrams, failed handshakes) the first of a kind is told at once, those
that follow are counted, and every PERIOD seconds one event says how many there were. When a period has
passed without any, it is over, and the next one is told at once again.

Each process has its own: after a fork the child begins anew.
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

PERIOD: Final = 10.0

# After so many seconds, call this; what it gives back calls it off.
Scheduler: TypeAlias = Callable[[float, Callable[[], None]], Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Repeated(Event):
    """So many more events like the one that was told: `like` is the last of them. Made here only."""

    like: Event
    count: int
    seconds: float


@dataclass(slots=True)
class _Run:
    """Events of one kind: when something was last told of them, and what has been kept back since."""

    since: float
    count: int = 0
    last: Event | None = None
    cancel: Callable[[], object] | None = None


def schedule_in_thread(seconds: float, callback: Callable[[], None]) -> Callable[[], object]:
    """Call it after so many seconds, in a thread of its own; gives what calls it off."""
    timer = threading.Timer(seconds, callback)
    timer.name = "bothends-log"
    timer.daemon = True
    timer.start()
    return timer.cancel


class RepeatThrottle:
    """Passes events on, but of those that repeat themselves only the first and their number.

    Args:
        observe: who is told.
        now: a clock in seconds that never goes back.
        later: how to be called after some seconds; by default by a thread, which is only there while
            something is kept back.
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
        """Take one event."""
        kind = _repeat_key(event)
        if kind is None:
            self._observe(event)
            if isinstance(event, Stopped):
                self._flush_all()
            return
        if self._process != os.getpid():
            self._reset()  # the threads that would have told are the parent's
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
        """Say how many were kept back."""
        with self._lock:
            run = self._runs[kind]
            call_off, last, count, since = run.cancel, run.last, run.count, run.since
            self._runs[kind] = _Run(self._now())
            seconds = self._now() - since
        if call_off is not None:
            call_off()
        if last is not None:
            self._observe(Repeated(last, count, seconds))

    def _flush_all(self) -> None:
        for kind in list(self._runs):
            self._flush(kind)


def _repeat_key(event: Event) -> Hashable | None:
    """What it is a repetition of, or None where each is told."""
    if isinstance(event, ConnectionRejected | DatagramDropped):
        return type(event), event.why
    if isinstance(event, RateLimited):
        return type(event), None
    if isinstance(event, ServiceFailed) and isinstance(event.error, PeerError):
        return type(event), type(event.error)
    return None
