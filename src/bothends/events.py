"""What happens while programs talk: one small value for each thing that can be told.

Rank 0: values, no I/O. Engines and the server report them, `log` and (later) metrics and the
time-line listen. Whoever reports calls an observer, a plain function of one event, and asks first
whether there is one:

    if observe is not None:
        observe(Received(number, peer, data))

so that reporting costs one comparison when nobody listens.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypeAlias

from bothends.endpoints import Address, Endpoint


class CloseReason(enum.StrEnum):
    """Why a connection ended."""

    PEER = "the peer closed"
    SERVICE = "the service was done"
    RESET = "reset by the peer"
    IDLE = "idle limit"
    HANDSHAKE = "handshake limit"
    LIFE = "life limit"
    STALLED = "the peer does not read"
    FAILED = "the service failed"
    BROKEN = "what wraps the stream failed"
    DRAINED = "drained"
    ABORTED = "aborted"


class RejectReason(enum.StrEnum):
    """Why somebody was refused or not answered: the kind of it, where `reason` says it in words."""

    FULL = "full"
    ADDRESS = "address"
    NETWORK = "network"
    DESCRIPTOR = "descriptor"
    THREAD = "thread"
    PROCESS = "process"
    SIZE = "size"
    SOURCE = "source"
    RATE = "rate"
    NO_SOURCE_ADDRESS = "nameless"
    SEND_FAILED = "unsent"
    OTHER = "other"


class Rejection(NamedTuple):
    """What whoever decides about a peer answers: why not, in words, and the kind of it."""

    reason: str
    why: RejectReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. `at` is wall-clock time in nanoseconds, the clock strace and SO_TIMESTAMPNS use."""

    at: int = field(default_factory=time.time_ns)


@dataclass(frozen=True, slots=True)
class Listening(Event):
    """A listener or a datagram socket is bound, with its real port."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Accepted(Event):
    """A connection was accepted. `connection` numbers the connections of one process from 1."""

    connection: int
    peer: Address
    local: Address


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """The other end of Opened: a connection to `endpoint` was made, since `began` (as `at` is)."""

    connection: int
    endpoint: Endpoint
    peer: Address
    local: Address
    began: int


@dataclass(frozen=True, slots=True)
class ConnectFailed(Event):
    """None was made."""

    endpoint: Endpoint
    error: BaseException
    began: int


@dataclass(frozen=True, slots=True)
class HandshakeCompleted(Event):
    """What wraps a connection is ready. `agreed` says in words what it agreed; `peer` is who it is,
    `was` the address that it came from, which differs behind a proxy that says for whom it calls."""

    connection: int
    peer: Address
    was: Address
    agreed: str


@dataclass(frozen=True, slots=True)
class Received(Event):
    """Bytes of a connection, as one read gave them, or one whole datagram (`connection` is then 0)."""

    connection: int
    peer: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class Sent(Event):
    """Bytes that the system took for a connection, or one whole datagram (`connection` is then 0)."""

    connection: int
    peer: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class PeerEof(Event):
    """The peer has finished sending: a read gave 0 bytes."""

    connection: int
    peer: Address


@dataclass(frozen=True, slots=True)
class WriteShutdown(Event):
    """We have finished sending, and the peer reads EOF: a half-close."""

    connection: int
    peer: Address


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """A connection is over. `received` and `sent` count bytes."""

    connection: int
    peer: Address
    cause: CloseReason
    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class ServiceFailed(Event):
    """A service raised. The conversation ends, the server goes on. `connection` is 0 for a datagram."""

    connection: int
    peer: Address
    error: BaseException


@dataclass(frozen=True, slots=True)
class RateLimited(Event):
    """A peer sends faster than `limits.rate`: it is read more slowly from now on. Told once, until it
    has kept the rate again."""

    connection: int
    peer: Address
    rate: int


@dataclass(frozen=True, slots=True)
class ConnectionRejected(Event):
    """A connection was accepted and closed at once, or never could be served."""

    peer: Address
    reason: str
    why: RejectReason = RejectReason.OTHER


@dataclass(frozen=True, slots=True)
class DatagramDropped(Event):
    """A datagram got no answer although the service may have had one."""

    peer: Address
    reason: str
    why: RejectReason = RejectReason.OTHER


@dataclass(frozen=True, slots=True)
class AcceptPaused(Event):
    """Accepting stopped for want of something (descriptors, memory); told once, until Relieved."""

    errno: int
    open: int


@dataclass(frozen=True, slots=True)
class AcceptResumed(Event):
    """Accepting goes on after Strained."""


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """The server welcomes nobody any more; `open` conversations may end until the deadline, in seconds."""

    open: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Reloaded(Event):
    """The service was loaded anew: new conversations are its, those that go on keep the old one."""

    service: str


@dataclass(frozen=True, slots=True)
class ReloadFailed(Event):
    """The service could not be loaded anew; the old one serves on. `reason` in words."""

    service: str
    reason: str


@dataclass(frozen=True, slots=True)
class ChildExited(Event):
    """A process that a server started ended: a worker, or the command of one connection.

    `status` is the exit status, or the negated signal number.
    """

    pid: int
    role: str
    status: int


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The server has left: nothing bound, nothing open, nothing running."""


Observer: TypeAlias = Callable[[Event], None]


class ProblemsOnly:
    """An observer of what goes wrong: messages, comings and goings do not reach the one inside.

    Who asks for it is served faster by an engine that then doesn't make those events at all.
    """

    EXCLUDED: ClassVar[frozenset[type[Event]]] = frozenset(
        {Accepted, HandshakeCompleted, Received, Sent, PeerEof, Closed}
    )

    def __init__(self, observe: Observer) -> None:
        self._observe = observe

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if type(event) not in self.EXCLUDED:
            self._observe(event)
