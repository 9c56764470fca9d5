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

from bothends.engines.admission import AdmissionControl
from bothends.engines.base import DRAIN_IDLE, EngineContext
from bothends.engines.datagrams import DATAGRAM_BATCH, DatagramServer
from bothends.engines.shutdown import ShutdownFlags
from bothends.events import Draining
from bothends.services.base import Peer
from bothends.sockets import Listener

# What a queue can hold (net.core.somaxconn).
_MAX_BACKLOG: Final = 4096

# How often to look at what cannot be waited for.
_POLL_INTERVAL: Final = 0.1


class PollLoop:
    """poll() with something to do for each descriptor, and with the two stages of stopping.

    `draining`, `aborting`: when this was seen to be set (time.monotonic), or None.
    `without_fd`: what has no descriptor to wait for, and is called every now and then.
    """

    def __init__(self, stop: ShutdownFlags) -> None:
        self.draining_since: float | None = None
        self.aborting_since: float | None = None
        self.without_fd: set[Callable[[], object]] = set()
        self._poller = select.poll()
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._stop = stop
        self.add(stop.draining.fileno(), self._on_draining)
        self.add(stop.aborting.fileno(), self._on_aborting)

    def add(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Call `reaction` whenever there is something to read, or an end to be seen."""
        self._poller.register(descriptor, select.POLLIN)
        self._callbacks[descriptor] = callback

    def remove(self, descriptor: int) -> None:
        """Look there no more. To be called before the descriptor is closed."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)

    def run_once(self, timeout: float | None) -> None:
        """Wait once, for `timeout` seconds at most, and react to all that is there."""
        if self.without_fd:
            timeout = _POLL_INTERVAL if timeout is None else min(timeout, _POLL_INTERVAL)
        for descriptor, _ in self._poller.poll(None if timeout is None else max(0.0, timeout) * 1000):
            # An earlier reaction of this turn may have removed it.
            if (reaction := self._callbacks.get(descriptor)) is not None:
                reaction()
        for reaction in list(self.without_fd):
            reaction()

    def _on_draining(self) -> None:
        self.remove(self._stop.draining.fileno())  # it stays set, and would be ready for ever
        self.draining_since = time.monotonic()

    def _on_aborting(self) -> None:
        self.remove(self._stop.aborting.fileno())
        self.aborting_since = time.monotonic()


class AcceptedConnection(NamedTuple):
    """A connection that has just come in; whoever gets it closes it."""

    connection: socket.socket
    peer: Peer
    listener: Listener


class Acceptor:
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
        context: EngineContext,
        admission: AdmissionControl,
        *,
        one_at_a_time: bool = False,
        serve_datagrams: Callable[[DatagramServer], object] = DatagramServer.serve,
    ) -> None:
        self.poll_loop = PollLoop(context.stop)
        self._job = context
        self._admission = admission
        self._accept_limit = 1 if one_at_a_time else None
        self._serve_datagrams = serve_datagrams
        self._listeners = [each for each in context.listeners if each.role == "listener"]
        self._datagram_servers = [
            DatagramServer(context, each) for each in context.listeners if each.role == "datagrams"
        ]
        self._suspended: set[DatagramServer] = set()
        self._ready: list[Listener] = []
        self._pending: collections.deque[AcceptedConnection] = collections.deque()
        # Held by the engine's thread but while it is busy with a newcomer.
        self._lock = threading.Lock()
        self._draining_emitted = False
        self._listeners_watched = False

    def __enter__(self) -> Acceptor:
        """Wait at everything but the listeners, which `newcomers` does."""
        for listener in self._listeners:
            listener.socket.setblocking(False)
        for desk in self._datagram_servers:
            self._watch_datagram_server(desk)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is still open."""
        self._close()

    def suspend(self, server: DatagramServer) -> None:
        """Someone else serves this desk until `resume`: don't wait for it meanwhile."""
        self._suspended.add(server)
        self.poll_loop.remove(server.fileno())

    def resume(self, server: DatagramServer) -> None:
        """Wait for it again."""
        self._suspended.discard(server)
        if server in self._datagram_servers:
            self._watch_datagram_server(server)

    def _watch_datagram_server(self, server: DatagramServer) -> None:
        self.poll_loop.add(server.fileno(), lambda: self._serve_datagrams(server))

    def accepted(self) -> Iterator[AcceptedConnection]:
        """Whoever comes in, until the server drains or there is nothing left to wait at.

        First the ready-made connections; while draining whoever is in a queue already, as far as the
        limits allow. Then everything is closed that others could come in by.
        """
        coming = self._accept_loop()
        while True:
            with self._lock:
                newcomer = next(coming, None)
            if newcomer is None:
                return
            yield newcomer

    def close_listeners_now(self) -> bool:
        """From another thread, while the engine's own is busy with a newcomer and the server drains: take
        in whoever waits, for later, and close the listeners. False if it isn't busy: then it will do so.

        What makes clients wait in a queue that nobody will look at is an open listener, in any process.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._emit_draining()
            self._accept_backlog()
        finally:
            self._lock.release()
        return True

    def _accept_loop(self) -> Iterator[AcceptedConnection]:
        for listener in self._job.listeners:
            if listener.role == "connection":
                connection, peer = self._admission.register_inherited(listener)
                # The one descriptor that was made elsewhere, and may be in any mode.
                connection.setblocking(True)
                listener.close()
                yield AcceptedConnection(connection, peer, listener)
        while (self._listeners or self._datagram_servers) and self.poll_loop.draining_since is None:
            self._watch_listeners(self._admission.can_accept())
            self._ready.clear()
            self.poll_loop.run_once(self._admission.retry_delay())
            # Whoever waited may have been taken by another process: nothing is ready, and yet it is
            # time to see whether accept() works again.
            for listener in list(self._listeners) if self._admission.retry_due() else self._ready:
                yield from self._accept(listener, self._accept_limit)
        if self.poll_loop.draining_since is not None or self._draining_emitted:
            yield from self._accept_remaining()
        self._close()

    def run_until(self, condition: Callable[[], bool], grace: float) -> bool:
        """Go on waiting until `is_over`; False if it isn't `grace` seconds after the time was over for
        everyone to be gone (limits.drain, or an abort)."""
        while not condition():
            left: float | None = None
            if self.poll_loop.aborting_since is not None:
                left = self.poll_loop.aborting_since + grace - time.monotonic()
            elif self.poll_loop.draining_since is not None:
                left = self.poll_loop.draining_since + self._job.limits.drain + grace - time.monotonic()
            if left is not None and left <= 0:
                return False
            self.poll_loop.run_once(left)
        return True

    def close_in_child(self) -> None:
        """In a child after fork: close the listeners and desks, which are the parent's to serve."""
        for listener in self._job.listeners:
            listener.socket.close()

    def _accept_remaining(self) -> Iterator[AcceptedConnection]:
        self._emit_draining()
        if self._accept_limit is not None:
            # Other processes may be free to serve some of those who wait: leave them a chance.
            until = (self.poll_loop.draining_since or 0.0) + DRAIN_IDLE
            for listener in self._listeners:
                while time.monotonic() < until and (yield from self._accept(listener, self._accept_limit)):
                    pass
        self._accept_backlog()
        while self._pending:
            yield self._pending.popleft()
        while self._suspended and not self._drain_expired():
            self.poll_loop.run_once(_POLL_INTERVAL)
        for desk in self._datagram_servers:
            while (
                desk not in self._suspended and desk.serve() == DATAGRAM_BATCH and not self._drain_expired()
            ):
                pass

    def _emit_draining(self) -> None:
        if self._job.observe is not None and not self._draining_emitted:
            self._job.observe(Draining(self._admission.open_count, self._job.limits.drain))
        self._draining_emitted = True

    def _drain_expired(self) -> bool:
        """Whether the time to drain is over: those who come all the time must not keep us."""
        self.poll_loop.run_once(0)
        began, drain = self.poll_loop.draining_since, self._job.limits.drain
        return self.poll_loop.aborting_since is not None or (
            began is not None and time.monotonic() > began + drain
        )

    def _watch_listeners(self, enabled: bool) -> None:
        if enabled == self._listeners_watched:
            return
        self._listeners_watched = enabled
        for listener in self._listeners:
            if enabled:
                self.poll_loop.add(listener.fileno(), functools.partial(self._ready.append, listener))
            else:
                self.poll_loop.remove(listener.fileno())

    def _accept(self, listener: Listener, limit: int | None) -> Generator[AcceptedConnection, None, int]:
        if listener.fileno() < 0:
            return 0  # closed early
        count = 0
        for connection, peer in itertools.islice(self._admission.accept(listener), limit):
            count += 1
            yield AcceptedConnection(connection, peer, listener)
        return count

    def _accept_backlog(self) -> None:
        """Take in whoever is in the queues, then close the listeners; serving comes later, or newcomers
        would come as fast as they are served, and there would be no end."""
        # Who can serve only one at a time has no limit to keep: it takes them in to let them wait here.
        limited = self._accept_limit is None
        for listener in self._listeners:
            for _ in range(_MAX_BACKLOG // DATAGRAM_BATCH):
                taken = list(self._admission.accept(listener, limited=limited))
                self._pending += [
                    AcceptedConnection(connection, peer, listener) for connection, peer in taken
                ]
                if not taken:
                    break
        self._close_listeners()

    def _close_listeners(self) -> None:
        self._watch_listeners(False)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()

    def _close(self) -> None:
        self._close_listeners()
        for newcomer in self._pending:
            newcomer.connection.close()
        self._pending.clear()
        for desk in self._datagram_servers:
            self.poll_loop.remove(desk.fileno())
            if desk not in self._suspended:  # a thread that never came back may still be using it
                desk.close()
        self._datagram_servers = []


class WakeupPipe:
    """Rung by a thread of ours that has something to tell; the engine's own thread waits for it.

    A pipe: one byte is one ring, so none is lost and none is counted twice.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The descriptor that is readable when the bell has been rung."""
        return self._reader

    def wake(self) -> None:
        """Ring it, from any thread. Nothing happens once it is closed."""
        with self._lock:  # a thread may outlive the engine, and the number be given to something else
            if self._writer >= 0:
                os.write(self._writer, b".")

    def consume(self) -> int:
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
