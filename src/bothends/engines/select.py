"""Engine `select`: one thread; three sets of bits go to the kernel every time.

select(2) knows a descriptor by the position of its bit in an `fd_set`, which has room for
FD_SETSIZE of them: 1,024 on Linux, in the C library, whatever the process's descriptor limit is.
A descriptor of 1,024 or more can't be waited for (in C, setting its bit writes past the set; in
Python it raises ValueError). So a connection that gets such a descriptor is refused on accepting,
with that reason; those below go on. As with poll(), a turn costs what is open.

It is the oldest way to wait for any of many (4.2BSD, 1983), and the one that books teach.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from select import POLLIN, POLLOUT
from typing import Final

from bothends.engines.poll_loop import Poller, ReadinessEngine

FD_SETSIZE: Final = 1024


class SelectPoller(Poller):
    """select()."""

    def __init__(self) -> None:
        self._reading: set[int] = set()
        self._writing: set[int] = set()

    def watch(self, descriptor: int, interest: int, *, shared: bool = False) -> None:
        """See Poller.watch. Sharing makes no difference: select() wakes every waiting process."""
        for bit, descriptors in ((POLLIN, self._reading), (POLLOUT, self._writing)):
            if interest & bit:
                descriptors.add(descriptor)
            else:
                descriptors.discard(descriptor)

    def unwatch(self, descriptor: int) -> None:
        """See Poller.forget."""
        self._reading.discard(descriptor)
        self._writing.discard(descriptor)

    def wait(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """See Poller.wait. select() reports an error as readable and writable."""
        readable, writable, _ = select.select(self._reading, self._writing, (), timeout)
        ready = dict.fromkeys(readable, POLLIN)
        for descriptor in writable:
            ready[descriptor] = ready.get(descriptor, 0) | POLLOUT
        return list(ready.items())

    def close(self) -> None:
        """See Poller.close. The kernel keeps nothing between calls."""


class SelectEngine(ReadinessEngine):
    """Waits in select() for any of many: descriptors below 1,024 only, time by what is open."""

    name = "select"
    summary = "one thread waits in select(): descriptors below 1,024 only"
    fd_limit = FD_SETSIZE

    def make_poller(self) -> Poller:
        """See ReadinessEngine.poller."""
        return SelectPoller()
