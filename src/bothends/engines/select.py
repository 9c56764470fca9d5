"""Engine `select`: one thread; each call passes sets of bits to the kernel.

select(2) identifies a descriptor by the position of its bit in an `fd_set`, which has FD_SETSIZE bits: 1,024
in the C libraries of Linux, whatever the descriptor limit of the process is. A descriptor of 1,024 or more
cannot be watched (in C, setting its bit writes past the set; Python raises ValueError). So a connection with
such a descriptor is rejected when it is accepted, with that reason; the others are not affected. As with
poll(), each call costs O(open).

It is the oldest call that waits for several descriptors (4.2BSD, 1983), and the one that textbooks teach.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from select import POLLIN, POLLOUT
from typing import Final

from bothends.engines.readiness_loop import Poller, ReadinessEngine

FD_SETSIZE: Final = 1024


class SelectPoller(Poller):
    """A Poller on select()."""

    def __init__(self) -> None:
        self._reading: set[int] = set()
        self._writing: set[int] = set()

    def watch(self, descriptor: int, interest: int, *, shared: bool = False) -> None:
        """See Poller.watch. `shared` has no effect: select() wakes every waiting process."""
        for bit, descriptors in ((POLLIN, self._reading), (POLLOUT, self._writing)):
            if interest & bit:
                descriptors.add(descriptor)
            else:
                descriptors.discard(descriptor)

    def unwatch(self, descriptor: int) -> None:
        self._reading.discard(descriptor)
        self._writing.discard(descriptor)

    def wait(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """See Poller.wait. select() reports an error as readable and writable."""
        readable, writable, _ = select.select(self._reading, self._writing, (), timeout)
        ready = dict.fromkeys(readable, POLLIN)
        for descriptor in writable:
            ready[descriptor] = ready.get(descriptor, 0) | POLLOUT
        return list(ready.items())


class SelectEngine(ReadinessEngine):
    """One thread that waits in select(): descriptors below 1,024 only, O(open descriptors) for each call."""

    name = "select"
    summary = "one thread waits in select(): descriptors below 1,024 only"
    fd_limit = FD_SETSIZE
    poller = SelectPoller
