"""Engines: how a server waits for many peers. The contract between a server and an engine.

Rank 2: knows services through `services/base.py` only, and no name of any of them.

1. A server binds, fills in a `EngineContext` and calls `run()`, which serves until it is told to stop and
   comes back when every connection is over. `run()` is called once.
2. `context.stop.draining` set: take what already waits in the listeners' queues (the kernel has
   welcomed those peers), then close the listeners, so that later ones are refused at once. A
   connection on which nothing has arrived for DRAIN_QUIET seconds, and to which nothing is owed,
   is finished; the others go on.
3. `context.limits.drain` seconds after that, or when `context.stop.aborting` is set, whatever is left is
   cut off. Then `run()` returns.
4. A class says what it can carry (`streams`, `datagrams`, `posts`, ...), `missing()` why it can't
   run here at all, and `refusal()` why it can't carry one service on one endpoint.

What all engines have in common stands beside this file: `driver.py` (one connection's bookkeeping
without the connection), `admission.py` (accepting, under limits), `nonblocking.py` (one connection that
never blocks), `blocking.py` (one that may), `datagrams.py`.
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
from bothends.events import Observer, ProblemsOnly
from bothends.services.base import Conversation, Peer, Push, Service, discard_push
from bothends.sockets import Listener

# Long enough for what a peer on the same continent has already sent to arrive, short enough that
# ^C with an idle client attached feels immediate.
DRAIN_IDLE: Final = 0.15

# How often a draining loop looks who has come to rest: by the time of its last look, since what had come by
# then has been heard now. (What has come by now need not have been: the loop may have been held up.)
DRAIN_TICK: Final = 0.05

# How often a draining loop goes back for who waits already. Enough for a full queue (4,096), and an end
# to it while more keep coming.
FINAL_ACCEPT_BATCHES: Final = 64


Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server grants. Times in seconds, None for no limit; sizes in bytes."""

    connections: int | None = None
    """Most connections at once, in each process."""

    per_address: int | None = None
    """Most connections at once from one address, in each process; more are closed at once."""

    allow: tuple[Network, ...] = ()
    """Networks that may come in; empty: all that are not denied."""

    deny: tuple[Network, ...] = ()
    """Networks that may not, whatever is allowed."""

    when_full: Literal["defer", "refuse"] = "defer"
    """At the limit, leave newcomers in the kernel's queue, or accept and close them at once."""

    idle: float | None = None
    """Longest time in which nothing moves, in either direction."""

    life: float | None = None
    """Longest time from a connection's beginning to its end, whatever happens on it."""

    message: int | None = None
    """Longest message: a datagram, a packet of seqpacket, a line where the service has lines. None
    leaves it to the service."""

    rate: int | None = None
    """Most bytes a second that are read from one connection, on average; whoever sends faster is
    read more slowly, and waits."""

    handshake: float = 10.0
    """Longest time until a wrapped connection (TLS, PROXY protocol) is ready."""

    drain: float = 5.0
    """From being told to stop to cutting off whoever is still there."""

    linger: float = 2.0
    """After our last byte, how long the peer may take to close its side. Closing with its bytes
    unread would make the kernel send RST, which can destroy our last answer on its way
    (RFC 1122, 4.2.2.13)."""

    unsent: int = 256 * 1024
    """Above this much unsent output, nothing more is read from that peer."""

    posted: int = 4 * 1024 * 1024
    """Above this much unsent output, a peer that is posted to and does not read is cut off."""

    chunk: int = 64 * 1024
    """Most bytes taken by one read."""

    busy_poll: float = 0.0
    """How long to go on looking for something new before letting the processor go. Spares a wake-up, which
    is most of the time of a lone request, and costs the processor meanwhile: 20 to 50 microseconds are
    enough."""


ConversationOpener: TypeAlias = Callable[[Listener, Peer, Push], Conversation]


@dataclass(slots=True)
class EngineContext:
    """What an engine is given: what to serve, where, within which limits, and how it is told to stop."""

    service: Service
    listeners: Sequence[Listener]
    stop: ShutdownFlags
    limits: Limits = field(default_factory=Limits)
    observe: Observer | None = None
    opener: ConversationOpener | None = None
    """Opens a conversation where something is put between a connection and its service."""
    shared: bool = False
    """Whether other processes accept from the same listeners (`--workers`)."""

    @property
    def traffic_observer(self) -> Observer | None:
        """Whom to tell of comings, goings and messages: nobody, where all that is told is what goes wrong.
        To make an event for each message takes longer than to answer it."""
        return None if isinstance(self.observe, ProblemsOnly) else self.observe

    def open_conversation(self, listener: Listener, peer: Peer, push: Push = discard_push) -> Conversation:
        """A conversation with a peer that came in by `listener`."""
        if self.opener is not None:
            return self.opener(listener, peer, push)
        return self.service.open(peer, push)


class Engine(ABC):
    """One concurrency model."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line: what waits for what."""

    streams: ClassVar[bool] = True
    datagrams: ClassVar[bool] = True
    supports_push: ClassVar[bool] = False
    """Delivers what a service posts to a peer that has not asked."""

    concurrent: ClassVar[bool] = True
    """Serves a second connection while the first is idle."""

    rejects_when_full: ClassVar[bool] = True
    """Looks at newcomers at its limit of connections, to close them (`limits.when_full="refuse"`)."""

    accepts_inherited: ClassVar[bool] = True
    """Serves a connection that is ready-made (standard input and output, a connected descriptor)."""

    supports_busy_poll: ClassVar[bool] = False
    """Can look for something new without waiting for it (`limits.busy_poll`)."""

    why_not: ClassVar[dict[str, str]] = {}
    """The reason, in words, for each of the above that is False and by default isn't: by its attribute's
    name."""

    def __init__(self, context: EngineContext) -> None:
        self.context = context

    @abstractmethod
    def run(self) -> None:
        """Serve until told to stop; see the contract above."""

    def reload(self, service: Service) -> None:
        """Serve this service from the next conversation on; those that go on keep theirs.

        Called from another thread while `run` runs.
        """
        self.context.service = service

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """Why this engine can't run on this machine, or None when it can."""
        return None

    @classmethod
    def backend_info(cls) -> str:
        """What it does on this machine, in words, where that is not the same on all; "" where it is."""
        return ""

    @classmethod
    def unsupported_reason(cls, service: Service, endpoint: Endpoint) -> UnsupportedCombination | None:
        """Why this engine can't carry this service on this endpoint, or None when it can."""
        if endpoint.is_datagram and not cls.datagrams:
            return UnsupportedCombination(f"engine {cls.name}", str(endpoint), cls.why_not["datagrams"])
        if not endpoint.is_datagram and not cls.streams:
            return UnsupportedCombination(f"engine {cls.name}", str(endpoint), cls.why_not["streams"])
        if service.pushes and not cls.supports_push:
            return UnsupportedCombination(
                f"engine {cls.name}", f"service {service.name}", cls.why_not["posts"]
            )
        return None
