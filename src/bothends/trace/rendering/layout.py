"""Lay out a trace: a lane for each process, a row for each event. Pure.

    points ──> Layout.rows() ──> rows ──> terminal.py, svg.py, html.py

1. Lanes appear with their processes, in order. The lane of a process that has ended is reused.
2. A call has one row if nothing happened while it lasted, otherwise two: its start and its end. The row of
   the end is omitted if it shows nothing new.
3. While a process is blocked in a call, its lane is dotted.
4. A packet on a wire has one row if nothing happened while it was in transit, otherwise two.
5. A connection that has not been accepted is in the lane of its listener.
6. Calls that transfer nothing (`QUIET_CALLS`) are left out if the filter says so, unless they fail or block
   for `LONG_WAIT_NS`, or sleep for `MIN_SLEEP_NS`. While one blocks, the lane is dotted.
7. The threads of a process share its lane. When a second one makes a call, each call begins with the number
   of its thread: t1, t2 and so on, in the order of their first calls.
8. One lane may stand for all that is not traced: packets go to it and come from it, and rows are added to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple, TypeAlias

from bothends.trace.capture.calls import (
    ACCEPTING,
    MOVING,
    QUIET_CALLS,
    REAPING,
    RECEIVING,
    SLEEPING,
    WAITING,
)
from bothends.trace.capture.tls_source import TLS_CALLS, TLS_READS
from bothends.trace.model import (
    PRUNE_SLACK,
    Call,
    KernelEvent,
    Packet,
    Point,
    ProcessEvent,
    Socket,
    Trace,
    TracedProcess,
    TraceEvent,
    trim_oldest,
)
from bothends.trace.rendering import formatting
from bothends.trace.rendering.explain import explain_call
from bothends.trace.rendering.folding import Decision, FoldedRows, Folder, Unit
from bothends.trace.rendering.kernel_text import kernel_text
from bothends.trace.rendering.tcp_states import TcpStateTracker

Style: TypeAlias = Literal["", "quiet", "error", "data", "open", "end", "reset", "state", "note", "lane"]
Bar: TypeAlias = Literal["none", "runs", "waits"]
ArrowPart: TypeAlias = Literal["whole", "sent", "arrived", "lost"]

SLOW_CALL_NS: Final = 1_000_000  # nanoseconds: the duration of a longer wait is shown
LONG_WAIT_NS: Final = 1_000_000_000  # nanoseconds: a longer wait is drawn even if quiet calls are left out
MIN_SLEEP_NS: Final = 1_000_000  # the same of a sleep
MAX_THREADS: Final = 1_000  # of a process whose numbers are remembered
BLOCKING_CALLS: Final = ACCEPTING | RECEIVING | WAITING | REAPING | {"connect"}
MAX_REPEATED: Final = 8  # equal events of the kernel that are drawn; then the 16th, the 32nd and so on
RESET_ERRORS: Final = frozenset({"ECONNRESET", "ECONNREFUSED", "EPIPE"})  # reported because of a RST
NONBLOCKING_ERRORS: Final = frozenset({"EAGAIN", "EINPROGRESS"})  # the results of calls that would block
# Errors that are not mistakes: of any call, or of calls that only ask.
_NORMAL_ERRORS: Final = NONBLOCKING_ERRORS | {"EALREADY", "EINTR"}
_ANSWERS: Final = frozenset({("getpeername", "ENOTCONN"), ("ioctl", "ENOTTY"), ("epoll_ctl", "EEXIST")})


class Cell(NamedTuple):
    """A text in a lane. `wraps`: it is prose, which may be wrapped to several lines."""

    lane: int
    text: str
    style: Style = ""
    wraps: bool = False


class Arrow(NamedTuple):
    """An arrow from one lane to another, or a `part` of it: a packet was sent, arrived, or was lost.

    `lost` names the toxic that dropped it.
    """

    from_lane: int
    to_lane: int
    text: str
    style: Style
    part: ArrowPart = "whole"
    lost: str = ""


class WaitArrow(NamedTuple):
    """A process is blocked in a call that another process could end. `event` is the number of the call."""

    process: int
    ender: int
    text: str
    event: int


class Row(NamedTuple):
    """One row of the picture: a bar for each lane, and texts or an arrow.

    `at` is nanoseconds since the first event, or None for a row without a time. `event` is the number of the
    event it shows. `is_header`: its cells are the names of the lanes. `fold` says what is folded there.
    """

    at: int | None
    bars: tuple[Bar, ...]
    cells: tuple[Cell, ...] = ()
    arrow: Arrow | None = None
    event: int | None = None
    is_header: bool = False
    fold: str = ""


@dataclass(slots=True)
class Lane:
    """One column. It is reserved for a role until the process appears.

    `blocked_threads` are the threads of the process in a call whose start has been drawn.
    """

    role: str
    process: TracedProcess | None = None
    blocked_threads: set[int] = field(default_factory=set)


@dataclass(slots=True)
class ThreadNumbers:
    """The threads of a process, numbered from 1 in the order of their first calls."""

    count: int = 0
    numbers: dict[int, int] = field(default_factory=dict)

    def number_of(self, thread: int) -> int:
        """Return the number of a thread; a new one gets the next number."""
        number = self.numbers.get(thread)
        if number is None:
            self.count += 1
            number = self.numbers[thread] = self.count
            trim_oldest(self.numbers, MAX_THREADS)
        return number


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects the events to draw. Empty sets select all. `only` are call names, `ports` are of either end."""

    hide_quiet_calls: bool = False
    only: frozenset[str] = frozenset()
    descriptors: frozenset[int] = frozenset()
    ports: frozenset[int] = frozenset()

    def shows(self, event: TraceEvent, sockets: dict[int, Socket]) -> bool:
        """Return whether an event is drawn."""
        if type(event) is Call and event.name in MOVING:  # most events: never quiet
            if self.only or self.descriptors or self.ports:
                return self._shows_call(event, sockets.get(event.socket or 0))
            socket = sockets.get(event.socket or 0)
            return socket is None or socket.is_shown
        match event:
            case Packet():
                addresses = event.source, event.destination
                return not self.ports or any(each.port in self.ports for each in addresses)
            case Call():
                return self._shows_call(event, sockets.get(event.socket or 0))
            case KernelEvent():
                ends = event.source, event.destination
                return not self.ports or any(each is not None and each.port in self.ports for each in ends)
            case _:
                return event.kind not in ("began", "exec")

    def _shows_call(self, call: Call, socket: Socket | None) -> bool:
        if socket is not None and not socket.is_shown:
            return False
        if self.hide_quiet_calls and _is_quiet(call):
            return False
        if self.only and call.name not in self.only:
            return False
        if self.descriptors and call.descriptor not in self.descriptors:
            return False
        if self.ports:
            addresses = (socket.local, socket.peer, call.address) if socket is not None else ()
            if not any(each is not None and each.port in self.ports for each in addresses):
                return False
        return call.name not in REAPING or call.result != 0


class Layout:
    """Turns points into rows, incrementally.

    Args:
        trace: holds the processes and sockets that the points refer to.
        row_filter: what is drawn; everything by default.
        explain: add an explanation below each call.
        roles: lanes to reserve from the start.
        untraced: the role of a lane to reserve behind those, for rule 8; "" for none.
        is_complete: the trace has ended, so that datagrams not received by now are marked.
        fold: draw what repeats as one row (`folding.py`).
    """

    def __init__(
        self,
        trace: Trace,
        row_filter: Filter | None = None,
        *,
        explain: bool = False,
        roles: Iterable[str] = (),
        untraced: str = "",
        is_complete: bool = False,
        fold: bool = False,
    ) -> None:
        self._folder = Folder(trace) if fold else None
        self._folded = FoldedRows()
        self._units: dict[int, Unit | None] | None = None  # of the folded events, if they are to be known
        self._trace = trace
        self._filter = row_filter if row_filter is not None else Filter()
        self._unhidden = replace(self._filter, hide_quiet_calls=False)
        self._explain = explain
        self._is_complete = is_complete
        self._lanes: list[Lane | None] = [Lane(role) for role in (*roles, *filter(None, [untraced]))]
        self._untraced = len(self._lanes) - 1 if untraced else None
        self._lane_numbers: dict[int, int] = {}  # the lane of each process that has one
        self._last_bars: tuple[Bar, ...] = ()
        self._pending_calls: dict[int, Call] = {}  # by thread: not drawn yet, perhaps in one row with the end
        self._pending_packets: dict[int, Packet] = {}  # in transit, and not drawn yet
        self._hidden_waits: dict[int, Call] = {}  # by thread: blocked quiet calls that are left out: rule 6
        self._lanes_of_ended: dict[int, int] = {}  # the last lane, by process
        self._owners: dict[int, int] = {}  # the process that last used a socket, by socket
        self._states = TcpStateTracker(trace)
        self._start: int | None = None
        self._clock = 0
        self._has_packets = False
        self._threads: dict[int, ThreadNumbers] = {}  # by process
        self._socket_users: set[int] = set()  # processes that have used a socket
        self._kernel_events: dict[tuple[str, str, int | None], int] = {}  # drawn or left out
        self._prune_threshold = PRUNE_SLACK
        self._rows: list[Row] = []  # drawn, and not returned yet

    def rows(self, point: Point) -> Sequence[Row]:
        """Return the rows of a point: none if it is left out, folded, or drawn together with a later one."""
        is_shown = self._filter.shows(point.event, self._trace.sockets)
        if self._folder is None or not is_shown:
            self._draw_point(point, is_shown)
        elif decisions := self._folder.add(point):
            self._draw_decided(decisions)
        return self._take_rows() if self._rows else ()

    def _take_rows(self) -> Sequence[Row]:
        rows, self._rows = self._rows, []
        return rows

    def remember_folded(self) -> dict[int, Unit | None]:
        """Return where the events that will be folded are noted: as `folded_events` returns them."""
        self._units = {}
        return self._units

    def _note_start(self, at: int) -> None:
        if self._start is None:
            self._start = at if self._trace.began_at is None else self._trace.began_at

    def _draw_decided(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if self._units is not None:
                _note_decision(self._units, decision)
            if decision.is_folded:
                self._folded.add(decision)
                if self._pending_calls:
                    self._forget_ended(decision.points)
                continue
            if self._folded.points:
                self._draw_fold()
            for point in decision.points:
                self._draw_point(point, is_shown=True)

    def _forget_ended(self, points: Iterable[Point]) -> None:
        """Forget the calls that have ended, and whose start is not drawn yet: they are folded."""
        for point in points:
            if point.is_end and isinstance(point.event, Call):
                self._pending_calls.pop(point.event.thread, None)

    def _draw_fold(self) -> None:
        """Draw the row that stands for what was folded since the last one that was drawn."""
        folded, self._folded = self._folded, FoldedRows()
        self._draw_pending()
        if folded.first is not None:
            at = max(folded.first.at, self._clock)
            self._rows.append(Row(at - (self._start or 0), self._bars(), fold="… " + folded.text()))

    def _draw_point(self, point: Point, is_shown: bool) -> None:
        event = point.event
        self._note_start(event.at)
        if isinstance(event, Call) and event.socket is not None:
            self._track_owner(event)
        if len(self._owners) + len(self._socket_users) > self._prune_threshold:
            self._prune()
        transitions: Sequence[tuple[int, str]] = ()
        if not isinstance(event, Call) or event.name == "listen":
            transitions = self._states.transitions(point)
        if self._hidden_waits or type(event) is not Call or event.name not in MOVING:
            self._track_hidden_waits(point)
        if is_shown:
            match event:
                case Packet():
                    self._draw_packet(event, is_end=point.is_end)
                case Call():
                    self._draw_call(event, is_end=point.is_end)
                case ProcessEvent():
                    self._draw_process_event(event)
                case KernelEvent():
                    self._draw_kernel_event(event)
            if transitions:
                if isinstance(event, Packet):
                    self._draw_pending()
                self._draw_states(transitions)

    def pending(self) -> Sequence[Row]:
        """Draw what is not drawn yet because more may follow. Called when the trace is idle, or has ended."""
        if self._folder is not None:
            self._draw_decided(self._folder.pause())
            if self._folded.points:
                self._draw_fold()
        self._draw_pending()
        return self._take_rows()

    def _has_pending(self, except_thread: int | None = None) -> bool:
        """Return whether `_draw_pending` may have something to do: most often it has not."""
        calls = self._pending_calls
        own = except_thread in calls
        return bool(self._hidden_waits or self._pending_packets) or len(calls) > own

    def _draw_pending(self, except_thread: int | None = None) -> None:
        """Draw the starts of unfinished calls and of packets in transit.

        Called before anything else is drawn. The call of `except_thread` is left out, because it is about to
        be drawn whole.
        """
        for thread, call in self._hidden_waits.items():
            if (lane := self._lane(call.process)) is not None:
                lane.blocked_threads.add(thread)
        if self._pending_calls:
            for thread, call in list(self._pending_calls.items()):
                if thread != except_thread:
                    del self._pending_calls[thread]
                    self._draw_start(call)
        if self._pending_packets:
            for packet in list(self._pending_packets.values()):
                del self._pending_packets[packet.number]
                self._draw_arrow(packet, packet.at, "sent")

    def wait_rows(self, arrows: Iterable[WaitArrow], at: int) -> Sequence[Row]:
        """Draw which process waits for which, at a time, and the long waits that were left out so far."""
        rows = [*self.pending()]
        for thread, hidden in list(self._hidden_waits.items()):
            if at - hidden.at >= LONG_WAIT_NS and self._lane(hidden.process) is not None:
                del self._hidden_waits[thread]
                self._draw_start(hidden)
        for each in arrows:
            waiting, ender = self._lane_index(each.process), self._lane_index(each.ender)
            call = self._trace.event(each.event)
            if waiting is not None and ender is not None and waiting != ender and call is not None:
                self._draw(at, (), call, Arrow(waiting, ender, each.text, "note"))
        return [*rows, *self._take_rows()]

    def untraced_row(self, at: int, text: str) -> Sequence[Row]:
        """Draw what a program that is not traced did, at a time, in its lane: rule 8."""
        if self._untraced is None:
            return ()
        self._note_start(at)
        rows = self.pending()
        self._draw(at, (Cell(self._untraced, text),))
        return [*rows, *self._take_rows()]

    def _track_hidden_waits(self, point: Point) -> None:
        event = point.event
        if isinstance(event, ProcessEvent) and event.kind == "ended":
            waits = self._hidden_waits.items()
            self._hidden_waits = {thread: call for thread, call in waits if call.process != event.process}
        if not isinstance(event, Call):
            return
        if point.is_end:
            if self._hidden_waits.pop(event.thread, None) and (lane := self._lane(event.process)) is not None:
                lane.blocked_threads.discard(event.thread)
        elif (
            event.name in WAITING | SLEEPING
            and not self._filter.shows(event, self._trace.sockets)
            and self._unhidden.shows(event, self._trace.sockets)
        ):
            self._hidden_waits[event.thread] = event

    def _draw_call(self, call: Call, *, is_end: bool) -> None:
        if call.socket is not None or call.sockets or call.name in ("socket", "socketpair"):
            self._socket_users.add(call.process)
        if call.process not in self._socket_users:
            return  # a shell that starts the program, or the program before it creates a socket
        if call.process not in self._lane_numbers:
            self._assign_lane(call.process)
        if call.name in TLS_CALLS:
            self._draw_tls(call, is_end=is_end)
            return
        if not is_end:
            if self._has_pending():
                self._draw_pending()
            self._pending_calls[call.thread] = call
            return
        if self._has_pending(call.thread):
            self._draw_pending(except_thread=call.thread)
        is_whole = self._pending_calls.pop(call.thread, None) is not None
        lane = self._lane(call.process)
        if lane is not None:
            lane.blocked_threads.discard(call.thread)
        if is_whole or not formatting.has_trivial_result(call):
            at = call.at if is_whole or call.until is None else call.until
            self._draw_text(at, call, self._full_text(call), _style(call))
        self._draw_direct_arrow(call)
        self._draw_explanation(call)

    def _draw_explanation(self, call: Call) -> None:
        if self._explain and (text := explain_call(call, self._trace)):
            lane = self._lane_index(call.process) or 0
            self._draw(None, (Cell(lane, text, "quiet", wraps=True),), call)

    def _draw_tls(self, call: Call, *, is_end: bool) -> None:
        """Draw what was written where it was written, and what was read when it had been."""
        if is_end == (call.name in TLS_READS):
            self._draw_pending()
            at = call.until if is_end and call.until is not None else call.at
            self._draw_text(at, call, formatting.call_text(call), "data")
            self._draw_explanation(call)

    def _draw_start(self, call: Call) -> None:
        text = formatting.call_text(call, ended=False) + (
            " waits" if call.name in BLOCKING_CALLS - {"connect"} else ""
        )
        self._draw_text(call.at, call, text, "quiet" if call.name in QUIET_CALLS else "")
        lane = self._lane(call.process)
        if lane is not None:
            lane.blocked_threads.add(call.thread)

    def _full_text(self, call: Call) -> str:
        waits = (
            (call.name in BLOCKING_CALLS or call.name in SLEEPING)
            and call.duration >= SLOW_CALL_NS
            and call.error not in NONBLOCKING_ERRORS
        )
        return formatting.call_text(call) + (f", after {formatting.duration(call.duration)}" if waits else "")

    def _draw_packet(self, packet: Packet, *, is_end: bool) -> None:
        is_whole = self._pending_packets.pop(packet.number, None) is not None or not packet.reaches
        if self._has_pending():
            self._draw_pending()
        self._has_packets = True
        if packet.reaches and not is_end:
            self._pending_packets[packet.number] = packet
            return
        at = packet.until if packet.until is not None and not is_whole else packet.at
        part: ArrowPart = "lost" if packet.lost else "whole" if is_whole else "arrived"
        self._draw_arrow(packet, at, part)

    def _draw_arrow(self, packet: Packet, at: int, part: ArrowPart) -> None:
        for number in (packet.sender, packet.receiver):
            socket = self._trace.sockets.get(number or 0)
            if socket is not None and socket.process is not None:
                self._owners[socket.number] = socket.process
                self._assign_lane(socket.process)
        sender, receiver = (
            self._lane_of_end(packet, packet.sender),
            self._lane_of_end(packet, packet.receiver),
        )
        if sender is None:
            sender = self._untraced
        elif receiver is None:
            receiver = self._untraced
        text, style = formatting.packet_text(packet), _packet_style(packet)
        original = self._trace.event(packet.repeats) if packet.repeats is not None else None
        if original is not None:
            first_sent = f"{(original.at - (self._start or 0)) / 1e9:.4f}"
            text = text.replace(formatting.RESENT_MARK, f"(resent: {first_sent})")
        lost = packet.lost if part == "lost" else ""
        style = "error" if lost else "quiet" if part == "sent" else style
        is_final = part != "sent" and not packet.lost
        if (
            is_final
            and self._is_complete
            and packet.receiver is not None
            and is_undelivered(packet, self._trace)
        ):
            text, style = f"{text}, never received", "error"
        if sender is not None and receiver is not None and sender != receiver:
            self._draw(at, (), packet, Arrow(sender, receiver, text, style, part, lost))
            return
        text += f"  ✗ {lost}" if lost else " …" if part == "sent" else ""
        if sender is None and receiver is None:
            label = f"{packet.source} → {packet.destination}  {text}"
        elif sender is None:
            label = f"◀── {text} from {packet.source}"
        elif receiver is None:
            label = f"──▶ {text} to {packet.destination}"
        else:
            label = f"↺ {text}"
        self._draw(at, (Cell(sender if sender is not None else receiver or 0, label, style),), packet)

    def _draw_direct_arrow(self, call: Call) -> None:
        """Where there are no packets, draw an arrow from the send to the receive."""
        if not call.size or call.name not in RECEIVING:
            return
        socket = self._trace.sockets.get(call.socket or 0)
        if self._has_packets and (socket is None or socket.family not in ("unix", "pipe")):
            return
        for link in self._trace.causes_of(call.number):
            send = self._trace.event(link.cause)
            if link.kind != "reaches" or not isinstance(send, Call):
                continue
            sender, receiver = self._last_lane(send.process), self._lane_index(call.process)
            if sender is not None and receiver is not None and sender != receiver:
                text = formatting.quoted(call.data, call.size)
                self._draw(None, (), call, Arrow(sender, receiver, text, "data"))

    def _draw_process_event(self, event: ProcessEvent) -> None:
        self._draw_pending()
        lane = self._lane_index(event.process)
        if lane is None:
            return
        style: Style = "error" if event.kind == "signal" or event.status else "note"
        self._draw(event.at, (Cell(lane, event.text, style),), event)
        if event.kind == "ended":
            self._lanes_of_ended[event.process] = lane
            self._lanes[lane] = None
            self._lane_numbers.pop(event.process, None)
            self._threads.pop(event.process, None)

    def _draw_kernel_event(self, event: KernelEvent) -> None:
        """Draw what the kernel did, in the lane where it did it, except what a packet shows too."""
        lane = self._lane_of_socket(event.socket)
        is_seen = event.kind in ("reset-received", "retransmit") or event.reason in RESET_ERRORS
        if lane is None or (self._has_packets and is_seen):
            return
        repeated = event.kind, event.reason, event.socket
        count = self._kernel_events[repeated] = self._kernel_events.get(repeated, 0) + 1
        if count > MAX_REPEATED and count & (count - 1):
            return
        self._draw_pending()
        text = kernel_text(event) + (f", {count} times so far" if count > MAX_REPEATED else "")
        style: Style = "reset" if event.kind.startswith("reset") else "error"
        self._draw(event.at, (Cell(lane, text, style, wraps=True),), event)

    def _draw_states(self, transitions: Iterable[tuple[int, str]]) -> None:
        by_lane: dict[int, list[str]] = {}
        for socket, state in transitions:
            lane = self._lane_of_socket(socket)
            if lane is not None:
                by_lane.setdefault(lane, []).append(state)
        cells = tuple(
            Cell(lane, "• " + ", ".join(states), "state") for lane, states in sorted(by_lane.items())
        )
        if cells:
            self._draw(None, cells)

    # Lanes

    def _track_owner(self, call: Call) -> None:
        assert call.socket is not None
        if call.name != "close" or call.socket not in self._owners:
            self._owners[call.socket] = call.process
        if call.name in ACCEPTING and call.created_id is not None:
            self._owners.setdefault(call.created_id, call.process)

    def _prune(self) -> None:
        """Forget the sockets and processes that the trace has pruned."""
        known = self._trace.sockets.keys()
        self._owners = {socket: owner for socket, owner in self._owners.items() if socket in known}
        self._socket_users &= self._trace.processes.keys()
        self._kernel_events = {key: count for key, count in self._kernel_events.items() if key[2] in known}
        self._lanes_of_ended = {
            process: lane for process, lane in self._lanes_of_ended.items() if process in self._socket_users
        }
        self._prune_threshold = len(self._owners) + len(self._socket_users) + PRUNE_SLACK

    def _assign_lane(self, number: int) -> None:
        """Give a process a lane, and draw the names of the lanes, unless it has one."""
        if self._lane(number) is not None:
            return
        process = self._trace.processes[number]
        reserved = next(
            (lane for lane in self._lanes if lane and lane.process is None and lane.role == process.role),
            None,
        )
        lane = reserved if reserved is not None else Lane(process.role)
        lane.process = process
        if reserved is None and None in self._lanes:
            self._lanes[self._lanes.index(None)] = lane
        elif reserved is None:
            self._lanes.append(lane)
        self._lane_numbers[number] = self._lanes.index(lane)
        self._rows.append(self._header())

    def _header(self) -> Row:
        """Return a row with the names of the lanes."""
        cells = tuple(
            Cell(
                index,
                _lane_name(lane),
                "lane",
            )
            for index, lane in enumerate(self._lanes)
            if lane is not None
        )
        return Row(None, self._bars(), cells, is_header=True)

    def _lane(self, process: int) -> Lane | None:
        lane = self._lane_numbers.get(process)
        return self._lanes[lane] if lane is not None else None

    def _lane_index(self, process: int) -> int | None:
        return self._lane_numbers.get(process)

    def _lane_of_socket(self, socket: int | None) -> int | None:
        """Return the lane of the process that last used a socket; before accept(), that of the listener."""
        if socket is None or socket not in self._trace.sockets:
            return None
        owner = self._owners.get(socket, self._owners.get(self._trace.sockets[socket].accepted_from or 0))
        return self._lane_index(owner) if owner is not None else None

    def _lane_of_end(self, packet: Packet, socket: int | None) -> int | None:
        """Return the lane of one end of a packet.

        On a wire, the lane of an ended process is used while no other process has it, because the kernel
        still sends packets.
        """
        lane = self._lane_of_socket(socket)
        if lane is not None or not packet.reaches:
            return lane
        return self._last_lane(self._owners.get(socket or 0, 0))

    def _last_lane(self, process: int) -> int | None:
        """Return the lane of a process; of one that has ended, while no other process has it."""
        lane = self._lane_index(process)
        if lane is not None:
            return lane
        last = self._lanes_of_ended.get(process)
        return last if last is not None and self._lanes[last] is None else None

    # Rows

    def _draw_text(self, at: int, call: Call, text: str, style: Style) -> None:
        text = self._thread_mark(call) + text
        self._draw(at, (Cell(self._lane_numbers.get(call.process, 0), text, style),), call)

    def _thread_mark(self, call: Call) -> str:
        """Return what precedes a call of a process with several threads: rule 7."""
        threads = self._threads.get(call.process)
        if threads is None:
            threads = self._threads[call.process] = ThreadNumbers()
        number = threads.number_of(call.thread)
        return f"t{number} " if threads.count > 1 else ""

    def _draw(
        self,
        at: int | None,
        cells: tuple[Cell, ...],
        event: TraceEvent | None = None,
        arrow: Arrow | None = None,
    ) -> None:
        """Append a row to those that are drawn."""
        if at is not None:  # clocks that differ by microseconds must not show decreasing times
            self._clock = at = max(self._clock, at)
            at -= self._start or 0
        number = event.number if event is not None else None
        self._rows.append(Row(at, self._bars(), cells, arrow, number))

    def _bars(self) -> tuple[Bar, ...]:
        found: tuple[Bar, ...] = tuple(
            ["none" if each is None else "waits" if each.blocked_threads else "runs" for each in self._lanes]
        )
        if found == self._last_bars:  # rows share them: most have the same
            return self._last_bars
        self._last_bars = found
        return found


def rows_of(
    trace: Trace,
    row_filter: Filter | None = None,
    *,
    explain: bool = False,
    waits: Sequence[WaitArrow] = (),
    fold: bool = False,
) -> Iterator[Row]:
    """Return all rows of a trace that has ended. `waits` are drawn below its events.

    `fold`: what repeats is one row.
    """
    layout = Layout(trace, row_filter, explain=explain, is_complete=True, fold=fold)
    for point in trace.points:
        yield from layout.rows(point)
    yield from layout.pending()
    if trace.points:
        last = trace.points[-1].at
        yield from layout.wait_rows(waits, last if trace.frozen_at is None else trace.frozen_at)


def folded_events(trace: Trace, row_filter: Filter) -> dict[int, Unit | None]:
    """Return the events that are folded when a trace has ended: their numbers, and the periods they end."""
    folder = Folder(trace)
    found: dict[int, Unit | None] = {}
    for point in trace.points:
        if row_filter.shows(point.event, trace.sockets):
            for decision in folder.add(point):
                _note_decision(found, decision)
    for decision in folder.pause():
        _note_decision(found, decision)
    return found


def _note_decision(units: dict[int, Unit | None], decision: Decision) -> None:
    """Note the events that are folded as a whole: their end is decided after their start."""
    for event, is_end in decision.points:
        if not decision.is_folded:
            units.pop(event.number, None)
        elif not is_end:
            units[event.number] = None
    if decision.unit is not None:
        units[decision.points[-1].event.number] = decision.unit


def _lane_name(lane: Lane) -> str:
    """Return the name of a lane: its role, the pid, and the network namespace if it is another one."""
    process = lane.process
    if process is None or not process.pid:
        return lane.role
    return f"{lane.role} {process.pid}" + (f" in {process.namespace}" if process.namespace else "")


def is_undelivered(packet: Packet, trace: Trace) -> bool:
    """Return whether a packet is a datagram that no call has received."""
    return packet.protocol == "udp" and not any(
        link.kind == "feeds" for link in trace.effects_of(packet.number)
    )


def _is_quiet(call: Call) -> bool:
    """Return whether a call transfers nothing, and neither fails nor blocks for long."""
    if call.name not in QUIET_CALLS:
        return False
    if call.name == "getsockopt" and call.arguments[2:3] == ("SO_ERROR",) and call.result == 0:
        return call.arguments[3:4] == ("[0]",)  # it may be the error of a connect that was in progress
    return not _is_mistake(call) and call.duration < (MIN_SLEEP_NS if call.name in SLEEPING else LONG_WAIT_NS)


def _is_mistake(call: Call) -> bool:
    """Return whether a call failed with an error that is not a normal result."""
    is_normal = call.error in _NORMAL_ERRORS or (call.name, call.error) in _ANSWERS
    return call.failed and not is_normal and not call.error.startswith("ERESTART")


def _style(call: Call) -> Style:
    if call.failed:
        return "error" if _is_mistake(call) else "quiet"
    return "quiet" if call.name in QUIET_CALLS else ""


def _packet_style(packet: Packet) -> Style:
    if "RST" in packet.flags:
        return "reset"
    if "SYN" in packet.flags:
        return "open"
    if "FIN" in packet.flags:
        return "end"
    return "data" if packet.size or packet.protocol == "udp" else "quiet"
