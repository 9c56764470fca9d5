"""Engine `poll`: one thread; each call passes all watched descriptors to the kernel.

poll(2) takes and returns an array with one entry for each descriptor. So there is no limit like that of
select, but each call costs O(open): with 10,000 idle connections every wakeup copies and scans 10,000 entries
to find the one that is ready. Unlike epoll, it is in POSIX.
"""

from __future__ import annotations

import select
from collections.abc import Sequence

from bothends.engines.readiness_loop import Poller, ReadinessEngine


class PollPoller(Poller):
    """A Poller on poll()."""

    def __init__(self) -> None:
        self._poll = select.poll()

    def watch(self, descriptor: int, interest: int, *, shared: bool = False) -> None:
        """See Poller.watch. `shared` has no effect: poll() wakes every waiting process."""
        self._poll.register(descriptor, interest)

    def unwatch(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)

    def wait(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        # poll() takes milliseconds. Round up, because rounding down would spin for the last fraction of one.
        return self._poll.poll(None if timeout is None else -(-timeout * 1000 // 1))


class PollEngine(ReadinessEngine):
    """One thread that waits in poll(): O(open descriptors) for each call."""

    name = "poll"
    summary = "one thread waits in poll(), which checks every open descriptor in each call"
    poller = PollPoller
