"""What a trace consists of: processes, sockets, and three kinds of event. Values, no I/O.

    Call      one system call of one thread: it begins, and most end
    Packet    one IP packet that an interface carried
    Change    a process began, became another program, got a signal, or ended

1. Every event has a number, unique in its trace. A call has two moments, since what happens while it waits
   belongs between them; a packet and a change have one, but on a wire of ours a packet leaves and arrives.
2. All times are wall-clock time in nanoseconds: the clock of strace and of SO_TIMESTAMPNS.
3. Data is bounded by `MAX_MESSAGE_BYTES`; `size` says how much there was.

Other files of this package import this one; it imports nothing of theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

MAX_POINTS: Final = 400_000  # of the newest: some hundred megabytes
PRUNE_SLACK: Final = 20_000  # sockets and processes that are kept though no kept moment speaks of them
DATA_LIMIT: Final = 4096  # bytes of data kept of each event: more than anybody reads on a picture

CounterFamily: TypeAlias = Literal["inet", "inet6", "unix", "netlink", "other"]
ProcessEventKind: TypeAlias = Literal["began", "exec", "signal", "ended", "note"]
Relation: TypeAlias = Literal["carries", "feeds", "reaches", "opens", "ends", "resets", "starts", "repeats"]
SocketKind: TypeAlias = Literal["stream", "datagram", "seqpacket", "raw"]


class SocketAddress(NamedTuple):
    """One end of a socket: a numeric address and a port; or a path or "@name", whose port is None."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        if self.port is None:
            return self.host or "unnamed"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every address of the machine."""
        return self.host in ("0.0.0.0", "::")


@dataclass(slots=True, eq=False)
class TracedProcess:
    """A process, with all its threads. `role` is the name of its lane, empty while it has used no
    socket; `status` as wait() gives it:
    the exit status, or the negated signal number, None while it runs.
    """

    number: int
    pid: int
    role: str
    command: str = ""
    parent: int | None = None
    began: int = 0
    status: int | None = None
    uses_io_uring: bool = False
    ignores_children: bool = False  # SIGCHLD is ignored: the kernel reaps them


@dataclass(slots=True, eq=False)
class Socket:
    """A socket of the kernel: what descriptors refer to. Children and dup() share it."""

    number: int
    family: CounterFamily
    kind: SocketKind
    inode: int = 0
    local: SocketAddress | None = None
    peer: SocketAddress | None = None
    is_listener: bool = False
    welcomed_by: int | None = None  # the number of the listener
    peer_inode: int = 0  # UNIX: the socket at the other end
    blocks: bool = True
    process: int | None = None  # whose it is, where no calls are seen that say so
    is_wrapped: bool = False  # what its calls move isn't what packets carry (TLS, the PROXY protocol)


class Message(NamedTuple):
    """One of several datagrams that one call moved (sendmmsg, recvmmsg)."""

    size: int
    data: bytes
    address: SocketAddress | None


@dataclass(slots=True, eq=False)
class Call:
    """One system call.

    `at` is when it began, `until` when it ended (None while it lasts, or if its process died in it).
    `result` is what it returned, None if nothing did; `error` an errno's name. `asked` is how many bytes
    it was asked to move, `size` how many it moved, `data` the first of them. `place` is the address among
    its arguments; `made` the number of the socket, or the pid, that it brought into being.
    """

    number: int
    process: int
    thread: int
    name: str
    at: int
    until: int | None = None
    arguments: tuple[str, ...] = ()
    result: int | None = None
    error: str = ""
    descriptor: int | None = None
    socket: int | None = None
    sockets: tuple[int, ...] = ()  # those that select, poll and their kind wait for
    asked: int | None = None
    size: int = 0
    data: bytes = b""
    messages: tuple[Message, ...] = ()
    place: SocketAddress | None = None
    made: int | None = None
    flags: frozenset[str] = frozenset()

    @property
    def failed(self) -> bool:
        """Whether it returned an error."""
        return bool(self.error)

    @property
    def duration(self) -> int:
        """How long it lasted, in nanoseconds; 0 while it lasts."""
        return self.until - self.at if self.until is not None else 0


@dataclass(slots=True, eq=False)
class Packet:
    """One packet of TCP or UDP. `flags` are TCP's, as in "SYN ACK"; `sequence` and `acknowledged` as they
    stand in the header; `offset` and `acks` count the stream's bytes from 0, from its SYN or from
    the first packet that was seen. `sender` and `receiver` are the numbers of sockets that were met.
    `size` is the payload's; `raw` the IP packet, cut off after `MAX_MESSAGE_BYTES` bytes and some, `length` long.
    `resent`: its bytes were sent before, in the packet of the number `repeats`.

    On a wire of ours a packet has two moments: it leaves `interface`, and at `until` it arrives at the
    one that it `reaches`, or is lost to the toxic that `lost` names. `made`: nobody sent it so; the wire has
    doubled or changed a packet.
    """

    number: int
    at: int
    protocol: Literal["tcp", "udp"]
    source: SocketAddress
    destination: SocketAddress
    size: int
    data: bytes
    flags: tuple[str, ...] = ()
    sequence: int = 0
    acknowledged: int = 0
    window: int = 0
    offset: int | None = None
    acks: int | None = None
    resent: bool = False
    repeats: int | None = None
    sender: int | None = None
    receiver: int | None = None
    interface: str = ""
    raw: bytes = b""
    length: int = 0
    reaches: str = ""
    until: int | None = None
    lost: str = ""
    made: bool = False


@dataclass(slots=True, eq=False)
class ProcessEvent:
    """Something that happened to a process. `text` in words, safe to show."""

    number: int
    at: int
    process: int
    kind: ProcessEventKind
    text: str
    status: int | None = None
    thread: int = 0  # of which thread it was told


TraceEvent: TypeAlias = Call | Packet | ProcessEvent


class Point(NamedTuple):
    """A point on the time-line: an event, and whether it is its end (of a call; of a packet on a wire)."""

    event: TraceEvent
    is_end: bool = False

    @property
    def at(self) -> int:
        """When, in nanoseconds."""
        if isinstance(self.event, Call | Packet) and self.is_end:
            return self.event.until if self.event.until is not None else self.event.at
        return self.event.at


class CausalLink(NamedTuple):
    """One event that another came of: `cause` and `effect` are their numbers.

    "carries": a call's bytes are in a packet. "feeds": a packet's bytes are in what a call received.
    "reaches": a call's bytes are in what another call received, where no packet is seen. "opens", "ends" and
    "resets": handshakes, EOF and RST. "starts": a child. "repeats": a packet has the bytes of an earlier one.
    """

    cause: int
    effect: int
    kind: Relation


class Trace:
    """Everything known of one run: processes, sockets, what happened in order, and what came of what.

    `moments` are in an order in which cause comes before effect. No more than `most` are kept, the newest,
    so that a run may go on for ever; `dropped` counts the others, and `pruned` the sockets and processes
    of which only they spoke. `notes` are what a user should know of the run.
    """

    def __init__(self, max_points: int = MAX_POINTS) -> None:
        self.processes: dict[int, TracedProcess] = {}
        self.sockets: dict[int, Socket] = {}
        self.points: deque[Point] = deque()
        self.notes: list[str] = []
        self.dropped = 0
        self.pruned = 0
        self._max_points = max_points
        self._prune_threshold = PRUNE_SLACK
        self._events: dict[int, TraceEvent] = {}
        self._causes: dict[int, list[CausalLink]] = {}
        self._effects: dict[int, list[CausalLink]] = {}

    def add(self, point: Point) -> None:
        """The next moment."""
        self.points.append(point)
        self._events[point.event.number] = point.event
        if len(self.points) > self._max_points:
            self._discard(self.points.popleft().event)
            self.dropped += 1

    def link(self, link: CausalLink) -> bool:
        """One event came of another. False if that was known."""
        causes = self._causes.setdefault(link.effect, [])
        if any(each.cause == link.cause for each in causes):
            return False
        causes.append(link)
        self._effects.setdefault(link.cause, []).append(link)
        return True

    def event(self, number: int) -> TraceEvent | None:
        """An event by its number, if it is kept."""
        return self._events.get(number)

    def events(self) -> Iterator[TraceEvent]:
        """Every event that is kept, once, in order."""
        return iter(self._events.values())

    def causes_of(self, number: int) -> list[CausalLink]:
        """What an event came of."""
        return self._causes.get(number, [])

    def effects_of(self, number: int) -> list[CausalLink]:
        """What came of an event."""
        return self._effects.get(number, [])

    def links(self) -> Iterator[CausalLink]:
        """All links."""
        for links in self._causes.values():
            yield from links

    @property
    def needs_pruning(self) -> bool:
        """Whether it is time to `forget`: there is so much more than was left then."""
        return len(self.sockets) + len(self.processes) > self._prune_threshold

    def prune(self, sockets: Container[int] = (), processes: Container[int] = ()) -> None:
        """Let go of sockets and processes of which nothing that is kept speaks, but for these. The newest
        stay, since what speaks of them may come yet.
        """
        spoken, ran = referenced_ids(self._events.values())
        before = len(self.sockets) + len(self.processes)
        spoken |= {each.number for each in self.sockets.values() if each.number in sockets}
        spoken |= {self.sockets[each].welcomed_by or 0 for each in spoken & self.sockets.keys()}
        ran |= {each.number for each in self.processes.values() if each.number in processes}
        ran |= {self.processes[each].parent or 0 for each in ran & self.processes.keys()}
        for known, needed in ((self.sockets, spoken), (self.processes, ran)):
            for number in list(known)[: -PRUNE_SLACK // 2 or None]:
                if number not in needed:
                    del known[number]
        left = len(self.sockets) + len(self.processes)
        self.pruned += before - left
        self._prune_threshold = left + PRUNE_SLACK

    def _discard(self, event: TraceEvent) -> None:
        if self._events.pop(event.number, None) is not None:
            self._causes.pop(event.number, None)
            self._effects.pop(event.number, None)


def referenced_ids(events: Iterable[TraceEvent]) -> tuple[set[int], set[int]]:
    """The numbers of the sockets, and of the processes, of which events speak."""
    sockets, processes = set[int | None](), set[int]()
    for event in events:
        match event:
            case Call():
                sockets.update((event.socket, event.made, *event.sockets))
                processes.add(event.process)
            case Packet():
                sockets.update((event.sender, event.receiver))
            case ProcessEvent():
                processes.add(event.process)
    return {each for each in sockets if each is not None}, processes


def trim_oldest(mapping: dict[Any, Any], limit: int) -> None:
    """Drop the oldest quarter of what is known, where there is more than so much of it."""
    if len(mapping) > limit:
        for each in list(mapping)[: max(1, len(mapping) // 4)]:
            del mapping[each]
