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
import functools
import math
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from select import POLLIN
from typing import ClassVar

from bothends.engines.admission import AdmissionControl
from bothends.engines.base import DRAIN_TICK, FINAL_ACCEPT_BATCHES, Engine, EngineContext
from bothends.engines.datagrams import DatagramServer
from bothends.engines.nonblocking import NonblockingConnection
from bothends.engines.timers import TimerWheel
from bothends.events import CloseReason, Draining
from bothends.services.base import Peer
from bothends.sockets import Listener


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

    @abstractmethod
    def close(self) -> None:
        """Close the poller's own descriptors."""


class ReadinessEngine(Engine):
    """Base of select, poll and epoll."""

    supports_push = True
    evicts_when_full = True

    fd_limit: ClassVar[int | None] = None
    """The lowest descriptor that the poller cannot watch, or None if there is no such limit."""

    @abstractmethod
    def make_poller(self) -> Poller:
        """Create the poller."""

    def run(self) -> None:
        """Serve until asked to stop."""
        with contextlib.closing(ReadinessLoop(self.context, self.make_poller(), self.fd_limit)) as loop:
            loop.run()


class ReadinessLoop:
    """The event loop of one engine: its listeners, datagram sockets, connections and timers."""

    def __init__(self, context: EngineContext, poller: Poller, fd_limit: int | None) -> None:
        self.now = time.monotonic()
        self._context = context
        self._poller = poller
        make_room = self._evict_idle if context.limits.when_full == "evict" else None
        self._admission = AdmissionControl(context, fd_limit=fd_limit, make_room=make_room)
        self._timer_wheel: TimerWheel[NonblockingConnection] = TimerWheel()
        self._connections: set[NonblockingConnection] = set()
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._listeners = [each for each in context.listeners if each.role == "listener"]
        self._datagram_servers = [
            DatagramServer(context, each) for each in context.listeners if each.role == "datagrams"
        ]
        self._accepting = False
        self._abort_at: float | None = None
        self._last_drain_check = -math.inf

    def run(self) -> None:
        """Serve until asked to stop, then until the last connection is closed."""
        context = self._context
        self._watch(context.stop.draining.fileno(), lambda _ready: self._drain())
        for listener in self._listeners:
            listener.socket.setblocking(False)
        for server in self._datagram_servers:
            self._watch(server.fileno(), server.on_ready, shared=True)
        for listener in context.listeners:
            if listener.role == "connection":
                self._start_connection(listener, *self._admission.register_inherited(listener))
        self._update_listeners()
        while self._listeners or self._datagram_servers or self._connections:
            events = self._poller.wait(self._timeout())
            self.now = time.monotonic()
            for descriptor, ready in events:
                handler = self._handlers.get(descriptor)
                if handler is not None:
                    handler(ready)
            self._timer_wheel.run_expired(self.now)
            if self._abort_at is not None:
                self._drain_tick()
            self._update_listeners()

    def close(self) -> None:
        """Abort the remaining connections and close the poller."""
        self._abort()
        self._poller.close()

    # nonblocking.ConnectionLoop ------------------------------------------------------------------

    def update_interest(self, connection: NonblockingConnection) -> None:
        """See ConnectionLoop."""
        self._poller.watch(connection.socket.fileno(), connection.interest)

    def schedule(self, connection: NonblockingConnection, deadline: float) -> None:
        """See ConnectionLoop."""
        self._timer_wheel.schedule(connection, deadline)

    def connection_closed(self, connection: NonblockingConnection) -> None:
        """See ConnectionLoop."""
        self._unwatch(connection.socket.fileno())
        self._timer_wheel.cancel(connection)
        self._connections.discard(connection)
        self._admission.release(connection.driver.accepted_peer)

    # Accepting -----------------------------------------------------------------------------------

    def _update_listeners(self) -> None:
        """Start or stop watching the listeners, as the limits require now."""
        can_accept = self._admission.can_accept()
        if can_accept == self._accepting:
            return
        self._accepting = can_accept
        for listener in self._listeners:
            if can_accept:
                self._watch(listener.socket.fileno(), functools.partial(self._accept, listener), shared=True)
            else:
                self._unwatch(listener.socket.fileno())

    def _accept(self, listener: Listener, _ready: int = POLLIN) -> bool:
        """Accept a batch of connections. Returns whether there were any."""
        before = self._admission.accepted_count
        for connection, peer in self._admission.accept(listener):
            self._start_connection(listener, connection, peer)
        return self._admission.accepted_count > before

    def _evict_idle(self) -> bool:
        """Close the connection that has been idle for longest, of the address with the most connections."""
        if not self._connections:
            return False
        hosts = collections.Counter(each.driver.accepted_peer.address.host for each in self._connections)
        most = max(hosts.values())
        min(
            (each for each in self._connections if hosts[each.driver.accepted_peer.address.host] == most),
            key=lambda each: (each.last_activity, each.driver.accepted_peer.connection),
        ).close(CloseReason.EVICTED)
        return True

    def _start_connection(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        nonblocking = NonblockingConnection(self, self._context, listener, connection, peer)
        self._connections.add(nonblocking)
        self._watch(connection.fileno(), nonblocking.on_ready)
        nonblocking.start()

    # Waiting -------------------------------------------------------------------------------------

    def _watch(self, descriptor: int, handler: Callable[[int], object], *, shared: bool = False) -> None:
        self._handlers[descriptor] = handler
        self._poller.watch(descriptor, POLLIN, shared=shared)

    def _unwatch(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._poller.unwatch(descriptor)

    def _timeout(self) -> float | None:
        """Return the seconds until the next timer, accept retry or idle check; None if there is none."""
        timeouts = [self._timer_wheel.next_timeout(self.now), self._admission.retry_delay()]
        if self._abort_at is not None:
            timeouts.append(DRAIN_TICK)
        return min((timeout for timeout in timeouts if timeout is not None), default=None)

    # Shutting down -------------------------------------------------------------------------------

    def _drain(self) -> None:
        stop, limits = self._context.stop, self._context.limits
        self._unwatch(stop.draining.fileno())
        self._watch(stop.aborting.fileno(), lambda _ready: self._abort())
        for listener in self._listeners:
            self._unwatch(listener.socket.fileno())
            for _ in range(FINAL_ACCEPT_BATCHES):
                if not self._accept(listener):
                    break
            listener.close()
        for server in self._datagram_servers:
            self._unwatch(server.fileno())
            for _ in range(FINAL_ACCEPT_BATCHES):
                if not server.serve():
                    break
            server.close()
        self._listeners, self._datagram_servers = [], []
        self._abort_at = self.now + limits.drain
        if self._context.observe is not None:
            self._context.observe(Draining(len(self._connections), limits.drain))

    def _drain_tick(self) -> None:
        if self._abort_at is not None and self.now >= self._abort_at:
            self._abort()
            return
        for connection in list(self._connections):
            connection.drain(self._last_drain_check)
        self._last_drain_check = self.now

    def _abort(self) -> None:
        for connection in list(self._connections):
            connection.close(CloseReason.ABORTED)
