"""Where newcomers come in: the waiting that all engines have in common whose conversations block.

Such an engine has one thread that never blocks in a conversation (or, in `iterative`, only between
two waits). It waits by poll() for the listeners, the datagram sockets, the latches of `shutdown.py`, and
whatever the engine adds: the processes or threads it has started. poll() rather than a blocking
accept(), because a thread that blocks in accept() hears of nothing else: no second listener, no
order to stop.

The listeners themselves don't block. A connection that made poll() return can be gone when accept()
is called (reset by its client, or taken by another process), and a blocking accept() would then
sleep until the next one (accept(2), "Notes").
"""

from __future__ import annotations

import collections
import functools
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Final, NamedTuple

from bothends.engines.admission import Reception
from bothends.engines.base import DRAIN_QUIET, Job
from bothends.engines.datagrams import BATCH, DatagramDesk
from bothends.engines.shutdown import Stop
from bothends.events import Draining
from bothends.services.base import Peer
from bothends.sockets import Listener

# What a queue can hold (net.core.somaxconn).
_LONGEST_QUEUE: Final = 4096

# How often to look at what cannot be waited for.
_LOOK_AGAIN: Final = 0.1


class Watch:
    """poll() with something to do for each descriptor, and with the two stages of stopping.

    `draining`, `aborting`: when this was seen to be set (time.monotonic), or None.
    `sluggish`: what has no descriptor to wait for, and is called every now and then.
    """

    def __init__(self, stop: Stop) -> None:
        self.draining: float | None = None
        self.aborting: float | None = None
        self.sluggish: set[Callable[[], object]] = set()
        self._poller = select.poll()
        self._reactions: dict[int, Callable[[], object]] = {}
        self._stop = stop
        self.add(stop.draining.fileno(), self._on_draining)
        self.add(stop.aborting.fileno(), self._on_aborting)

    def add(self, descriptor: int, reaction: Callable[[], object]) -> None:
        """Call `reaction` whenever there is something to read, or an end to be seen."""
        self._poller.register(descriptor, select.POLLIN)
        self._reactions[descriptor] = reaction

    def remove(self, descriptor: int) -> None:
        """Look there no more. To be called before the descriptor is closed."""
        if self._reactions.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)

    def turn(self, timeout: float | None) -> None:
        """Wait once, for `timeout` seconds at most, and react to all that is there."""
        if self.sluggish:
            timeout = _LOOK_AGAIN if timeout is None else min(timeout, _LOOK_AGAIN)
        for descriptor, _ in self._poller.poll(None if timeout is None else max(0.0, timeout) * 1000):
            # An earlier reaction of this turn may have removed it.
            if (reaction := self._reactions.get(descriptor)) is not None:
                reaction()
        for reaction in list(self.sluggish):
            reaction()

    def _on_draining(self) -> None:
        self.remove(self._stop.draining.fileno())  # it stays set, and would be ready for ever
        self.draining = time.monotonic()

    def _on_aborting(self) -> None:
        self.remove(self._stop.aborting.fileno())
        self.aborting = time.monotonic()


class Newcomer(NamedTuple):
    """A connection that has just come in; whoever gets it closes it."""

    connection: socket.socket
    peer: Peer
    listener: Listener


class Door:
    """Lets newcomers in until the server drains, then sees to it that everyone leaves. Used by `with`.

    Args:
        job: what the engine was given.
        reception: counts who is in; `reception.left()` is the engine's to call.
        one_at_a_time: look at everything else before each newcomer. For an engine that serves it
            on the spot, so that no queue of newcomers keeps datagrams waiting.
        serve_desk: answers what waits at a datagram socket; here and now unless given.
    """

    def __init__(
        self,
        job: Job,
        reception: Reception,
        *,
        one_at_a_time: bool = False,
        serve_desk: Callable[[DatagramDesk], object] = DatagramDesk.serve,
    ) -> None:
        self.watch = Watch(job.stop)
        self._job = job
        self._reception = reception
        self._batch = 1 if one_at_a_time else None
        self._serve_desk = serve_desk
        self._listeners = [each for each in job.listeners if each.role == "listener"]
        self._desks = [DatagramDesk(job, each) for each in job.listeners if each.role == "datagrams"]
        self._lent: set[DatagramDesk] = set()
        self._ready: list[Listener] = []
        self._taken: collections.deque[Newcomer] = collections.deque()
        # Held by the engine's thread but while it is busy with a newcomer.
        self._lock = threading.Lock()
        self._told = False
        self._watching = False

    def __enter__(self) -> Door:
        """Wait at everything but the listeners, which `newcomers` does."""
        for listener in self._listeners:
            listener.socket.setblocking(False)
        for desk in self._desks:
            self._attend(desk)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is still open."""
        self._close()

    def lend(self, desk: DatagramDesk) -> None:
        """Someone else serves this desk until `take_back`: don't wait for it meanwhile."""
        self._lent.add(desk)
        self.watch.remove(desk.fileno())

    def take_back(self, desk: DatagramDesk) -> None:
        """Wait for it again."""
        self._lent.discard(desk)
        if desk in self._desks:
            self._attend(desk)

    def _attend(self, desk: DatagramDesk) -> None:
        self.watch.add(desk.fileno(), lambda: self._serve_desk(desk))

    def newcomers(self) -> Iterator[Newcomer]:
        """Whoever comes in, until the server drains or there is nothing left to wait at.

        First the ready-made connections; while draining whoever is in a queue already, as far as the
        limits allow. Then everything is closed that others could come in by.
        """
        coming = self._coming()
        while True:
            with self._lock:
                newcomer = next(coming, None)
            if newcomer is None:
                return
            yield newcomer

    def close_early(self) -> bool:
        """From another thread, while the engine's own is busy with a newcomer and the server drains: take
        in whoever waits, for later, and close the listeners. False if it isn't busy: then it will do so.

        What makes clients wait in a queue that nobody will look at is an open listener, in any process.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._tell_draining()
            self._take_all()
        finally:
            self._lock.release()
        return True

    def _coming(self) -> Iterator[Newcomer]:
        for listener in self._job.listeners:
            if listener.role == "connection":
                connection, peer = self._reception.adopt(listener)
                # The one descriptor that was made elsewhere, and may be in any mode.
                connection.setblocking(True)
                listener.close()
                yield Newcomer(connection, peer, listener)
        while (self._listeners or self._desks) and self.watch.draining is None:
            self._wait_at_listeners(self._reception.welcomes())
            self._ready.clear()
            self.watch.turn(self._reception.pause())
            # Whoever waited may have been taken by another process: nothing is ready, and yet it is
            # time to see whether accept() works again.
            for listener in list(self._listeners) if self._reception.tries_again() else self._ready:
                yield from self._accept(listener, self._batch)
        if self.watch.draining is not None or self._told:
            yield from self._last_ones()
        self._close()

    def wait_until(self, is_over: Callable[[], bool], grace: float) -> bool:
        """Go on waiting until `is_over`; False if it isn't `grace` seconds after the time was over for
        everyone to be gone (limits.drain, or an abort)."""
        while not is_over():
            left: float | None = None
            if self.watch.aborting is not None:
                left = self.watch.aborting + grace - time.monotonic()
            elif self.watch.draining is not None:
                left = self.watch.draining + self._job.limits.drain + grace - time.monotonic()
            if left is not None and left <= 0:
                return False
            self.watch.turn(left)
        return True

    def leave_to_parent(self) -> None:
        """In a child after fork: close the listeners and desks, which are the parent's to serve."""
        for listener in self._job.listeners:
            listener.socket.close()

    def _last_ones(self) -> Iterator[Newcomer]:
        self._tell_draining()
        if self._batch is not None:
            # Other processes may be free to serve some of those who wait: leave them a chance.
            until = (self.watch.draining or 0.0) + DRAIN_QUIET
            for listener in self._listeners:
                while time.monotonic() < until and (yield from self._accept(listener, self._batch)):
                    pass
        self._take_all()
        while self._taken:
            yield self._taken.popleft()
        while self._lent and not self._is_late():
            self.watch.turn(_LOOK_AGAIN)
        for desk in self._desks:
            while desk not in self._lent and desk.serve() == BATCH and not self._is_late():
                pass

    def _tell_draining(self) -> None:
        if self._job.observe is not None and not self._told:
            self._job.observe(Draining(self._reception.open, self._job.limits.drain))
        self._told = True

    def _is_late(self) -> bool:
        """Whether the time to drain is over: those who come all the time must not keep us."""
        self.watch.turn(0)
        began, drain = self.watch.draining, self._job.limits.drain
        return self.watch.aborting is not None or (began is not None and time.monotonic() > began + drain)

    def _wait_at_listeners(self, wanted: bool) -> None:
        if wanted == self._watching:
            return
        self._watching = wanted
        for listener in self._listeners:
            if wanted:
                self.watch.add(listener.fileno(), functools.partial(self._ready.append, listener))
            else:
                self.watch.remove(listener.fileno())

    def _accept(self, listener: Listener, most: int | None) -> Generator[Newcomer, None, int]:
        if listener.fileno() < 0:
            return 0  # closed early
        count = 0
        for connection, peer in itertools.islice(self._reception.accept(listener), most):
            count += 1
            yield Newcomer(connection, peer, listener)
        return count

    def _take_all(self) -> None:
        """Take in whoever is in the queues, then close the listeners; serving comes later, or newcomers
        would come as fast as they are served, and there would be no end."""
        # Who can serve only one at a time has no limit to keep: it takes them in to let them wait here.
        limited = self._batch is None
        for listener in self._listeners:
            for _ in range(_LONGEST_QUEUE // BATCH):
                taken = list(self._reception.accept(listener, limited=limited))
                self._taken += [Newcomer(connection, peer, listener) for connection, peer in taken]
                if not taken:
                    break
        self._close_listeners()

    def _close_listeners(self) -> None:
        self._wait_at_listeners(False)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()

    def _close(self) -> None:
        self._close_listeners()
        for newcomer in self._taken:
            newcomer.connection.close()
        self._taken.clear()
        for desk in self._desks:
            self.watch.remove(desk.fileno())
            if desk not in self._lent:  # a thread that never came back may still be using it
                desk.close()
        self._desks = []


class Bell:
    """Rung by a thread of ours that has something to tell; the engine's own thread waits for it.

    A pipe: one byte is one ring, so none is lost and none is counted twice.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The descriptor that is readable when the bell has been rung."""
        return self._reader

    def ring(self) -> None:
        """Ring it, from any thread. Nothing happens once it is closed."""
        with self._lock:  # a thread may outlive the engine, and the number be given to something else
            if self._writer >= 0:
                os.write(self._writer, b".")

    def heard(self) -> int:
        """How often it was rung; at least once, or this blocks."""
        return len(os.read(self._reader, 65536))

    def close(self) -> None:
        """Give the pipe back."""
        with self._lock:
            reader, self._reader = self._reader, -1
            writer, self._writer = self._writer, -1
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)
