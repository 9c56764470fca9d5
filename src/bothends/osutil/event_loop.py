"""The loop of the proxy: one thread, one epoll set, timers to the microsecond.

Its own, and none of the engines': their flaws must not be mixed with what toxics add.

Two facts shape it. epoll_wait(2) counts its time limit in whole milliseconds, rounded up by Python, which
would make every delay half a millisecond too long on average; select(2) counts microseconds, and an epoll
descriptor can itself be waited for (epoll(7)). So a wait that a timer bounds is a select() on the one epoll
descriptor: one more system call for each sleep, none while there is work. It must be below 1,024
(FD_SETSIZE), as it is, being opened before any connection; otherwise milliseconds have to do.
"""

from __future__ import annotations

import heapq
import math
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT

_FD_SETSIZE: Final = 1024
_MAX_EVENTS: Final = 256  # events a turn: timers are looked at in between


class Wakeable(Protocol):
    """What can be woken. `wake_at` is the loop's: the moment for which it is entered, infinity for none."""

    wake_at: float

    def on_timer(self, now: float) -> None:
        """The moment has come."""


class ProxyLoop:
    """Waits for descriptors and for moments, and calls who asked."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._epoll = select.epoll()
        self._is_precise = self._epoll.fileno() < _FD_SETSIZE
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._timers: list[tuple[float, int, Wakeable]] = []
        self._sequence = 0
        self._posted: deque[Callable[[], object]] = deque()
        self._wakeup_r, self._wakeup_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._running = False
        self.watch(self._wakeup_r, IN, self._on_wakeup)

    # Descriptors ----------------------------------------------------------------------------------

    def watch(self, descriptor: int, interest: int, handler: Callable[[int], object]) -> None:
        """Call `handler` with what is ready, as long as it is (level-triggered)."""
        self._epoll.register(descriptor, interest)
        self._handlers[descriptor] = handler

    def change(self, descriptor: int, interest: int) -> None:
        """Wait for something else on a descriptor that is watched."""
        self._epoll.modify(descriptor, interest)

    def unwatch(self, descriptor: int) -> None:
        """Wait for it no more; before it is closed."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    # Time -----------------------------------------------------------------------------------------

    def schedule_wakeup(self, target: Wakeable, when: float) -> None:
        """Call its `on_timer` at `when`, unless it is to be called earlier."""
        if when < target.wake_at:
            target.wake_at = when
            self._sequence += 1
            heapq.heappush(self._timers, (when, self._sequence, target))

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call something once, after so many seconds."""
        timer = Timer(call)
        self.schedule_wakeup(timer, self.now + seconds)
        return timer

    def update_time(self) -> float:
        """What time it is: exactly, where `now` is that of the turn's beginning."""
        self.now = time.monotonic()
        return self.now

    # Other threads and signals --------------------------------------------------------------------

    def post(self, call: Callable[[], object]) -> None:
        """Have the loop call something in its next turn; from any thread, and from signal handlers."""
        self._posted.append(call)
        try:
            os.write(self._wakeup_w, b".")
        except BlockingIOError:  # it rings already
            pass
        except OSError:  # the loop has closed: nobody is left to call it
            pass

    # Running --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Turn until `stop`."""
        self._running = True
        while self._running:
            self.run_once()

    def stop(self) -> None:
        """Leave `run` after this turn; from the loop's own thread."""
        self._running = False

    def run_once(self, timeout: float = math.inf) -> None:
        """Wait until something is ready or due, `longest` seconds at most, and do it."""
        patience = min(timeout, self._timeout())
        if patience <= 0:
            events = self._epoll.poll(0, _MAX_EVENTS)
        elif patience == math.inf:
            events = self._epoll.poll(-1, _MAX_EVENTS)
        elif self._is_precise:
            ready, _, _ = select.select([self._epoll], [], [], patience)
            events = self._epoll.poll(0, _MAX_EVENTS) if ready else []
        else:
            events = self._epoll.poll(patience, _MAX_EVENTS)
        self.now = time.monotonic()
        self._run_due_timers()
        for descriptor, ready_for in events:
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler(ready_for)

    def close(self) -> None:
        """Give everything back."""
        self._epoll.close()
        os.close(self._wakeup_r)
        os.close(self._wakeup_w)
        self._handlers.clear()
        self._timers.clear()

    def _timeout(self) -> float:
        if self._posted:
            return 0.0
        timers = self._timers
        while timers and timers[0][0] != timers[0][2].wake_at:
            heapq.heappop(timers)  # put off, or called off
        return timers[0][0] - time.monotonic() if timers else math.inf

    def _run_due_timers(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            when, _, timed = heapq.heappop(timers)
            if when == timed.wake_at:
                timed.wake_at = math.inf
                timed.on_timer(self.now)

    def _on_wakeup(self, _ready: int) -> None:
        try:
            os.read(self._wakeup_r, 4096)
        except BlockingIOError:
            pass
        for _ in range(len(self._posted)):
            self._posted.popleft()()


class Timer:
    """A call that is to be made once, and can be called off."""

    __slots__ = ("_callback", "wake_at")

    def __init__(self, call: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = call
        self.wake_at = math.inf

    def on_timer(self, now: float) -> None:
        """See Timed."""
        call, self._callback = self._callback, None
        if call is not None:
            call()

    def cancel(self) -> None:
        """Don't make the call."""
        self._callback = None
        self.wake_at = math.inf
