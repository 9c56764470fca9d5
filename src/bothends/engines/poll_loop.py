"""A poll() loop with callbacks, and with the two stages of a shutdown.

For threads that wait for a few descriptors: the accept loop of the blocking engines, the parent of worker
processes, and the supervisor of `--workers`. The engines that wait for all their connections at once use
`readiness_loop.py`.
"""

from __future__ import annotations

import collections
import select
import time
from collections.abc import Callable
from typing import Final

from bothends.engines.shutdown import ShutdownFlags
from bothends.osutil.wakeup import WakeupPipe

# Seconds between calls of the callbacks that have no descriptor to wait for.
POLL_INTERVAL: Final = 0.1


class PollLoop:
    """Calls a callback for each descriptor that becomes readable.

    Attributes:
        draining_since, aborting_since: when the loop noticed that the flag was set (time.monotonic), or None.
        without_fd: callbacks that have no descriptor to wait for; called after each wait, at least every
            POLL_INTERVAL seconds.
    """

    def __init__(self, stop: ShutdownFlags) -> None:
        self.draining_since: float | None = None
        self.aborting_since: float | None = None
        self.without_fd: set[Callable[[], object]] = set()
        self._poller = select.poll()
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._stop = stop
        self.add(stop.draining.fileno(), self._on_draining)
        self.add(stop.aborting.fileno(), self._on_aborting)

    def add(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Call `callback` whenever the descriptor is readable or at EOF."""
        self._poller.register(descriptor, select.POLLIN)
        self._callbacks[descriptor] = callback

    def remove(self, descriptor: int) -> None:
        """Stop watching a descriptor. Call before closing it."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)

    def run_once(self, timeout: float | None) -> None:
        """Wait once, for at most `timeout` seconds (None: no limit), and run the callbacks that are due."""
        if self.without_fd:
            timeout = POLL_INTERVAL if timeout is None else min(timeout, POLL_INTERVAL)
        for descriptor, _ in self._poller.poll(None if timeout is None else max(0.0, timeout) * 1000):
            # An earlier callback of this iteration may have removed it.
            if (callback := self._callbacks.get(descriptor)) is not None:
                callback()
        for callback in list(self.without_fd):
            callback()

    def abort_time(self, drain: float) -> float | None:
        """Return when all that still runs is aborted, with this drain timeout; None if it is not draining."""
        if self.aborting_since is not None:
            return self.aborting_since
        return None if self.draining_since is None else self.draining_since + drain

    def run_until(self, condition: Callable[[], bool], *, drain: float, grace: float) -> bool:
        """Run until `condition()` is true. Returns False if it isn't `grace` seconds after `abort_time`."""
        while not condition():
            abort_at = self.abort_time(drain)
            timeout = None if abort_at is None else abort_at + grace - time.monotonic()
            if timeout is not None and timeout <= 0:
                return False
            self.run_once(timeout)
        return True

    def _on_draining(self) -> None:
        self.remove(
            self._stop.draining.fileno()
        )  # the flag stays set, so it would be ready in every iteration
        self.draining_since = time.monotonic()

    def _on_aborting(self) -> None:
        self.remove(self._stop.aborting.fileno())
        self.aborting_since = time.monotonic()


class ThreadCallbacks:
    """Callbacks that other threads pass to the thread of a PollLoop."""

    def __init__(self, poll_loop: PollLoop) -> None:
        self._poll_loop = poll_loop
        self._wakeup = WakeupPipe()
        self._callbacks: collections.deque[Callable[[], object]] = collections.deque()
        poll_loop.add(self._wakeup.fileno(), self._run)

    def post(self, callback: Callable[[], object]) -> None:
        """Call `callback` in the loop's thread. Safe from any thread; has no effect after `close`."""
        self._callbacks.append(callback)
        self._wakeup.wake()

    def close(self) -> None:
        """Close the pipe that wakes the loop."""
        self._poll_loop.remove(self._wakeup.fileno())
        self._wakeup.close()

    def _run(self) -> None:
        self._wakeup.drain()
        while self._callbacks:
            self._callbacks.popleft()()
