"""`Calm`: an observer around another, through which no flood gets.

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
from bothends.events import Dropped, Event, Failed, Observer, Refused, Slowed, Stopped

PERIOD: Final = 10.0

# After so many seconds, call this; what it gives back calls it off.
Later: TypeAlias = Callable[[float, Callable[[], None]], Callable[[], object]]


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
    call_off: Callable[[], object] | None = None


def in_a_thread(seconds: float, call: Callable[[], None]) -> Callable[[], object]:
    """Call it after so many seconds, in a thread of its own; gives what calls it off."""
    timer = threading.Timer(seconds, call)
    timer.name = "bothends-log"
    timer.daemon = True
    timer.start()
    return timer.cancel


class Calm:
    """Passes events on, but of those that repeat themselves only the first and their number.

    Args:
        observe: who is told.
        now: a clock in seconds that never goes back.
        later: how to be called after some seconds; by default by a thread, which is only there while
            something is kept back.
    """

    def __init__(
        self, observe: Observer, *, now: Callable[[], float] = time.monotonic, later: Later = in_a_thread
    ) -> None:
        self._observe = observe
        self._now = now
        self._later = later
        self._begin()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        kind = _kind(event)
        if kind is None:
            self._observe(event)
            if isinstance(event, Stopped):
                self._tell_all()
            return
        if self._process != os.getpid():
            self._begin()  # the threads that would have told are the parent's
        with self._lock:
            run, now = self._runs.get(kind), self._now()
            first = run is None or (not run.count and now - run.since >= PERIOD)
            if run is None or first:
                self._runs[kind] = _Run(now)
            else:
                run.count += 1
                run.last = event
                if run.call_off is None:
                    due = functools.partial(self._tell, kind)
                    run.call_off = self._later(max(0.0, run.since + PERIOD - now), due)
        if first:
            self._observe(event)

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._runs: dict[Hashable, _Run] = {}

    def _tell(self, kind: Hashable) -> None:
        """Say how many were kept back."""
        with self._lock:
            run = self._runs[kind]
            call_off, last, count, since = run.call_off, run.last, run.count, run.since
            self._runs[kind] = _Run(self._now())
            seconds = self._now() - since
        if call_off is not None:
            call_off()
        if last is not None:
            self._observe(Repeated(last, count, seconds))

    def _tell_all(self) -> None:
        for kind in list(self._runs):
            self._tell(kind)


def _kind(event: Event) -> Hashable | None:
    """What it is a repetition of, or None where each is told."""
    if isinstance(event, Refused | Dropped):
        return type(event), event.why
    if isinstance(event, Slowed):
        return type(event), None
    if isinstance(event, Failed) and isinstance(event.error, PeerError):
        return type(event), type(event.error)
    return None
