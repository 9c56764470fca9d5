"""The loop of the engines that wait for readiness: select, poll and epoll.

One thread asks the kernel which descriptors are ready, does for each what can be done without
waiting, and asks again. The three engines differ only in how they ask, which is a Poller each:
see `select.py`, `poll.py`, `epoll.py` for what that costs and where it ends.

All are used level-triggered: a descriptor is reported as long as it is ready, so taking one chunk
and coming back for the rest is right, and no peer can keep the loop to itself. A report may be
stale: the descriptor was closed earlier in the same turn, and its number given to a connection just
accepted. That one is then read or written in vain, which says EAGAIN and does no harm.
"""

from __future__ import annotations

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
    """One way to ask the kernel which descriptors are ready.

    Interest and answers are in poll()'s bits, which epoll shares: POLLIN, POLLOUT, POLLERR, POLLHUP.
    """

    @abstractmethod
    def watch(self, descriptor: int, interest: int, *, shared: bool = False) -> None:
        """Wait for `interest` from now on, instead of what was asked for before.

        `shared`: other processes wait for the same thing (a listener), and one of them is enough.
        """

    @abstractmethod
    def unwatch(self, descriptor: int) -> None:
        """Wait for it no more. Called before the descriptor is closed."""

    @abstractmethod
    def wait(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """Block until something is ready, or for `timeout` seconds: descriptors with what they are."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the poller itself holds."""


class ReadinessEngine(Engine):
    """Base of select, poll and epoll."""

    supports_push = True

    fd_limit: ClassVar[int | None] = None
    """The lowest descriptor that cannot be waited for, or None."""

    @abstractmethod
    def make_poller(self) -> Poller:
        """A fresh poller."""

    def run(self) -> None:
        """Serve until told to stop."""
        with contextlib.closing(ReadinessLoop(self.context, self.make_poller(), self.fd_limit)) as loop:
            loop.run()


class ReadinessLoop:
    """Everything that one engine of this kind waits for, and what is done about each."""

    def __init__(self, context: EngineContext, poller: Poller, fd_limit: int | None) -> None:
        self.now = time.monotonic()
        self._job = context
        self._poller = poller
        self._admission = AdmissionControl(context, fd_limit=fd_limit)
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
        """Serve until told to stop, then until the last connection is over."""
        context = self._job
        self._watch(context.stop.draining.fileno(), lambda _ready: self._drain())
        for listener in self._listeners:
            listener.socket.setblocking(False)
        for desk in self._datagram_servers:
            self._watch(desk.fileno(), desk.on_ready, shared=True)
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
        """Cut off whatever is left, and give everything back."""
        for channel in list(self._connections):
            channel.close(CloseReason.ABORTED)
        self._poller.close()

    # What a channel needs (channel.Loop) ---------------------------------------------------------

    def update_interest(self, connection: NonblockingConnection) -> None:
        """See channel.Loop."""
        self._poller.watch(connection.socket.fileno(), connection.interest)

    def schedule(self, connection: NonblockingConnection, deadline: float) -> None:
        """See channel.Loop."""
        self._timer_wheel.schedule(connection, deadline)

    def connection_closed(self, connection: NonblockingConnection) -> None:
        """See channel.Loop."""
        self._unwatch(connection.socket.fileno())
        self._timer_wheel.cancel(connection)
        self._connections.discard(connection)
        self._admission.release(connection.driver.accepted_peer)

    # Welcoming -----------------------------------------------------------------------------------

    def _update_listeners(self) -> None:
        """Watch the listeners, or stop watching them, as the limits say now."""
        welcoming = self._admission.can_accept()
        if welcoming == self._accepting:
            return
        self._accepting = welcoming
        for listener in self._listeners:
            if welcoming:
                self._watch(listener.socket.fileno(), functools.partial(self._accept, listener), shared=True)
            else:
                self._unwatch(listener.socket.fileno())

    def _accept(self, listener: Listener, _ready: int = POLLIN) -> bool:
        """Take who waits; whether there was anyone."""
        before = self._admission.accepted_count
        for connection, peer in self._admission.accept(listener):
            self._start_connection(listener, connection, peer)
        return self._admission.accepted_count > before

    def _start_connection(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        channel = NonblockingConnection(self, self._job, listener, connection, peer)
        self._connections.add(channel)
        self._watch(connection.fileno(), channel.on_ready)
        channel.start()

    # Waiting -------------------------------------------------------------------------------------

    def _watch(self, descriptor: int, handler: Callable[[int], object], *, shared: bool = False) -> None:
        self._handlers[descriptor] = handler
        self._poller.watch(descriptor, POLLIN, shared=shared)

    def _unwatch(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._poller.unwatch(descriptor)

    def _timeout(self) -> float | None:
        """How long nothing but a ready descriptor can want us."""
        waits = [self._timer_wheel.next_timeout(self.now), self._admission.retry_delay()]
        if self._abort_at is not None:
            waits.append(DRAIN_TICK)
        return min((wait for wait in waits if wait is not None), default=None)

    # Leaving -------------------------------------------------------------------------------------

    def _drain(self) -> None:
        stop, limits = self._job.stop, self._job.limits
        self._unwatch(stop.draining.fileno())
        self._watch(stop.aborting.fileno(), lambda _ready: self._abort())
        for listener in self._listeners:
            self._unwatch(listener.socket.fileno())
            for _ in range(FINAL_ACCEPT_BATCHES):
                if not self._accept(listener):
                    break
            listener.close()
        for desk in self._datagram_servers:
            self._unwatch(desk.fileno())
            for _ in range(FINAL_ACCEPT_BATCHES):
                if not desk.serve():
                    break
            desk.close()
        self._listeners, self._datagram_servers = [], []
        self._abort_at = self.now + limits.drain
        if self._job.observe is not None:
            self._job.observe(Draining(len(self._connections), limits.drain))

    def _drain_tick(self) -> None:
        if self._abort_at is not None and self.now >= self._abort_at:
            self._abort()
            return
        for channel in list(self._connections):
            channel.drain(self._last_drain_check)
        self._last_drain_check = self.now

    def _abort(self) -> None:
        for channel in list(self._connections):
            channel.close(CloseReason.ABORTED)
