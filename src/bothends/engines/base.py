"""Engines: how a server waits for many peers. The contract between a server and an engine.

Rank 2: imports `services/base.py` only, and no service by name.

1. A server binds its sockets, fills in an `EngineContext` and calls `run()`, which serves until asked to stop
   and returns when every connection is closed. `run()` is called once.
2. When `context.stop.draining` is set, the engine accepts the connections that are already in the accept
   queues (the kernel has completed their handshakes), then closes the listeners, so that the kernel refuses
   later ones at once. It closes each connection that has received nothing for DRAIN_IDLE seconds and has no
   unsent data. The others continue.
3. `context.limits.drain` seconds later, or when `context.stop.aborting` is set, the engine aborts the
   remaining connections, and `run()` returns.
4. An answer that is sent whole ends with FIN. A conversation that is cut off with something left to send ends
   with RST, so that no truncated answer looks whole (`connection_state.py`).
5. Class attributes state what an engine supports (`streams`, `datagrams`, `supports_push`, ...),
   `unavailable_reason()` why it cannot run on this machine, and `unsupported_reason()` why it does not
   support one service on one endpoint.

Modules that the engines share: `driver.py` (one conversation without a socket), `connection_state.py` (the
states and limits of its connection), `admission.py` (accepting under limits), `server_loop.py` and
`loop_connection.py` (the event loops and their connections), `nonblocking.py` and `blocking.py` (moving the
bytes on a socket of that mode), `datagrams.py`.
"""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, TypeAlias

from bothends.endpoints import Endpoint
from bothends.engines.shutdown import ShutdownFlags
from bothends.errors import UnsupportedCombination
from bothends.events import (
    CountedTraffic,
    FilteredObserver,
    LoggedTraffic,
    Observer,
    ProblemsOnly,
    SharedCounters,
    WithoutMessages,
)
from bothends.services.base import Conversation, Peer, Push, Service, discard_push
from bothends.sockets import Listener

__all__ = ["DRAIN_IDLE", "ConversationOpener", "Engine", "EngineContext", "Limits", "Network"]

# Seconds without received data after which a draining server closes a connection: long enough for data in
# flight from the same continent to arrive, short enough that ^C with an idle client attached feels immediate.
DRAIN_IDLE: Final = 0.15

# Seconds between idle checks while draining. A connection counts as idle only if nothing had arrived at the
# previous check, because all data of that time has been read by now. Data that has arrived since may still be
# unread if the loop was delayed.
DRAIN_TICK: Final = 0.05

# Batches of connections accepted from one queue when draining starts: enough for a full queue (4,096), and a
# bound if clients keep connecting.
FINAL_ACCEPT_BATCHES: Final = 64


Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server. Times are in seconds and sizes in bytes; None means no limit."""

    connections: int | None = None
    """Maximum number of open connections, in each process."""

    per_address: int | None = None
    """Maximum number of open connections from one address, in each process. More are closed at once."""

    allow: tuple[Network, ...] = ()
    """Networks that may connect. Empty: all networks that are not denied."""

    deny: tuple[Network, ...] = ()
    """Networks that may not connect. Takes precedence over `allow`."""

    when_full: Literal["defer", "refuse", "evict"] = "defer"
    """At the connection limit: leave connections in the accept queue, or accept and close them at once, or
    ("evict", for select, poll and epoll only) accept them and close the one that has been idle for longest,
    of the address with the most connections."""

    idle: float | None = None
    """Idle timeout: maximum time without data sent or received."""

    life: float | None = None
    """Maximum lifetime of a connection, active or not."""

    message: int | None = None
    """Maximum message size: a datagram, a seqpacket message, a line where the service reads lines. None
    leaves it to the service."""

    rate: int | None = None
    """Maximum average rate at which one connection is read, in bytes a second. A peer that sends faster is
    read more slowly, and its sends block."""

    handshake: float = 10.0
    """Timeout of the TLS handshake or PROXY header, from accept()."""

    drain: float = 5.0
    """Drain timeout: from the request to stop until the remaining connections are aborted."""

    linger: float = 2.0
    """After the last byte is sent, how long to wait for the peer's FIN. Closing with unread input would make
    the kernel send RST, which can destroy the last reply on its way (RFC 1122, 4.2.2.13)."""

    unsent: int = 256 * 1024
    """High-water mark of the write buffer: with more unsent output, nothing is read from that peer, until no
    more than half of this is left."""

    posted: int = 4 * 1024 * 1024
    """Limit of the write buffer for pushed data: with more unsent output, the connection is aborted."""

    chunk: int = 64 * 1024
    """Maximum size of one read."""

    busy_poll: float = 0.0
    """How long to poll without blocking before each wait. Saves a wakeup, which is most of the latency of a
    single request, and uses a CPU meanwhile. 20 to 50 microseconds are enough."""


ConversationOpener: TypeAlias = Callable[[Listener, Peer, Push], Conversation]


@dataclass(slots=True)
class EngineContext:
    """The parameters of an engine: service, listeners, limits, observer, and the flags that stop it."""

    service: Service
    listeners: Sequence[Listener]
    stop: ShutdownFlags
    limits: Limits = field(default_factory=Limits)
    observe: Observer | None = None
    opener: ConversationOpener | None = None
    """Opens conversations in place of the service, if there are layers (TLS, PROXY) around it."""
    shared: bool = False
    """Whether other processes accept from the same listeners (`--workers`)."""
    traffic_observer: Observer | None = field(init=False)
    """The observer of connects and closes. None if only problems are observed."""
    message_observer: Observer | None = field(init=False)
    """The observer of messages. None if there is none, or if they are not observed.

    Creating an event for each message takes longer than answering it.
    """

    def __post_init__(self) -> None:
        observe = self.observe
        self.traffic_observer = None if isinstance(observe, ProblemsOnly) else observe
        if isinstance(observe, LoggedTraffic) and observe.counters is None:
            observe = observe.observe
        self.message_observer = None if isinstance(observe, FilteredObserver) else self.observe

    @property
    def connection_log(self) -> Observer | None:
        """What gets connects and closes, if messages are at most counted; otherwise None.

        For an engine that counts itself: unlike `traffic_observer`, it doesn't count.
        """
        observe = self.observe.observe if isinstance(self.observe, CountedTraffic) else self.observe
        return observe if isinstance(observe, WithoutMessages) else None

    @property
    def logged_traffic(self) -> LoggedTraffic | None:
        """The log of connections and messages, if an engine may write it itself."""
        return self.observe if isinstance(self.observe, LoggedTraffic) else None

    @property
    def counters(self) -> SharedCounters | None:
        """What counts connections and messages, if an engine may count them itself."""
        return self.observe.counters if isinstance(self.observe, CountedTraffic | LoggedTraffic) else None

    def open_conversation(self, listener: Listener, peer: Peer, push: Push = discard_push) -> Conversation:
        """Open a conversation with a peer that connected to `listener`."""
        if self.opener is not None:
            return self.opener(listener, peer, push)
        return self.service.open(peer, push)


class Engine(ABC):
    """One concurrency model."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line: how it waits."""

    streams: ClassVar[bool] = True
    """Serves connections."""

    datagrams: ClassVar[bool] = True
    """Serves datagram sockets."""

    supports_push: ClassVar[bool] = False
    """Delivers data that a service pushes to an idle peer."""

    concurrent: ClassVar[bool] = True
    """Serves a second connection while the first is idle."""

    rejects_when_full: ClassVar[bool] = True
    """Accepts connections at the connection limit, to close them (`limits.when_full="refuse"`)."""

    evicts_when_full: ClassVar[bool] = False
    """Closes an idle connection at the connection limit, to accept another (`limits.when_full="evict"`)."""

    accepts_inherited: ClassVar[bool] = True
    """Serves an inherited connection (standard input and output, or a connected descriptor)."""

    supports_busy_poll: ClassVar[bool] = False
    """Can poll without blocking (`limits.busy_poll`)."""

    why_not: ClassVar[dict[str, str]] = {}
    """The reason, in words, for each of the attributes above that is False, keyed by attribute name.
    `supports_busy_poll` needs none."""

    def __init__(self, context: EngineContext) -> None:
        self.context = context

    @abstractmethod
    def run(self) -> None:
        """Serve until asked to stop. See the contract above."""

    def reload(self, service: Service) -> None:
        """Use this service for new conversations. Open conversations keep the old one.

        Called from another thread during `run`.
        """
        self.context.service = service

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """Return why this engine cannot run on this machine, or None if it can."""
        return None

    @classmethod
    def backend_info(cls) -> str:
        """Return the mechanism used on this machine, in words, or "" if it is the same on every machine."""
        return ""

    @classmethod
    def unsupported_reason(cls, service: Service, endpoint: Endpoint) -> UnsupportedCombination | None:
        """Return why this engine does not support this service on this endpoint, or None if it does."""
        lack = cls.lack("datagrams" if endpoint.is_datagram else "streams", str(endpoint))
        if lack is None and service.pushes:
            lack = cls.lack("supports_push", f"service {service.name}")
        return lack

    @classmethod
    def lack(cls, capability: str, what: str) -> UnsupportedCombination | None:
        """Return why this engine does not support `what`, or None if it has the capability for it.

        `capability`: the name of an attribute above.
        """
        if getattr(cls, capability):
            return None
        return UnsupportedCombination(f"engine {cls.name}", what, cls.why_not[capability])
