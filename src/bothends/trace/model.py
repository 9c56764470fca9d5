"""The data model of a trace: processes, sockets and four kinds of event. Plain values, no I/O.

    Call           one system call of one thread: it starts, and most calls end
    Packet         one IP packet that an interface carried
    ProcessEvent   a process starts, executes another program, receives a signal or exits
    KernelEvent    the kernel drops, resets or resends something, and gives its reason

1. Every event has a number that is unique in its trace. A call has two points on the timeline, because other
   events may happen while it blocks. The other events have one; on a wire a packet has two: it is sent and it
   arrives.
2. All times are wall-clock time in nanoseconds: the clock of strace and of SO_TIMESTAMPNS.
3. Data is truncated to `DATA_LIMIT` bytes; `size` is the full size.

A "wire" is the simulated network of `bothends.wire`, which `bothends trace --wire` uses.

The other modules of this package import this one; it imports none of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

MAX_THREAD_EXITS: Final = 10_000  # threads whose exit is remembered
MAX_POINTS: Final = 400_000  # the newest points are kept: some hundred megabytes
PRUNE_SLACK: Final = 20_000  # sockets and processes kept although no kept event refers to them
MAX_DESCRIPTOR_CHANGES: Final = 4_000  # kept for each socket; older ones are merged into one state
DATA_LIMIT: Final = 4096  # bytes of data kept for each event: more than a picture can show

SocketFamily: TypeAlias = Literal["inet", "inet6", "unix", "netlink", "pipe", "other"]
ProcessEventKind: TypeAlias = Literal["began", "exec", "signal", "ended", "note"]
Relation: TypeAlias = Literal["carries", "feeds", "reaches", "opens", "ends", "resets", "starts", "repeats"]
KernelEventKind: TypeAlias = Literal["drop", "reset-sent", "reset-received", "retransmit", "error"]
SocketKind: TypeAlias = Literal["stream", "datagram", "seqpacket", "raw"]


class SocketAddress(NamedTuple):
    """The address of one end of a socket: host and port; or a path or "@name", with no port (None)."""

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
    """A process with all its threads.

    `role` is the name of its lane, empty until it uses a socket. `status` is as in Popen.returncode: the exit
    status, a negated signal number, or None while the process runs. `namespace` is the name of its network
    namespace, empty for that of bothends.
    """

    number: int
    pid: int
    role: str
    command: str = ""
    parent: int | None = None
    began: int = 0
    status: int | None = None
    uses_io_uring: bool = False
    ignores_children: bool = False  # SIGCHLD is ignored: the kernel reaps its children
    ended: int | None = None  # when it exited
    namespace: str = ""


@dataclass(slots=True, eq=False)
class Socket:
    """A socket of the kernel, or an end of a pipe, which descriptors refer to. dup() and fork() share it.

    Only the methods below set `local` and `peer` once the socket exists, because several sources report
    addresses: system calls and strace's labels are exact, packets allow guesses.
    """

    number: int
    family: SocketFamily
    kind: SocketKind
    inode: int = 0
    local: SocketAddress | None = None
    peer: SocketAddress | None = None
    is_listener: bool = False
    accepted_from: int | None = None  # the number of the listener
    peer_inode: int = 0  # UNIX: the socket at the other end
    blocks: bool = True
    process: int | None = None  # its owner, where no traced calls show it
    is_wrapped: bool = False  # its calls move other bytes than its packets carry (TLS, the PROXY protocol)
    asks_name_service: bool = False  # the C library's, for the name service cache: nscd(8)

    @property
    def is_shown(self) -> bool:
        """Whether the diagram shows its calls: those of the program, and of families that it explains."""
        return self.family not in ("netlink", "other") and not self.asks_name_service

    def set_local(self, address: SocketAddress) -> None:
        """Set the local address that bind() set or getsockname() returned."""
        self.local = address

    def set_peer(self, address: SocketAddress | None) -> None:
        """Set the peer that connect() set or accept() returned. connect(AF_UNSPEC) removes it: None."""
        self.peer = address

    def set_connection(self, local: SocketAddress, peer: SocketAddress) -> None:
        """Set both ends of a connection. They replace earlier guesses."""
        self.local, self.peer = local, peer

    def complete(
        self,
        local: SocketAddress | None = None,
        peer: SocketAddress | None = None,
        *,
        keep_wildcard: bool = False,
    ) -> None:
        """Fill in addresses that are still unknown.

        Args:
            local: replaces a local address that is None, has no port, or is a wildcard. UNIX sockets: None
                only, because paths have no port.
            peer: replaces None only.
            keep_wildcard: keep a wildcard with a port: a bound datagram socket sends from any address.
        """
        known = self.local
        if local is not None and (
            known is None
            or (self.family != "unix" and (not known.port or (known.is_wildcard and not keep_wildcard)))
        ):
            self.local = local
        if self.peer is None:
            self.peer = peer


class Message(NamedTuple):
    """One of the datagrams of a single call (sendmmsg, recvmmsg)."""

    size: int
    data: bytes
    address: SocketAddress | None


@dataclass(slots=True, eq=False)
class Call:
    """One system call.

    `at` is when it started. `until` is when it ended: None while it lasts, or if the process died in it.
    `result` is its return value, None if it did not return; `error` is an errno's name. `requested` is the
    number of bytes to move, `size` the number moved, and `data` the first of them. `address` is the address
    among its arguments. `created_id` is the number of the socket, or the pid, that the call created.

    select(), poll() and epoll_wait() wait for `sockets`, for the `wanted_events` of each, and for
    `descriptors_waited` (keyboards, pipes and so on). After they have returned, `ready` are the sockets
    reported ready, and `ready_events` the events of each, as in "POLLIN|POLLHUP" or "EPOLLIN|EPOLLET"; those
    of select() are POLLIN, POLLOUT and POLLPRI too. `timeout_ns` is the time limit among the arguments, also
    that of a sleep, in nanoseconds; None for none. An epoll_wait() shows its limit only when it has ended.
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
    sockets: tuple[int, ...] = ()  # the sockets that select(), poll() and epoll_wait() wait for
    requested: int | None = None
    size: int = 0
    data: bytes = b""
    messages: tuple[Message, ...] = ()
    address: SocketAddress | None = None
    created_id: int | None = None
    flags: frozenset[str] = frozenset()
    wanted_events: tuple[str, ...] = ()
    descriptors_waited: tuple[int, ...] = ()
    ready: tuple[int, ...] = ()
    ready_events: tuple[str, ...] = ()
    timeout_ns: int | None = None

    @property
    def failed(self) -> bool:
        """Whether it returned an error."""
        return bool(self.error)

    @property
    def duration(self) -> int:
        """How long it took, in nanoseconds; 0 while it lasts."""
        return self.until - self.at if self.until is not None else 0


@dataclass(slots=True, eq=False)
class Packet:
    """One packet of TCP or UDP.

    `flags` are TCP's, as in "SYN ACK". `sequence` and `acknowledged` are the header fields; `offset` and
    `acks` count the stream's bytes from 0: from its SYN, or from the first captured packet. `sender` and
    `receiver` are socket numbers. `size` is the size of the payload. `raw` is the IP packet, truncated to
    `DATA_LIMIT` bytes and room for the headers; `length` is its full length. `resent`: its bytes were sent
    before, in the packet with the number `repeats`.

    On a wire a packet has two points: it leaves `interface`, and at `until` it arrives at the interface
    `reaches`, or the toxic named by `lost` drops it. `synthesized`: no host sent it; the wire duplicated or
    corrupted a packet.
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
    synthesized: bool = False


@dataclass(slots=True, eq=False)
class ProcessEvent:
    """An event of a process. `text` describes it and is safe to print."""

    number: int
    at: int
    process: int
    kind: ProcessEventKind
    text: str
    status: int | None = None
    thread: int = 0  # the thread that the event was reported for


@dataclass(slots=True, eq=False)
class KernelEvent:
    """The kernel dropped a packet, sent or received a RST, resent data, or reported an error to a socket.

    `reason` is the kernel's own word: of a drop or a RST as in "SOCKET_RCVBUFF" (enum skb_drop_reason and
    sk_rst_reason), of an error the errno's name. It is empty if the kernel gives none. `source` and
    `destination` are the packet's; of an error, the peer and the socket that gets it. `socket` is the number
    of the socket at which it happened, `packet` the number of the packet, where they are known. `thread` is
    the thread during whose call it happened, 0 if it was none of the traced ones.
    """

    number: int
    at: int
    kind: KernelEventKind
    reason: str = ""
    protocol: Literal["", "tcp", "udp"] = ""
    source: SocketAddress | None = None
    destination: SocketAddress | None = None
    socket: int | None = None
    packet: int | None = None
    thread: int = 0


TraceEvent: TypeAlias = Call | Packet | ProcessEvent | KernelEvent


class Point(NamedTuple):
    """A point on the timeline: the start of an event, or its end (of a call, or of a packet on a wire)."""

    event: TraceEvent
    is_end: bool = False

    @property
    def at(self) -> int:
        """When, in nanoseconds."""
        if isinstance(self.event, Call | Packet) and self.is_end:
            return self.event.until if self.event.until is not None else self.event.at
        return self.event.at


class CausalLink(NamedTuple):
    """A cause and its effect, by their event numbers.

    "carries": a packet carries bytes of a call. "feeds": a call received bytes of a packet. "reaches": a call
    received bytes of another call, and no packet is known. "opens", "ends" and "resets": handshakes, EOF and
    RST. "starts": fork() and the child. "repeats": a packet has the bytes of an earlier packet.
    """

    cause: int
    effect: int
    kind: Relation


class DescriptorChange(NamedTuple):
    """From `at` on a descriptor of a process refers to a socket (`is_open`), or no longer does."""

    at: int
    socket: int
    process: int
    descriptor: int
    is_open: bool


class Trace:
    """Everything known about one run: processes, sockets, points in order, and causal links.

    `points` are in an order in which a cause precedes its effects. Only the newest `max_points` are kept, so
    that a run can last forever; `dropped` counts the discarded points, and `pruned` the sockets and processes
    that only they referred to. `notes` are messages for the user.

    `began_at` is the time of the first point of the file of which this is a part, in nanoseconds; None if the
    trace was not read from a file.

    `frozen_at` is when bothends, ^C or a time limit began to end the programs, in nanoseconds; None if that
    did not happen. The trace holds nothing later. `ended_by` is the signal that ended a run early, or "time
    limit". `blocked` are the calls that were blocked then, or at the
    end, and are not on the timeline: a read from a keyboard, a sleep, a lock.
    `counters` are the kernel's counters of the machine that grew during the run, and by how much.
    """

    def __init__(self, max_points: int = MAX_POINTS) -> None:
        self.processes: dict[int, TracedProcess] = {}
        self.sockets: dict[int, Socket] = {}
        self.points: deque[Point] = deque()
        self.notes: list[str] = []
        self.began_at: int | None = None
        self.frozen_at: int | None = None
        self.ended_by = ""
        self.blocked: list[Call] = []
        self.thread_exits: dict[int, int] = {}  # when the threads exited that had made calls, by their ids
        self.counters: dict[str, int] = {}
        # NAT: the two ends of a connection as the server's namespace has them, and as the client's has them.
        self.translations: dict[tuple[SocketAddress, SocketAddress], tuple[SocketAddress, SocketAddress]] = {}
        self.tls_secrets: list[str] = []  # lines of a key log (RFC 9850): they decrypt the packets
        self.dropped = 0
        self.pruned = 0
        self._max_points = max_points
        self._prune_threshold = PRUNE_SLACK
        self._events: dict[int, TraceEvent] = {}
        self._causes: dict[int, list[CausalLink]] = {}
        self._effects: dict[int, list[CausalLink]] = {}
        self._changes: dict[int, list[DescriptorChange]] = {}  # by socket
        self._change_limits: dict[int, int] = {}  # by socket: merge its changes when there are more

    def add(self, point: Point) -> None:
        """Append a point. Discards the oldest one if there are too many."""
        self.points.append(point)
        self._events[point.event.number] = point.event
        if len(self.points) > self._max_points:
            self._discard(self.points.popleft().event)
            self.dropped += 1

    def link(self, link: CausalLink) -> bool:
        """Add a causal link. Returns False if it is already known."""
        causes = self._causes.get(link.effect)
        if causes is None:
            self._causes[link.effect] = [link]
        else:
            for each in causes:
                if each.cause == link.cause:
                    return False
            causes.append(link)
        effects = self._effects.get(link.cause)
        if effects is None:
            self._effects[link.cause] = [link]
        else:
            effects.append(link)
        return True

    def ends_of(self, socket: Socket) -> tuple[SocketAddress, SocketAddress] | None:
        """Return the local and the remote address of a socket, as the client's namespace has them (NAT)."""
        if socket.local is None or socket.peer is None:
            return None
        ends = socket.local, socket.peer
        if not self.translations:
            return ends
        back = self.translations.get(ends[::-1])
        return self.translations.get(ends, ends) if back is None else back[::-1]

    def freeze(self) -> None:
        """Undo what became known of calls and processes after `frozen_at`. Call it when nothing follows."""
        if self.frozen_at is None:
            return
        for event in self._events.values():
            if isinstance(event, Call) and event.until is not None and event.until > self.frozen_at:
                event.until = event.result = event.created_id = None
                event.error, event.size, event.ready, event.ready_events = "", 0, (), ()
        for process in self.processes.values():
            if process.ended is not None and process.ended > self.frozen_at:
                process.ended = process.status = None

    def add_descriptor_change(self, change: DescriptorChange) -> None:
        """Record that a descriptor refers to a socket from now on, or no longer does."""
        changes = self._changes.setdefault(change.socket, [])
        changes.append(change)
        if len(changes) > self._change_limits.get(change.socket, MAX_DESCRIPTOR_CHANGES):
            at = changes[len(changes) // 2].at
            held = self.holders_at(change.socket, at)
            changes[:] = [
                *(
                    DescriptorChange(at, change.socket, process, descriptor, is_open=True)
                    for process, descriptors in held.items()
                    for descriptor in descriptors
                ),
                *(each for each in changes if each.at > at),
            ]
            # If most descriptors are still open, the next merge must not be at the next change.
            self._change_limits[change.socket] = max(MAX_DESCRIPTOR_CHANGES, 4 * sum(map(len, held.values())))

    def descriptor_changes(self) -> Iterator[DescriptorChange]:
        """Iterate over the descriptor changes of all sockets; those of one socket are in order."""
        for changes in self._changes.values():
            yield from changes

    def holders_at(self, socket: int, at: int) -> dict[int, set[int]]:
        """Return the processes that hold a socket at a time: their numbers, each with its descriptors."""
        held: dict[int, set[int]] = {}
        for each in self._changes.get(socket, ()):
            if each.at > at:
                continue
            if each.is_open:
                held.setdefault(each.process, set()).add(each.descriptor)
            elif each.process in held:
                held[each.process].discard(each.descriptor)
                if not held[each.process]:
                    del held[each.process]
        return held

    @property
    def holders(self) -> dict[int, dict[int, set[int]]]:
        """The processes that hold each socket at the end: by socket, then by process, their descriptors."""
        end = self.frozen_at if self.frozen_at is not None else 1 << 63
        found = {socket: self.holders_at(socket, end) for socket in self._changes}
        return {socket: held for socket, held in found.items() if held}

    def event(self, number: int) -> TraceEvent | None:
        """Return an event or a blocked call by its number, or None if it is not kept."""
        found = self._events.get(number)
        if found is None and self.blocked:
            return next((each for each in self.blocked if each.number == number), None)
        return found

    def events(self) -> Iterator[TraceEvent]:
        """Iterate over the kept events, each once, in order."""
        return iter(self._events.values())

    def causes_of(self, number: int) -> list[CausalLink]:
        """Return the links to the causes of an event."""
        return self._causes.get(number, [])

    def effects_of(self, number: int) -> list[CausalLink]:
        """Return the links to the effects of an event."""
        return self._effects.get(number, [])

    def links(self) -> Iterator[CausalLink]:
        """Iterate over all links."""
        for links in self._causes.values():
            yield from links

    @property
    def needs_pruning(self) -> bool:
        """Whether to call `prune`: sockets and processes have grown by `PRUNE_SLACK` since the last time."""
        return len(self.sockets) + len(self.processes) > self._prune_threshold

    def prune(self, sockets: Container[int] = (), processes: Container[int] = ()) -> None:
        """Drop sockets and processes that no kept event refers to, except these and the newest ones.

        The newest stay because the events that refer to them may be still to come.
        """
        used_sockets, used_processes = referenced_ids(self._events.values())
        before = len(self.sockets) + len(self.processes)
        used_sockets |= {each.number for each in self.sockets.values() if each.number in sockets}
        used_sockets |= {self.sockets[each].accepted_from or 0 for each in used_sockets & self.sockets.keys()}
        used_processes |= {each.number for each in self.processes.values() if each.number in processes}
        used_processes |= {
            self.processes[each].parent or 0 for each in used_processes & self.processes.keys()
        }
        for known, used in ((self.sockets, used_sockets), (self.processes, used_processes)):
            for number in list(known)[: -PRUNE_SLACK // 2 or None]:
                if number not in used:
                    del known[number]
        for number in self._changes.keys() - self.sockets.keys():
            del self._changes[number]
            self._change_limits.pop(number, None)
        after = len(self.sockets) + len(self.processes)
        self.pruned += before - after
        self._prune_threshold = after + PRUNE_SLACK

    def _discard(self, event: TraceEvent) -> None:
        if self._events.pop(event.number, None) is not None:
            self._causes.pop(event.number, None)
            self._effects.pop(event.number, None)


def referenced_ids(events: Iterable[TraceEvent]) -> tuple[set[int], set[int]]:
    """Return the numbers of the sockets and of the processes that events refer to."""
    sockets, processes = set[int | None](), set[int]()
    for event in events:
        match event:
            case Call():
                sockets.update((event.socket, event.created_id, *event.sockets))
                processes.add(event.process)
            case Packet():
                sockets.update((event.sender, event.receiver))
            case ProcessEvent():
                processes.add(event.process)
            case KernelEvent():
                sockets.add(event.socket)
    return {each for each in sockets if each is not None}, processes


def trim_oldest(mapping: dict[Any, Any], limit: int) -> None:
    """Remove the oldest quarter of a dictionary that has more than `limit` entries."""
    if len(mapping) > limit:
        for each in list(mapping)[: max(1, len(mapping) // 4)]:
            del mapping[each]
