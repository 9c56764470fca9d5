"""Sum up a trace: what each connection and each process did, in figures. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from bothends.trace.capture.calls import ACCEPTING, REAPING, RECEIVING, SENDING, SLEEPING, WAITING
from bothends.trace.capture.tls_source import TLS_CALLS
from bothends.trace.model import Call, Packet, Socket, Trace, TraceEvent
from bothends.trace.rendering.formatting import duration

Waits: TypeAlias = dict[str, int]  # nanoseconds, by what was waited for

# What the time of a call is spent for; the rest is "other".
_PURPOSES: Final[tuple[tuple[frozenset[str], str], ...]] = (
    (RECEIVING, "data"),
    (WAITING, "readiness"),
    (ACCEPTING, "connections"),
    (frozenset({"connect"}), "connect"),
    (SENDING, "sending"),
    (SLEEPING, "sleep"),
    (REAPING, "children"),
)
PURPOSES: Final = (*(name for _, name in _PURPOSES), "other")
_HEADINGS: Final = {
    "data": "waits for data",
    "readiness": "for readiness",
    "connections": "for connections",
    "connect": "connecting",
    "sending": "sending",
    "sleep": "sleeping",
    "children": "for children",
    "other": "other calls",
}
_PURPOSE_OF: Final = {call: purpose for calls, purpose in _PURPOSES for call in calls}
_PERCENTILES: Final = (0.5, 0.9, 0.99)


@dataclass(slots=True)
class ConnectionSummary:
    """Figures of a connection, or of a socket that has none. Bytes are those of calls; times in nanoseconds.

    `round_trips` are the times from a request, the client's first send after it received, to the first bytes
    that it received afterwards; sorted. If only the server is traced, they are the times from a request that
    it received to its answer. `longest_idle` is the longest time without a call's start or end, or a packet.
    """

    name: str
    began: int = 0
    ended: int = 0
    calls: int = 0
    sent: int = 0
    received: int = 0
    packets: int = 0
    resent: int = 0
    round_trips: list[int] = field(default_factory=list)
    longest_idle: int = 0
    waits: Waits = field(default_factory=lambda: defaultdict(int))


@dataclass(slots=True)
class ProcessSummary:
    """Figures of a process: calls, bytes that they moved, and how long they took for what, in nanoseconds."""

    name: str
    threads: int = 0
    calls: int = 0
    sent: int = 0
    received: int = 0
    failed: int = 0
    longest_idle: int = 0
    waits: Waits = field(default_factory=lambda: defaultdict(int))


class TraceSummary:
    """The figures of a trace that has ended: of `connections` and of `processes`, in the order of events."""

    def __init__(self, trace: Trace, shows: Callable[[TraceEvent], bool] = lambda _: True) -> None:
        self._trace = trace
        self._connections: dict[str, ConnectionSummary] = {}
        self._processes: dict[int, ProcessSummary] = {}
        self._names: dict[int, str] = {}
        self._last: dict[int, int] = {}  # when the last call of a process ended
        self._requests: dict[int, int] = {}  # when the request began that is not answered yet, by socket
        self._threads: dict[int, set[int]] = defaultdict(set)
        users = {event.socket for event in trace.events() if isinstance(event, Call)}
        self._clients = {  # the ends of connections whose client is traced
            trace.ends_of(each)
            for each in trace.sockets.values()
            if each.number in users and each.accepted_from is None and each.peer is not None
        }
        for event in trace.events():
            if shows(event):
                if isinstance(event, Call):
                    if event.name not in TLS_CALLS:  # system calls only
                        self._add_call(event)
                elif isinstance(event, Packet):
                    self._add_packet(event)
        for connection in self._connections.values():
            connection.round_trips.sort()
        for number, process in self._processes.items():
            process.threads = len(self._threads[number])

    @property
    def connections(self) -> list[ConnectionSummary]:
        """The connections that moved data or packets."""
        return [each for each in self._connections.values() if each.sent or each.received or each.packets]

    @property
    def processes(self) -> list[ProcessSummary]:
        """The processes that used sockets."""
        return [each for each in self._processes.values() if each.name]

    def connection_name(self, socket: int) -> str | None:
        """Return the name of a socket's connection, or None if the socket has none in the summary."""
        return self._names.get(socket)

    def _add_call(self, call: Call) -> None:
        duration_ns = call.duration
        process = self._processes.get(call.process)
        if process is None:
            known = self._trace.processes.get(call.process)
            name = f"{known.role} {known.pid}" if known is not None and known.role else ""
            process = self._processes[call.process] = ProcessSummary(name)
        end = call.until if call.until is not None else call.at
        process.longest_idle = max(process.longest_idle, call.at - self._last.get(call.process, call.at))
        self._last[call.process] = max(end, self._last.get(call.process, 0))
        self._threads[call.process].add(call.thread)
        process.calls += 1
        process.failed += call.failed
        purpose = _PURPOSE_OF.get(call.name, "other")
        process.waits[purpose] += duration_ns
        socket = self._trace.sockets.get(call.socket) if call.socket is not None else None
        if socket is None or socket.family == "pipe":
            return
        connection = self._connection(socket)
        self._touch(connection, call.at)
        connection.calls += 1
        connection.waits[purpose] += duration_ns
        if not call.size:
            return
        is_send = call.name in SENDING
        if is_send:
            process.sent += call.size
        elif call.name in RECEIVING and "MSG_PEEK" not in call.flags:
            process.received += call.size
        else:
            return
        self._touch(connection, end)
        self._count_bytes(connection, socket, call, is_send=is_send)

    def _count_bytes(
        self, connection: ConnectionSummary, socket: Socket, call: Call, *, is_send: bool
    ) -> None:
        """Count the bytes of a connection at one end, and its round trips."""
        is_accepted = socket.accepted_from is not None
        ends = self._trace.ends_of(socket) if is_accepted else None
        if ends is not None and ends[::-1] in self._clients:
            return  # the client's socket counts them
        if is_send != is_accepted:
            connection.sent += call.size
        else:
            connection.received += call.size
        number = socket.number
        begins = is_send != is_accepted
        if begins:
            at = call.at if is_send else (call.until or call.at)
            self._requests.setdefault(number, at)
        elif (began := self._requests.pop(number, None)) is not None:
            at = call.at if is_send else (call.until or call.at)
            connection.round_trips.append(max(at - began, 0))

    def _add_packet(self, packet: Packet) -> None:
        socket = self._trace.sockets.get(packet.sender or packet.receiver or 0)
        if socket is None:
            return
        connection = self._connection(socket)
        self._touch(connection, packet.at)
        connection.packets += 1
        connection.resent += packet.resent

    def _connection(self, socket: Socket) -> ConnectionSummary:
        name = self._names.get(socket.number)
        if name is None:
            name = self._names[socket.number] = self._name(socket)
        found = self._connections.get(name)
        if found is None:
            found = self._connections[name] = ConnectionSummary(name)
        return found

    def _name(self, socket: Socket) -> str:
        """Return a connection's name: the client's address first."""
        ends = self._trace.ends_of(socket)
        if ends is None:
            return str(socket.local or socket.peer or f"socket {socket.number}")
        first, second = reversed(ends) if socket.accepted_from is not None else ends
        return f"{first} → {second}"

    def _touch(self, connection: ConnectionSummary, at: int) -> None:
        if not connection.began:
            connection.began = connection.ended = at
        connection.longest_idle = max(connection.longest_idle, at - connection.ended)
        connection.ended = max(connection.ended, at)


def percentile(values: Sequence[int], share: float) -> int:
    """Return the smallest of sorted values that at least a share of them does not exceed (nearest rank)."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


CONNECTION_HEADERS: Final = (
    "connection", "calls", "bytes out", "bytes in", "round trips", "p50", "p90", "p99", "max", "resent",
    "longest idle",
)  # fmt: skip


def connection_rows(summary: TraceSummary) -> list[tuple[str, ...]]:
    """Return the table of the connections: a row for each. Times of round trips, as percentiles."""
    rows = []
    for each in summary.connections:
        times = each.round_trips
        shown = [duration(percentile(times, share)) for share in _PERCENTILES] if times else ["-"] * 3
        rows.append(
            (
                each.name, f"{each.calls:,}", f"{each.sent:,}", f"{each.received:,}", f"{len(times):,}",
                *shown,
                duration(times[-1]) if times else "-", f"{each.resent:,}", duration(each.longest_idle),
            )
        )  # fmt: skip
    return rows


def process_table(summary: TraceSummary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headers and rows of the processes. Of the times spent in calls, those that occur are shown."""
    used = [each for each in PURPOSES if any(process.waits.get(each) for process in summary.processes)]
    headers = ("process", "threads", "calls", "failed", "bytes sent", "bytes received")
    rows = [
        (
            each.name, str(each.threads), f"{each.calls:,}", f"{each.failed:,}", f"{each.sent:,}",
            f"{each.received:,}", *(duration(each.waits.get(name, 0)) for name in used),
            duration(each.longest_idle),
        )
        for each in summary.processes
    ]  # fmt: skip
    return (*headers, *(_HEADINGS[name] for name in used), "longest outside calls"), rows
