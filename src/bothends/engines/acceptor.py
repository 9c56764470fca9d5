"""The accept loop shared by the blocking engines.

A blocking engine has one thread that never blocks in a conversation (in `iterative`: only between two waits).
That thread waits in poll() for the listeners, the datagram sockets, the flags of `shutdown.py`, and whatever
the engine adds: its child processes or threads. It uses poll() rather than a blocking accept(), because a
thread blocked in accept() notices neither a second listener nor a request to stop.

The listeners are non-blocking. A connection that made poll() return may be gone when accept() is called
(reset by the client, or accepted by another process), and a blocking accept() would then sleep until the next
connection (accept(2), "Notes").
"""

from __future__ import annotations

import collections
import functools
import itertools
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Final, NamedTuple

from bothends.engines.admission import AdmissionControl
from bothends.engines.base import DRAIN_IDLE, EngineContext
from bothends.engines.datagrams import DATAGRAM_BATCH, DatagramServer
from bothends.engines.poll_loop import POLL_INTERVAL, PollLoop
from bothends.events import Draining
from bothends.services.base import Peer
from bothends.sockets import Listener

# The longest accept queue (net.core.somaxconn).
_MAX_BACKLOG: Final = 4096


class AcceptedConnection(NamedTuple):
    """A connection just accepted. Its receiver closes it."""

    connection: socket.socket
    peer: Peer
    listener: Listener


class Acceptor:
    """Accepts connections until the server drains, and serves datagrams meanwhile. A context manager.

    Args:
        context: the engine's context.
        admission: counts the open connections. The engine calls `admission.release()` for each that closes.
        one_at_a_time: check all other descriptors before each accept(). For an engine that serves a
            connection in this thread, so that a full accept queue does not delay datagrams.
        serve_datagrams: called when a datagram socket is readable. By default answers in this thread.
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
        self._context = context
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
        # Held by the engine's thread, except while it serves a connection.
        self._lock = threading.Lock()
        self._draining_emitted = False
        self._listeners_watched = False

    def __enter__(self) -> Acceptor:
        """Start watching the datagram sockets. `accepted` watches the listeners."""
        for listener in self._listeners:
            listener.socket.setblocking(False)
        for server in self._datagram_servers:
            self._watch_datagram_server(server)
        return self

    def __exit__(self, *_: object) -> None:
        """Close all sockets that are still open."""
        self._close()

    def suspend(self, server: DatagramServer) -> None:
        """Stop watching a datagram socket until `resume`, because another thread serves it."""
        self._suspended.add(server)
        self.poll_loop.remove(server.fileno())

    def resume(self, server: DatagramServer) -> None:
        """Watch a datagram socket again."""
        self._suspended.discard(server)
        if server in self._datagram_servers:
            self._watch_datagram_server(server)

    def _watch_datagram_server(self, server: DatagramServer) -> None:
        self.poll_loop.add(server.fileno(), lambda: self._serve_datagrams(server))

    def accepted(self) -> Iterator[AcceptedConnection]:
        """Yield connections until the server drains or no socket is left to watch.

        Inherited connections come first. When draining starts, the connections that are already in an accept
        queue follow, as far as the limits allow. Then all listeners and datagram sockets are closed.
        """
        connections = self._accept_loop()
        while True:
            with self._lock:
                accepted = next(connections, None)
            if accepted is None:
                return
            yield accepted

    def close_listeners_now(self) -> bool:
        """Accept what is queued, for serving later, and close the listeners. Called while draining.

        For another thread, while the engine's thread is busy with a connection. An open listener, in any
        process, keeps clients waiting in an accept queue that will never be read. Returns False if the
        engine's thread is not busy: then it closes the listeners itself.
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
        for listener in self._context.listeners:
            if listener.role == "connection":
                connection, peer = self._admission.register_inherited(listener)
                # This descriptor was opened by another program, so it may be in any mode.
                connection.setblocking(True)
                listener.close()
                yield AcceptedConnection(connection, peer, listener)
        while (self._listeners or self._datagram_servers) and self.poll_loop.draining_since is None:
            self._watch_listeners(self._admission.can_accept())
            self._ready.clear()
            self.poll_loop.run_once(self._admission.retry_delay())
            # Another process may have accepted the waiting connection. Then no listener is ready, but the
            # pause is over only when an accept() shows that descriptors are available again.
            for listener in list(self._listeners) if self._admission.retry_due() else self._ready:
                yield from self._accept(listener, self._accept_limit)
        if self.poll_loop.draining_since is not None or self._draining_emitted:
            yield from self._accept_remaining()
        self._close()

    def close_in_child(self) -> None:
        """After fork(), in the child: close the listeners and datagram sockets, which the parent serves."""
        for listener in self._context.listeners:
            listener.socket.close()

    def _accept_remaining(self) -> Iterator[AcceptedConnection]:
        self._emit_draining()
        if self._accept_limit is not None:
            # Other processes may be free to serve some of the queued connections: give them a chance first.
            until = (self.poll_loop.draining_since or 0.0) + DRAIN_IDLE
            for listener in self._listeners:
                while time.monotonic() < until and (yield from self._accept(listener, self._accept_limit)):
                    pass
        self._accept_backlog()
        while self._pending:
            yield self._pending.popleft()
        while self._suspended and not self._drain_expired():
            self.poll_loop.run_once(POLL_INTERVAL)
        for server in self._datagram_servers:
            while (
                server not in self._suspended
                and server.serve() == DATAGRAM_BATCH
                and not self._drain_expired()
            ):
                pass

    def _emit_draining(self) -> None:
        if self._context.observe is not None and not self._draining_emitted:
            self._context.observe(Draining(self._admission.open_count, self._context.limits.drain))
        self._draining_emitted = True

    def _drain_expired(self) -> bool:
        """Whether the drain timeout has passed, so that clients that keep sending can't delay the exit."""
        self.poll_loop.run_once(0)
        abort_at = self.poll_loop.abort_time(self._context.limits.drain)
        return abort_at is not None and time.monotonic() >= abort_at

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
            return 0  # closed by close_listeners_now()
        count = 0
        for connection, peer in itertools.islice(self._admission.accept(listener), limit):
            count += 1
            yield AcceptedConnection(connection, peer, listener)
        return count

    def _accept_backlog(self) -> None:
        """Empty the accept queues, then close the listeners.

        The connections are served afterwards. Serving while accepting might never end, because new
        connections can arrive as fast as they are served.
        """
        # The limit of one connection at a time is not applied: the others wait in `_pending`.
        limited = self._accept_limit is None
        for listener in self._listeners:
            for _ in range(_MAX_BACKLOG // DATAGRAM_BATCH):
                connections = list(self._admission.accept(listener, limited=limited))
                self._pending += [
                    AcceptedConnection(connection, peer, listener) for connection, peer in connections
                ]
                if not connections:
                    break
        self._close_listeners()

    def _close_listeners(self) -> None:
        self._watch_listeners(False)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()

    def _close(self) -> None:
        self._close_listeners()
        for accepted in self._pending:
            accepted.connection.close()
        self._pending.clear()
        for server in self._datagram_servers:
            self.poll_loop.remove(server.fileno())
            if server not in self._suspended:  # a thread that has not returned may still be using it
                server.close()
        self._datagram_servers = []
