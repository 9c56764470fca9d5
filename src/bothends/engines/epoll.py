"""Engine `epoll`: one thread; the kernel keeps the list of what is waited for.

What the kernel does (epoll(7)), and what follows:

1. Interest is told once, by epoll_ctl(), and kept in the kernel; epoll_wait() gives only those
   that are ready. So a turn costs what is ready, not what is open: 10,000 idle connections cost
   one active one nothing.
2. Changing interest is a system call of its own. So a channel asks for writability only while
   something is unsent: for a peer that reads, one epoll_ctl() in a whole conversation.
3. An epoll set refers to open file descriptions, not to descriptors: a descriptor that is closed
   while a copy of it lives elsewhere (after fork) goes on being reported. So we take each one out
   before closing it.
4. Several processes that wait for one listener are all woken by each connection, unless it is
   added with EPOLLEXCLUSIVE. EPOLL_CTL_MOD refuses that flag, so a listener is added and removed,
   never changed.

The loop around it, shared with `select` and `poll`, is `poll_loop.py`; what happens on each
connection is `nonblocking.py`.
"""

from __future__ import annotations

import select
from collections.abc import Sequence

from bothends.engines.poll_loop import Poller, ReadinessEngine


class EpollPoller(Poller):
    """epoll, level-triggered."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: set[int] = set()

    def watch(self, descriptor: int, interest: int, *, shared: bool = False) -> None:
        """See Poller.watch."""
        if descriptor in self._watched:
            self._epoll.modify(descriptor, interest)
        else:
            self._epoll.register(descriptor, interest | (select.EPOLLEXCLUSIVE if shared else 0))
            self._watched.add(descriptor)

    def unwatch(self, descriptor: int) -> None:
        """See Poller.forget."""
        self._epoll.unregister(descriptor)
        self._watched.discard(descriptor)

    def wait(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """See Poller.wait."""
        return self._epoll.poll(timeout)

    def close(self) -> None:
        """See Poller.close."""
        self._epoll.close()


class EpollEngine(ReadinessEngine):
    """Waits in epoll_wait() for any of many: time by what is ready, not by what is open."""

    name = "epoll"
    summary = "one thread waits in epoll_wait(): a turn costs what is ready, not what is open"

    def make_poller(self) -> Poller:
        """See ReadinessEngine.poller."""
        return EpollPoller()

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """See Engine.missing."""
        return None if hasattr(select, "epoll") else "epoll is Linux's, and this system is another"
