"""Accepting, draining and aborting, for every engine whose event loop waits for all of its connections.

The engines differ in how they wait: `readiness_loop.py` (select, poll, epoll), `asyncio.py` and `native.py`
have a subclass each, which watches descriptors, starts connections and calls timers.

    serving ──draining flag──> draining ──last connection closed──> run() returns
       └────────────────────────┴──aborting flag, or `limits.drain`──> all connections aborted

The blocking engines wait in `acceptor.py`, because theirs is a loop that never blocks in a conversation.
"""

from __future__ import annotations

import functools
import math
import socket
from abc import abstractmethod
from collections.abc import Callable
from select import POLLIN

from bothends.engines.admission import AdmissionControl
from bothends.engines.base import DRAIN_TICK, FINAL_ACCEPT_BATCHES, EngineContext
from bothends.engines.datagrams import DatagramServer
from bothends.engines.loop_connection import LoopConnection
from bothends.engines.nonblocking import DescriptorLoop, Handler, NonblockingConnection
from bothends.engines.timers import TimerWheel
from bothends.events import CloseReason, Draining
from bothends.services.base import Peer
from bothends.sockets import Listener


class ServerLoop(DescriptorLoop):
    """Listeners, datagram sockets, connections and timers of one engine, and their shutdown.

    Args:
        context: the engine's context.
        fd_limit, make_room: passed to AdmissionControl.

    Attributes:
        connections: the open connections.
    """

    def __init__(
        self,
        context: EngineContext,
        *,
        fd_limit: int | None = None,
        make_room: Callable[[], bool] | None = None,
    ) -> None:
        self.context = context
        self.connections: set[LoopConnection] = set()
        self.admission = AdmissionControl(context, fd_limit=fd_limit, make_room=make_room)
        self.timer_wheel: TimerWheel[LoopConnection] = TimerWheel()
        self.listeners = [each for each in context.listeners if each.role == "listener"]
        self.datagram_servers = [DatagramServer(context, each) for each in self.datagram_listeners()]
        self._accepting = False
        self._abort_at: float | None = None
        self._last_drain_check = -math.inf

    # Of the subclass ------------------------------------------------------------------------------

    @abstractmethod
    def watch(
        self, descriptor: int, handler: Handler, interest: int = POLLIN, *, shared: bool = False
    ) -> None:
        """See DescriptorLoop. `shared`: other processes watch the socket, and only one should be woken."""

    def start_connection(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        """Start the conversation with a peer that was accepted. By default on the non-blocking socket."""
        nonblocking = NonblockingConnection(self, self.context, listener, connection, peer)
        self.connections.add(nonblocking)
        nonblocking.start()

    def datagram_listeners(self) -> list[Listener]:
        """Return the datagram sockets that are served here."""
        return [each for each in self.context.listeners if each.role == "datagrams"]

    def watched_listeners(self) -> list[Listener]:
        """Return the listeners that are accepted from here."""
        return self.listeners

    def open_count(self) -> int:
        """Return the number of open connections."""
        return self.admission.open_count

    def release(self, peer: Peer) -> None:
        """Stop counting a connection that was accepted, because it is closed."""
        self.admission.release(peer)

    def stop_serving(self) -> None:
        """Called when draining starts, before the listeners are closed."""

    # Serving --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Watch the sockets and the flag, and start inherited connections."""
        self.watch(self.context.stop.draining.fileno(), lambda _ready: self.drain())
        for listener in self.listeners:
            listener.socket.setblocking(False)
        for server in self.datagram_servers:
            self.watch(server.fileno(), server.on_ready, shared=True)
        for listener in self.context.listeners:
            if listener.role == "connection":
                self.start_connection(listener, *self.admission.register_inherited(listener))

    @property
    def is_serving(self) -> bool:
        """Whether any listener or datagram socket is open."""
        return bool(self.listeners or self.datagram_servers)

    def update_listeners(self) -> None:
        """Start or stop watching the listeners, as the limits require now."""
        can_accept = self.admission.can_accept()
        if can_accept == self._accepting:
            return
        self._accepting = can_accept
        for listener in self.watched_listeners():
            if can_accept:
                accept = functools.partial(self.accept, listener)
                self.watch(listener.socket.fileno(), accept, shared=True)
            else:
                self.unwatch(listener.socket.fileno())

    def accept(self, listener: Listener, _ready: int = POLLIN) -> bool:
        """Accept a batch of connections. Returns whether there were any."""
        before = self.admission.accepted_count
        for connection, peer in self.admission.accept(listener):
            self.start_connection(listener, connection, peer)
        return self.admission.accepted_count > before

    def timeout(self) -> float | None:
        """Return the seconds until the next timer, accept retry or idle check; None if there is none."""
        timeouts = [self.timer_wheel.next_timeout(self.now), self.admission.retry_delay()]
        if self._abort_at is not None:
            timeouts.append(DRAIN_TICK)
        return min((timeout for timeout in timeouts if timeout is not None), default=None)

    # Called by the connections --------------------------------------------------------------------

    def schedule(self, connection: LoopConnection, deadline: float) -> None:
        self.timer_wheel.schedule(connection, deadline)

    def connection_closed(self, connection: LoopConnection) -> None:
        if connection.slot is not None:
            self.timer_wheel.cancel(connection)
        self.connections.discard(connection)
        self.release(connection.driver.accepted_peer)

    # Shutting down --------------------------------------------------------------------------------

    def drain(self) -> None:
        """Serve what is queued, close the listeners, and begin to drain."""
        stop, limits = self.context.stop, self.context.limits
        self.unwatch(stop.draining.fileno())
        self.watch(stop.aborting.fileno(), lambda _ready: self.abort())
        watched = self.watched_listeners()
        self.stop_serving()
        for listener in self.listeners:
            if listener in watched:
                for _ in range(FINAL_ACCEPT_BATCHES):
                    if not self.accept(listener):
                        break
                self.unwatch(listener.socket.fileno())
            listener.close()
        for server in self.datagram_servers:
            self.unwatch(server.fileno())
            for _ in range(FINAL_ACCEPT_BATCHES):
                if not server.serve():
                    break
            server.close()
        self.listeners, self.datagram_servers = [], []
        self._abort_at = self.now + limits.drain
        if self.context.observe is not None:
            self.context.observe(Draining(self.open_count(), limits.drain))

    def drain_tick(self) -> None:
        """While draining: end the connections that are idle, or all at the drain timeout."""
        if self._abort_at is None:
            return
        if self.now >= self._abort_at:
            self.abort()
            return
        for connection in list(self.connections):
            connection.drain(self._last_drain_check)
        self._last_drain_check = self.now

    def abort(self) -> None:
        """Abort all connections."""
        self.unwatch(self.context.stop.aborting.fileno())
        for connection in list(self.connections):
            connection.close(CloseReason.ABORTED)
