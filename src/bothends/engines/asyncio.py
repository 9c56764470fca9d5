"""Engine `asyncio`: one thread; asyncio's event loop waits, its transports move the bytes.

What asyncio does, and what follows:

1. A transport's write() never blocks and never refuses: what the socket does not take is stored,
   without bound. So backpressure is the protocol's affair: at `limits.unsent` the transport calls
   pause_writing(), and we stop reading from that peer until it has caught up.
2. Its default on the peer's EOF is to close the transport, which would lose answers to whoever
   half-closes. eof_received() returns True here: we close when everything has been said.
3. `loop.create_server` takes connections for as long as there are any, and after EMFILE waits a
   whole second. We wait for the listener ourselves, under `admission.py`, like every engine.
4. Its datagram endpoint has no flow control, maps a fresh 256 KiB buffer for every datagram, and in
   uvloop drops empty ones. Datagram sockets are waited for with add_reader() instead, and served
   by `datagrams.py`.
5. Before each read it makes a bytes object of 256 KiB, which malloc maps from the system, cuts to what has
   come, and gives back: three system calls and a page fault for each chunk, until something as large has been
   freed (mallopt(3), M_MMAP_THRESHOLD). A BufferedProtocol reads into a buffer of its own: one of
   `limits.chunk` bytes for all connections.
6. Its transports carry TCP and UNIX streams. Other families (seqpacket, vsock) are driven by
   `nonblocking.py`, for which this loop only waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable
from select import POLLIN, POLLOUT
from typing import ClassVar, Final, Protocol, cast

from bothends.engines.admission import Reception
from bothends.engines.base import DRAIN_QUIET, DRAIN_TICK, LAST_ROUNDS, Engine, Job
from bothends.engines.datagrams import DatagramDesk
from bothends.engines.driver import Exchange
from bothends.engines.nonblocking import Channel, abandon
from bothends.engines.timers import TICK, Wheel
from bothends.events import Cause, Draining
from bothends.services.base import Peer, nowhere
from bothends.sockets import Listener

_TRANSPORTS_CARRY: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})


class AsyncioEngine(Engine):
    """Waits in an asyncio event loop; transports and protocols."""

    name = "asyncio"
    summary = "one thread runs asyncio's event loop: transports and protocols"
    posts = True

    loop_factory: ClassVar[Callable[[], asyncio.AbstractEventLoop] | None] = None
    """What makes the event loop; None for asyncio's own choice."""

    buffered: ClassVar[bool] = True
    """Whether its transports read better into a buffer of ours (5 above)."""

    def run(self) -> None:
        """Serve until told to stop."""
        with asyncio.Runner(loop_factory=type(self).loop_factory) as runner:
            runner.run(AsyncioLoop(self.job, buffered=self.buffered).run())


class Owner(Protocol):
    """What a talk needs of the loop that runs it."""

    @property
    def job(self) -> Job:
        """What is served."""

    @property
    def talks(self) -> set[Talk | Channel]:
        """All that are going on."""

    @property
    def now(self) -> float:
        """Seconds on the loop's clock."""

    def schedule(self, item: Talk | Channel, due: float) -> None:
        """Call `item.on_timer(now)` at `due` or soon after."""

    def gone(self, item: Talk | Channel) -> None:
        """The talk's connection is closed: forget it."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call it when the stack is flat again."""


class Talk(asyncio.Protocol):
    """One connection: drives an Exchange by an asyncio transport. See `nonblocking.py` for the states.

    `job`: another than the owner's, for this talk.
    """

    __slots__ = (
        "_backlog",
        "_began",
        "_doomed",
        "_ended",
        "_heard",
        "_limits",
        "_linger_until",
        "_moved",
        "_owner",
        "_paused",
        "_rests_until",
        "_transport",
        "exchange",
        "slot",
    )

    _transport: asyncio.Transport

    def __init__(self, owner: Owner, listener: Listener, peer: Peer, job: Job | None = None) -> None:
        job = job or owner.job
        self.slot: int | None = None
        self._owner = owner
        self._limits = job.limits
        self._began = owner.now
        self._heard = self._moved = owner.now
        self._backlog = 0
        self._ended = False
        self._paused = False
        self._rests_until: float | None = None
        self._linger_until: float | None = None
        self._doomed = False
        post = self._post if job.service.posts else nowhere
        self.exchange = Exchange(job, listener, peer, post)

    # What the transport calls ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        # Who pulls is called again when all is sent; with any other, only too much is of interest.
        self._transport.set_write_buffer_limits(high=0 if self.exchange.pulls else self._limits.unsent)
        self._owner.talks.add(self)
        due = self._next_look(self._began)
        if due is not None:
            self._owner.schedule(self, due)
        self._say(self.exchange.start())

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._heard = self._moved = self._owner.now
        if self.exchange.over:
            return
        said = self.exchange.receive(data)
        if self.exchange.rest:
            self._rests_until = self._heard + self.exchange.rest
            self._listen_or_not()
            self._owner.schedule(self, self._rests_until)
        self._say(said)

    def eof_received(self) -> bool:
        """See asyncio.Protocol. True: keep the transport, there may be an answer to come."""
        self._ended = True
        if self._linger_until is not None:
            self._transport.close()
        else:
            self._say(self.exchange.end())
        return True

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol: the peer is slower than we are."""
        self._paused = True
        self._listen_or_not()

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._paused = False
        self._moved = self._owner.now
        self._listen_or_not()
        # Later: a transport that is closed from within this call reports its end twice.
        self._owner.call_soon(self._pull)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._owner.gone(self)
        self.exchange.close(Cause.RESET if exc is not None else None)

    # What the loop calls ---------------------------------------------------------------------

    def on_timer(self, now: float) -> float | None:
        """Look at the limits; return when to look again."""
        if self._transport.is_closing() and not self._unsent():
            return None
        if self._unsent() != self._backlog:
            self._backlog = self._unsent()
            self._moved = now
        if self._linger_until is not None:
            if self._backlog:
                self._linger_until = now + self._limits.linger  # it counts from our last byte
            if now < self._linger_until:
                return min(self._linger_until, now + self._limits.linger)
            self._transport.close()
            return None
        if self._rests_until is not None and now >= self._rests_until:
            self._rests_until = None
            self._listen_or_not()
        limit = self.exchange.next_limit(self._began, self._moved)
        if limit is None or now < limit[0]:
            return self._next_look(now)
        if self._backlog:
            self.cut(limit[1])
        else:
            self._finish(limit[1])
        return self._linger_until

    def _next_look(self, now: float) -> float | None:
        look = self.exchange.next_look(self._began, self._moved, now)
        looks = [each for each in (look, self._rests_until) if each is not None]
        return min(looks, default=None)

    def drain(self, looked: float) -> None:
        """The server is leaving: finish this talk if it rests. What came before `looked` has been heard."""
        if self._linger_until is not None or looked - self._heard < DRAIN_QUIET:
            return
        if not self._unsent() or self.exchange.pulls:
            self._finish(Cause.DRAINED)

    def cut(self, cause: Cause) -> None:
        """End it now; what is unsent is dropped."""
        self.exchange.close(cause)
        abandon(self._transport.get_extra_info("socket"))
        self._transport.abort()

    # Writing ---------------------------------------------------------------------------------

    def _listen_or_not(self) -> None:
        """Read from the peer, but for as long as it leaves too much unread itself, or has sent too fast."""
        if self._ended or self._transport.is_closing():
            return
        too_much = self._rests_until is not None or self._unsent() > self._limits.unsent
        if too_much and self._linger_until is None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _say(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._moved = self._owner.now
            self._transport.write(data)
            self.exchange.took(data)
        if self.exchange.pulls:
            self._listen_or_not()
            self._pull()
        elif self.exchange.over:
            self._hang_up()

    def _pull(self) -> None:
        """All is sent, or the transport would not have called: say what comes next."""
        if self._paused or self._transport.is_closing():
            return
        data = self.exchange.more()
        if data:
            self._transport.write(data)
            self.exchange.took(data)
            if not self._paused:
                # The socket took it all. One piece a turn: others want the loop as well.
                self._owner.call_soon(self._pull)
        elif self.exchange.over:
            self._hang_up()

    def _hang_up(self) -> None:
        """All is said: close, or shut down our side and wait for the peer to close first."""
        if self._linger_until is not None or self._transport.is_closing():
            return
        if self._ended:
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self._linger_until = self._owner.now + self._limits.linger
        self._owner.schedule(self, self._linger_until)

    def _finish(self, cause: Cause) -> None:
        self._say(self.exchange.finish(cause))
        self.exchange.over = True
        self._hang_up()

    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size()

    def _post(self, data: bytes) -> None:
        if self._doomed or self.exchange.over or self._transport.is_closing() or not data:
            return
        self._transport.write(data)
        self.exchange.took(data)
        if self._unsent() > self._limits.posted:
            # Later: ending this conversation may post to others, and theirs to others again.
            self._doomed = True
            self._owner.call_soon(lambda: self.cut(Cause.STALLED))


class BufferedTalk(Talk, asyncio.BufferedProtocol):
    """A Talk whose transport reads into the loop's buffer."""

    __slots__ = ("_buffer",)

    def __init__(self, loop: AsyncioLoop, listener: Listener, peer: Peer) -> None:
        super().__init__(loop, listener, peer)
        self._buffer = loop.buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol. The buffer is the next one's when this returns."""
        self.data_received(self._buffer[:nbytes].tobytes())


class AsyncioLoop:
    """What the engine waits for beside its transports, and how it ends."""

    def __init__(self, job: Job, *, buffered: bool) -> None:
        self.job = job
        self.buffer = memoryview(bytearray(job.limits.chunk))
        self._talk: Callable[[AsyncioLoop, Listener, Peer], Talk] = BufferedTalk if buffered else Talk
        self.talks: set[Talk | Channel] = set()
        self._reception = Reception(job)
        self._wheel: Wheel[Talk | Channel] = Wheel()
        self._listeners = [each for each in job.listeners if each.role == "listener"]
        self._desks = [DatagramDesk(job, each) for each in job.listeners if each.role == "datagrams"]
        self._arriving: set[asyncio.Task[None]] = set()
        self._welcoming = False
        self._retry: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._abort_at: float | None = None
        self._looked = -math.inf

    @property
    def now(self) -> float:
        """Seconds on the event loop's clock."""
        return self._loop.time()

    async def run(self) -> None:
        """Serve until told to stop, then until the last connection is over."""
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        stop = self.job.stop
        self._loop.add_reader(stop.draining.fileno(), self._drain)
        for listener in self._listeners:
            listener.socket.setblocking(False)
        for desk in self._desks:
            self._loop.add_reader(desk.fileno(), desk.serve)
        for listener in self.job.listeners:
            if listener.role == "connection":
                self._converse(listener, *self._reception.adopt(listener))
        self._welcome()
        self._check_over()
        try:
            await self._over
        finally:
            for latch in (stop.draining, stop.aborting):
                self._loop.remove_reader(latch.fileno())

    # What a talk or a channel needs (channel.Loop) -----------------------------------------------

    def watch(self, channel: Channel) -> None:
        """See channel.Loop."""
        descriptor = channel.socket.fileno()
        if channel.interest & POLLIN:
            self._loop.add_reader(descriptor, channel.on_ready, POLLIN)
        else:
            self._loop.remove_reader(descriptor)
        if channel.interest & POLLOUT:
            self._loop.add_writer(descriptor, channel.on_ready, POLLOUT)
        else:
            self._loop.remove_writer(descriptor)

    def schedule(self, item: Talk | Channel, due: float) -> None:
        """See channel.Loop."""
        self._wheel.schedule(item, due)
        self._set_alarm()

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """See Owner."""
        return self._loop.call_soon(callback)

    def gone(self, item: Talk | Channel) -> None:
        """See channel.Loop."""
        if isinstance(item, Channel):
            self._loop.remove_reader(item.socket.fileno())
            self._loop.remove_writer(item.socket.fileno())
        self._wheel.cancel(item)
        self.talks.discard(item)
        self._left(item.exchange.accepted)

    def _left(self, peer: Peer) -> None:
        self._reception.left(peer)
        # After this callback: the descriptor is given back only when it returns.
        self._loop.call_soon(self._welcome)
        self._loop.call_soon(self._check_over)

    # Welcoming -----------------------------------------------------------------------------------

    def _welcome(self) -> None:
        """Watch the listeners, or stop watching them, as the limits say now."""
        welcoming = self._reception.welcomes()
        pause = self._reception.pause()
        if self._retry is not None:
            self._retry.cancel()
        self._retry = None if pause is None else self._loop.call_later(pause, self._welcome)
        if welcoming == self._welcoming:
            return
        self._welcoming = welcoming
        for listener in self._listeners:
            if welcoming:
                self._loop.add_reader(listener.socket.fileno(), self._accept, listener)
            else:
                self._loop.remove_reader(listener.socket.fileno())

    def _accept(self, listener: Listener) -> bool:
        """Take who waits; whether there was anyone."""
        before = self._reception.number
        for connection, peer in self._reception.accept(listener):
            self._converse(listener, connection, peer)
        self._welcome()
        return self._reception.number > before

    def _converse(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        if connection.family in _TRANSPORTS_CARRY and connection.type == socket.SOCK_STREAM:
            task = self._loop.create_task(self._connect(listener, connection, peer))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)
            return
        channel = Channel(self, self.job, listener, connection, peer)
        self.talks.add(channel)
        self.watch(channel)
        channel.start()

    async def _connect(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        connection.setblocking(False)
        talk = self._talk(self, listener, peer)
        try:
            await self._loop.connect_accepted_socket(lambda: talk, connection)
        except OSError:
            connection.close()
            talk.exchange.close(Cause.RESET)
            self._left(peer)

    # Leaving -------------------------------------------------------------------------------------

    def _drain(self) -> None:
        stop, limits = self.job.stop, self.job.limits
        self._loop.remove_reader(stop.draining.fileno())
        self._loop.add_reader(stop.aborting.fileno(), self._abort)
        for listener in self._listeners:
            self._loop.remove_reader(listener.socket.fileno())
            for _ in range(LAST_ROUNDS):
                if not self._accept(listener):
                    break
            self._loop.remove_reader(listener.socket.fileno())
            listener.close()
        for desk in self._desks:
            self._loop.remove_reader(desk.fileno())
            for _ in range(LAST_ROUNDS):
                if not desk.serve():
                    break
            desk.close()
        self._listeners, self._desks = [], []
        self._abort_at = self.now + limits.drain
        if self.job.observe is not None:
            self.job.observe(Draining(self._reception.open, limits.drain))
        self._press()

    def _press(self) -> None:
        if self.now >= (self._abort_at or 0.0):
            self._abort()
        else:
            for talk in list(self.talks):
                talk.drain(self._looked)
        self._looked = self.now
        self._check_over()
        if not self._over.done():
            self._loop.call_later(DRAIN_TICK, self._press)

    def _abort(self) -> None:
        with contextlib.suppress(ValueError):
            self._loop.remove_reader(self.job.stop.aborting.fileno())
        for talk in list(self.talks):
            if isinstance(talk, Channel):
                talk.close(Cause.ABORTED)
            else:
                talk.cut(Cause.ABORTED)

    def _check_over(self) -> None:
        if not (self._listeners or self._desks or self._reception.open or self._over.done()):
            self._over.set_result(None)

    # Time ----------------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        wait = self._wheel.wait(self.now)
        if wait is None:
            return
        if self._alarm is not None:
            if self._alarm.when() <= self.now + wait + TICK:
                return
            self._alarm.cancel()
        self._alarm = self._loop.call_later(wait, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._wheel.fire(self.now)
        self._set_alarm()
