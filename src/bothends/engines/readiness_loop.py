"""The event loop of the select, poll and epoll engines.

One thread asks the kernel which descriptors are ready, reads and writes them without blocking, and asks
again. The engines differ only in the system call, which is wrapped in a Poller: see `select.py`, `poll.py`
and `epoll.py` for its cost and its limits.

All of them are level-triggered: the kernel reports a descriptor as long as it is ready. So the loop reads one
chunk and returns for the rest in the next iteration, and no peer can monopolize the loop. A report may be
stale, because the descriptor was closed earlier in the same iteration and its number reused for a connection
just accepted. Reading or writing that connection then fails with EAGAIN, which is harmless.
"""

from __future__ import annotations

import collections
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from select import POLLIN
from typing import ClassVar

from bothends.engines.base import Engine, EngineContext
from bothends.engines.nonblocking import Handler
from bothends.engines.server_loop import ServerLoop
from bothends.events import CloseReason


class Poller(ABC):
    """A system call that reports which descriptors are ready.

    Event masks use the bits of poll(), which epoll shares: POLLIN, POLLOUT, POLLERR, POLLHUP.
    """

    @abstractmethod
    def watch(self, descriptor: int, interest: int, *, shared: bool = False) -> None:
        """Watch a descriptor for the events in `interest`, replacing the previous mask.

        `shared`: other processes watch the same socket (a listener), and only one of them should be woken.
        """

    @abstractmethod
    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor. Called before it is closed."""

    @abstractmethod
    def wait(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """Block until a descriptor is ready, for at most `timeout` seconds (None: no limit).

        Returns: pairs of a descriptor and its events.
        """

    def close(self) -> None:
        """Close the poller's own descriptors, if it has any."""


class ReadinessEngine(Engine):
    """Base of select, poll and epoll."""

    supports_push = True
    evicts_when_full = True

    fd_limit: ClassVar[int | None] = None
    """The lowest descriptor that the poller cannot watch, or None if there is no such limit."""

    poller: ClassVar[Callable[[], Poller]]
    """Creates the poller."""

    def run(self) -> None:
        """Serve until asked to stop."""
        poller = type(self).poller()
        with contextlib.closing(ReadinessLoop(self.context, poller, self.fd_limit)) as loop:
            loop.run()


class ReadinessLoop(ServerLoop):
    """The event loop of one engine: calls the handlers of ready descriptors, then the expired timers."""

    now = 0.0
    """Seconds of time.monotonic(), read once in each iteration."""

    def __init__(self, context: EngineContext, poller: Poller, fd_limit: int | None) -> None:
        self.now = time.monotonic()
        self._poller = poller
        self._handlers: dict[int, Handler] = {}
        make_room = self._evict_idle if context.limits.when_full == "evict" else None
        super().__init__(context, fd_limit=fd_limit, make_room=make_room)

    def run(self) -> None:
        """Serve until asked to stop, then until the last connection is closed."""
        log = self.context.logged_traffic
        if log is not None:
            log.collect()
        self.start()
        self.update_listeners()
        handler_of = self._handlers.get
        while self.is_serving or self.connections:
            if log is not None:
                log.write_collected()
            events = self._poller.wait(self.timeout())
            self.now = time.monotonic()
            for descriptor, ready in events:
                handler = handler_of(descriptor)
                if handler is not None:
                    handler(ready)
            self.timer_wheel.run_expired(self.now)
            self.drain_tick()
            self.update_listeners()

    def close(self) -> None:
        """Abort the remaining connections and close the poller."""
        self.abort()
        self._poller.close()
        if (log := self.context.logged_traffic) is not None:
            log.stop_collecting()

    def watch(
        self, descriptor: int, handler: Handler, interest: int = POLLIN, *, shared: bool = False
    ) -> None:
        self._handlers[descriptor] = handler
        self._poller.watch(descriptor, interest, shared=shared)

    def unwatch(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._poller.unwatch(descriptor)

    def _evict_idle(self) -> bool:
        """Close the connection that has been idle for longest, of the address with the most connections."""
        if not self.connections:
            return False
        hosts = collections.Counter(each.driver.accepted_peer.address.host for each in self.connections)
        most = max(hosts.values())
        min(
            (each for each in self.connections if hosts[each.driver.accepted_peer.address.host] == most),
            key=lambda each: (each.core.last_activity, each.driver.accepted_peer.connection),
        ).close(CloseReason.EVICTED)
        return True
