"""Answer questions about a trace as rows: connections, calls, packets, causes, findings and so on. Pure.

Each question is a function from a trace and a selection to rows, and an entry of `QUESTIONS`. A row is a
dictionary of what JSON can hold, so the same rows are a table for people and JSON for programs. The keys are
stable: docs/reference/query.md lists them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from bothends.errors import UsageError
from bothends.trace.capture.tls_source import TLS_CALLS
from bothends.trace.findings import run_rules
from bothends.trace.findings.base import Finding
from bothends.trace.model import Call, KernelEvent, Packet, ProcessEvent, Trace, TraceEvent
from bothends.trace.protocols.table import said
from bothends.trace.rendering.formatting import call_text, duration, packet_text
from bothends.trace.rendering.kernel_text import kernel_text
from bothends.trace.socket_states import SocketStateTracker
from bothends.trace.summary import PURPOSES, TraceSummary, percentile

Row: TypeAlias = dict[str, Any]
_MAX_CHAIN: Final = 10_000  # events in an answer about causes: a long connection is one chain


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are asked for; empty means all.

    `connection`: the number of a connection; `process`: a role or pid; `calls`: names; `rule`: of a finding;
    `failed`: only calls that returned an error; `event`: the event whose causes or effects are asked for.
    """

    connection: int | None = None
    process: str = ""
    calls: frozenset[str] = frozenset()
    rule: str = ""
    failed: bool = False
    event: int | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its key in JSON, its heading in the table, and how a value is shown there."""

    key: str
    heading: str
    show: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class Question:
    """What can be asked: its summary, its columns in the table (JSON has all keys), and the answer.

    `needs_event`: it is about one event. `selects`: the fields of a selection that it heeds.
    """

    summary: str
    columns: tuple[Column, ...]
    answer: Callable[[TraceView, Selection], Iterable[Row]]
    needs_event: bool = False
    selects: tuple[str, ...] = ()


class TraceView:
    """A trace, with its connections numbered from 1 in the order of their first events.

    Raises:
        UsageError: the selection names no connection or process of the trace.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.summary = TraceSummary(trace)
        self.began_at = trace.began_at
        if self.began_at is None:
            self.began_at = min((event.at for event in trace.events()), default=0)
        self._numbers = {each.name: number for number, each in enumerate(self.summary.connections, start=1)}

    def seconds(self, at: int | None) -> int | None:
        """Return a time as nanoseconds since the beginning of the trace."""
        return None if at is None else at - (self.began_at or 0)

    def connection_of(self, event: TraceEvent) -> int | None:
        """Return the number of the connection that an event belongs to, or None."""
        socket: int | None = None
        if isinstance(event, Packet):
            socket = event.sender or event.receiver
        elif isinstance(event, Call | KernelEvent):
            socket = event.socket
        name = None if socket is None else self.summary.connection_name(socket)
        return None if name is None else self._numbers.get(name)

    def process_name(self, number: int) -> str:
        """Return the role and pid of a process."""
        process = self.trace.processes.get(number)
        return "" if process is None else f"{process.role or 'process'} {process.pid}"

    def check(self, chosen: Selection) -> None:
        """Check that what a selection names is there."""
        if chosen.connection is not None and chosen.connection not in self._numbers.values():
            known = f"1 to {len(self._numbers)}" if self._numbers else "none"
            raise UsageError(f"there is no connection {chosen.connection}; this trace has {known}")
        if chosen.process and not any(self._is_process(chosen, each) for each in self.trace.processes):
            roles = sorted({each.role for each in self.trace.processes.values() if each.role})
            raise UsageError(f"there is no process {chosen.process!r}; this trace has {', '.join(roles)}")
        if chosen.event is not None and self.trace.event(chosen.event) is None:
            raise UsageError(f"there is no event {chosen.event}; `calls` and `packets` list their numbers")

    def _is_chosen(self, chosen: Selection, number: int) -> bool:
        """Whether calls of a process are asked for: by default, those of processes that use sockets."""
        process = self.trace.processes.get(number)
        if process is None:
            return not chosen.process
        return self._is_process(chosen, number) if chosen.process else bool(process.role)

    def _is_process(self, chosen: Selection, number: int) -> bool:
        process = self.trace.processes[number]
        return chosen.process in (process.role, str(process.pid))

    def events(self, kind: type[TraceEvent], chosen: Selection) -> Iterator[Any]:
        """Iterate over the selected events of a kind."""
        for event in self.trace.events():
            if not isinstance(event, kind):
                continue
            if chosen.connection is not None and self.connection_of(event) != chosen.connection:
                continue
            if isinstance(event, Call):
                if not self._is_chosen(chosen, event.process):
                    continue
                if chosen.calls and event.name not in chosen.calls:
                    continue
                if chosen.failed and not event.failed:
                    continue
            yield event


# The answers -----------------------------------------------------------------------------------------


def _connections(view: TraceView, _chosen: Selection) -> Iterator[Row]:
    for number, each in enumerate(view.summary.connections, start=1):
        times = each.round_trips
        yield {
            "connection": number,
            "name": each.name,
            "began_ns": view.seconds(each.began),
            "ended_ns": view.seconds(each.ended),
            "calls": each.calls,
            "bytes_sent": each.sent,
            "bytes_received": each.received,
            "packets": each.packets,
            "retransmissions": each.resent,
            "round_trips": len(times),
            **{
                f"round_trip_p{round(share * 100)}_ns": percentile(times, share) if times else None
                for share in (0.5, 0.9, 0.99)
            },
            "round_trip_max_ns": times[-1] if times else None,
            "longest_idle_ns": each.longest_idle,
            "waits_ns": {name: each.waits[name] for name in PURPOSES if each.waits.get(name)},
        }


def _processes(view: TraceView, _chosen: Selection) -> Iterator[Row]:
    for each in view.summary.processes:
        yield {
            "process": each.name,
            "threads": each.threads,
            "calls": each.calls,
            "failed": each.failed,
            "bytes_sent": each.sent,
            "bytes_received": each.received,
            "longest_idle_ns": each.longest_idle,
            "waits_ns": {name: each.waits[name] for name in PURPOSES if each.waits.get(name)},
        }


def _event_row(view: TraceView, event: TraceEvent) -> Row:
    """Return the row for an event of any kind."""
    row: Row = {
        "event": event.number,
        "at_ns": view.seconds(event.at),
        "connection": view.connection_of(event),
    }
    match event:
        case Call():
            text = call_text(event, ended=event.until is not None)
            row |= {"kind": "call", "process": view.process_name(event.process), "text": text}
            row["said"] = said(event.data, event.size or len(event.data)).text
        case Packet():
            row |= {
                "kind": "packet",
                "process": "",
                "text": f"{event.source} → {event.destination} {packet_text(event)}",
                "said": said(event.data, event.size).text,
            }
        case ProcessEvent():
            row |= {"kind": "process", "process": view.process_name(event.process), "text": event.text}
        case KernelEvent():
            row |= {"kind": "kernel", "process": "", "text": kernel_text(event)}
    return row


def _calls(view: TraceView, chosen: Selection) -> Iterator[Row]:
    for call in view.events(Call, chosen):
        yield _call_row(view, call)


def _call_row(view: TraceView, call: Call) -> Row:
    return {
        **_event_row(view, call),
        "thread": call.thread,
        "call": call.name,
        "result": call.result,
        "error": call.error,
        "bytes": call.size,
        "took_ns": None if call.until is None else call.duration,
    }


def _packets(view: TraceView, chosen: Selection) -> Iterator[Row]:
    for packet in view.events(Packet, chosen):
        yield {
            **_event_row(view, packet),
            "protocol": packet.protocol,
            "source": str(packet.source),
            "destination": str(packet.destination),
            "flags": list(packet.flags),
            "bytes": packet.size,
            "retransmission": packet.resent,
            "lost": packet.lost,
            "interface": packet.interface,
        }


def _waits(view: TraceView, chosen: Selection) -> Iterator[Row]:
    """Return calls, the longest first. One that has not ended lasts up to the end of the trace."""
    end = view.trace.frozen_at or max((event.at for event in view.trace.events()), default=0)
    found = [call for call in view.events(Call, chosen) if call.name not in TLS_CALLS]
    if chosen == Selection():
        found += view.trace.blocked
    found.sort(key=lambda call: call.at - (call.until if call.until is not None else end))
    for call in found:
        took = (call.until if call.until is not None else end) - call.at
        yield {**_call_row(view, call), "took_ns": took, "ended": call.until is not None}


def _chain(view: TraceView, chosen: Selection, *, backwards: bool) -> Iterator[Row]:
    """Return an event and, breadth first, all that caused it or that it caused, with their distances."""
    trace = view.trace
    assert chosen.event is not None
    seen = {chosen.event}
    waiting: deque[tuple[int, int, str, int | None]] = deque([(chosen.event, 0, "", None)])
    while waiting:
        number, distance, relation, of = waiting.popleft()
        event = trace.event(number)
        if event is None:
            continue
        yield {"distance": distance, "relation": relation, "of": of, **_event_row(view, event)}
        for link in trace.causes_of(number) if backwards else trace.effects_of(number):
            other = link.cause if backwards else link.effect
            if other not in seen and len(seen) < _MAX_CHAIN:
                seen.add(other)
                waiting.append((other, distance + 1, link.kind, number))


def _causes(view: TraceView, chosen: Selection) -> Iterator[Row]:
    return _chain(view, chosen, backwards=True)


def _effects(view: TraceView, chosen: Selection) -> Iterator[Row]:
    return _chain(view, chosen, backwards=False)


def _sockets(view: TraceView, _chosen: Selection) -> Iterator[Row]:
    tracker = SocketStateTracker(view.trace)
    for point in view.trace.points:
        tracker.add(point)
    for each in tracker.states():
        socket = view.trace.sockets[each.socket]
        yield {
            "socket": each.socket,
            "process": "" if each.process is None else view.process_name(each.process),
            "kind": socket.kind,
            "local": "" if socket.local is None else str(socket.local),
            "peer": "" if socket.peer is None else str(socket.peer),
            "state": each.tcp,
            "sent": each.sent,
            "received": each.received,
            "unacknowledged": each.unacknowledged,
            "unread": each.unread,
            "accept_queue": each.queued,
            "closed": each.is_closed,
        }


def _findings(view: TraceView, chosen: Selection) -> Iterator[Row]:
    for finding in run_rules(view.trace):
        yield from _finding_rows(view, finding, chosen, None)


def _finding_rows(
    view: TraceView, finding: Finding, chosen: Selection, follows_from: str | None
) -> Iterator[Row]:
    if not chosen.rule or chosen.rule == finding.rule:
        yield {
            "rule": finding.rule,
            "title": finding.title,
            "certainty": finding.certainty,
            "basis": finding.basis,
            "process": "" if finding.process is None else view.process_name(finding.process),
            "text": finding.text,
            "remedy": finding.remedy,
            "in_c": finding.in_c,
            "in_python": finding.in_python,
            "evidence": list(finding.evidence),
            "follows_from": follows_from,
        }
    for each in finding.consequences:
        yield from _finding_rows(view, each, chosen, finding.rule)


# The table -------------------------------------------------------------------------------------------


def _time(nanoseconds: int | None) -> str:
    return "" if nanoseconds is None else f"{nanoseconds / 1e9:.6f}"


def _duration(nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else duration(nanoseconds)


def _number(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _numbers(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:6])) + (" ..." if numbers[6:] else "")


def _reference(number: int | None) -> str:
    return "-" if number is None else str(number)


_PLACE: Final = (
    Column("event", "event"),
    Column("at_ns", "seconds", _time),
    Column("connection", "conn.", _reference),
)
_TEXT: Final = Column("text", "what")
_CALL: Final = (*_PLACE, Column("process", "process"), Column("took_ns", "took", _duration), _TEXT)
_LINKED: Final = (
    Column("distance", "distance"),
    Column("relation", "relation"),
    Column("of", "of event", _reference),
    *_PLACE,
    Column("process", "process"),
    _TEXT,
)
_FILTERS: Final = ("connection", "process", "calls", "failed")

QUESTIONS: Final[dict[str, Question]] = {
    "connections": Question(
        "each connection in figures",
        (
            Column("connection", "conn."),
            Column("name", "client → server"),
            Column("began_ns", "began", _time),
            Column("calls", "calls", _number),
            Column("bytes_sent", "bytes out", _number),
            Column("bytes_received", "bytes in", _number),
            Column("round_trips", "round trips", _number),
            Column("round_trip_p50_ns", "p50", _duration),
            Column("round_trip_max_ns", "max", _duration),
            Column("retransmissions", "resent", _number),
            Column("longest_idle_ns", "longest idle", _duration),
        ),
        _connections,
    ),
    "processes": Question(
        "each process in figures",
        (
            Column("process", "process"),
            Column("threads", "threads", _number),
            Column("calls", "calls", _number),
            Column("failed", "failed", _number),
            Column("bytes_sent", "bytes sent", _number),
            Column("bytes_received", "bytes received", _number),
            Column("longest_idle_ns", "longest outside calls", _duration),
        ),
        _processes,
    ),
    "calls": Question("system calls, in order", _CALL, _calls, selects=_FILTERS),
    "packets": Question("packets, in order", (*_PLACE, _TEXT), _packets, selects=("connection",)),
    "waits": Question("the calls that took longest", _CALL, _waits, selects=_FILTERS),
    "sockets": Question(
        "the TCP states and buffers of all sockets, at the end or at --to",
        (
            Column("process", "process"),
            Column("local", "local"),
            Column("peer", "peer"),
            Column("state", "state"),
            Column("sent", "sent", _number),
            Column("unacknowledged", "unacknowledged", _number),
            Column("received", "received", _number),
            Column("unread", "unread", _number),
            Column("accept_queue", "accept queue", _number),
        ),
        _sockets,
    ),
    "causes": Question("what caused an event, and what caused that", _LINKED, _causes, needs_event=True),
    "effects": Question("what an event caused, and what that caused", _LINKED, _effects, needs_event=True),
    "findings": Question(
        "likely mistakes",
        (
            Column("rule", "rule"),
            Column("certainty", "certainty"),
            Column("process", "process"),
            Column("title", "title"),
            Column("evidence", "events", _numbers),
        ),
        _findings,
        selects=("rule",),
    ),
}
"""What can be asked, by name."""


def ask(trace: Trace, name: str, chosen: Selection) -> Iterable[Row]:
    """Return the rows that answer a question about a trace.

    Args:
        name: a key of `QUESTIONS`.

    Raises:
        UsageError: the selection names what the trace does not have, or what the question does not heed.
    """
    question = QUESTIONS[name]
    if question.needs_event and chosen.event is None:
        raise UsageError(f"{name} needs the number of an event; `calls` and `packets` list them")
    if not question.needs_event and chosen.event is not None:
        raise UsageError(f"{name} takes no event")
    for field in ("connection", "process", "calls", "rule", "failed"):
        if getattr(chosen, field) and field not in question.selects:
            raise UsageError(f"{name} has no --{'call' if field == 'calls' else field}")
    view = TraceView(trace)
    view.check(chosen)
    return question.answer(view, chosen)
