"""Engine `asyncio`: one thread; asyncio's event loop waits, and its transports read and write.

What asyncio does, and what follows:

1. A transport's write() never blocks and never fails: it buffers without limit what the socket does not take.
   So backpressure is the protocol's task: above `limits.unsent` the transport calls pause_writing(), and the
   protocol stops reading from that peer until the peer has caught up.
2. By default the transport closes when the peer sends EOF, which would lose replies to a peer that
   half-closes. So eof_received() returns True, and the protocol closes the transport once everything is sent.
3. `loop.create_server` accepts connections without a limit, and after EMFILE waits a whole second. So this
   engine watches the listeners itself, and accepts under `admission.py`, as every engine does.
4. asyncio's datagram endpoint has no flow control, maps a fresh 256 KiB buffer for every datagram, and in
   uvloop drops empty datagrams. So datagram sockets are watched with add_reader(), and served by
   `datagrams.py`.
5. Before each read asyncio allocates a bytes object of 256 KiB, which malloc maps from the kernel, shrinks it
   to the data received, and frees it: three system calls and a page fault for each chunk, until an object of
   that size has been freed once (mallopt(3), M_MMAP_THRESHOLD). A BufferedProtocol reads into its own buffer:
   one of `limits.chunk` bytes for all connections.
6. Its transports support TCP and UNIX streams. For other families (seqpacket, vsock) this loop only reports
   ready descriptors, and `nonblocking.py` does the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable
from select import POLLIN, POLLOUT
from typing import ClassVar, Final, Protocol, cast

from bothends.engines.admission import AdmissionControl
from bothends.engines.base import DRAIN_IDLE, DRAIN_TICK, FINAL_ACCEPT_BATCHES, Engine, EngineContext
from bothends.engines.datagrams import DatagramServer
from bothends.engines.driver import ConversationDriver
from bothends.engines.nonblocking import NonblockingConnection
from bothends.engines.timers import TICK, TimerWheel
from bothends.events import CloseReason, Draining
from bothends.services.base import Peer, discard_push
from bothends.sockets import Listener
from bothends.sockets.options import reset_on_close

_TRANSPORT_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})


class AsyncioEngine(Engine):
    """One thread that runs an asyncio event loop; transports and protocols."""

    name = "asyncio"
    summary = "one thread runs asyncio's event loop: transports and protocols"
    supports_push = True

    loop_factory: ClassVar[Callable[[], asyncio.AbstractEventLoop] | None] = None
    """Creates the event loop; None for asyncio's default."""

    buffered: ClassVar[bool] = True
    """Whether to use a BufferedProtocol (5 above)."""

    def run(self) -> None:
        """Serve until asked to stop."""
        with asyncio.Runner(loop_factory=type(self).loop_factory) as runner:
            runner.run(AsyncioLoop(self.context, buffered=self.buffered).run())


class LoopContext(Protocol):
    """The event loop, as a ConversationProtocol sees it."""

    @property
    def context(self) -> EngineContext:
        """The engine's context."""

    @property
    def connections(self) -> set[ConversationProtocol | NonblockingConnection]:
        """The open connections."""

    @property
    def now(self) -> float:
        """Seconds on the loop's clock."""

    def schedule(self, item: ConversationProtocol | NonblockingConnection, deadline: float) -> None:
        """Call `item.on_timer(now)` at `deadline` or soon after."""

    def connection_closed(self, item: ConversationProtocol | NonblockingConnection) -> None:
        """Called when a connection is closed: forget it."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call `callback` in the next iteration."""


class ConversationProtocol(asyncio.Protocol):
    """One connection on an asyncio transport. The states are those of `nonblocking.py`.

    Args:
        loop: the event loop.
        listener: the listener that accepted the connection.
        peer: the peer.
        context: the context of this connection. Default: that of the loop.
    """

    __slots__ = (
        "_last_activity",
        "_last_buffer_size",
        "_last_received",
        "_limits",
        "_linger_until",
        "_loop",
        "_opened_at",
        "_peer_eof",
        "_pending_abort",
        "_read_paused_until",
        "_transport",
        "_writing_paused",
        "driver",
        "slot",
    )

    _transport: asyncio.Transport

    def __init__(
        self, loop: LoopContext, listener: Listener, peer: Peer, context: EngineContext | None = None
    ) -> None:
        context = context or loop.context
        self.slot: int | None = None
        self._loop = loop
        self._limits = context.limits
        self._opened_at = loop.now
        self._last_received = self._last_activity = loop.now
        self._last_buffer_size = 0
        self._peer_eof = False
        self._writing_paused = False
        self._read_paused_until: float | None = None
        self._linger_until: float | None = None
        self._pending_abort = False
        push = self._push if context.service.pushes else discard_push
        self.driver = ConversationDriver(context, listener, peer, push)

    # Called by the transport -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is not a subclass
        # A pull producer is called when everything is sent. Otherwise only a full write buffer matters.
        self._transport.set_write_buffer_limits(high=0 if self.driver.wants_pull else self._limits.unsent)
        self._loop.connections.add(self)
        deadline = self._next_deadline(self._opened_at)
        if deadline is not None:
            self._loop.schedule(self, deadline)
        self._write(self.driver.start())

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._last_received = self._last_activity = self._loop.now
        if self.driver.finished:
            return
        reply = self.driver.receive(data)
        if self.driver.read_pause:
            self._read_paused_until = self._last_received + self.driver.read_pause
            self._update_reading()
            self._loop.schedule(self, self._read_paused_until)
        self._write(reply)

    def eof_received(self) -> bool:
        """See asyncio.Protocol. Returns True to keep the transport open for replies."""
        self._peer_eof = True
        if self._linger_until is not None:
            self._transport.close()
        else:
            self._write(self.driver.receive_eof())
        return True

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol. The write buffer is above its high-water mark."""
        self._writing_paused = True
        self._update_reading()

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._writing_paused = False
        self._last_activity = self._loop.now
        self._update_reading()
        # Not at once, because a transport that is closed inside this callback calls connection_lost() twice.
        self._loop.call_soon(self._produce)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._loop.connection_closed(self)
        self.driver.close(CloseReason.RESET if exc is not None else None)

    # Called by the loop ----------------------------------------------------------------------

    def on_timer(self, now: float) -> float | None:
        """Apply the time limits. Returns the next deadline, or None if there is none."""
        if self._transport.is_closing() and not self._write_buffer_size():
            return None
        if self._write_buffer_size() != self._last_buffer_size:
            self._last_buffer_size = self._write_buffer_size()
            self._last_activity = now
        if self._linger_until is not None:
            if self._last_buffer_size:
                self._linger_until = (
                    now + self._limits.linger
                )  # the timeout starts when the last byte is sent
            if now < self._linger_until:
                return min(self._linger_until, now + self._limits.linger)
            self._transport.close()
            return None
        if self._read_paused_until is not None and now >= self._read_paused_until:
            self._read_paused_until = None
            self._update_reading()
        limit = self.driver.next_limit(self._opened_at, self._last_activity)
        if limit is None or now < limit[0]:
            return self._next_deadline(now)
        if self._last_buffer_size:
            self.abort(limit[1])
        else:
            self._stop_reading(limit[1])
        return self._linger_until

    def _next_deadline(self, now: float) -> float | None:
        limit = self.driver.next_deadline(self._opened_at, self._last_activity, now)
        return min((each for each in (limit, self._read_paused_until) if each is not None), default=None)

    def drain(self, last_check: float) -> None:
        """See NonblockingConnection.drain."""
        if self._linger_until is not None or last_check - self._last_received < DRAIN_IDLE:
            return
        if not self._write_buffer_size() or self.driver.wants_pull:
            self._stop_reading(CloseReason.DRAINED)

    def abort(self, cause: CloseReason) -> None:
        """Send RST and drop unsent data."""
        self.driver.close(cause)
        reset_on_close(self._transport.get_extra_info("socket"))
        self._transport.abort()

    # Writing ---------------------------------------------------------------------------------

    def _update_reading(self) -> None:
        """Pause reading while the write buffer is too large or the peer exceeds the rate, else resume."""
        if self._peer_eof or self._transport.is_closing():
            return
        pause = self._read_paused_until is not None or self._write_buffer_size() > self._limits.unsent
        if pause and self._linger_until is None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._last_activity = self._loop.now
            self._transport.write(data)
            self.driver.bytes_sent(data)
        if self.driver.wants_pull:
            self._update_reading()
            self._produce()
        elif self.driver.finished:
            self._shutdown_write()

    def _produce(self) -> None:
        """Call the pull producer, if everything has been sent."""
        if self._writing_paused or self._transport.is_closing():
            return
        data = self.driver.produce()
        if data:
            self._transport.write(data)
            self.driver.bytes_sent(data)
            if not self._writing_paused:
                # The socket took everything. One piece in each iteration, so that others are served, too.
                self._loop.call_soon(self._produce)
        elif self.driver.finished:
            self._shutdown_write()

    def _shutdown_write(self) -> None:
        """Everything is written: close, or half-close and wait for the peer's EOF."""
        if self._linger_until is not None or self._transport.is_closing():
            return
        if self._peer_eof:
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self._linger_until = self._loop.now + self._limits.linger
        self._loop.schedule(self, self._linger_until)

    def _stop_reading(self, cause: CloseReason) -> None:
        self._write(self.driver.stop_reading(cause))
        self.driver.finished = True
        self._shutdown_write()

    def _write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def _push(self, data: bytes) -> None:
        if self._pending_abort or self.driver.finished or self._transport.is_closing() or not data:
            return
        self._transport.write(data)
        self.driver.bytes_sent(data)
        if self._write_buffer_size() > self._limits.posted:
            # Not at once, because closing this conversation may push to others, which may close in turn.
            self._pending_abort = True
            self._loop.call_soon(lambda: self.abort(CloseReason.STALLED))


class BufferedConversationProtocol(ConversationProtocol, asyncio.BufferedProtocol):
    """A ConversationProtocol whose transport reads into the buffer of the loop."""

    __slots__ = ("_buffer",)

    def __init__(self, loop: AsyncioLoop, listener: Listener, peer: Peer) -> None:
        super().__init__(loop, listener, peer)
        self._buffer = loop.buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol. Copies the data, because all connections share the buffer."""
        self.data_received(self._buffer[:nbytes].tobytes())


class AsyncioLoop:
    """Listeners, datagram sockets, timers and shutdown of the asyncio engine."""

    def __init__(self, context: EngineContext, *, buffered: bool) -> None:
        self.context = context
        self.buffer = memoryview(bytearray(context.limits.chunk))
        self._protocol_factory: Callable[[AsyncioLoop, Listener, Peer], ConversationProtocol] = (
            BufferedConversationProtocol if buffered else ConversationProtocol
        )
        self.connections: set[ConversationProtocol | NonblockingConnection] = set()
        self._admission = AdmissionControl(context)
        self._timer_wheel: TimerWheel[ConversationProtocol | NonblockingConnection] = TimerWheel()
        self._listeners = [each for each in context.listeners if each.role == "listener"]
        self._datagram_servers = [
            DatagramServer(context, each) for each in context.listeners if each.role == "datagrams"
        ]
        self._connecting: set[asyncio.Task[None]] = set()
        self._accepting = False
        self._accept_retry: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._abort_at: float | None = None
        self._last_drain_check = -math.inf

    @property
    def now(self) -> float:
        """Seconds on the event loop's clock."""
        return self._loop.time()

    async def run(self) -> None:
        """Serve until asked to stop, then until the last connection is closed."""
        self._loop = asyncio.get_running_loop()
        self._finished = self._loop.create_future()
        stop = self.context.stop
        self._loop.add_reader(stop.draining.fileno(), self._drain)
        for listener in self._listeners:
            listener.socket.setblocking(False)
        for server in self._datagram_servers:
            self._loop.add_reader(server.fileno(), server.serve)
        for listener in self.context.listeners:
            if listener.role == "connection":
                self._start_connection(listener, *self._admission.register_inherited(listener))
        self._update_listeners()
        self._check_finished()
        try:
            await self._finished
        finally:
            for flag in (stop.draining, stop.aborting):
                self._loop.remove_reader(flag.fileno())

    # LoopContext and nonblocking.ConnectionLoop --------------------------------------------------

    def update_interest(self, connection: NonblockingConnection) -> None:
        """See ConnectionLoop."""
        descriptor = connection.socket.fileno()
        if connection.interest & POLLIN:
            self._loop.add_reader(descriptor, connection.on_ready, POLLIN)
        else:
            self._loop.remove_reader(descriptor)
        if connection.interest & POLLOUT:
            self._loop.add_writer(descriptor, connection.on_ready, POLLOUT)
        else:
            self._loop.remove_writer(descriptor)

    def schedule(self, item: ConversationProtocol | NonblockingConnection, deadline: float) -> None:
        """See LoopContext."""
        self._timer_wheel.schedule(item, deadline)
        self._arm_timer()

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """See LoopContext."""
        return self._loop.call_soon(callback)

    def connection_closed(self, item: ConversationProtocol | NonblockingConnection) -> None:
        """See LoopContext."""
        if isinstance(item, NonblockingConnection):
            self._loop.remove_reader(item.socket.fileno())
            self._loop.remove_writer(item.socket.fileno())
        self._timer_wheel.cancel(item)
        self.connections.discard(item)
        self._release(item.driver.accepted_peer)

    def _release(self, peer: Peer) -> None:
        self._admission.release(peer)
        # Not at once, because the descriptor is closed only after this callback returns.
        self._loop.call_soon(self._update_listeners)
        self._loop.call_soon(self._check_finished)

    # Accepting -----------------------------------------------------------------------------------

    def _update_listeners(self) -> None:
        """Start or stop watching the listeners, as the limits require now."""
        can_accept = self._admission.can_accept()
        delay = self._admission.retry_delay()
        if self._accept_retry is not None:
            self._accept_retry.cancel()
        self._accept_retry = None if delay is None else self._loop.call_later(delay, self._update_listeners)
        if can_accept == self._accepting:
            return
        self._accepting = can_accept
        for listener in self._listeners:
            if can_accept:
                self._loop.add_reader(listener.socket.fileno(), self._accept, listener)
            else:
                self._loop.remove_reader(listener.socket.fileno())

    def _accept(self, listener: Listener) -> bool:
        """Accept a batch of connections. Returns whether there were any."""
        before = self._admission.accepted_count
        for connection, peer in self._admission.accept(listener):
            self._start_connection(listener, connection, peer)
        self._update_listeners()
        return self._admission.accepted_count > before

    def _start_connection(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        if connection.family in _TRANSPORT_FAMILIES and connection.type == socket.SOCK_STREAM:
            task = self._loop.create_task(self._attach_transport(listener, connection, peer))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
            return
        nonblocking = NonblockingConnection(self, self.context, listener, connection, peer)
        self.connections.add(nonblocking)
        self.update_interest(nonblocking)
        nonblocking.start()

    async def _attach_transport(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        connection.setblocking(False)
        protocol = self._protocol_factory(self, listener, peer)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError:
            connection.close()
            protocol.driver.close(CloseReason.RESET)
            self._release(peer)

    # Shutting down -------------------------------------------------------------------------------

    def _drain(self) -> None:
        stop, limits = self.context.stop, self.context.limits
        self._loop.remove_reader(stop.draining.fileno())
        self._loop.add_reader(stop.aborting.fileno(), self._abort)
        for listener in self._listeners:
            self._loop.remove_reader(listener.socket.fileno())
            for _ in range(FINAL_ACCEPT_BATCHES):
                if not self._accept(listener):
                    break
            self._loop.remove_reader(listener.socket.fileno())
            listener.close()
        for server in self._datagram_servers:
            self._loop.remove_reader(server.fileno())
            for _ in range(FINAL_ACCEPT_BATCHES):
                if not server.serve():
                    break
            server.close()
        self._listeners, self._datagram_servers = [], []
        self._abort_at = self.now + limits.drain
        if self.context.observe is not None:
            self.context.observe(Draining(self._admission.open_count, limits.drain))
        self._drain_tick()

    def _drain_tick(self) -> None:
        if self.now >= (self._abort_at or 0.0):
            self._abort()
        else:
            for connection in list(self.connections):
                connection.drain(self._last_drain_check)
        self._last_drain_check = self.now
        self._check_finished()
        if not self._finished.done():
            self._loop.call_later(DRAIN_TICK, self._drain_tick)

    def _abort(self) -> None:
        with contextlib.suppress(ValueError):
            self._loop.remove_reader(self.context.stop.aborting.fileno())
        for connection in list(self.connections):
            if isinstance(connection, NonblockingConnection):
                connection.close(CloseReason.ABORTED)
            else:
                connection.abort(CloseReason.ABORTED)

    def _check_finished(self) -> None:
        if not (
            self._listeners or self._datagram_servers or self._admission.open_count or self._finished.done()
        ):
            self._finished.set_result(None)

    # Timers --------------------------------------------------------------------------------------

    def _arm_timer(self) -> None:
        timeout = self._timer_wheel.next_timeout(self.now)
        if timeout is None:
            return
        if self._timer is not None:
            if self._timer.when() <= self.now + timeout + TICK:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(timeout, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_wheel.run_expired(self.now)
        self._arm_timer()
