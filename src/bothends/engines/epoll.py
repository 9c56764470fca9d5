"""Engine `epoll`: one thread; the kernel keeps the set of watched descriptors.

What the kernel does (epoll(7)), and what follows:

1. epoll_ctl() registers a descriptor once, and epoll_wait() returns only descriptors that are ready. So a
   call costs O(ready), not O(open): 10,000 idle connections add nothing to the cost of an active one.
2. Changing the events of a descriptor takes another system call. So a connection asks for EPOLLOUT only while
   it has unsent data: if the peer reads, a whole conversation takes one epoll_ctl().
3. An epoll set refers to open file descriptions, not to descriptors: after a descriptor is closed it is still
   reported as long as a copy exists elsewhere (after fork()). So each descriptor is removed before it is
   closed.
4. A new connection wakes every process that waits for its listener, unless the listener was added with
   EPOLLEXCLUSIVE. EPOLL_CTL_MOD rejects that flag, so a listener is added and removed, never modified.

The event loop, shared with `select` and `poll`, is in `readiness_loop.py`, and the connection in
`nonblocking.py`.
"""

from __future__ import annotations

import select
from collections.abc import Sequence

from bothends.engines.readiness_loop import Poller, ReadinessEngine


class EpollPoller(Poller):
    """A Poller on epoll, level-triggered."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: set[int] = set()

    def watch(self, descriptor: int, interest: int, *, shared: bool = False) -> None:
        if descriptor in self._watched:
            self._epoll.modify(descriptor, interest)
        else:
            self._epoll.register(descriptor, interest | (select.EPOLLEXCLUSIVE if shared else 0))
            self._watched.add(descriptor)

    def unwatch(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._watched.discard(descriptor)

    def wait(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        return self._epoll.poll(timeout)

    def close(self) -> None:
        self._epoll.close()


class EpollEngine(ReadinessEngine):
    """One thread that waits in epoll_wait(): O(ready descriptors) for each call."""

    name = "epoll"
    summary = "one thread waits in epoll_wait(), which returns only the descriptors that are ready"
    poller = EpollPoller

    @classmethod
    def unavailable_reason(cls) -> str | None:
        return None if hasattr(select, "epoll") else "only Linux has epoll"
