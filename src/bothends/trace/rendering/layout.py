"""Where everything stands on a picture: a lane for each process, a row for each thing that happened. Pure.

    moments ──> Layout.rows() ──> rows ──> terminal.py (terminal), svg.py, html.py

1. Lanes appear with the processes, in their order; the lane of a process that has ended is used again.
2. A call is one row if nothing happened while it lasted, and else two: its beginning and its end. The end
   is left out where it says nothing new.
3. While a process waits in a call, its lane is marked so.
4. A packet on a wire of ours is one row if nothing happened while it was under way, and else two, too.
5. A connection that nobody has accepted yet is in the lane of its listener.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from bothends.trace.capture.calls import ACCEPTING, FORKING, QUIET_CALLS, REAPING, RECEIVING, WAITING
from bothends.trace.model import PRUNE_SLACK, Call, Packet, Point, ProcessEvent, Socket, Trace, TracedProcess
from bothends.trace.rendering import formatting
from bothends.trace.rendering.explain import explain_call
from bothends.trace.rendering.tcp_states import TcpStateTracker

Style: TypeAlias = Literal["", "quiet", "error", "data", "open", "end", "reset", "state", "note", "lane"]
Bar: TypeAlias = Literal["none", "runs", "waits"]
Shard: TypeAlias = Literal["whole", "leaves", "arrives", "lost"]

SLOW_CALL_NS: Final = 1_000_000  # nanoseconds: who waits longer is said to have waited
BLOCKING_CALLS: Final = ACCEPTING | RECEIVING | WAITING | REAPING | {"connect"}

NONBLOCKING_ERRORS: Final = frozenset({"EAGAIN", "EINPROGRESS"})  # what says "not now" instead of waiting


@dataclass(frozen=True, slots=True)
class Cell:
    """A text in a lane. `wraps`: it is prose, which may take several lines."""

    lane: int
    text: str
    style: Style = ""
    wraps: bool = False


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one lane to another; or a `part` of that, where a packet takes its time, or never arrives. `lost`
    is what took it.
    """

    from_lane: int
    to_lane: int
    text: str
    style: Style
    part: Shard = "whole"
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """What stands side by side: a bar for each lane, and texts or an arrow.

    `at` is nanoseconds since the first event, None for what has no time of its own. `event` is the number of
    the event it shows, `is_header` says that it names the lanes.
    """

    at: int | None
    bars: tuple[Bar, ...]
    cells: tuple[Cell, ...] = ()
    arrow: Arrow | None = None
    event: int | None = None
    is_header: bool = False


@dataclass(slots=True)
class Lane:
    """One column, kept for a role until its process appears. `waiting` are the threads of the process that
    are in a call whose beginning was drawn.
    """

    role: str
    process: TracedProcess | None = None
    blocked_threads: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Filter:
    """What is drawn. Empty sets mean: all. `only` are names of calls; `ports` of either end."""

    hide_quiet_calls: bool = False
    only: frozenset[str] = frozenset()
    descriptors: frozenset[int] = frozenset()
    ports: frozenset[int] = frozenset()

    def shows(self, event: Call | Packet | ProcessEvent, sockets: dict[int, Socket]) -> bool:
        """Whether an event is drawn."""
        match event:
            case Packet():
                places = event.source, event.destination
                return not self.ports or any(each.port in self.ports for each in places)
            case Call():
                return self._shows_call(event, sockets.get(event.socket or 0))
            case _:
                return event.kind not in ("began", "exec")

    def _shows_call(self, call: Call, socket: Socket | None) -> bool:
        if socket is not None and socket.family in ("netlink", "other"):
            return False
        if self.hide_quiet_calls and call.name in QUIET_CALLS | FORKING | REAPING:
            return False
        if self.only and call.name not in self.only:
            return False
        if self.descriptors and call.descriptor not in self.descriptors:
            return False
        if self.ports:
            places = (socket.local, socket.peer, call.place) if socket is not None else ()
            if not any(place is not None and place.port in self.ports for place in places):
                return False
        return call.name not in REAPING or call.result != 0


class Layout:
    """Places moments, row by row, as they come.

    Args:
        trace: whose processes and sockets the moments speak of.
        shown: what is drawn.
        explain: say below each call what it means.
        roles: lanes that are there from the beginning.
        is_over: the trace has ended: a datagram that nobody has received will not be.
    """

    def __init__(
        self,
        trace: Trace,
        row_filter: Filter | None = None,
        *,
        explain: bool = False,
        roles: Iterable[str] = (),
        is_complete: bool = False,
    ) -> None:
        self._trace = trace
        self._filter = row_filter if row_filter is not None else Filter()
        self._explain = explain
        self._is_complete = is_complete
        self._lanes: list[Lane | None] = [Lane(role) for role in roles]
        self._pending_calls: dict[
            int, Call
        ] = {}  # by thread: whose beginning may still be drawn with its end
        self._pending_packets: dict[int, Packet] = {}  # the same of packets that are under way
        self._lanes_of_ended: dict[int, int] = {}  # the lanes of processes that have ended
        self._owners: dict[int, int] = {}  # of each socket: the process that used it last
        self._states = TcpStateTracker(trace)
        self._start: int | None = None
        self._clock = 0
        self._has_packets = False
        self._socket_users: set[int] = set()  # the processes that have used a socket
        self._prune_threshold = PRUNE_SLACK

    def rows(self, point: Point) -> Iterator[Row]:
        """The rows of one moment; none if it is left out, or is drawn with another."""
        event = point.event
        if self._start is None:
            self._start = event.at
        if isinstance(event, Call) and event.socket is not None:
            self._track_owner(event)
        if len(self._owners) + len(self._socket_users) > self._prune_threshold:
            self._prune()
        changes = list(self._states.transitions(point))
        if self._filter.shows(event, self._trace.sockets):
            match event:
                case Packet():
                    yield from self._packet_rows(event, is_end=point.is_end)
                case Call():
                    yield from self._call_rows(event, is_end=point.is_end)
                case ProcessEvent():
                    yield from self._process_event_rows(event)
            if changes:
                yield from self.pending() if isinstance(event, Packet) else ()
                yield from self._state_row(changes)

    def pending(self, except_thread: int | None = None) -> Iterator[Row]:
        """The beginnings of calls that last: drawn before anything else is, or when nothing comes. `except_thread` is
        the thread whose call is about to be drawn whole.
        """
        for thread, call in list(self._pending_calls.items()):
            if thread != except_thread:
                del self._pending_calls[thread]
                yield self._start_row(call)
        for packet in list(self._pending_packets.values()):
            del self._pending_packets[packet.number]
            yield from self._arrow_rows(packet, packet.at, "leaves")

    def _call_rows(self, call: Call, *, is_end: bool) -> Iterator[Row]:
        if call.socket is not None or call.sockets or call.name in ("socket", "socketpair"):
            self._socket_users.add(call.process)
        if call.process not in self._socket_users:
            return  # a shell that starts what is traced, or the program before it has a socket
        yield from self._assign_lane(call.process)
        if not is_end:
            yield from self.pending()
            self._pending_calls[call.thread] = call
            return
        yield from self.pending(except_thread=call.thread)
        is_whole = self._pending_calls.pop(call.thread, None) is not None
        lane = self._lane(call.process)
        if lane is not None:
            lane.blocked_threads.discard(call.thread)
        if is_whole or not formatting.has_trivial_result(call):
            at = call.at if is_whole or call.until is None else call.until
            yield self._text_row(at, call, self._full_text(call), _style(call))
        yield from self._direct_arrow(call)
        if self._explain and (text := explain_call(call, self._trace)):
            yield self._row(
                None, (Cell(self._lane_index(call.process) or 0, text, "quiet", wraps=True),), call
            )

    def _start_row(self, call: Call) -> Row:
        text = formatting.call_text(call, ended=False) + (
            " waits" if call.name in BLOCKING_CALLS - {"connect"} else ""
        )
        row = self._text_row(call.at, call, text, "quiet" if call.name in QUIET_CALLS else "")
        lane = self._lane(call.process)
        if lane is not None:
            lane.blocked_threads.add(call.thread)
        return row

    def _full_text(self, call: Call) -> str:
        waits = (
            call.name in BLOCKING_CALLS
            and call.duration >= SLOW_CALL_NS
            and call.error not in ("EAGAIN", "EINPROGRESS")
        )
        return formatting.call_text(call) + (f", after {formatting.duration(call.duration)}" if waits else "")

    def _packet_rows(self, packet: Packet, *, is_end: bool) -> Iterator[Row]:
        is_whole = self._pending_packets.pop(packet.number, None) is not None or not packet.reaches
        yield from self.pending()
        self._has_packets = True
        if packet.reaches and not is_end:
            self._pending_packets[packet.number] = packet
            return
        at = packet.until if packet.until is not None and not is_whole else packet.at
        part: Shard = "lost" if packet.lost else "whole" if is_whole else "arrives"
        yield from self._arrow_rows(packet, at, part)

    def _arrow_rows(self, packet: Packet, at: int, part: Shard) -> Iterator[Row]:
        for number in (packet.sender, packet.receiver):
            socket = self._trace.sockets.get(number or 0)
            if socket is not None and socket.process is not None:
                self._owners[socket.number] = socket.process
                yield from self._assign_lane(socket.process)
        here, there = self._lane_of_end(packet, packet.sender), self._lane_of_end(packet, packet.receiver)
        text, style = formatting.packet_text(packet), _packet_style(packet)
        original = self._trace.event(packet.repeats) if packet.repeats is not None else None
        if original is not None:
            text = text.replace("(again)", f"(again: {(original.at - (self._start or 0)) / 1e9:.4f})")
        lost = packet.lost if part == "lost" else ""
        style = "error" if lost else "quiet" if part == "leaves" else style
        is_final = part != "leaves" and not packet.lost
        if (
            is_final
            and self._is_complete
            and packet.receiver is not None
            and is_undelivered(packet, self._trace)
        ):
            text, style = f"{text}, never received", "error"
        if here is not None and there is not None and here != there:
            yield self._row(at, (), packet, Arrow(here, there, text, style, part, lost))
            return
        text += f"  ✗ {lost}" if lost else " …" if part == "leaves" else ""
        if here is None and there is None:
            label = f"{packet.source} → {packet.destination}  {text}"
        elif here is None:
            label = f"◀── {text} from {packet.source}"
        elif there is None:
            label = f"──▶ {text} to {packet.destination}"
        else:
            label = f"↺ {text}"
        yield self._row(at, (Cell(here if here is not None else there or 0, label, style),), packet)

    def _direct_arrow(self, call: Call) -> Iterator[Row]:
        """Without packets: an arrow from the call that sent what this one received."""
        if self._has_packets or not call.size or call.name not in RECEIVING:
            return
        for link in self._trace.causes_of(call.number):
            sender = self._trace.event(link.cause)
            if link.kind != "reaches" or not isinstance(sender, Call):
                continue
            here, there = self._lane_index(sender.process), self._lane_index(call.process)
            if here is not None and there is not None and here != there:
                text = formatting.quoted(call.data, call.size)
                yield self._row(None, (), call, Arrow(here, there, text, "data"))

    def _process_event_rows(self, event: ProcessEvent) -> Iterator[Row]:
        yield from self.pending()
        lane = self._lane_index(event.process)
        if lane is None:
            return
        style: Style = "error" if event.kind == "signal" or event.status else "note"
        yield self._row(event.at, (Cell(lane, event.text, style),), event)
        if event.kind == "ended":
            self._lanes_of_ended[event.process] = lane
            self._lanes[lane] = None

    def _state_row(self, changes: Iterable[tuple[int, str]]) -> Iterator[Row]:
        found: dict[int, list[str]] = {}
        for socket, state in changes:
            lane = self._lane_of_socket(socket)
            if lane is not None:
                found.setdefault(lane, []).append(state)
        cells = tuple(Cell(lane, "• " + ", ".join(states), "state") for lane, states in sorted(found.items()))
        if cells:
            yield self._row(None, cells)

    # Lanes

    def _track_owner(self, call: Call) -> None:
        assert call.socket is not None
        if call.name != "close" or call.socket not in self._owners:
            self._owners[call.socket] = call.process
        if call.name in ACCEPTING and call.made is not None:
            self._owners.setdefault(call.made, call.process)

    def _prune(self) -> None:
        """Let go of what the trace has let go of."""
        known = self._trace.sockets.keys()
        self._owners = {socket: owner for socket, owner in self._owners.items() if socket in known}
        self._socket_users &= self._trace.processes.keys()
        self._lanes_of_ended = {
            process: lane for process, lane in self._lanes_of_ended.items() if process in self._socket_users
        }
        self._prune_threshold = len(self._owners) + len(self._socket_users) + PRUNE_SLACK

    def _assign_lane(self, number: int) -> Iterator[Row]:
        if self._lane(number) is not None:
            return
        process = self._trace.processes[number]
        kept = next(
            (lane for lane in self._lanes if lane and lane.process is None and lane.role == process.role),
            None,
        )
        lane = kept if kept is not None else Lane(process.role)
        lane.process = process
        if kept is None and None in self._lanes:
            self._lanes[self._lanes.index(None)] = lane
        elif kept is None:
            self._lanes.append(lane)
        yield self._header()

    def _header(self) -> Row:
        """The names of the lanes."""
        cells = tuple(
            Cell(
                index,
                lane.role + (f" {lane.process.pid}" if lane.process and lane.process.pid else ""),
                "lane",
            )
            for index, lane in enumerate(self._lanes)
            if lane is not None
        )
        return Row(None, self._bars(), cells, is_header=True)

    def _lane(self, process: int) -> Lane | None:
        lane = self._lane_index(process)
        return self._lanes[lane] if lane is not None else None

    def _lane_index(self, process: int) -> int | None:
        for index, lane in enumerate(self._lanes):
            if lane is not None and lane.process is not None and lane.process.number == process:
                return index
        return None

    def _lane_of_socket(self, socket: int | None) -> int | None:
        """The lane of whoever used a socket last; of its listener's while it is not accepted yet."""
        if socket is None or socket not in self._trace.sockets:
            return None
        owner = self._owners.get(socket, self._owners.get(self._trace.sockets[socket].welcomed_by or 0))
        return self._lane_index(owner) if owner is not None else None

    def _lane_of_end(self, packet: Packet, socket: int | None) -> int | None:
        """The lane of one end of a packet. On a wire it is still known when its process has ended, as long as
        nobody else has it: the kernel goes on talking.
        """
        lane = self._lane_of_socket(socket)
        if lane is not None or not packet.reaches:
            return lane
        gone = self._lanes_of_ended.get(self._owners.get(socket or 0, 0))
        return gone if gone is not None and self._lanes[gone] is None else None

    # Rows

    def _text_row(self, at: int, call: Call, text: str, style: Style) -> Row:
        return self._row(at, (Cell(self._lane_index(call.process) or 0, text, style),), call)

    def _row(
        self,
        at: int | None,
        cells: tuple[Cell, ...],
        event: Call | Packet | ProcessEvent | None = None,
        arrow: Arrow | None = None,
    ) -> Row:
        if at is not None:  # two clocks that differ by microseconds don't let time go back
            self._clock = at = max(self._clock, at)
            at -= self._start or 0
        return Row(at, self._bars(), cells, arrow, event.number if event is not None else None)

    def _bars(self) -> tuple[Bar, ...]:
        return tuple(
            "none" if each is None else "waits" if each.blocked_threads else "runs" for each in self._lanes
        )


def rows_of(trace: Trace, row_filter: Filter | None = None, *, explain: bool = False) -> Iterator[Row]:
    """All rows of a trace that has ended."""
    layout = Layout(trace, row_filter, explain=explain, is_complete=True)
    for moment in trace.points:
        yield from layout.rows(moment)
    yield from layout.pending()


def is_undelivered(packet: Packet, trace: Trace) -> bool:
    """Whether a datagram was sent, and no call has received it by now."""
    return packet.protocol == "udp" and not any(
        link.kind == "feeds" for link in trace.effects_of(packet.number)
    )


def _style(call: Call) -> Style:
    if call.failed:
        return "quiet" if call.error in ("EAGAIN", "EINPROGRESS", "EINTR", "ERESTARTSYS") else "error"
    return "quiet" if call.name in QUIET_CALLS else ""


def _packet_style(packet: Packet) -> Style:
    if "RST" in packet.flags:
        return "reset"
    if "SYN" in packet.flags:
        return "open"
    if "FIN" in packet.flags:
        return "end"
    return "data" if packet.size or packet.protocol == "udp" else "quiet"
