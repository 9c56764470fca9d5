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
import functools
import socket
from collections.abc import Callable, Coroutine
from select import POLLIN, POLLOUT
from typing import ClassVar, Final, Protocol, cast

from bothends.engines.base import DRAIN_TICK, Engine, EngineContext
from bothends.engines.connection_state import OPEN, State
from bothends.engines.loop_connection import ConnectionLoop, LoopConnection
from bothends.engines.nonblocking import Handler
from bothends.engines.server_loop import ServerLoop
from bothends.engines.timers import TICK
from bothends.events import CloseReason
from bothends.services.base import Peer
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
            runner.run(self._run())

    async def _run(self) -> None:
        await AsyncioLoop(self.context, buffered=self.buffered).run()


class TransportLoop(ConnectionLoop, Protocol):
    """The event loop, as a ConversationProtocol sees it."""

    @property
    def connections(self) -> set[LoopConnection]:
        """The open connections."""

    def time(self) -> float:
        """Return `now`: faster to call than the property is to read."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call `callback` in the next iteration."""


class ConversationProtocol(LoopConnection, asyncio.Protocol):
    """One connection on an asyncio transport."""

    __slots__ = ("_last_buffer_size", "_notified_when_empty", "_reading", "_time", "_transport", "_writing")

    _loop: TransportLoop
    _transport: asyncio.Transport

    def __init__(self, loop: TransportLoop, context: EngineContext, listener: Listener, peer: Peer) -> None:
        self._last_buffer_size = 0
        self._reading = self._writing = True
        self._time = loop.time
        self._notified_when_empty = False
        super().__init__(loop, context, listener, peer)

    # Called by the transport -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is not a subclass
        self._transport.set_write_buffer_limits(high=self.core.high_water, low=self.core.low_water)
        self._loop.connections.add(self)
        self.start()

    def data_received(self, data: bytes) -> None:
        core, driver = self.core, self.driver
        if driver.watched or core.state is not OPEN:
            reply = core.receive(data, self._time())
        else:  # the same, without two calls that would have nothing else to do
            driver.last_received = self._time()
            conversation = driver.conversation
            try:
                reply = conversation.receive(data)
            except Exception as error:
                reply = driver.fail(error)
            if conversation.done:
                driver.conversation_done()
        if reply:
            self._transport.write(reply)
            if driver.watched:
                driver.bytes_sent(reply)
        if (
            driver.finished
            or (driver.watched and (driver.wants_pull or driver.paused_until is not None))
            or not self._reading
            or not self._writing
        ):
            self._settle()

    def eof_received(self) -> bool:
        """See asyncio.Protocol. Returns True to keep the transport open for replies."""
        self._write(self.core.receive_eof(self._loop.now))
        return True

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol. What this means for reading is decided in `_settle`."""
        self._writing = False

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol. The write buffer is at its low-water mark."""
        self._writing = True
        self.core.last_sent = self._loop.now
        # Not at once, because a transport that is closed inside this callback calls connection_lost() twice.
        self._loop.call_soon(self._settle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._loop.connection_closed(self)
        if exc is not None:
            self.core.lose(CloseReason.RESET)
        self.core.closed()

    # LoopConnection --------------------------------------------------------------------------

    def on_timer(self, now: float) -> float | None:
        """See LoopConnection. The transport does not report what it sends, so compare its buffer."""
        if self.unsent != self._last_buffer_size:
            self._last_buffer_size = self.unsent
            self.core.last_sent = now
        return super().on_timer(now)

    @property
    def unsent(self) -> int:
        return self._transport.get_write_buffer_size()

    @property
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _write(self, data: bytes) -> None:
        if data:
            self.core.last_sent = self._time()
            self._queue(data)
        self._settle()

    def _queue(self, data: bytes) -> None:
        self._transport.write(data)
        self.driver.bytes_sent(data)

    def _send_fin(self) -> None:
        self._transport.write_eof()

    def _close_socket(self, *, reset: bool) -> None:
        if reset:
            reset_on_close(self._transport.get_extra_info("socket"))
            self._transport.abort()
        else:
            self._transport.close()

    def _watch(self, *, produced: bool) -> None:
        unsent, core = self.unsent, self.core
        if produced and not unsent:
            self._loop.call_soon(self._settle)
        if (
            unsent
            and not self._notified_when_empty
            and (self.driver.wants_pull or core.state > State.STOPPED)
        ):
            # Then resume_writing() is called when everything has been sent, for the next piece or the FIN.
            self._notified_when_empty = True
            self._transport.set_write_buffer_limits(high=0)
        if core.wants_read is not self._reading:
            self._reading = not self._reading
            if self._reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


class BufferedConversationProtocol(ConversationProtocol, asyncio.BufferedProtocol):
    """A ConversationProtocol whose transport reads into the buffer of the loop."""

    __slots__ = ("_buffer",)

    def __init__(self, loop: AsyncioLoop, context: EngineContext, listener: Listener, peer: Peer) -> None:
        super().__init__(loop, context, listener, peer)
        self._buffer = loop.buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol. Copies the data, because all connections share the buffer."""
        self.data_received(self._buffer[:nbytes].tobytes())


class AsyncioLoop(ServerLoop):
    """The server loop on asyncio: its watches are readers, its ticks timers of the event loop."""

    def __init__(self, context: EngineContext, *, buffered: bool) -> None:
        self.buffer = memoryview(bytearray(context.limits.chunk))
        self._protocol_class = BufferedConversationProtocol if buffered else ConversationProtocol
        self.time: Callable[[], float] = asyncio.get_running_loop().time
        self._accept_retry: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(context)

    @property
    def now(self) -> float:
        """Seconds on the event loop's clock."""
        return self.time()

    async def run(self) -> None:
        """Serve until asked to stop, then until the last connection is closed."""
        self._loop = asyncio.get_running_loop()
        self._finished = self._loop.create_future()
        log = self.context.logged_traffic
        if log is not None:
            # Before the loop waits again: it does not while a callback is due.
            log.collect(functools.partial(self._loop.call_soon, log.write_collected))
        self.start()
        self.update_listeners()
        self._check_finished()
        try:
            await self._finished
        finally:
            for flag in (self.context.stop.draining, self.context.stop.aborting):
                self._loop.remove_reader(flag.fileno())
            if log is not None:
                log.stop_collecting()

    def call_soon(self, callback: Callable[[], object], /) -> object:
        return self._loop.call_soon(callback)

    # ServerLoop ----------------------------------------------------------------------------------

    def watch(
        self, descriptor: int, handler: Handler, interest: int = POLLIN, *, shared: bool = False
    ) -> None:
        """See ServerLoop.watch. asyncio cannot watch a shared socket exclusively."""
        if interest & POLLIN:
            self._loop.add_reader(descriptor, handler, POLLIN)
        else:
            self._loop.remove_reader(descriptor)
        if interest & POLLOUT:
            self._loop.add_writer(descriptor, handler, POLLOUT)
        else:
            self._loop.remove_writer(descriptor)

    def unwatch(self, descriptor: int) -> None:
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)

    def schedule(self, connection: LoopConnection, deadline: float) -> None:
        super().schedule(connection, deadline)
        self._arm_timer()

    def release(self, peer: Peer) -> None:
        super().release(peer)
        # Not at once, because the descriptor is closed only after this callback returns.
        if not self._accepting:
            self._loop.call_soon(self.update_listeners)
        if not self.is_serving:
            self._loop.call_soon(self._check_finished)

    def update_listeners(self) -> None:
        """See ServerLoop.update_listeners. Called after each change, and again after a pause."""
        delay = self.admission.retry_delay()
        if self._accept_retry is not None:
            self._accept_retry.cancel()
        self._accept_retry = None if delay is None else self._loop.call_later(delay, self.update_listeners)
        super().update_listeners()

    def accept(self, listener: Listener, _ready: int = POLLIN) -> bool:
        accepted = super().accept(listener)
        self.update_listeners()
        return accepted

    def start_connection(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        """See ServerLoop.start_connection. With a transport, if asyncio has one for the socket."""
        if connection.family in _TRANSPORT_FAMILIES and connection.type == socket.SOCK_STREAM:
            protocol = self._protocol_class(self, self.context, listener, peer)
            self._attach(
                protocol, connection, self._loop.connect_accepted_socket(lambda: protocol, connection)
            )
        else:
            super().start_connection(listener, connection, peer)

    def _attach(
        self,
        protocol: ConversationProtocol,
        connection: socket.socket,
        attaching: Coroutine[asyncio.Future[object], None, object],
        _done: object = None,
    ) -> None:
        """Run the coroutine that makes a transport up to its next `await`, and go on once that is done.

        Without a task, which would cost as much as the transport, because it lives for one iteration only.
        """
        try:
            waiter = attaching.send(None)
        except StopIteration:
            return
        except OSError:
            connection.close()
            protocol.driver.close(CloseReason.RESET)
            self.release(protocol.driver.accepted_peer)
        else:
            waiter.add_done_callback(functools.partial(self._attach, protocol, connection, attaching))

    # Shutting down -------------------------------------------------------------------------------

    def drain(self) -> None:
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
