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

from bothends.engines.admission import Reception
from bothends.engines.base import DRAIN_TICK, LAST_ROUNDS, Engine, Job
from bothends.engines.datagrams import DatagramDesk
from bothends.engines.nonblocking import Channel
from bothends.engines.timers import Wheel
from bothends.events import Cause, Draining
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
    def forget(self, descriptor: int) -> None:
        """Wait for it no more. Called before the descriptor is closed."""

    @abstractmethod
    def wait(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """Block until something is ready, or for `timeout` seconds: descriptors with what they are."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the poller itself holds."""


class ReadinessEngine(Engine):
    """Base of select, poll and epoll."""

    posts = True

    first_refused: ClassVar[int | None] = None
    """The lowest descriptor that cannot be waited for, or None."""

    @abstractmethod
    def poller(self) -> Poller:
        """A fresh poller."""

    def run(self) -> None:
        """Serve until told to stop."""
        with contextlib.closing(ReadinessLoop(self.job, self.poller(), self.first_refused)) as loop:
            loop.run()


class ReadinessLoop:
    """Everything that one engine of this kind waits for, and what is done about each."""

    def __init__(self, job: Job, poller: Poller, first_refused: int | None) -> None:
        self.now = time.monotonic()
        self._job = job
        self._poller = poller
        self._reception = Reception(job, first_refused=first_refused)
        self._wheel: Wheel[Channel] = Wheel()
        self._channels: set[Channel] = set()
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._listeners = [each for each in job.listeners if each.role == "listener"]
        self._desks = [DatagramDesk(job, each) for each in job.listeners if each.role == "datagrams"]
        self._welcoming = False
        self._abort_at: float | None = None
        self._looked = -math.inf

    def run(self) -> None:
        """Serve until told to stop, then until the last connection is over."""
        job = self._job
        self._handle(job.stop.draining.fileno(), lambda _ready: self._drain())
        for listener in self._listeners:
            listener.socket.setblocking(False)
        for desk in self._desks:
            self._handle(desk.fileno(), desk.on_ready, shared=True)
        for listener in job.listeners:
            if listener.role == "connection":
                self._converse(listener, *self._reception.adopt(listener))
        self._welcome()
        while self._listeners or self._desks or self._channels:
            events = self._poller.wait(self._patience())
            self.now = time.monotonic()
            for descriptor, ready in events:
                handler = self._handlers.get(descriptor)
                if handler is not None:
                    handler(ready)
            self._wheel.fire(self.now)
            if self._abort_at is not None:
                self._press()
            self._welcome()

    def close(self) -> None:
        """Cut off whatever is left, and give everything back."""
        for channel in list(self._channels):
            channel.close(Cause.ABORTED)
        self._poller.close()

    # What a channel needs (channel.Loop) ---------------------------------------------------------

    def watch(self, channel: Channel) -> None:
        """See channel.Loop."""
        self._poller.watch(channel.socket.fileno(), channel.interest)

    def schedule(self, channel: Channel, due: float) -> None:
        """See channel.Loop."""
        self._wheel.schedule(channel, due)

    def gone(self, channel: Channel) -> None:
        """See channel.Loop."""
        self._unhandle(channel.socket.fileno())
        self._wheel.cancel(channel)
        self._channels.discard(channel)
        self._reception.left(channel.exchange.accepted)

    # Welcoming -----------------------------------------------------------------------------------

    def _welcome(self) -> None:
        """Watch the listeners, or stop watching them, as the limits say now."""
        welcoming = self._reception.welcomes()
        if welcoming == self._welcoming:
            return
        self._welcoming = welcoming
        for listener in self._listeners:
            if welcoming:
                self._handle(listener.socket.fileno(), functools.partial(self._accept, listener), shared=True)
            else:
                self._unhandle(listener.socket.fileno())

    def _accept(self, listener: Listener, _ready: int = POLLIN) -> bool:
        """Take who waits; whether there was anyone."""
        before = self._reception.number
        for connection, peer in self._reception.accept(listener):
            self._converse(listener, connection, peer)
        return self._reception.number > before

    def _converse(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        channel = Channel(self, self._job, listener, connection, peer)
        self._channels.add(channel)
        self._handle(connection.fileno(), channel.on_ready)
        channel.start()

    # Waiting -------------------------------------------------------------------------------------

    def _handle(self, descriptor: int, handler: Callable[[int], object], *, shared: bool = False) -> None:
        self._handlers[descriptor] = handler
        self._poller.watch(descriptor, POLLIN, shared=shared)

    def _unhandle(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._poller.forget(descriptor)

    def _patience(self) -> float | None:
        """How long nothing but a ready descriptor can want us."""
        waits = [self._wheel.wait(self.now), self._reception.pause()]
        if self._abort_at is not None:
            waits.append(DRAIN_TICK)
        return min((wait for wait in waits if wait is not None), default=None)

    # Leaving -------------------------------------------------------------------------------------

    def _drain(self) -> None:
        stop, limits = self._job.stop, self._job.limits
        self._unhandle(stop.draining.fileno())
        self._handle(stop.aborting.fileno(), lambda _ready: self._abort())
        for listener in self._listeners:
            self._unhandle(listener.socket.fileno())
            for _ in range(LAST_ROUNDS):
                if not self._accept(listener):
                    break
            listener.close()
        for desk in self._desks:
            self._unhandle(desk.fileno())
            for _ in range(LAST_ROUNDS):
                if not desk.serve():
                    break
            desk.close()
        self._listeners, self._desks = [], []
        self._abort_at = self.now + limits.drain
        if self._job.observe is not None:
            self._job.observe(Draining(len(self._channels), limits.drain))

    def _press(self) -> None:
        if self._abort_at is not None and self.now >= self._abort_at:
            self._abort()
            return
        for channel in list(self._channels):
            channel.drain(self._looked)
        self._looked = self.now

    def _abort(self) -> None:
        for channel in list(self._channels):
            channel.close(Cause.ABORTED)
