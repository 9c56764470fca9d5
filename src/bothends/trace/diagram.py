"""The picture in a terminal: a lane for each process, packets as arrows between them. Pure.

          server 4711                            client 4712
    0.01  │ accept4(3) waits                     │
    0.05  ┆                                      │ connect(3, 127.0.0.1:12000)
    0.05  ┆◀───────────────── SYN ───────────────┆

1. Lanes appear with the processes, in their order; the lane of a process that has ended is used again.
2. A call is one line if nothing happened while it lasted, and else two: its beginning and its end. The end
   is left out where it says nothing new.
3. While a process waits in a call, its lane is dotted.
4. A line is built from pieces with a style each, so that the same rows can be painted for a terminal, or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from bothends.trace import words
from bothends.trace.calls import ACCEPTING, FORKING, QUIET, REAPING, RECEIVING, WAITING
from bothends.trace.model import Call, Change, Moment, Packet, Process, Socket, Trace
from bothends.trace.states import States

Style: TypeAlias = Literal["", "quiet", "error", "data", "open", "end", "reset", "state", "note", "lane"]
Piece: TypeAlias = tuple[str, Style]

TIME: Final = 10  # columns
NARROWEST: Final = 28  # columns of a lane: with less, nothing of a call can be read
NOTEWORTHY: Final = 1_000_000  # nanoseconds: who waits longer is said to have waited
WAITERS: Final = ACCEPTING | RECEIVING | WAITING | REAPING | {"connect"}

# What a style looks like (ECMA-48, 8.3.117).
PAINT: Final[dict[Style, str]] = {
    "quiet": "2",
    "error": "31",
    "data": "32",
    "open": "36",
    "end": "33",
    "reset": "1;31",
    "state": "34",
    "note": "35",
    "lane": "1",
}


@dataclass(slots=True)
class Lane:
    """One column, kept for a role until its process appears. `waiting` are the threads of the process that
    are in a call whose beginning was drawn.
    """

    role: str
    process: Process | None = None
    waiting: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Filter:
    """What is drawn. Empty sets mean: all. `only` are names of calls; `ports` of either end."""

    quiet_calls: bool = False
    only: frozenset[str] = frozenset()
    descriptors: frozenset[int] = frozenset()
    ports: frozenset[int] = frozenset()

    def shows(self, event: Call | Packet | Change, sockets: dict[int, Socket]) -> bool:
        """Whether an event is drawn."""
        match event:
            case Packet():
                places = event.source, event.destination
                return not self.ports or any(each.port in self.ports for each in places)
            case Call():
                socket = sockets.get(event.socket) if event.socket is not None else None
                if socket is not None and socket.family in ("netlink", "other"):
                    return False
                if self.quiet_calls and event.name in QUIET | FORKING | REAPING:
                    return False
                if self.only and event.name not in self.only:
                    return False
                if self.descriptors and event.descriptor not in self.descriptors:
                    return False
                if self.ports and (socket is None or not _has_port(socket, self.ports)):
                    return False
                return event.name not in REAPING or event.result != 0
            case _:
                return event.kind not in ("began", "exec")


def _has_port(socket: Socket, ports: frozenset[int]) -> bool:
    return any(place is not None and place.port in ports for place in (socket.local, socket.peer))


class Diagram:
    """Draws moments as they come, row by row.

    Args:
        trace: whose processes and sockets the moments speak of.
        width: columns of a row.
        shown: what is drawn.
        explain: say below each call what it means.
        roles: lanes that are there from the beginning.
    """

    def __init__(
        self,
        trace: Trace,
        width: int = 100,
        shown: Filter | None = None,
        *,
        explain: bool = False,
        roles: Iterable[str] = (),
    ) -> None:
        self._trace = trace
        self._width = width
        self._filter = shown if shown is not None else Filter()
        self._explain = explain
        self._lanes: list[Lane | None] = [Lane(role) for role in roles]
        self._begun: dict[int, Call] = {}  # by thread: whose beginning may still be drawn with its end
        self._owners: dict[int, int] = {}  # of each socket: the process that used it last
        self._states = States(trace)
        self._start: int | None = None
        self._has_packets = False
        self._senders: dict[int, Call] = {}
        self._clock = 0

    def rows(self, moment: Moment) -> Iterator[list[Piece]]:
        """The rows of one moment; none if it is left out, or is drawn with another."""
        event = moment.event
        if self._start is None:
            self._start = event.at
        if isinstance(event, Call) and event.socket is not None:
            self._own(event)
        changes = list(self._states.after(moment))
        if self._filter.shows(event, self._trace.sockets):
            match event:
                case Packet():
                    yield from self.pending()
                    yield from self._packet(event)
                case Call():
                    yield from self._call(event, is_end=moment.is_end)
                case Change():
                    yield from self.pending()
                    yield from self._change(event)
        if changes:
            yield from self._state_rows(moment.at, changes)

    def pending(self) -> Iterator[list[Piece]]:
        """The beginnings of calls that last: drawn before anything else is, or when nothing comes."""
        for thread, call in list(self._begun.items()):
            del self._begun[thread]
            yield from self._beginning(call)

    def head(self) -> Iterator[list[Piece]]:
        """The names of the lanes, in a row."""
        yield self._row(
            None, [(index, self._title(lane), "lane") for index, lane in self._there()], bars=False
        )

    def _call(self, call: Call, *, is_end: bool) -> Iterator[list[Piece]]:
        if not self._trace.processes[call.process].role:
            return  # a shell that starts what is traced
        yield from self._enter_lane(call.process)
        if not is_end:
            yield from self.pending()
            self._begun[call.thread] = call
            return
        lane = self._lane(call.process)
        if call.thread in self._begun:
            yield from self.pending_but(call.thread)
            del self._begun[call.thread]
            yield self._text(call.at, call.process, self._whole(call), _style(call))
        else:
            yield from self.pending()
            if lane is not None:
                lane.waiting.discard(call.thread)
            if words.is_plain(call):
                return
            yield self._text(call.until or call.at, call.process, self._whole(call), _style(call))
        yield from self._reached(call)
        if self._explain:
            yield from self._meaning(call)

    def pending_but(self, thread: int) -> Iterator[list[Piece]]:
        """As `pending`, for all threads but one."""
        for other, call in list(self._begun.items()):
            if other != thread:
                del self._begun[other]
                yield from self._beginning(call)

    def _beginning(self, call: Call) -> Iterator[list[Piece]]:
        if call.until is not None and call.waited < NOTEWORTHY and words.is_plain(call):
            text, style = words.call_text(call, ended=False), _style(call)
        else:
            text, style = words.call_text(call, ended=False), ""
            if call.name not in ("connect", "close", "shutdown") and not call.name.startswith(
                ("send", "write")
            ):
                text += " waits"
        yield self._text(call.at, call.process, text, style)
        lane = self._lane(call.process)
        if lane is not None:
            lane.waiting.add(call.thread)

    def _whole(self, call: Call) -> str:
        text = words.call_text(call)
        waits = call.name in WAITERS and call.waited >= NOTEWORTHY
        return text + (f", after {words.duration(call.waited)}" if waits else "")

    def _meaning(self, call: Call) -> Iterator[list[Piece]]:
        from bothends.trace.explain import meaning

        text = meaning(call, self._trace)
        if text:
            yield self._text(None, call.process, f"  {text}", "quiet")

    def _packet(self, packet: Packet) -> Iterator[list[Piece]]:
        self._has_packets = True
        here, there = self._lane_of(packet.sender), self._lane_of(packet.receiver)
        text, style = words.packet_text(packet), _packet_style(packet)
        if here is None and there is None:
            label = f"{packet.source} → {packet.destination}  {text}"
            yield self._row(packet.at, [(0, label, style)])
        elif here == there or here is None or there is None:
            lane = there if here is None else here
            assert lane is not None
            if here is None:
                label = f"◀── {text} from {packet.source}"
            elif there is None:
                label = f"──▶ {text} to {packet.destination}"
            else:
                label = f"↺ {text}"
            yield self._row(packet.at, [(lane, label, style)])
        else:
            yield self._arrow(packet.at, here, there, text, style)

    def _reached(self, call: Call) -> Iterator[list[Piece]]:
        """Without packets: an arrow from the call that sent what this one received."""
        if (
            self._has_packets
            or not call.size
            or call.name not in ("read", "readv", "recvfrom", "recvmsg", "recv")
        ):
            return
        # The links of a call are the newest ones: it has just ended.
        causes = {
            link.cause
            for link in self._trace.links[-200:]
            if link.effect == call.number and link.kind == "reaches"
        }
        for cause in sorted(causes):
            sender = self._senders.get(cause)
            here, there = (self._lane_at(sender.process) if sender else None), self._lane_at(call.process)
            if here is not None and there is not None and here != there:
                yield self._arrow(None, here, there, words.quoted(call.data, call.size), "data")

    def _change(self, change: Change) -> Iterator[list[Piece]]:
        lane = self._lane(change.process)
        if lane is None:
            return
        style: Style = "error" if change.kind == "signal" or change.status else "note"
        yield self._text(change.at, change.process, change.text, style)
        if change.kind == "ended":
            for index, each in enumerate(self._lanes):
                if each is lane:
                    self._lanes[index] = None

    def _state_rows(self, at: int, changes: Iterable[tuple[int, str]]) -> Iterator[list[Piece]]:
        found: dict[int, list[str]] = {}
        for socket, state in changes:
            lane = self._lane_of(socket)
            if lane is not None:
                found.setdefault(lane, []).append(state)
        if found:
            yield self._row(
                None, [(lane, "• " + ", ".join(each), "state") for lane, each in sorted(found.items())]
            )

    # Lanes

    def _own(self, call: Call) -> None:
        assert call.socket is not None
        if call.name != "close" or call.socket not in self._owners:
            self._owners[call.socket] = call.process
        if call.made is not None and call.made in self._trace.sockets and call.name.startswith("accept"):
            self._owners.setdefault(call.made, call.process)
        if call.size or call.asked:
            self._senders[call.number] = call
            if len(self._senders) > 4000:
                for number in list(self._senders)[:2000]:
                    del self._senders[number]

    def _enter_lane(self, number: int) -> Iterator[list[Piece]]:
        if self._lane(number) is not None:
            return
        process = self._trace.processes[number]
        kept = next(
            (lane for _, lane in self._there() if lane.process is None and lane.role == process.role), None
        )
        lane = kept if kept is not None else Lane(process.role)
        lane.process = process
        if kept is None and None in self._lanes:
            self._lanes[self._lanes.index(None)] = lane
        elif kept is None:
            self._lanes.append(lane)
        yield from self.head()

    def _there(self) -> Iterator[tuple[int, Lane]]:
        for index, lane in enumerate(self._lanes):
            if lane is not None:
                yield index, lane

    def _lane(self, process: int) -> Lane | None:
        return next(
            (lane for _, lane in self._there() if lane.process and lane.process.number == process), None
        )

    def _lane_at(self, process: int) -> int | None:
        lane = self._lane(process)
        return self._lanes.index(lane) if lane is not None else None

    def _lane_of(self, socket: int | None) -> int | None:
        """The lane of whoever used a socket last; of its listener's while it is not accepted yet."""
        if socket is None:
            return None
        owner = self._owners.get(socket, self._owners.get(self._trace.sockets[socket].welcomed_by or 0))
        return self._lane_at(owner) if owner is not None else None

    def _title(self, lane: Lane) -> str:
        return f"{lane.role} {lane.process.pid}" if lane.process else lane.role

    # Rows

    def _column(self, lane: int) -> int:
        return TIME + lane * self._lane_width()

    def _lane_width(self) -> int:
        return max((self._width - TIME) // max(len(self._lanes), 1), NARROWEST)

    def _text(self, at: int | None, process: int, text: str, style: Style) -> list[Piece]:
        lane = self._lane_at(process)
        return self._row(at, [(lane if lane is not None else 0, text, style)])

    def _row(self, at: int | None, texts: list[tuple[int, str, Style]], *, bars: bool = True) -> list[Piece]:
        """One row: texts in their lanes, and the bars of the others."""
        pieces: list[Piece] = [(self._time(at), "quiet")]
        column, written = TIME, {lane: (text, style) for lane, text, style in texts}
        for index in range(len(self._lanes)):
            start = self._column(index)
            if start < column:
                continue  # a text before it is longer than its lane
            pieces.append((" " * (start - column), ""))
            lane = self._lanes[index]
            bar = " " if lane is None or not bars else "┆" if lane.waiting else "│"
            pieces.append((bar, "quiet"))
            column = start + 1
            if index in written:
                text, style = written[index]
                last = all(other <= index for other in written) and len(written) == 1 and not bars
                room = (
                    self._width - column - 1
                    if last or index == len(self._lanes) - 1
                    else self._lane_width() - 3
                )
                text = words.cut(text, max(room, 8))
                pieces += [(" " if bars else "", ""), (text, style)]
                column += words.width(text) + bars
        return pieces

    def _arrow(self, at: int | None, here: int, there: int, text: str, style: Style) -> list[Piece]:
        left, right = sorted((here, there))
        start, end = self._column(left), self._column(right)
        room = end - start - 1
        label = f" {words.cut(text, room - 8)} "
        shaft = room - words.width(label) - 1
        before = shaft // 2
        line = "─" * before + label + "─" * (shaft - before)
        line = line + "▶" if here == left else "◀" + line
        pieces: list[Piece] = [(self._time(at), "quiet")]
        column = TIME
        for index in range(len(self._lanes)):
            if left < index < right or self._column(index) < column:
                continue
            pieces.append((" " * (self._column(index) - column), ""))
            lane = self._lanes[index]
            pieces.append((" " if lane is None else "┆" if lane.waiting else "│", "quiet"))
            column = self._column(index) + 1
            if index == left:
                pieces.append((line, style))
                column = end
        return pieces

    def _time(self, at: int | None) -> str:
        """A moment's time, in seconds. Two clocks that differ by microseconds don't let it go back."""
        if at is None:
            return " " * TIME
        self._clock = max(self._clock, at)
        return f"{(self._clock - (self._start or at)) / 1e9:8.4f}  "


def _style(call: Call) -> Style:
    if call.failed:
        return "quiet" if call.error in ("EAGAIN", "EINPROGRESS", "EINTR") else "error"
    return "quiet" if call.name in QUIET else ""


def _packet_style(packet: Packet) -> Style:
    if "RST" in packet.flags:
        return "reset"
    if "SYN" in packet.flags:
        return "open"
    if "FIN" in packet.flags:
        return "end"
    return "data" if packet.size or packet.protocol == "udp" else "quiet"


def painted(pieces: Iterable[Piece], *, colour: bool) -> str:
    """A row as one line of text."""
    if not colour:
        return "".join(text for text, _ in pieces).rstrip()
    return "".join(f"\x1b[{PAINT[style]}m{text}\x1b[0m" if style else text for text, style in pieces).rstrip()
