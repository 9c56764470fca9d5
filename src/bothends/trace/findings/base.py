"""Findings, and the index of a trace that rules use. Pure.

A rule is a function from a `TraceIndex` to findings. A rule sees system calls and packets, not the program's
source: so a finding states what happened and its usual cause, and lists the events as evidence.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.capture.tls_source import TLS_CALLS
from bothends.trace.correlation.kernel_reasons import KernelReasons
from bothends.trace.correlation.retransmissions import Retransmission, find_retransmissions
from bothends.trace.model import (
    Call,
    KernelEvent,
    Packet,
    ProcessEvent,
    Socket,
    SocketAddress,
    Trace,
    TracedProcess,
)
from bothends.trace.rendering import formatting
from bothends.trace.rendering.kernel_text import kernel_text

# Nanoseconds after which a wait counts as blocked: far more than a call takes on a busy machine.
BLOCKED_NS: Final = 200_000_000

_EVIDENCE_WIDTH: Final = 60  # columns of a packet in the evidence: enough for its flags and offsets


@dataclass(frozen=True, slots=True)
class Finding:
    """A likely mistake: what it is, what happened in this trace, and a remedy.

    `evidence` are the numbers of the events that show it, in order. `certainty`: the events show it ("seen"),
    or it is inferred from `basis`, such as "the bytes look like TLS". `process` is the number of the process
    whose program should change, `sockets` are those of the connections concerned, at either end. `in_c` and
    `in_python` are the line to write. `consequences` are findings that follow from this one.
    """

    rule: str
    title: str
    text: str
    remedy: str
    evidence: tuple[int, ...]
    certainty: Literal["seen", "inferred"] = "seen"
    basis: str = ""
    process: int | None = None
    sockets: tuple[int, ...] = ()
    in_c: str = ""
    in_python: str = ""
    consequences: tuple[Finding, ...] = ()


class TraceIndex:
    """A trace, indexed by socket, process and direction for the rules.

    It holds only events up to `Trace.frozen_at`. A call that was blocked then is not finished: its `until` is
    None. `end` is that time, or the time of the last event.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.calls: list[Call] = []
        self.packets: list[Packet] = []
        self.process_events: list[ProcessEvent] = []
        self.kernel_events: list[KernelEvent] = []
        self.calls_by_socket: dict[int, list[Call]] = defaultdict(list)
        self.calls_by_process: dict[int, list[Call]] = defaultdict(list)
        self.packets_to: dict[int, list[Packet]] = defaultdict(list)
        self.packets_from: dict[int, list[Packet]] = defaultdict(list)
        # By call: the bytes its socket had sent in all after it; 0 for a call that sends no stream.
        self.bytes_sent_by: dict[int, int] = defaultdict(int)
        self._senders: dict[int, tuple[Call, ...]] = {}  # by receive
        self.shared: dict[tuple[str, int], Any] = {}  # what several rules derive from one socket, by a name
        self.end = 0
        self._pipes = {each.number for each in trace.sockets.values() if each.family == "pipe"}
        self._totals: dict[int, int] = defaultdict(int)
        self._positions: dict[int, int] = {}
        self._places: dict[str, list[int]] = defaultdict(list)  # by name: where its calls are in `calls`
        self._calls_at: dict[tuple[int, str], list[Call]] = defaultdict(list)  # by socket and name
        for event in trace.events():
            if trace.frozen_at is not None and event.at > trace.frozen_at:
                continue
            self.end = max(self.end, event.at)
            match event:
                case Call():
                    self._index_call(event)
                case Packet():
                    self.packets.append(event)
                    self.packets_from[event.sender or 0].append(event)
                    self.packets_to[event.receiver or 0].append(event)
                case ProcessEvent():
                    self.process_events.append(event)
                case KernelEvent():
                    self.kernel_events.append(event)
        if trace.frozen_at is not None:
            self.end = trace.frozen_at

    def _index_call(self, call: Call) -> None:
        if call.name in TLS_CALLS or call.socket in self._pipes:
            return  # rules are about system calls on sockets
        self.end = max(self.end, call.until or 0)
        self._places[call.name].append(len(self.calls))
        self.calls.append(call)
        self.calls_by_process[call.process].append(call)
        if call.socket is not None:
            self._positions[call.number] = len(self.calls_by_socket[call.socket])
            self.calls_by_socket[call.socket].append(call)
            self._calls_at[call.socket, call.name].append(call)
            if call.name in SENDING and (not self.trace.dropped or self._has_receivers(call)):
                self._totals[call.socket] += call.size
                self.bytes_sent_by[call.number] = self._totals[call.socket]

    def calls_named(self, *names: str) -> list[Call]:
        """Return the calls of these names, in order. It does not look at the others, which may be many."""
        places = itertools.chain.from_iterable(self._places.get(name, ()) for name in names)
        return [self.calls[place] for place in sorted(places)]

    def calls_at(self, socket: int, *names: str) -> list[Call]:
        """Return the calls of these names on a socket, in order. Rules share the list: don't change it."""
        found = [calls for name in names if (calls := self._calls_at.get((socket, name)))]
        if len(found) <= 1:
            return found[0] if found else []
        return sorted(itertools.chain(*found), key=lambda call: self._positions[call.number])

    @cached_property
    def retransmissions(self) -> tuple[list[Retransmission], list[Packet]]:
        """See `find_retransmissions`."""
        return find_retransmissions(self.packets)

    @cached_property
    def _peers(self) -> dict[int, int]:
        by_addresses, by_inode, found = {}, {}, {}
        for each in self.trace.sockets.values():
            ends = self.trace.ends_of(each)
            if ends is not None and each.family != "unix":
                by_addresses[each.kind, *ends] = each.number
            if each.inode and each.family == "unix":
                by_inode[each.inode] = each.number
        for each in self.trace.sockets.values():
            if each.family == "unix":
                other = by_inode.get(each.peer_inode)
            elif (ends := self.trace.ends_of(each)) is not None:
                other = by_addresses.get((each.kind, *ends[::-1]))
            else:
                other = None
            if other is not None and other != each.number:
                found[each.number] = other
                found.setdefault(other, each.number)
        return found

    def in_causal_order(self, socket: int) -> list[Call]:
        """Return the calls on a socket by `position`. All rules share the list: don't change it."""
        found: list[Call] | None = self.shared.get(("order", socket))
        if found is None:
            positions, last = self._positions_of_points, len(self.trace.points)
            found = self.shared["order", socket] = sorted(
                self.calls_by_socket[socket], key=lambda call: positions.get(call.number, last)
            )
        return found

    @cached_property
    def _positions_of_points(self) -> dict[int, int]:
        found = dict[int, int]()
        for position, (event, is_end) in enumerate(self.trace.points):
            # A send has an effect from its start, a receive at its end.
            if type(event) is not Call or is_end == (event.name in RECEIVING):
                found.setdefault(event.number, position)
        return found

    def position(self, call: Call) -> int:
        """Return the place of a call in causal order: of its end if it receives, otherwise of its start."""
        return self._positions_of_points.get(call.number, len(self.trace.points))

    def peer_of(self, socket: int) -> int | None:
        """Return the number of the socket at the other end of a connection, or None if it is not traced."""
        return self._peers.get(socket)

    @cached_property
    def _kernel_reasons(self) -> KernelReasons:
        return KernelReasons(self.kernel_events)

    def kernel_reason(self, cause: Packet | Socket, *kinds: str) -> KernelEvent | None:
        """Return what the kernel did with a packet, or last did at a socket, and why; None if not known.

        Args:
            cause: the packet or the socket.
            kinds: "drop", "reset-sent" and so on; any kind by default.
        """
        return self._kernel_reasons.find(cause, *kinds)

    def holders_at(self, socket: int, at: int | None = None) -> dict[int, set[int]]:
        """Return the processes that hold a socket, with their descriptors; at the end by default.

        A time after the end is taken for the end: what was closed then was closed by bothends.
        """
        return self.trace.holders_at(socket, self.end if at is None else min(at, self.end))

    def sockets(self, *kinds: str) -> Iterator[Socket]:
        """Return the sockets of these kinds, of the families that connect programs."""
        for socket in self.trace.sockets.values():
            if socket.kind in kinds and socket.family in ("inet", "inet6", "unix"):
                yield socket

    def sends(self, socket: Socket) -> list[Call]:
        """Return the calls that sent data. All rules share the list: don't change it.

        In a trace whose oldest events were dropped, those are left out whose bytes a dropped call received.
        """
        found: list[Call] | None = self.shared.get(("sends", socket.number))
        if found is None:
            found = [
                call
                for call in self.calls_at(socket.number, *SENDING)
                if call.size and (not self.trace.dropped or self._has_receivers(call))
            ]
            self.shared["sends", socket.number] = found
        return found

    def receives(self, socket: Socket) -> list[Call]:
        """Return the calls that received data or EOF. All rules share the list: don't change it.

        In a trace whose oldest events were dropped, those are left out whose bytes were sent before.
        """
        found: list[Call] | None = self.shared.get(("receives", socket.number))
        if found is None:
            found = self.shared["receives", socket.number] = [
                call
                for call in self.calls_at(socket.number, *RECEIVING)
                if not call.error
                and call.result is not None
                and "MSG_PEEK" not in call.flags
                and (not self.trace.dropped or self._has_senders(call))
            ]
        return found

    def _has_receivers(self, send: Call) -> bool:
        """Return whether none of the calls that received the bytes of a send was dropped.

        A call is dropped if its start is: a receive that waited may be, and the send that came meanwhile not.
        """
        for link in self.trace.effects_of(send.number):
            effect = self.trace.event(link.effect)
            if effect is None:
                return False
            if isinstance(effect, Packet):
                numbers = (each.effect for each in self.trace.effects_of(effect.number))
                if any(self.trace.event(each) is None for each in numbers):
                    return False
        return True

    def _has_senders(self, receive: Call) -> bool:
        """Return whether none of the calls that sent the bytes of a receive was dropped."""
        for link in self.trace.causes_of(receive.number):
            cause = self.trace.event(link.cause)
            if cause is None:
                return False
            if isinstance(cause, Packet):
                numbers = (each.cause for each in self.trace.causes_of(cause.number))
                if any(self.trace.event(each) is None for each in numbers):
                    return False
        return True

    def senders_of(self, receive: Call) -> Sequence[Call]:
        """Return the calls that sent the bytes of a receive, in order."""
        known = self._senders.get(receive.number)
        if known is not None:
            return known
        causes_of, event = self.trace.causes_of, self.trace.event
        found = {}
        for link in causes_of(receive.number):
            cause = event(link.cause)
            calls = [cause]
            if isinstance(cause, Packet):
                calls = [event(each.cause) for each in causes_of(link.cause)]
            for call in calls:
                if isinstance(call, Call) and call.name in SENDING:
                    found[call.number] = call
        senders = self._senders[receive.number] = tuple(found[number] for number in sorted(found))
        return senders

    def later_calls(self, call: Call) -> Iterator[Call]:
        """Return the later calls on the same socket."""
        position = self._positions.get(call.number)
        if position is not None:  # None: it began after the end
            yield from itertools.islice(self.calls_by_socket[call.socket or 0], position + 1, None)

    def next_call(self, call: Call) -> Call | None:
        """Return the next call on the same socket by the same process."""
        return next((each for each in self.later_calls(call) if each.process == call.process), None)

    def process(self, number: int) -> TracedProcess:
        """Return a process by its number."""
        return self.trace.processes[number]

    def ended_at(self, process: int) -> int | None:
        """Return the time when a process exited, or None if it was running at the end of the trace."""
        return next(
            (each.at for each in self.process_events if each.process == process and each.kind == "ended"),
            None,
        )

    def listeners(self) -> Iterator[tuple[Socket, Call]]:
        """Return the listeners, each with its listen() call."""
        for call in self.calls_named("listen"):
            if not call.failed and call.socket is not None:
                yield self.trace.sockets[call.socket], call

    def has_option(self, socket: Socket, option: str, before: int) -> bool:
        """Return whether a socket option was set before a time."""
        return any(
            option in call.arguments and not call.failed and call.at < before
            for call in self.calls_at(socket.number, "setsockopt")
        )


def listens_at(listener: SocketAddress | None, target: SocketAddress) -> bool:
    """Return whether a listener with this address accepts connections to the target."""
    if listener is None or listener.port != target.port:
        return False
    if listener.host == "0.0.0.0":
        return ":" not in target.host
    return listener.host in (target.host, "::")


def evidence_lines(finding: Finding, trace: Trace, limit: int = 6) -> list[str]:
    """Describe the evidence of a finding, one event a line, `limit` events at most."""
    lines = []
    for number in finding.evidence[:limit]:
        event = trace.event(number)
        match event:
            case Call():
                process = trace.processes[event.process]
                waited = (
                    f", after {formatting.duration(event.duration)}" if event.duration >= BLOCKED_NS else ""
                )
                lines.append(f"{process.role or process.pid}: {formatting.call_text(event)}{waited}")
            case Packet():
                text = formatting.truncate(formatting.packet_text(event), _EVIDENCE_WIDTH)
                lost = f" lost: {event.lost}" if event.lost else ""
                lines.append(f"{event.source} → {event.destination}: {text}{lost}")
            case ProcessEvent():
                process = trace.processes[event.process]
                lines.append(f"{process.role or process.pid}: {event.text}")
            case KernelEvent():
                lines.append(kernel_text(event))
    if len(finding.evidence) > limit:
        lines.append(f"and {len(finding.evidence) - limit} more")
    return lines
