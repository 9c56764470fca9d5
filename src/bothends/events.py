"""Events of servers and clients: one small value for each thing that happens to a connection.

Rank 0: values, no I/O. Engines, servers and clients emit events; logs, metrics and traces consume them. An
observer is a function of one event. An emitter first checks whether there is an observer:

    if observe is not None:
        observe(Received(number, peer, data))

so an event costs one comparison if there is none.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

from bothends.endpoints import Address, Endpoint

__all__ = [
    "AcceptPaused",
    "AcceptResumed",
    "Accepted",
    "ChildExited",
    "CloseReason",
    "Closed",
    "CollectingFile",
    "ConnectFailed",
    "Connected",
    "ConnectionRejected",
    "CountedTraffic",
    "DatagramDropped",
    "Draining",
    "Event",
    "FilteredObserver",
    "HandshakeCompleted",
    "LineField",
    "LineFormat",
    "Listening",
    "LoggedTraffic",
    "Observer",
    "PeerEof",
    "ProblemsOnly",
    "RateLimited",
    "Received",
    "RejectReason",
    "Rejection",
    "ReloadFailed",
    "Reloaded",
    "Sent",
    "ServiceFailed",
    "SharedCounters",
    "Stopped",
    "WithoutMessages",
    "WriteShutdown",
]


class CloseReason(enum.StrEnum):
    """Why a connection was closed: the name in lower case for programs, the value for people."""

    PEER = "the peer closed"
    SERVICE = "the service closed"
    RESET = "reset by the peer"
    IDLE = "idle timeout"
    HANDSHAKE = "handshake timeout"
    LIFE = "maximum lifetime"
    EVICTED = "idle for longest at the connection limit"
    STALLED = "the peer does not read"
    FAILED = "the service failed"
    BROKEN = "TLS or PROXY protocol error"
    DRAINED = "drained"
    ABORTED = "aborted"


class RejectReason(enum.StrEnum):
    """Why a connection was rejected or a datagram not answered, for programs; `reason` has it in words."""

    FULL = "full"
    ADDRESS = "address"
    NETWORK = "network"
    DESCRIPTOR = "descriptor"
    THREAD = "thread"
    PROCESS = "process"
    SIZE = "size"
    SOURCE = "source"
    RATE = "rate"
    LOOP = "loop"
    NO_SOURCE_ADDRESS = "nameless"
    SEND_FAILED = "unsent"
    OTHER = "other"


class Rejection(NamedTuple):
    """A decision not to serve a peer: the reason in words, and for programs."""

    reason: str
    why: RejectReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base class. `at` is wall-clock time in nanoseconds, the clock of strace and SO_TIMESTAMPNS."""

    at: int = field(default_factory=time.time_ns)


@dataclass(frozen=True, slots=True)
class Listening(Event):
    """A listener or datagram socket was bound. `endpoint` has the actual port."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Accepted(Event):
    """A connection was accepted. `connection` counts the connections of one process from 1."""

    connection: int
    peer: Address
    local: Address


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """A client connected to `endpoint`. `began` is when it started to connect, in nanoseconds as `at`."""

    connection: int
    endpoint: Endpoint
    peer: Address
    local: Address
    began: int


@dataclass(frozen=True, slots=True)
class ConnectFailed(Event):
    """A connection attempt failed. `began` is when it started, in nanoseconds as `at`."""

    endpoint: Endpoint
    error: BaseException
    began: int


@dataclass(frozen=True, slots=True)
class HandshakeCompleted(Event):
    """The TLS handshake or PROXY header of a connection is complete.

    `agreed` describes the parameters, in words. `was` is the address that the connection came from; `peer`
    differs from it behind a proxy that sends a PROXY header.
    """

    connection: int
    peer: Address
    was: Address
    agreed: str


@dataclass(frozen=True, slots=True)
class Received(Event):
    """The bytes of one read from a connection, or one whole datagram (then `connection` is 0)."""

    connection: int
    peer: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class Sent(Event):
    """Bytes that the kernel accepted for a connection, or one whole datagram (then `connection` is 0)."""

    connection: int
    peer: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class PeerEof(Event):
    """The peer has finished sending: a read returned EOF."""

    connection: int
    peer: Address


@dataclass(frozen=True, slots=True)
class WriteShutdown(Event):
    """This end has finished sending, so the peer reads EOF: a half-close."""

    connection: int
    peer: Address


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """A connection was closed. `received` and `sent` are in bytes."""

    connection: int
    peer: Address
    cause: CloseReason
    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class ServiceFailed(Event):
    """A service raised an exception, which ends its conversation only. `connection` is 0 for a datagram."""

    connection: int
    peer: Address
    error: BaseException


@dataclass(frozen=True, slots=True)
class RateLimited(Event):
    """A peer sends faster than `limits.rate`, so it is read more slowly.

    Emitted once, and again only after the peer has kept to the rate.
    """

    connection: int
    peer: Address
    rate: int


@dataclass(frozen=True, slots=True)
class ConnectionRejected(Event):
    """A connection was accepted and closed immediately, or could not be served."""

    peer: Address
    reason: str
    why: RejectReason = RejectReason.OTHER


@dataclass(frozen=True, slots=True)
class DatagramDropped(Event):
    """A datagram was not answered, although the service might have answered it."""

    peer: Address
    reason: str
    why: RejectReason = RejectReason.OTHER


@dataclass(frozen=True, slots=True)
class AcceptPaused(Event):
    """Accepting paused because descriptors or memory ran out. Emitted once until AcceptResumed."""

    errno: int
    open: int


@dataclass(frozen=True, slots=True)
class AcceptResumed(Event):
    """Accepting continues after AcceptPaused."""


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """The server stopped accepting. It waits `deadline` seconds for its `open` connections to end."""

    open: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Reloaded(Event):
    """The service was reloaded. Open conversations keep the old one."""

    service: str


@dataclass(frozen=True, slots=True)
class ReloadFailed(Event):
    """The service could not be reloaded, so the old one stays. `reason` is in words."""

    service: str
    reason: str


@dataclass(frozen=True, slots=True)
class ChildExited(Event):
    """A child process of a server exited: a worker, or the command of one connection.

    `status` is the exit status, or the negated number of the signal that killed it.
    """

    pid: int
    role: str
    status: int


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The server has stopped. All sockets are closed and all child processes have exited."""


Observer: TypeAlias = Callable[[Event], None]


class FilteredObserver:
    """An observer that forwards all events but those of `EXCLUDED`.

    Engines recognize it and do not create the excluded events at all, which is faster.
    """

    EXCLUDED: ClassVar[frozenset[type[Event]]] = frozenset()

    def __init__(self, observe: Observer) -> None:
        self._observe = observe

    def __call__(self, event: Event) -> None:
        """Forward an event, unless it is excluded."""
        if type(event) not in self.EXCLUDED:
            self._observe(event)


class WithoutMessages(FilteredObserver):
    """An observer that forwards connects, closes and problems, and drops messages."""

    EXCLUDED = frozenset({Received, Sent, PeerEof})


class ProblemsOnly(FilteredObserver):
    """An observer that forwards problems only, and drops messages, connects and closes."""

    EXCLUDED = WithoutMessages.EXCLUDED | {Accepted, HandshakeCompleted, Closed}


class SharedCounters(Protocol):
    """An observer that only counts, in memory that it can hand out."""

    def __call__(self, event: Event) -> None:
        """Count one event."""

    def counter_words(self) -> tuple[memoryview, Mapping[str, int]]:
        """Return the words that this process counts in, and the position of each counter by its name.

        The names are those of the core in C (native/counters.c). A word holds 64 bits. Only this process
        writes to it, and only in the thread that would emit the events.
        """


class CountedTraffic:
    """An observer that counts connections and messages, and forwards what another one takes.

    An engine may count them itself, in `counters.counter_words()`, and then creates no events to be counted.

    Args:
        counters: counts all events.
        observe: gets the events that it does not exclude.
    """

    def __init__(self, counters: SharedCounters, observe: FilteredObserver) -> None:
        self.counters = counters
        self.observe = observe

    def __call__(self, event: Event) -> None:
        """Count an event, and forward it."""
        self.counters(event)
        self.observe(event)


class LineFormat(NamedTuple):
    """How a log writes the lines of connections and messages, for an engine that writes them itself.

    `opened`, `received`, `sent`, `ended` and `closed` are templates: text with the fields of `LineField`,
    empty for what is not logged.

    Attributes:
        write: writes whole lines to the stream with this number, 0 or 1. Never raises.
        address: returns how an address is written. The number is that of a peer's connection, 0 for our own.
        inet: template of an IPv4 address, with TEXT for the host and LENGTH for the port.
        is_json: whether messages are one record each, in JSON; otherwise each of their lines is one.
        limit: bytes of a message that are written.
        message_stream, activity_stream: the numbers of their streams.
        line_by_line: whether a line is written at once, and not with others.
        max_fragment: reads of as many bytes without a newline are given to the observer, which may hold them.
        end_fragment: makes it forward what it holds of a connection.
    """

    write: Callable[[int, bytes], object]
    address: Callable[[Address, int], bytes]
    inet: bytes
    opened: bytes
    received: bytes
    sent: bytes
    ended: bytes
    closed: Mapping[CloseReason, bytes]
    is_json: bool
    limit: int
    message_stream: int
    activity_stream: int
    line_by_line: bool
    max_fragment: int = 0
    end_fragment: Callable[[int], object] | None = None


class LineField:
    """The fields of a LineFormat's templates, each one byte (native/traffic_log.c)."""

    TIME = b"\x01"
    CONNECTION = b"\x02"
    PEER = b"\x03"
    LOCAL = b"\x04"
    RECEIVED = b"\x05"
    SENT = b"\x06"
    LENGTH = b"\x07"
    TEXT = b"\x08"


class CollectingFile(Protocol):
    """A file that keeps the lines of one thread, and writes them together."""

    def collect(self, on_first: Callable[[], object] | None = None) -> None:
        """Keep the lines that this thread writes from now on. Calls `on_first` for the first of them."""

    def stop_collecting(self) -> None:
        """Write them, and from now on each line at once."""

    def write_collected(self) -> None:
        """Write them."""


class LoggedTraffic:
    """An observer that counts and logs, as an engine may itself: by `line_format`, and as CountedTraffic.

    Args:
        observe: logs all events.
        line_format: the form of its lines.
        counters: counts all events, if there is one.
        files: where it is written, if the order of lines in different ones doesn't matter.

    Attributes:
        flush: set by an engine that collects lines: writes them. Called before any other event is logged.
    """

    def __init__(
        self,
        observe: Observer,
        line_format: LineFormat,
        counters: SharedCounters | None = None,
        files: Collection[CollectingFile] = (),
    ) -> None:
        excluded = observe.EXCLUDED if isinstance(observe, FilteredObserver) else frozenset[type[Event]]()
        if Received in excluded:
            line_format = line_format._replace(received=b"")
        if Sent in excluded:
            line_format = line_format._replace(sent=b"")
        if PeerEof in excluded:
            line_format = line_format._replace(ended=b"")
        self.observe = observe
        self.line_format = line_format
        self.counters = counters
        self._files = files
        self.flush: Callable[[], object] | None = None

    def __call__(self, event: Event) -> None:
        """Count an event, and log it."""
        if self.counters is not None:
            self.counters(event)
        if self.flush is not None:
            self.flush()
        self.observe(event)

    def collect(self, on_first: Callable[[], object] | None = None) -> None:
        """Keep what this thread logs until `write_collected`. Calls `on_first` for the first line."""
        for file in self._files:
            file.collect(on_first)

    def stop_collecting(self) -> None:
        """Write what is collected, and from now on each line at once."""
        for file in self._files:
            file.stop_collecting()

    def write_collected(self) -> None:
        """Write what is collected."""
        for file in self._files:
            file.write_collected()
