"""Compare two runs: align what each program and each path did, and mark what differs. Pure.

    sequence(trace) ──> steps ─┐
                               ├─> compare() ──> pairs of steps, lane by lane
    sequence(trace) ──> steps ─┘

1. Which of two processes is faster is chance. So each process is compared with the one of the same role, and
   each direction of a path with itself; the order between them is not compared.
2. Numbers that the kernel chooses are replaced, because they differ in any two runs: ephemeral ports, and the
   ids of processes.
3. Calls that transfer nothing (`QUIET_CALLS`) and acknowledgements without data are left out: their number
   depends on time.
4. How long something took is no difference: `at` and `took` are there to be shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Final, Literal, NamedTuple, TypeAlias

from bothends.escaping import escape_line
from bothends.trace.capture.calls import ACCEPTING, FORKING, QUIET_CALLS, REAPING
from bothends.trace.model import Call, Packet, ProcessEvent, Socket, SocketAddress, Trace
from bothends.trace.rendering.formatting import call_text, packet_text

MAX_STEPS: Final = 2_000  # of a lane: aligning takes time that grows with the product of both lengths
Difference: TypeAlias = Literal["same", "changed", "first", "second"]

_PORT: Final = re.compile(r"(?<=:)(\d{1,5})\b")
_NUMBER: Final = re.compile(r"\d+")
_PID: Final = re.compile(r"(?<== )\d+$")


class RunStep(NamedTuple):
    """What one process did, or one packet: its lane, its text, when (nanoseconds), how long, its event."""

    lane: str
    text: str
    at: int
    took: int | None
    event: int


class StepPair(NamedTuple):
    """Two steps that correspond, or one that only one of the runs has. `lane` is that of both."""

    lane: str
    difference: Difference
    first: RunStep | None
    second: RunStep | None


def sequence(trace: Trace) -> list[RunStep]:
    """Return the steps of a run, in order. Times count from its first event."""
    began = trace.began_at
    if began is None:
        began = min((event.at for event in trace.events()), default=0)
    ephemeral, owners = _ephemeral_ports(trace.sockets), _Owners(trace)
    found, counts = list[RunStep](), dict[str, int]()
    for event in trace.events():
        took: int | None = None
        match event:
            case Call():
                process = trace.processes.get(event.process)
                lane = process.role if process is not None else ""
                if (
                    not lane
                    or (event.name in QUIET_CALLS and not event.failed)
                    or not _is_drawn(event, trace)
                ):
                    continue
                text, took = call_text(event), event.duration if event.until is not None else None
                if event.name in FORKING | REAPING:
                    text = _PID.sub("PID", text)
            case Packet():
                if event.flags == ("ACK",) and not event.size:
                    continue
                lane = owners.direction(event)
                text = packet_text(event) + (f", lost: {event.lost}" if event.lost else "")
                took = event.until - event.at if event.until is not None else None
            case ProcessEvent(kind="ended" | "signal"):
                process = trace.processes.get(event.process)
                lane, text = process.role if process is not None else "", event.text
            case _:
                continue
        counts[lane] = counts.get(lane, 0) + 1
        if lane and counts[lane] <= MAX_STEPS:
            text = _PORT.sub(lambda port: "PORT" if int(port[1]) in ephemeral else port[1], text)
            found.append(RunStep(escape_line(lane), escape_line(text), event.at - began, took, event.number))
    return found


def _is_drawn(call: Call, trace: Trace) -> bool:
    socket = trace.sockets.get(call.socket) if call.socket is not None else None
    return socket is None or socket.is_shown


def _ephemeral_ports(sockets: Mapping[int, Socket]) -> set[int]:
    """Return the ports that the kernel has chosen for clients."""
    named = {each.local.port for each in sockets.values() if each.is_listener and each.local is not None}
    clients = (each for each in sockets.values() if each.accepted_from is None and not each.is_listener)
    found = {each.local.port for each in clients if each.local is not None and each.peer is not None}
    return {port for port in found - named if port and port >= 1024}


class _Owners:
    """The roles of the programs that use sockets, by socket and by address."""

    def __init__(self, trace: Trace) -> None:
        self._of_socket: dict[int, str] = {}
        self._of_address: dict[SocketAddress | None, str] = {}
        for call in trace.events():
            if not isinstance(call, Call) or call.socket is None:
                continue
            process = trace.processes.get(call.process)
            role = process.role.partition("/")[0] if process is not None else ""
            for number in (call.socket, call.created_id if call.name in ACCEPTING else None):
                socket = trace.sockets.get(number) if number is not None else None
                if role and socket is not None:
                    self._of_socket.setdefault(socket.number, role)
                    self._of_address.setdefault(socket.local, role)

    def direction(self, packet: Packet) -> str:
        """Return the lane of a packet: the roles of both ends, as far as they are known."""
        ends = (packet.sender, packet.source), (packet.receiver, packet.destination)
        return " → ".join(
            self._of_socket.get(socket or 0) or self._of_address.get(address) or address.host
            for socket, address in ends
        )


def compare(first: Sequence[RunStep], second: Sequence[RunStep]) -> list[StepPair]:
    """Align two runs, lane by lane. Lanes are in the order of their first steps."""
    lanes = dict.fromkeys(each.lane for each in (*first, *second))
    found = list[StepPair]()
    for lane in lanes:
        before, after = ([each for each in run if each.lane == lane] for run in (first, second))
        found += _aligned(lane, before, after)
    return found


def _without_numbers(text: str) -> str:
    return _NUMBER.sub("0", text)


def _kind(text: str) -> str:
    """Return the name of a call, or the flags of a packet."""
    return re.split(r"\(| \d", text, maxsplit=1)[0]


# What must be equal so that two steps correspond: what the first leaves over is for the second, and so on.
_KEYS: Final[tuple[Callable[[str], str], ...]] = (str, _without_numbers, _kind)


def _aligned(
    lane: str, first: Sequence[RunStep], second: Sequence[RunStep], level: int = 0
) -> Iterator[StepPair]:
    key = _KEYS[level]
    before, after = ([key(each.text) for each in run] for run in (first, second))
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            for one, other in zip(first[a:b], second[c:d], strict=True):
                yield StepPair(lane, "same" if one.text == other.text else "changed", one, other)
        elif level + 1 < len(_KEYS) and kind == "replace":
            yield from _aligned(lane, first[a:b], second[c:d], level + 1)
        else:
            yield from (StepPair(lane, "first", each, None) for each in first[a:b])
            yield from (StepPair(lane, "second", None, each) for each in second[c:d])
