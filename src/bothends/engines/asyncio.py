"""Engine `asyncio`: one thread; asyncio's event loop waits, and its transports read and write.

What asyncio does, and what follows:

1. A transport's write() never blocks and never fails: it buffers without limit what the socket does not take.
   So backpressure is the protocol's task: the transport's high and low-water marks are those of
   `connection_state.py`, and the protocol pauses reading between them.
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
import socket
from collections.abc import Callable
from select import POLLIN, POLLOUT
from typing import ClassVar, Final, Protocol, cast

from bothends.engines.base import DRAIN_TICK, Engine, EngineContext
from bothends.engines.connection_state import Action, ConnectionState, State
from bothends.engines.driver import ConversationDriver
from bothends.engines.nonblocking import NonblockingConnection
from bothends.engines.server_loop import ServerLoop
from bothends.engines.timers import TICK
from bothends.events import CloseReason
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
    """One connection on an asyncio transport. States and limits are those of `connection_state.py`.

    Args:
        loop: the event loop.
        listener: the listener that accepted the connection.
        peer: the peer.
        context: the context of this connection. Default: that of the loop.
    """

    __slots__ = (
        "_last_buffer_size",
        "_loop",
        "_notified_when_empty",
        "_pending_abort",
        "_posted_limit",
        "_pushed_early",
        "_reading",
        "_transport",
        "core",
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
        self._posted_limit = context.limits.posted
        self._last_buffer_size = 0
        self._reading = True
        self._notified_when_empty = False
        self._pending_abort = False
        self._pushed_early: list[bytes] | None = []  # while the conversation is being opened
        push = self._push if context.service.pushes else discard_push
        self.driver = ConversationDriver(context, listener, peer, push)
        self.core = ConnectionState(self.driver, context.limits, loop.now)

    # Called by the transport -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is not a subclass
        self._transport.set_write_buffer_limits(high=self.core.high_water, low=self.core.low_water)
        self._loop.connections.add(self)
        self._schedule()
        early, self._pushed_early = b"".join(self._pushed_early or ()), None
        self._write(early + self.driver.start(), self._loop.now)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        now = self._loop.now
        reply = self.core.receive(data, now)
        if self.core.paused_until is not None:
            self._schedule()
        self._write(reply, now)

    def eof_received(self) -> bool:
        """See asyncio.Protocol. Returns True to keep the transport open for replies."""
        now = self._loop.now
        self._write(self.core.receive_eof(now), now)
        return True

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol. What this means for reading is decided in `_settle`."""

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol. The write buffer is at its low-water mark."""
        self.core.last_activity = self._loop.now
        # Not at once, because a transport that is closed inside this callback calls connection_lost() twice.
        self._loop.call_soon(self._settle)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._loop.connection_closed(self)
        if exc is not None:
            self.core.lose(CloseReason.RESET)
        self.core.closed()

    # Called by the loop ----------------------------------------------------------------------

    def on_timer(self, now: float) -> float | None:
        """Apply the time limits. Returns the next deadline, or None if there is none."""
        if self._transport.is_closing():
            return None
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._last_buffer_size:
            self._last_buffer_size = unsent
            self.core.last_activity = now
        self._write(self.core.expire(now, unsent), now)
        return self.core.next_deadline(now)

    def drain(self, last_check: float) -> None:
        """See ConnectionState.drain."""
        if not self._transport.is_closing():
            unsent = self._transport.get_write_buffer_size()
            self._write(self.core.drain(last_check, unsent), self._loop.now)

    def close(self, cause: CloseReason) -> None:
        """End the connection now."""
        self.core.abort(cause)
        self._settle()

    # Writing ---------------------------------------------------------------------------------

    def _write(self, data: bytes, now: float) -> None:
        transport = self._transport
        if data and not transport.is_closing():
            core, driver = self.core, self.driver
            core.last_activity = now
            transport.write(data)
            driver.bytes_sent(data)
            if (
                self._reading
                and not (driver.finished or driver.wants_pull)
                and core.paused_until is None
                and transport.get_write_buffer_size() <= core.high_water
            ):
                return  # nothing has changed that `_settle` would act on
        self._settle()

    def _settle(self) -> None:
        """Call the pull producer, do what the core says, and pause or resume reading."""
        core, transport = self.core, self._transport
        if transport.is_closing():
            return
        unsent = transport.get_write_buffer_size()
        if self.driver.wants_pull and not unsent and (data := core.produce()):
            transport.write(data)
            self.driver.bytes_sent(data)
            unsent = transport.get_write_buffer_size()
            if not unsent:
                # The socket took everything. One piece in each iteration, so that others are served, too.
                self._loop.call_soon(self._settle)
        action = core.settle(self._loop.now, unsent)
        if action is not Action.NONE:
            self._act(action)
            if action is not Action.SHUTDOWN:
                return
        if (
            unsent
            and not self._notified_when_empty
            and (self.driver.wants_pull or core.state > State.STOPPED)
        ):
            # Then resume_writing() is called when everything has been sent, for the next piece or the FIN.
            self._notified_when_empty = True
            transport.set_write_buffer_limits(high=0)
        if core.wants_read is not self._reading:
            self._reading = not self._reading
            if self._reading:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _act(self, action: Action) -> None:
        if action is Action.SHUTDOWN:
            self._transport.write_eof()
            self._schedule()
        elif action is Action.CLOSE:
            self._transport.close()
        else:
            self._reset()

    def _reset(self) -> None:
        """Close with RST."""
        reset_on_close(self._transport.get_extra_info("socket"))
        self._transport.abort()

    def _schedule(self) -> None:
        now = self._loop.now
        deadline = self.core.next_deadline(now)
        if deadline is not None:
            self._loop.schedule(self, deadline)

    def _push(self, data: bytes) -> None:
        if self._pushed_early is not None:
            self._pushed_early.append(data)
            return
        if self._pending_abort or not data or not self.core.wants_push or self._transport.is_closing():
            return
        self._transport.write(data)
        self.driver.bytes_sent(data)
        if self._transport.get_write_buffer_size() > self._posted_limit:
            # Not at once, because closing this conversation may push to others, which may close in turn.
            self._pending_abort = True
            self._loop.call_soon(lambda: self.close(CloseReason.STALLED))


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


class AsyncioLoop(ServerLoop["ConversationProtocol | NonblockingConnection"]):
    """The server loop on asyncio: its watches are readers, its ticks timers of the event loop."""

    def __init__(self, context: EngineContext, *, buffered: bool) -> None:
        self.buffer = memoryview(bytearray(context.limits.chunk))
        self._protocol_factory: Callable[[AsyncioLoop, Listener, Peer], ConversationProtocol] = (
            BufferedConversationProtocol if buffered else ConversationProtocol
        )
        self._connecting: set[asyncio.Task[None]] = set()
        self._accept_retry: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(context)

    @property
    def now(self) -> float:
        """Seconds on the event loop's clock."""
        return self._loop.time()

    async def run(self) -> None:
        """Serve until asked to stop, then until the last connection is closed."""
        self._loop = asyncio.get_running_loop()
        self._finished = self._loop.create_future()
        self.start()
        self.update_listeners()
        self._check_finished()
        try:
            await self._finished
        finally:
            for flag in (self.context.stop.draining, self.context.stop.aborting):
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
        self.timer_wheel.schedule(item, deadline)
        self._arm_timer()

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """See LoopContext."""
        return self._loop.call_soon(callback)

    def connection_closed(self, item: ConversationProtocol | NonblockingConnection) -> None:
        """See LoopContext."""
        if isinstance(item, NonblockingConnection):
            self._loop.remove_reader(item.socket.fileno())
            self._loop.remove_writer(item.socket.fileno())
        self.timer_wheel.cancel(item)
        self.connections.discard(item)
        self._release(item.driver.accepted_peer)

    def _release(self, peer: Peer) -> None:
        self.admission.release(peer)
        # Not at once, because the descriptor is closed only after this callback returns.
        self._loop.call_soon(self.update_listeners)
        self._loop.call_soon(self._check_finished)

    # ServerLoop ----------------------------------------------------------------------------------

    def watch(self, descriptor: int, handler: Callable[[int], object], *, shared: bool = False) -> None:
        """See ServerLoop.watch. asyncio cannot watch a shared socket exclusively."""
        self._loop.add_reader(descriptor, handler, POLLIN)

    def unwatch(self, descriptor: int) -> None:
        """See ServerLoop.unwatch."""
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)

    def update_listeners(self) -> None:
        """See ServerLoop.update_listeners. Called after each change, and again after a pause."""
        delay = self.admission.retry_delay()
        if self._accept_retry is not None:
            self._accept_retry.cancel()
        self._accept_retry = None if delay is None else self._loop.call_later(delay, self.update_listeners)
        super().update_listeners()

    def accept(self, listener: Listener, _ready: int = POLLIN) -> bool:
        """See ServerLoop.accept."""
        accepted = super().accept(listener)
        self.update_listeners()
        return accepted

    def open_count(self) -> int:
        """See ServerLoop.open_count. Some have no transport yet."""
        return self.admission.open_count

    def start_connection(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        """See ServerLoop.start_connection."""
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

    def drain(self) -> None:
        """See ServerLoop.drain."""
        super().drain()
        self.drain_tick()

    def drain_tick(self) -> None:
        """See ServerLoop.drain_tick. Calls itself until the last connection is closed."""
        super().drain_tick()
        self._check_finished()
        if not self._finished.done():
            self._loop.call_later(DRAIN_TICK, self.drain_tick)

    def _check_finished(self) -> None:
        if not (self.is_serving or self.admission.open_count or self._finished.done()):
            self._finished.set_result(None)

    # Timers --------------------------------------------------------------------------------------

    def _arm_timer(self) -> None:
        timeout = self.timer_wheel.next_timeout(self.now)
        if timeout is None:
            return
        if self._timer is not None:
            if self._timer.when() <= self.now + timeout + TICK:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(timeout, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.timer_wheel.run_expired(self.now)
        self._arm_timer()
