"""Engine `poll`: one thread; the whole list of what is waited for goes to the kernel every time.

poll(2) takes an array with an entry for each descriptor, of any number, and gives the same array
back. So there is no limit like select's, but a turn costs what is open: with 10,000 idle
connections each wake-up copies and looks through 10,000 entries to find the one that is ready.
POSIX has it everywhere, which epoll is not.
"""

from __future__ import annotations

import select
from collections.abc import Sequence

from bothends.engines.poll_loop import Poller, ReadinessEngine


class PollPoller(Poller):
    """poll()."""

    def __init__(self) -> None:
        self._poll = select.poll()

    def watch(self, descriptor: int, interest: int, *, shared: bool = False) -> None:
        """See Poller.watch. Sharing makes no difference: poll() wakes every waiting process."""
        self._poll.register(descriptor, interest)

    def unwatch(self, descriptor: int) -> None:
        """See Poller.forget."""
        self._poll.unregister(descriptor)

    def wait(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """See Poller.wait."""
        # poll() counts in milliseconds: round up, or the last fraction of a wait is spent spinning.
        return self._poll.poll(None if timeout is None else -(-timeout * 1000 // 1))

    def close(self) -> None:
        """See Poller.close. The kernel keeps nothing between calls."""


class PollEngine(ReadinessEngine):
    """Waits in poll() for any of many: time by what is open."""

    name = "poll"
    summary = "one thread waits in poll(): any descriptor, but a turn costs what is open"

    def make_poller(self) -> Poller:
        """See ReadinessEngine.poller."""
        return PollPoller()
