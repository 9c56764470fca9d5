"""Engine `spin`: one thread; looks for events without blocking before it waits in poll()."""

import select
import time
from collections.abc import Sequence

from bothends.engines.readiness_loop import Poller, ReadinessEngine

# Seconds: about the time in which an idle CPU wakes up, which is what spinning saves.
SPIN = 50e-6


class SpinPoller(Poller):
    """A Poller on poll(), which is called without a timeout for SPIN seconds first."""

    def __init__(self) -> None:
        self._poll = select.poll()

    def watch(self, descriptor: int, interest: int, *, shared: bool = False) -> None:
        self._poll.register(descriptor, interest)

    def unwatch(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)

    def wait(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        until = time.monotonic() + min(SPIN, timeout or SPIN)
        while not (ready := self._poll.poll(0)) and time.monotonic() < until:
            pass
        return ready or self._poll.poll(None if timeout is None else -(-timeout * 1000 // 1))


class SpinEngine(ReadinessEngine):
    """One thread that spins, then waits in poll()."""

    name = "spin"
    summary = "one thread spins for 50 us, then waits in poll()"
    poller = SpinPoller
