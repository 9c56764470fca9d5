"""Engine `native`: one thread; a core in C moves the bytes, and calls Python with each chunk.

Facts, and what follows:

1. Over nine tenths of a server's time is spent in the kernel. An engine can only make fewer system calls, in
   batches, which io_uring does (`native/backend_uring.c`). Where it is missing or forbidden, as in many
   containers, the same core uses epoll (`native/backend_epoll.c`), and `backend_info()` says so.
2. A plain conversation runs in C from accept() to close(): the core calls `receive` with each chunk, and no
   other Python code runs. This requires that messages are at most counted and logged, not otherwise observed,
   that there are no layers, pushes or pull producers, and no rate limit. What is counted, the core counts
   where it happens, in the words of the metrics (`native/counters.c`). What is logged, it writes in the form
   that the log gives it (`LineFormat`, `native/traffic_log.c`), and passes it on in batches.
3. Any other stream conversation uses the ConversationProtocol of the asyncio engine, with the core as its
   transport, and the same `driver.py` as every engine. So events, TLS and limits work as on any engine.
4. The core accepts the connections of plain conversations, up to the connection limit. It asks `admission.py`
   about each if peers may be refused. All others `admission.py` accepts.
5. A seqpacket socket, or a connection with a rate limit, is a NonblockingConnection. For it the core only
   reports ready descriptors.

Set `BOTHENDS_NATIVE=epoll` or `=io_uring` in the environment to force a backend.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import math
import os
import socket
from collections.abc import Callable, Mapping
from select import POLLIN
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias, cast

from bothends.endpoints import Address
from bothends.engines.admission import ACCEPT_PAUSE
from bothends.engines.asyncio import ConversationProtocol
from bothends.engines.base import DRAIN_IDLE, Engine, EngineContext
from bothends.engines.connection_state import TRANSITIONS
from bothends.engines.datagrams import max_datagram_size, sender_check
from bothends.engines.loop_connection import LoopConnection
from bothends.engines.nonblocking import Handler, NonblockingConnection
from bothends.engines.server_loop import ServerLoop
from bothends.errors import errno_text
from bothends.events import (
    Accepted,
    AcceptPaused,
    AcceptResumed,
    Closed,
    CloseReason,
    DatagramDropped,
    Event,
    LoggedTraffic,
    Received,
    RejectReason,
    ServiceFailed,
)
from bothends.install_hints import rebuild_command
from bothends.services.base import Conversation, Peer, Service, discard_push
from bothends.services.loop_guard import LOOP_REJECTION
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

BACKEND_VARIABLE: Final = "BOTHENDS_NATIVE"


def choose_backend(forced: str) -> tuple[Backend | None, str]:
    """Choose the core's backend on this machine.

    `forced` is "io_uring", "epoll", or "" for the best one.

    Returns: the backend and a phrase that describes it, or None and the reason.
    """
    if _native is None:
        return None, f"built without the C core; with a C compiler and Python's headers: {rebuild_command()}"
    if forced not in ("", "io_uring", "epoll"):
        return None, f"{BACKEND_VARIABLE} is {forced!r}, not io_uring or epoll"
    if forced == "epoll":
        return "epoll", "by epoll, as requested"
    error_number = _native.probe()
    if not error_number:
        return "io_uring", "by io_uring"
    reason = _uring_unavailable_reason(error_number)
    return (None, f"io_uring is {reason}") if forced else ("epoll", f"by epoll, because io_uring is {reason}")


def _uring_unavailable_reason(error_number: int) -> str:
    if error_number == errno.EINVAL:
        return "too old here (Linux 6.1 is required)"
    if error_number in (errno.EPERM, errno.EACCES):
        return "forbidden here (kernel.io_uring_disabled, or a container's seccomp filter)"
    if error_number == errno.ENOSYS:
        return "not in this kernel"
    return f"not available: {errno_text(error_number)}"


_BACKEND, _BACKEND_REASON = choose_backend(os.environ.get(BACKEND_VARIABLE, ""))

_CLOSE_REASONS: Final = tuple(CloseReason[name.upper()] for name in getattr(_native, "CLOSE_REASONS", ()))

if _native is not None:
    _native.bind(Address, Peer, Conversation, TRANSITIONS)


class NativeEngine(Engine):
    """One thread that runs an event loop in C; conversations are in Python."""

    name = "native"
    summary = "one thread runs a core in C, which moves the bytes by io_uring or epoll"
    supports_push = True
    supports_busy_poll = True

    backend: ClassVar[Backend | None] = _BACKEND
    backend_reason: ClassVar[str] = _BACKEND_REASON

    requires_uring: ClassVar[bool] = os.environ.get(BACKEND_VARIABLE) == "io_uring"
    """Whether to fail rather than fall back to epoll."""

    ring_sizes: ClassVar[Mapping[str, int]] = {}
    """Sizes of the ring, if not the default: submissions, completions, buffers, buffer_size (bytes)."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context)
        self._loop: NativeLoop | None = None

    def run(self) -> None:
        """Serve until asked to stop."""
        try:
            self._loop = NativeLoop(self.context, self.backend == "io_uring", self.ring_sizes)
        except OSError:
            # The kernel granted the small ring of probe(), but not this one: ENOMEM, EMFILE.
            if self.requires_uring or self.backend != "io_uring":
                raise
            self._loop = NativeLoop(self.context, False, self.ring_sizes)
        try:
            self._loop.reload()  # another thread may have reloaded the service meanwhile
            self._loop.run()
        finally:
            self._loop.close()

    def reload(self, service: Service) -> None:
        super().reload(service)
        if self._loop is not None:
            self._loop.reload()

    @classmethod
    def unavailable_reason(cls) -> str | None:
        return None if cls.backend else cls.backend_reason

    @classmethod
    def backend_info(cls) -> str:
        return cls.backend_reason if cls.backend else ""


class NativeEpollEngine(NativeEngine):
    """The native engine on epoll, as it runs where io_uring is forbidden."""

    backend, backend_reason = choose_backend("epoll")


class NativeUringEngine(NativeEngine):
    """The native engine on io_uring, without a fallback."""

    backend, backend_reason = choose_backend("io_uring")
    requires_uring = True


class NativeConversationProtocol(ConversationProtocol):
    """A ConversationProtocol whose transport is a connection of the core."""

    __slots__ = ()

    def _close_socket(self, *, reset: bool) -> None:
        if reset:
            self._transport.abort()  # the core's abort() sends RST
        else:
            self._transport.close()


class NativeLoop(ServerLoop):
    """The server loop on the core, which serves some of the listeners and datagram sockets itself."""

    def __init__(self, context: EngineContext, io_uring: bool, ring_sizes: Mapping[str, int]) -> None:
        limits = context.limits
        self._callbacks: collections.deque[Callable[[], object]] = collections.deque()
        self._wakeup_at: float | None = None
        super().__init__(context)
        self._core_datagram_listeners = [
            each
            for each in context.listeners
            if each.role == "datagrams" and each not in self.datagram_listeners()
        ]
        log = context.logged_traffic
        # Whether the core asks `admission` about each peer, which then counts as open until its end.
        self._core_asks = context.connection_log is not None or bool(
            limits.connections or limits.per_address or limits.allow or limits.deny
        )
        # recvmmsg() receives datagrams in batches already, so a ring would not be faster.
        streams = any(each.role != "datagrams" for each in context.listeners)
        self._core = _native.Core(
            io_uring=io_uring and streams,
            write_high_water=limits.unsent,
            read_size=limits.chunk,
            idle_timeout=math.inf if limits.idle is None else limits.idle,
            max_lifetime=math.inf if limits.life is None else limits.life,
            linger_timeout=limits.linger,
            drain_idle=DRAIN_IDLE,
            accept_retry_delay=ACCEPT_PAUSE,
            busy_poll=limits.busy_poll,
            max_connections=limits.connections or 0 if limits.when_full == "defer" else 0,
            max_message_size=limits.message,
            admit=self._admit if self._core_asks else None,
            open_conversation=context.service.open,
            push=discard_push,
            answer_datagram=context.service.answer,
            on_connection_opened=None if context.connection_log is None else self._on_connection_opened,
            on_connection_closed=self._on_connection_closed,
            on_pull_conversation=self._on_pull_conversation,
            on_service_error=None if context.observe is None else self._on_service_error,
            on_accept_paused=None if context.observe is None else self._on_accept_paused,
            on_datagram_dropped=None if context.observe is None else self._on_datagram_dropped,
            **ring_sizes,
        )
        if context.counters is not None:
            words, positions = context.counters.counter_words()
            self._core.count(words, tuple(positions[name] for name in _native.COUNTERS))
        if log is not None:
            self._log_in_core(log)
        self._core_listeners = self._choose_core_listeners()

    def _log_in_core(self, log: LoggedTraffic) -> None:
        """Let the core write the log of its conversations."""
        lines = log.line_format

        def add_fragment(peer: Peer, data: bytes) -> None:
            log.observe(Received(peer.connection, peer.address, data))

        self._core.log_traffic(
            write=lines.write,
            format_address=lines.address,
            on_fragment=None if lines.end_fragment is None else add_fragment,
            end_fragment=lines.end_fragment,
            templates=(
                lines.inet, lines.opened, lines.received, lines.sent, lines.ended,
                *(lines.closed[reason] for reason in _CLOSE_REASONS),
            ),
            limit=lines.limit,
            max_fragment=lines.max_fragment,
            message_stream=lines.message_stream,
            activity_stream=lines.activity_stream,
            is_json=lines.is_json,
            line_by_line=lines.line_by_line,
        )  # fmt: skip
        log.flush = self._core.flush_log

    @property
    def now(self) -> float:
        """Seconds on the core's clock, read once in each iteration."""
        return self._core.now

    def time(self) -> float:
        return self._core.now

    def run(self) -> None:
        """Serve until asked to stop, then until the last connection is closed."""
        core = self._core
        self.start()
        for listener in self._core_datagram_listeners:
            self._add_datagram_socket(listener)
        for listener in self._core_listeners:
            core.listen(listener.socket.fileno(), _listener_local_address(listener), self.context.shared)
        self.update_listeners()
        while self.is_serving or self._core_datagram_listeners or self.connections or core.connections:
            timeout = 0.0 if self._callbacks else self.timeout()
            self._wakeup_at = None if timeout is None else core.now + timeout
            core.run(timeout)
            for _ in range(len(self._callbacks)):
                self._callbacks.popleft()()
            self.timer_wheel.run_expired(core.now)
            self.drain_tick()
            self.update_listeners()

    def close(self) -> None:
        """Abort the remaining connections and close the core."""
        self.abort()
        self._core.close()
        if (log := self.context.logged_traffic) is not None:
            log.flush = None

    def reload(self) -> None:
        """Use the context's service for new conversations. Safe from any thread."""
        self._core.open_conversation = self.context.service.open
        self._core.answer_datagram = self.context.service.answer
        if self._core_listeners and not self._can_run_in_c():
            self.call_soon(self._accept_in_python)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` in the next iteration. Safe from any thread."""
        self._callbacks.append(callback)
        self._core.stop()

    # Accepting -----------------------------------------------------------------------------------

    def _can_run_in_c(self) -> bool:
        """Whether conversations can run in C (2 above)."""
        context = self.context
        return not (
            self._observes_messages() or context.opener or context.service.pushes or context.limits.rate
        )

    def _observes_messages(self) -> bool:
        """Whether events of messages are needed: to count and log them, they are not."""
        context = self.context
        is_logged = context.logged_traffic is not None
        return context.message_observer is not None and context.counters is None and not is_logged

    def _choose_core_listeners(self) -> list[Listener]:
        """Return the listeners that the core accepts from (4 above)."""
        if not self._can_run_in_c():
            return []
        streams = [each for each in self.listeners if each.socket.type == socket.SOCK_STREAM]
        chosen = [each for each in streams if not (each.endpoint.is_unix and each.endpoint.options)]
        # The connection limit is one for all listeners, so one side must accept from all of them.
        is_divided = self.context.limits.connections is not None and len(chosen) < len(self.listeners)
        return [] if is_divided else chosen

    def _admit(self, peer: Peer) -> bool:
        """Whether to serve a peer that the core has accepted."""
        return self.admission.admit(peer.address)

    def _accept_in_python(self) -> None:
        """Accept all connections in Python from now on."""
        if self._core_listeners:
            for listener in self.watched_listeners():
                self.unwatch(listener.socket.fileno())
            self._core_listeners = []
            self._accepting = False
            self._core.stop_listening()

    # ServerLoop ----------------------------------------------------------------------------------

    def watch(
        self, descriptor: int, handler: Handler, interest: int = POLLIN, *, shared: bool = False
    ) -> None:
        self._core.watch(descriptor, handler, interest, shared)

    def unwatch(self, descriptor: int) -> None:
        self._core.unwatch(descriptor)

    def schedule(self, connection: LoopConnection, deadline: float) -> None:
        super().schedule(connection, deadline)
        if self._wakeup_at is None or deadline < self._wakeup_at:
            self._core.stop()

    def release(self, peer: Peer) -> None:
        super().release(peer)
        if not (self._accepting and self.is_serving):  # the loop may accept again, or end
            self._core.stop()

    def datagram_listeners(self) -> list[Listener]:
        # An observer of messages receives an event for each datagram, so Python handles them one by one then.
        return super().datagram_listeners() if self._observes_messages() else []

    def watched_listeners(self) -> list[Listener]:
        return [each for each in self.listeners if each not in self._core_listeners]

    def open_count(self) -> int:
        """See ServerLoop.open_count. The core counts the connections that it reads and writes."""
        others = sum(isinstance(each, NonblockingConnection) for each in self.connections)
        return self._core.connections + others

    def accept(self, listener: Listener, _ready: int = POLLIN) -> bool:
        accepted = super().accept(listener)
        if not self.admission.can_accept():
            self._core.stop()
        return accepted

    def start_connection(self, listener: Listener, connection: socket.socket, peer: Peer) -> None:
        if connection.type != socket.SOCK_STREAM or self.context.limits.rate is not None:
            super().start_connection(listener, connection, peer)
        elif not self._can_run_in_c():
            self._attach_protocol(self.context, listener, connection.detach(), peer)
        else:
            try:
                conversation = self.context.service.open(peer, discard_push)
                wants_pull = conversation.wants_pull
            except Exception as error:
                self._on_connection_opened(peer)
                self._on_service_error(peer, error)
                self._core.start_conversation(connection.detach(), None, peer)
                return
            if wants_pull:
                self._attach_protocol(
                    _with_conversation(self.context, conversation), listener, connection.detach(), peer
                )
            else:
                self._on_connection_opened(peer)
                self._core.start_conversation(connection.detach(), conversation, peer)

    def _on_pull_conversation(self, descriptor: int, peer: Peer, conversation: Conversation) -> None:
        """Called when the core has accepted a connection whose conversation is a pull producer."""
        if not self._core_asks:  # otherwise it is counted
            self.admission.open_count += 1
        self._attach_protocol(
            _with_conversation(self.context, conversation), self.context.listeners[0], descriptor, peer
        )

    def _attach_protocol(
        self, context: EngineContext, listener: Listener, descriptor: int, peer: Peer
    ) -> None:
        protocol = NativeConversationProtocol(self, context, listener, peer)
        connection = self._core.attach_protocol(descriptor, protocol)
        # It has the methods of a transport that ConversationProtocol uses.
        protocol.connection_made(cast("asyncio.Transport", connection))

    # Datagrams -----------------------------------------------------------------------------------

    def _add_datagram_socket(self, listener: Listener) -> None:
        """Let the core answer the datagrams of a socket, as DatagramServer does, without message events."""
        sock, context = listener.socket, self.context
        sock.setblocking(False)
        check_sender = sender_check(context)

        def reject(peer: Peer) -> object:
            rejection = None if check_sender is None else check_sender(peer.address)
            if rejection is not None:
                self._emit(DatagramDropped(peer.address, *rejection))
            return rejection

        is_inet = sock.family in (socket.AF_INET, socket.AF_INET6)
        max_size = max_datagram_size(sock, context.limits)
        wildcard = enable_pktinfo(sock)
        callback = None if check_sender is None else reject
        self._core.add_datagram_socket(sock.fileno(), listener.address, callback, max_size, wildcard, is_inet)

    # Events --------------------------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        if self.context.observe is not None:
            self.context.observe(event)

    def _on_connection_opened(self, peer: Peer) -> None:
        if self.context.connection_log is not None:
            self.context.connection_log(Accepted(peer.connection, peer.address, peer.local))

    def _on_connection_closed(self, peer: Peer, reason: int, received: int, sent: int) -> None:
        if self.context.connection_log is not None:
            event = Closed(peer.connection, peer.address, _CLOSE_REASONS[reason], received, sent)
            self.context.connection_log(event)
        self.release(peer)

    def _on_service_error(self, peer: Peer, error: BaseException) -> None:
        self._emit(ServiceFailed(peer.connection, peer.address, error))

    def _on_accept_paused(self, error_number: int) -> None:
        self._emit(AcceptPaused(error_number, self._core.connections) if error_number else AcceptResumed())

    def _on_datagram_dropped(self, peer: Peer, reason: int, number: int) -> None:
        text, why = (
            (f"a datagram of more than {number} bytes", RejectReason.SIZE),
            ("the sender has no address (it did not bind one)", RejectReason.NO_SOURCE_ADDRESS),
            (f"sending it: {errno_text(number)}", RejectReason.SEND_FAILED),
            LOOP_REJECTION,
        )[reason]
        self._emit(DatagramDropped(peer.address, text, why))

    # Shutting down -------------------------------------------------------------------------------

    def stop_serving(self) -> None:
        self._core.stop_listening()
        for listener in self._core_datagram_listeners:
            self._core.remove_datagram_socket(listener.socket.fileno())
            listener.close()
        self._core_listeners, self._core_datagram_listeners = [], []

    def drain(self) -> None:
        super().drain()
        self._core.stop()

    def drain_tick(self) -> None:
        last_check = self._last_drain_check
        super().drain_tick()
        if self._abort_at is not None and self.now < self._abort_at:
            self._core.drain(last_check)

    def abort(self) -> None:
        super().abort()
        self._core.abort()


def _with_conversation(context: EngineContext, conversation: Conversation) -> EngineContext:
    """Copy the context for one peer, whose conversation is already open."""
    return dataclasses.replace(context, opener=lambda _listener, _peer, _push: conversation)


def _listener_local_address(listener: Listener) -> Address | None:
    """Return the local address of the listener's connections, or None if it differs between them."""
    address = listener.address
    return None if address.host in ("", "0.0.0.0", "::") or address.family == "vsock" else address
