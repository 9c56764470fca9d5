"""A small event loop: one thread, one epoll set, timers to the microsecond.

Impair, wire and trace use it. The engines have loops of their own, so that an engine's flaws don't mix with
the delays that toxics add.

1. epoll_wait(2) takes its timeout in whole milliseconds, which Python rounds up: every delay would be half a
   millisecond too long on average. select(2) takes microseconds, and an epoll descriptor can itself be waited
   for (epoll(7)). So a wait that ends at a timer is a select() on the epoll descriptor: one more system call
   for each wait, and none while there is work.
2. select() takes descriptors below 1,024 only (FD_SETSIZE). The epoll descriptor is opened before any
   connection and is therefore below; where it is not, timers are precise to a millisecond.
3. Readiness is level-triggered: a handler is called as long as its descriptor is ready.
"""

from __future__ import annotations

import heapq
import math
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from bothends.osutil.wakeup import WakeupPipe

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT

_FD_SETSIZE: Final = 1024
_MAX_WAIT: Final = 3600.0  # seconds: select() and epoll_wait() take no timeout above some days
_MAX_EVENTS: Final = 256  # events an iteration: expired timers run in between


class Wakeable(Protocol):
    """An object with a timer. The loop sets `wake_at`: monotonic seconds, or infinity if no timer is set."""

    wake_at: float

    def on_timer(self, now: float) -> None:
        """Called once the timer has expired. `now` is in monotonic seconds."""


class EventLoop:
    """Wait for ready descriptors and expired timers, and call their handlers."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._epoll = select.epoll()
        self._is_precise = self._epoll.fileno() < _FD_SETSIZE
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._timers: list[tuple[float, int, Wakeable]] = []
        self._sequence = 0
        self._posted: deque[Callable[[], object]] = deque()
        self._wakeup = WakeupPipe()
        self._running = False
        self.watch(self._wakeup.fileno(), IN, self._on_wakeup)

    # Descriptors ----------------------------------------------------------------------------------

    def watch(self, descriptor: int, interest: int, handler: Callable[[int], object]) -> None:
        """Call `handler` with the ready events (IN, OUT, EPOLLHUP, EPOLLERR) as long as there are any."""
        self._epoll.register(descriptor, interest)
        self._handlers[descriptor] = handler

    def change(self, descriptor: int, interest: int) -> None:
        """Change the events that a watched descriptor is waited for."""
        self._epoll.modify(descriptor, interest)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor, if it is watched. Call this before closing it."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    # Time -----------------------------------------------------------------------------------------

    def schedule_wakeup(self, target: Wakeable, when: float) -> None:
        """Call `target.on_timer` at `when` (monotonic seconds), unless its timer expires earlier."""
        if when < target.wake_at:
            target.wake_at = when
            self._sequence += 1
            heapq.heappush(self._timers, (when, self._sequence, target))

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call `call` once, `seconds` from now. `Timer.cancel` prevents it."""
        return self.call_at(self.now + seconds, call)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Call `call` once, at `when` (monotonic seconds). `Timer.cancel` prevents it."""
        timer = Timer(call)
        self.schedule_wakeup(timer, when)
        return timer

    def update_time(self) -> float:
        """Set `now` to the current time and return it; otherwise `now` is when this iteration began."""
        self.now = time.monotonic()
        return self.now

    # Other threads and signals --------------------------------------------------------------------

    def post(self, call: Callable[[], object]) -> None:
        """Call `call` in the next iteration. Safe from any thread and in signal handlers."""
        self._posted.append(call)
        self._wakeup.wake()

    @property
    def wakeup_fd(self) -> int:
        """A descriptor for signal.set_wakeup_fd(): each signal then ends the wait of `run_once`."""
        return self._wakeup.writer

    # Running --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run iterations until `stop` is called."""
        self._running = True
        while self._running:
            self.run_once()

    def stop(self) -> None:
        """Make `run` return after this iteration. Call it in the loop's own thread; elsewhere `post` it."""
        self._running = False

    def run_once(self, timeout: float = math.inf) -> None:
        """Wait for a ready descriptor or a timer, `timeout` seconds at most, and call the handlers."""
        wait = min(timeout, self._timeout())
        if _MAX_WAIT < wait < math.inf:
            wait = _MAX_WAIT
        if wait <= 0:
            events = self._epoll.poll(0, _MAX_EVENTS)
        elif wait == math.inf:
            events = self._epoll.poll(-1, _MAX_EVENTS)
        elif self._is_precise:
            ready, _, _ = select.select([self._epoll], [], [], wait)
            events = self._epoll.poll(0, _MAX_EVENTS) if ready else []
        else:
            events = self._epoll.poll(wait, _MAX_EVENTS)
        self.now = time.monotonic()
        self._run_due_timers()
        for descriptor, ready_for in events:
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler(ready_for)

    def close(self) -> None:
        """Close the loop's descriptors. Watched descriptors stay open."""
        self._epoll.close()
        self._wakeup.close()
        self._handlers.clear()
        self._timers.clear()

    def _timeout(self) -> float:
        if self._posted:
            return 0.0
        timers = self._timers
        while timers and timers[0][0] != timers[0][2].wake_at:
            heapq.heappop(timers)  # superseded by an earlier time, or cancelled
        return timers[0][0] - time.monotonic() if timers else math.inf

    def _run_due_timers(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            when, _, timed = heapq.heappop(timers)
            if when == timed.wake_at:
                timed.wake_at = math.inf
                timed.on_timer(self.now)

    def _on_wakeup(self, _ready: int) -> None:
        self._wakeup.drain()
        for _ in range(len(self._posted)):
            self._posted.popleft()()


class Timer:
    """A callback that is called once, unless it is cancelled."""

    __slots__ = ("_callback", "wake_at")

    def __init__(self, call: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = call
        self.wake_at = math.inf

    def on_timer(self, now: float) -> None:
        """See Wakeable."""
        call, self._callback = self._callback, None
        if call is not None:
            call()

    def cancel(self) -> None:
        """Prevent the call."""
        self._callback = None
        self.wake_at = math.inf
