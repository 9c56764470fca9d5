"""Engine `native`: one thread; a core in C moves the bytes, and Python is called with each chunk.

What it rests on, and what follows:

1. Over nine tenths of a server's time is the kernel's. What is left to an engine is to ask the kernel seldom
   and in batches: io_uring does (`native/uring.c`). Where it is missing or forbidden, as in many
   containers, the same core works by epoll (`native/polling.c`), and `here()` says so.
2. A conversation with nothing around it is driven in C from accept() to close(): `receive` is called with
   each chunk, and no other Python runs. That needs that nobody observes more than what goes wrong, nothing
   is wrapped, posted or pulled, and no rate is kept.
3. Any other stream conversation is a `Talk`, as on asyncio: the core is its transport, and the bookkeeping
   is everybody's (`driver.py`). So events, TLS and the rest are what they are on any engine.
4. Accepting is the core's affair where there is nothing to decide, and `admission.py`'s where there is.
5. What isn't a stream (seqpacket), or is read at a rate, is a `Channel`, for which the core only waits.

`BOTHENDS_NATIVE=epoll` or `=io_uring` in the environment forces either.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import functools
import math
import os
import socket
from collections.abc import Callable, Mapping
from select import POLLIN
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias, cast

from bothends.endpoints import Address
from bothends.engines.access_control import Gate
from bothends.engines.admission import STRAIN_PAUSE, Reception
from bothends.engines.asyncio import Talk
from bothends.engines.base import DRAIN_QUIET, DRAIN_TICK, LAST_ROUNDS, Engine, Job
from bothends.engines.datagrams import DatagramDesk, largest_datagram
from bothends.engines.nonblocking import Channel
from bothends.engines.timers import Wheel
from bothends.errors import errno_text
from bothends.events import Cause, Draining, Dropped, Event, Failed, Relieved, Strained, Why
from bothends.services.amplification_guard import Guard
from bothends.services.base import Conversation, Peer, Service, nowhere
from bothends.sockets import Listener, enable_pktinfo

if TYPE_CHECKING:
    import asyncio

    from bothends.engines import _native
else:
    try:
        from bothends.engines import _native
    except ImportError:
        _native = None

Backend: TypeAlias = Literal["io_uring", "epoll"]

ENVIRONMENT: Final = "BOTHENDS_NATIVE"

_NOT_BUILT: Final = "built without the C core (it takes a C compiler and Python's headers)"


def choose_backend(forced: str) -> tuple[Backend | None, str]:
    """How the core would move bytes here, and why so; None where it can't, with the reason.

    `forced` is "io_uring", "epoll", or "" for whichever is best.
    """
    if _native is None:
        return None, _NOT_BUILT
    if forced not in ("", "io_uring", "epoll"):
        return None, f"{ENVIRONMENT} is {forced!r}, and not io_uring or epoll"
    if forced == "epoll":
        return "epoll", "by epoll, as was asked"
    number = _native.probe()
    if not number:
        return "io_uring", "by io_uring"
    reason = _why_no_ring(number)
    return (None, f"io_uring is {reason}") if forced else ("epoll", f"by epoll, as io_uring is {reason}")


def _why_no_ring(number: int) -> str:
    if number == errno.EINVAL:
        return "too old here (Linux 6.1 is needed)"
    if number in (errno.EPERM, errno.EACCES):
        return "forbidden here (kernel.io_uring_disabled, or a container's seccomp filter)"
    if number == errno.ENOSYS:
        return "not in this kernel"
    return f"refused: {errno_text(number)}"


_BACKEND, _BECAUSE = choose_backend(os.environ.get(ENVIRONMENT, ""))

if _native is not None:
    _native.prepare(Address, Peer, Conversation)


class NativeEngine(Engine):
    """Waits in a core written in C; conversations stay in Python."""

    name = "native"
    summary = "one thread runs a core in C, which moves the bytes by io_uring or epoll"
    posts = True
    looks_busily = True

    backend: ClassVar[Backend | None] = _BACKEND
    because: ClassVar[str] = _BECAUSE

    insists: ClassVar[bool] = os.environ.get(ENVIRONMENT) == "io_uring"
    """Whether it would rather fail than do with epoll."""

    sizes: ClassVar[Mapping[str, int]] = {}
    """Sizes of the ring, for those who want others: submissions, completions, buffers, buffer_size."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._loop: NativeLoop | None = None

    def run(self) -> None:
        """Serve until told to stop."""
        try:
            self._loop = NativeLoop(self.job, self.backend == "io_uring", self.sizes)
        except OSError:
            # The probe was granted a small ring, and this one is refused: memory, or descriptors.
            if self.insists or self.backend != "io_uring":
                raise
            self._loop = NativeLoop(self.job, False, self.sizes)
        try:
            self._loop.reload()  # another thread may have had another service loaded meanwhile
            self._loop.run()
        finally:
            self._loop.close()

    def reload(self, service: Service) -> None:
        """See Engine.reload."""
        super().reload(service)
        if self._loop is not None:
            self._loop.reload()

    @classmethod
    def missing(cls) -> str | None:
        """See Engine.missing."""
        return None if cls.backend else cls.because

    @classmethod
    def here(cls) -> str:
        """See Engine.here."""
        return cls.because if cls.backend else ""


class NativeOnEpoll(NativeEngine):
    """The same, on epoll wherever it runs: what others get where io_uring is forbidden."""

    backend, because = choose_backend("epoll")


class NativeOnRing(NativeEngine):
    """The same, on io_uring or not at all."""

    backend, because = choose_backend("io_uring")
    insists = True


class NativeTalk(Talk):
    """A Talk whose transport is a connection of the core's."""

    __slots__ = ()

    def cut(self, cause: Cause) -> None:
        """See Talk.cut. The core's abort() resets by itself."""
        self.exchange.close(cause)
        self._transport.abort()


class NativeLoop:
    """What Python does beside the core: whatever has to be decided, told or timed."""

    def __init__(self, job: Job, io_uring: bool, sizes: Mapping[str, int]) -> None:
        self.job = job
        limits = job.limits
        self.talks: set[Talk | Channel] = set()
        self._reception = Reception(job)
        self._wheel: Wheel[Talk | Channel] = Wheel()
        self._listeners = [each for each in job.listeners if each.role == "listener"]
        datagrams = [each for each in job.listeners if each.role == "datagrams"]
        # Who observes is told of each datagram: then they are dealt with one by one.
        self._answered_in_core = datagrams if job.witness is None else []
        self._desks = [DatagramDesk(job, each) for each in datagrams if job.witness is not None]
        self._soon: collections.deque[Callable[[], object]] = collections.deque()
        self._until: float | None = None
        self._welcoming = False
        self._abort_at: float | None = None
        self._looked = -math.inf
        # Datagrams are received by recvmmsg(), many at once, which a ring can't do better.
        streams = any(each.role != "datagrams" for each in job.listeners)
        self._core = _native.Core(
            io_uring and streams,
            limits.unsent,
            limits.chunk,
            math.inf if limits.idle is None else limits.idle,
            math.inf if limits.life is None else limits.life,
            limits.linger,
            DRAIN_QUIET,
            STRAIN_PAUSE,
            limits.busy_poll,
            limits.message,
            job.service.open,
            nowhere,
            job.service.answer,
            self._left,
            self._pulling,
            None if job.observe is None else self._failed,
            None if job.observe is None else self._strained,
            None if job.observe is None else self._dropped,
            **sizes,
        )
        self._left_to_core = [each for each in self._listeners if self._needs_no_decision(each)]

    @property
    def now(self) -> float:
        """Seconds on the core's clock, as of this turn."""
        return self._core.now

    def run(self) -> None:
        """Serve until told to stop, then until the last connection is over."""
        job, core = self.job, self._core
        core.watch(job.stop.draining.fileno(), lambda _ready: self._drain(), POLLIN, False)
        for listener in self._listeners:
            listener.socket.setblocking(False)
        for desk in self._desks:
            core.watch(desk.fileno(), desk.on_ready, POLLIN, True)
        for listener in self._answered_in_core:
            self._answer(listener)
        for listener in job.listeners:
            if listener.role == "connection":
                self._converse(listener, *self._reception.adopt(listener))
        for listener in self._left_to_core:
            core.listen(listener.socket.fileno(), _fixed_address(listener), job.shared)
        self._welcome()
        while self._serves() or self.talks or core.connections:
            patience = self._patience()
            self._until = None if patience is None else core.now + patience
            core.run(patience)
            for _ in range(len(self._soon)):
                self._soon.popleft()()
            self._wheel.fire(core.now)
            if self._abort_at is not None:
                self._press()
            self._welcome()

    def _serves(self) -> bool:
        return bool(self._listeners or self._desks or self._answered_in_core)

    def close(self) -> None:
        """Cut off whatever is left, and give everything back."""
        self._abort()
        self._core.close()

    def reload(self) -> None:
        """The job has another service. From any thread."""
        self._core.opener = self.job.service.open
        self._core.answerer = self.job.service.answer
        if self._left_to_core and not self._is_plain():
            self.call_soon(self._take_over)

    # What a talk or a channel needs (asyncio.Owner, channel.Loop) ---------------------------------

    def watch(self, channel: Channel) -> None:
        """See channel.Loop."""
        self._core.watch(channel.socket.fileno(), channel.on_ready, channel.interest, False)

    def schedule(self, item: Talk | Channel, due: float) -> None:
        """See channel.Loop."""
        self._wheel.schedule(item, due)
        if self._until is None or due < self._until:
            self._core.interrupt()

    def gone(self, item: Talk | Channel) -> None:
        """See channel.Loop."""
        if isinstance(item, Channel):
            self._core.unwatch(item.socket.fileno())
        self._wheel.cancel(item)
        self.talks.discard(item)
        # After this callback: a channel's descriptor is given back only when it returns.
        self.call_soon(functools.partial(self._left, item.exchange.accepted))

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call it when the stack is flat again. From any thread."""
        self._soon.append(callback)
        self._core.interrupt()

    def _left(self, peer: Peer) -> None:
        self._reception.left(peer)
        self._core.interrupt()

    # Welcoming -----------------------------------------------------------------------------------

    def _is_plain(self) -> bool:
        """Whether C may hold the conversations (2 above)."""
        job = self.job
        return job.witness is None and not (job.opener or job.service.posts or job.limits.rate)

    def _needs_no_decision(self, listener: Listener) -> bool:
        """Whether C may accept at this listener (4 above)."""
        limits = self.job.limits
        has_options = listener.endpoint.is_unix and bool(listener.endpoint.options)
        decides = limits.connections or limits.per_address or limits.allow or limits.deny or has_options
        return self._is_plain() and not decides and listener.socket.type == socket.SOCK_STREAM

    def _take_over(self) -> None:
        """Accept here from now on, at every listener."""
        if self._left_to_core:
            self._left_to_core = []
            self._core.deafen()
            self._stop_welcoming()

    def _stop_welcoming(self) -> None:
        self._welcoming = False
        for listener in self._listeners:
            if listener not in self._left_to_core:
                self._core.unwatch(listener.socket.fileno())

    def _welcome(self) -> None:
        """Watch the listeners, or stop watching them, as the limits say now."""
        welcoming = self._reception.welcomes()
        if welcoming == self._welcoming:
            return
        if not welcoming:
            self._stop_welcoming()
            return
        self._welcoming = True
        for listener in self._listeners:
            if listener not in self._left_to_core:
                accept = functools.partial(self._accept, listener)
                self._core.watch(listener.socket.fileno(), accept, POLLIN, True)

    def _accept(self, listener: Listener, _ready: int = POLLIN) -> bool:
        """Take who waits; whether there was anyone."""
        before = self._reception.number
        for connection, peer in self._reception.accept(listener):
            self._converse(listener, connection, peer)
        if not self._reception.welcomes():
            self._core.interrupt()
        return self._reception.number > before

    def _converse(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        if connection.type != socket.SOCK_STREAM or self.job.limits.rate is not None:
            channel = Channel(self, self.job, listener, connection, peer)
            self.talks.add(channel)
            self.watch(channel)
            channel.start()
        elif not self._is_plain():
            self._talk(self.job, listener, connection.detach(), peer)
        else:
            try:
                conversation = self.job.service.open(peer, nowhere)
                pulls = conversation.pulls
            except Exception as error:
                self._failed(peer, error)
                self._core.converse(connection.detach(), None, peer)
                return
            if pulls:
                self._talk(_opened(self.job, conversation), listener, connection.detach(), peer)
            else:
                self._core.converse(connection.detach(), conversation, peer)

    def _pulling(self, descriptor: int, peer: Peer, conversation: Conversation) -> None:
        """The core has accepted somebody whose conversation pulls."""
        self._reception.open += 1
        self._talk(_opened(self.job, conversation), self._listeners[0], descriptor, peer)

    def _talk(self, job: Job, listener: Listener, descriptor: int, peer: Peer) -> None:
        talk = NativeTalk(self, listener, peer, job)
        connection = self._core.adopt(descriptor, talk)
        talk.connection_made(cast("asyncio.Transport", connection))  # it has of one what a talk uses

    # Datagrams -----------------------------------------------------------------------------------

    def _answer(self, listener: Listener) -> None:
        """Have the core answer datagrams: as DatagramDesk does, with nobody to be told."""
        sock, job = listener.socket, self.job
        sock.setblocking(False)
        gate = Gate(job.limits) if job.limits.allow or job.limits.deny else None
        rate = job.service.answers_per_second
        guard = Guard(rate) if rate is not None else None

        def refuse(peer: Peer) -> object:
            refusal = None if gate is None else gate.refusal(peer.address)
            if refusal is None and guard is not None:
                refusal = guard.refusal(peer.address)
            if refusal is not None:
                self._tell(Dropped(peer.address, *refusal))
            return refusal

        internet = sock.family in (socket.AF_INET, socket.AF_INET6)
        largest = largest_datagram(sock, job.limits)
        wildcard = enable_pktinfo(sock)
        refuses = refuse if gate is not None or guard is not None else None
        self._core.answer(sock.fileno(), listener.address, refuses, largest, wildcard, internet)

    # Telling what goes wrong ---------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        if self.job.observe is not None:
            self.job.observe(event)

    def _failed(self, peer: Peer, error: BaseException) -> None:
        self._tell(Failed(peer.connection, peer.address, error))

    def _strained(self, number: int) -> None:
        self._tell(Strained(number, self._core.connections) if number else Relieved())

    def _dropped(self, peer: Peer, reason: int, number: int) -> None:
        words, why = (
            (f"a datagram of more than {number} bytes", Why.SIZE),
            ("the sender has no address (it did not bind one)", Why.NAMELESS),
            (f"sending it: {errno_text(number)}", Why.UNSENT),
        )[reason]
        self._tell(Dropped(peer.address, words, why))

    # Waiting -------------------------------------------------------------------------------------

    def _patience(self) -> float | None:
        """How long nothing but a ready descriptor can want us."""
        if self._soon:
            return 0.0
        waits = [self._wheel.wait(self.now), self._reception.pause()]
        if self._abort_at is not None:
            waits.append(DRAIN_TICK)
        return min((wait for wait in waits if wait is not None), default=None)

    # Leaving -------------------------------------------------------------------------------------

    def _drain(self) -> None:
        stop, limits, core = self.job.stop, self.job.limits, self._core
        core.unwatch(stop.draining.fileno())
        core.watch(stop.aborting.fileno(), lambda _ready: self._abort(), POLLIN, False)
        core.deafen()
        for listener in self._listeners:
            if listener not in self._left_to_core:
                core.unwatch(listener.socket.fileno())
                for _ in range(LAST_ROUNDS):
                    if not self._accept(listener):
                        break
            listener.close()
        for desk in self._desks:
            core.unwatch(desk.fileno())
            for _ in range(LAST_ROUNDS):
                if not desk.serve():
                    break
            desk.close()
        for listener in self._answered_in_core:
            core.mute(listener.socket.fileno())
            listener.close()
        self._listeners, self._left_to_core, self._desks, self._answered_in_core = [], [], [], []
        self._abort_at = self.now + limits.drain
        channels = sum(isinstance(each, Channel) for each in self.talks)
        self._tell(Draining(core.connections + channels, limits.drain))
        core.interrupt()

    def _press(self) -> None:
        if self._abort_at is not None and self.now >= self._abort_at:
            self._abort()
            return
        self._core.drain(self._looked)
        for talk in list(self.talks):
            talk.drain(self._looked)
        self._looked = self.now

    def _abort(self) -> None:
        self._core.unwatch(self.job.stop.aborting.fileno())
        for talk in list(self.talks):
            if isinstance(talk, Channel):
                talk.close(Cause.ABORTED)
            else:
                talk.cut(Cause.ABORTED)
        self._core.abort()


def _opened(job: Job, conversation: Conversation) -> Job:
    """The same job for one peer, whose conversation is open already."""
    return dataclasses.replace(job, opener=lambda _listener, _peer, _post: conversation)


def _fixed_address(listener: Listener) -> Address | None:
    """Our address on every connection of this listener, or None where each has its own."""
    address = listener.address
    return None if address.host in ("", "0.0.0.0", "::") or address.family == "vsock" else address
