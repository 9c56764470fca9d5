"""Fold what repeats: find out which points of a timeline show nothing new. Pure.

    points ──> Folder.add() ──> decisions: these points are drawn, or folded away

1. The calls of one thread on one socket, and the packets of one direction of a connection, are each a
   sequence. A sequence repeats if its last `DRAWN_REPEATS` periods were the same: the same calls with the
   same outcome. Sizes, bytes and times may differ. So an event is compared with its own sequence only, and it
   does not matter how sequences interleave.
2. A connection is folded while all its sequences repeat. A call or a packet that differs ends that: what was
   folded of the current round trip is drawn as well, so the difference is seen in its context.
3. A call or a round trip that takes far longer than those before it differs, too.
4. Where programs ask on a connection of its own each time, connections repeat (`visits.py`). They are folded
   while each part of a connection to an address is as in those before it.
5. A decision may come later than the point: what is folded of a round trip is kept until the round trip has
   ended. It is bounded (`MAX_HELD`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from bothends.trace.capture.calls import ACCEPTING, RECEIVING, SENDING, SLEEPING
from bothends.trace.model import Call, Packet, Point, Socket, Trace, trim_oldest
from bothends.trace.rendering import formatting
from bothends.trace.rendering.visits import Token, VisitedAddress, Visits

DRAWN_REPEATS: Final = 12  # equal periods that are drawn before the next one is folded
RESUMED_REPEATS: Final = 3  # the same, after a pause or a slow call
MAX_PERIOD: Final = 8  # calls in a period
MAX_HELD: Final = 64  # points of a round trip that are kept until it has ended
MAX_GROUPS: Final = 20_000
SLOW_NS: Final = 10_000_000  # nanoseconds: a shorter call is never slow
SLOW_FACTOR: Final = 10  # times the slowest so far: a call that takes longer is slow
_ACTIVE: Final = 64  # events of a connection, after which a sequence that had none of them has ended

Kind: TypeAlias = Literal["round trips", "requests", "connections", "calls", "packets"]


class Unit(NamedTuple):
    """One period that is folded: its kind, how long it took in nanoseconds, and the connection."""

    kind: Kind
    duration: int
    group: int
    name: str


class Decision(NamedTuple):
    """Whether points are folded away; `unit` is set if a folded period ends with the last of them."""

    points: Sequence[Point]
    is_folded: bool = False
    unit: Unit | None = None


def _drawn(point: Point) -> Sequence[Decision]:
    return (Decision((point,)),)


@dataclass(slots=True, eq=False)
class _Sequence:
    """The calls of a thread on a socket, or the packets of one direction."""

    group: _Group
    is_client: bool
    history: list[Token] = field(default_factory=list)
    pattern: list[Token] = field(default_factory=list)  # the period; empty: none is known
    position: int = 0  # in the pattern: the next token expected
    first: int = 0  # where in the pattern a round trip begins
    repeats: int = 0
    began: int = 0  # when the current period began
    last: int = 0  # the number of its last event in its group
    slowest: int = 0  # nanoseconds: of its calls
    slowest_period: int = 0

    @property
    def repeats_itself(self) -> bool:
        return self.repeats >= DRAWN_REPEATS

    def take(self, token: Token) -> bool:
        """Append a token. Returns whether it was the one to be expected."""
        if self.pattern:
            if token == self.pattern[self.position]:
                self.position += 1
                if self.position == len(self.pattern):
                    self.position = 0
                if self.position == self.first:
                    self.repeats += 1
                return True
            self.pattern, self.repeats = [], 0
            self.history.clear()
        self.history.append(token)
        self._find_period()
        return False

    def _find_period(self) -> None:
        history = self.history
        for period in range(1, min(MAX_PERIOD, len(history) // 3) + 1):
            if history[-period:] == history[-2 * period : -period] == history[-3 * period : -2 * period]:
                self.pattern, self.repeats = history[-period:], 3
                self.position = 0
                # A round trip begins with a send of the client, and with a receive of the server.
                kinds = [each[0] for each in self.pattern]
                begins = SENDING if self.is_client else RECEIVING
                self.first = next((at for at, name in enumerate(kinds) if name in begins), 0)
                history.clear()
                return
        if len(history) > 4 * MAX_PERIOD:
            del history[:MAX_PERIOD]


@dataclass(slots=True, eq=False)
class _Group:
    """A connection, or whatever else belongs together."""

    number: int
    sequences: dict[object, _Sequence] = field(default_factory=dict)
    leader: _Sequence | None = None  # counts the round trips while it is folded
    folds_visits: bool = False  # the group is that of an address, whose connections are folded
    held: deque[Point] = field(default_factory=deque)
    events: int = 0
    folded_starts: set[int] = field(default_factory=set)  # events in progress whose start is folded or held

    def update(self) -> None:
        """Begin to fold if all sequences repeat."""
        leader = None
        for each in self.sequences.values():
            if self.events - each.last > _ACTIVE:
                continue
            if not each.repeats_itself:
                return
            if leader is None or (each.is_client and not leader.is_client):
                leader = each
        self.leader = leader


class Folder:
    """Decides which points are folded away, in the order in which they happen."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._groups: dict[object, _Group] = {}
        self._by_socket: dict[int, tuple[object, object, _Group]] = {}
        self._by_ends: dict[tuple[object, object], _Group] = {}
        self._visits = Visits(trace)
        self._count = 0

    def add(self, point: Point) -> Iterable[Decision]:
        """Take the next point. Returns decisions about it and about earlier ones that were held."""
        event = point.event
        if type(event) is Call:
            address = self._visits.of_call(event)
            if point.is_end and not self._visits.count(event, address) and address is not None:
                return self._release(self._group(address), point)
            if address is not None:
                return self._add_visiting_call(point, event, address)
            if event.socket is None and event.name not in SLEEPING:
                return _drawn(point)
            return self._add_call(point, event)
        if isinstance(event, Packet):
            address = self._visits.of_packet(event)
            if address is not None and not event.reaches:
                return self._add_visiting_packet(point, event, address)
            return self._add_packet(point, event)
        return _drawn(point)

    def pause(self) -> Sequence[Decision]:
        """Draw what is held, and the next periods: nothing happens for now, or the trace has ended."""
        found: list[Point] = []
        for group in self._groups.values():
            if group.leader is not None or group.folds_visits:
                found += self._end_folding(group)
                for each in group.sequences.values():
                    each.repeats = min(each.repeats, DRAWN_REPEATS - RESUMED_REPEATS)
        found.sort(key=lambda each: each.at)
        return (Decision(found),) if found else ()

    def _add_call(self, point: Point, call: Call) -> Iterable[Decision]:
        group = self._group_of_call(call)
        if not point.is_end:
            if group.leader is None:
                return _drawn(point)
            return self._hold(group, point)
        sequence = group.sequences.get((call.thread, call.socket))
        if sequence is None:
            sequence = self._add_sequence(group, (call.thread, call.socket), self._is_client(call))
        group.events += 1
        sequence.last = group.events
        result = call.result
        token = (
            call.name, call.error, result is not None and result > 0, formatting.has_trivial_result(call),
            call.flags,
        )  # fmt: skip
        is_expected = sequence.take(token)
        duration = call.duration
        if duration > SLOW_NS and duration > SLOW_FACTOR * sequence.slowest and is_expected:
            is_expected = False
            sequence.repeats = DRAWN_REPEATS - RESUMED_REPEATS
        else:
            sequence.slowest = max(sequence.slowest, duration)
        is_end_of_unit = sequence.position == sequence.first
        began = sequence.began
        if sequence.pattern and (sequence.position - 1) % len(sequence.pattern) == sequence.first:
            began = sequence.began = call.at
        if group.leader is None:
            if sequence.repeats_itself and is_end_of_unit:
                group.update()
            return _drawn(point)
        if not is_expected:
            return self._release(group, point)
        if call.number not in group.folded_starts and call.name not in SLEEPING:
            return _drawn(point)  # its start has been drawn
        found = self._hold(group, point)
        if sequence is group.leader and is_end_of_unit:
            taken = (call.until if call.until is not None else call.at) - began
            if taken > SLOW_NS and taken > SLOW_FACTOR * sequence.slowest_period:
                sequence.repeats = DRAWN_REPEATS - RESUMED_REPEATS
                return [*found, *self._release(group)]
            sequence.slowest_period = max(sequence.slowest_period, taken)
            return [*found, *self._fold(group, self._unit(group, sequence, taken, call.name))]
        return found

    def _unit(self, group: _Group, sequence: _Sequence, duration: int, name: str) -> Unit:
        names = {each[0] for each in sequence.pattern}
        kind: Kind = "calls"
        if names & SENDING and names & RECEIVING:
            kind = "round trips" if sequence.is_client else "requests"
        return Unit(kind, max(duration, 0), group.number, name)

    def _add_packet(self, point: Point, packet: Packet) -> Iterable[Decision]:
        group = self._group_of_packet(packet)
        if point.is_end:
            if packet.number not in group.folded_starts:
                return _drawn(point)
            if packet.lost and group.leader is not None:
                return self._release(group, point)
            return self._hold(group, point)
        flags = packet.flags
        if packet.protocol == "tcp" and not packet.size and flags == ("ACK",):
            # When bare acknowledgements are sent depends on timers: they repeat with whatever else does.
            return _drawn(point) if group.leader is None else self._hold(group, point)
        key = packet.source, packet.destination
        sequence = group.sequences.get(key)
        if sequence is None:
            sequence = self._add_sequence(group, key, is_client=False)
        group.events += 1
        sequence.last = group.events
        is_special = "SYN" in flags or "FIN" in flags or "RST" in flags
        is_expected = sequence.take((packet.protocol, is_special and flags, packet.size > 0, packet.resent))
        if group.leader is None:
            if sequence.repeats_itself:
                group.update()
            return _drawn(point)
        if not is_expected:
            return self._release(group, point)
        found = self._hold(group, point)
        if sequence is group.leader:
            unit = Unit("packets", packet.at - sequence.began, group.number, "")
            sequence.began = packet.at
            return [*found, *self._fold(group, unit)]
        return found

    def _add_visiting_call(self, point: Point, call: Call, address: VisitedAddress) -> Iterable[Decision]:
        """Take a call on a short connection."""
        group = self._group(address)
        if not point.is_end:
            return self._hold(group, point) if group.folds_visits else _drawn(point)
        key = self._visits.key_of(call)
        is_last = call.name == "close" or call.name in ACCEPTING
        token = call.name, call.error, call.result is not None and call.result > 0, call.flags
        connection = call.number if call.name in ACCEPTING else call.socket
        is_held = call.number in group.folded_starts
        return self._add_visit(
            point, group, address, key, connection, token, is_last=is_last, is_held=is_held
        )

    def _add_visiting_packet(
        self, point: Point, packet: Packet, address: VisitedAddress
    ) -> Iterable[Decision]:
        """Take a packet of a short connection."""
        group, flags = self._group(address), packet.flags
        if not packet.size and flags == ("ACK",):
            return self._hold(group, point) if group.folds_visits else _drawn(point)
        is_special = "SYN" in flags or "FIN" in flags or "RST" in flags
        token = is_special and flags, packet.size > 0, packet.resent
        key = "packets", packet.destination == address.address
        is_last = "FIN" in flags or "RST" in flags
        ends = frozenset((packet.source, packet.destination))
        return self._add_visit(point, group, address, key, ends, token, is_last=is_last, is_held=True)

    def _add_visit(
        self,
        point: Point,
        group: _Group,
        address: VisitedAddress,
        key: object,
        connection: object,
        token: Token,
        *,
        is_last: bool,
        is_held: bool,
    ) -> Iterable[Decision]:
        """Take what happens next in a part of a connection. `is_held`: its start is held, or it has none."""
        part = address.part(key)
        event = point.event
        is_expected, began = part.take(connection, event.at, token, is_last=is_last)
        if not group.folds_visits:
            group.folds_visits = is_last and address.repeats_itself(DRAWN_REPEATS)
            return _drawn(point)
        if not is_expected:
            return self._release(group, point)
        if not is_held:
            return _drawn(point)
        found = self._hold(group, point)
        if is_last and key == address.leader:
            taken = point.at - began
            if taken > SLOW_NS and taken > SLOW_FACTOR * part.slowest:
                return [*found, *self._release(group)]
            part.slowest = max(part.slowest, taken)
            unit = Unit("connections", max(taken, 0), group.number, "")
            return [*found, *self._fold(group, unit)]
        return found

    def _hold(self, group: _Group, point: Point) -> Sequence[Decision]:
        """Keep a point until it is known whether it is folded. Folds the oldest if too many are kept."""
        event = point.event
        if not point.is_end and (type(event) is Call or (type(event) is Packet and event.reaches)):
            group.folded_starts.add(event.number)
        held = group.held
        held.append(point)
        return self._folded(group, [held.popleft()]) if len(held) > MAX_HELD else ()

    def _fold(self, group: _Group, unit: Unit) -> Sequence[Decision]:
        """Fold what is held of a group: a round trip has ended as those before it."""
        held = list(group.held)
        group.held.clear()
        return self._folded(group, held, unit)

    def _folded(self, group: _Group, points: Sequence[Point], unit: Unit | None = None) -> Sequence[Decision]:
        for each in points:
            if each.is_end:
                group.folded_starts.discard(each.event.number)
        return (Decision(points, True, unit),) if points else ()

    def _release(self, group: _Group, *more: Point) -> Sequence[Decision]:
        """Draw what is held of a group, and `more`, and end its folding."""
        points = [*self._end_folding(group), *more]
        return (Decision(points),) if points else ()

    def _end_folding(self, group: _Group) -> Sequence[Point]:
        """End the folding of a group. Returns what is held of it."""
        held = list(group.held)
        group.held.clear()
        group.folded_starts.clear()
        group.leader, group.folds_visits = None, False
        return held

    # Groups

    def _add_sequence(self, group: _Group, key: object, is_client: bool) -> _Sequence:
        trim_oldest(group.sequences, 256)
        sequence = group.sequences[key] = _Sequence(group, is_client)
        return sequence

    def _is_client(self, call: Call) -> bool:
        socket = self._trace.sockets.get(call.socket or 0)
        return socket is not None and socket.accepted_from is None and socket.peer is not None

    def _group_of_call(self, call: Call) -> _Group:
        if call.name in SLEEPING:  # the start of one is not known to be shown: its duration isn't known
            return self._group(("sleep", call.thread))
        number = call.socket or 0
        socket = self._trace.sockets.get(number)
        if socket is None:
            return self._group(("socket", number))
        known = self._by_socket.get(number)
        if known is not None and known[0] is socket.local and known[1] is socket.peer:
            return known[2]
        group = self._group(_group_key(socket))
        if known is not None and known[2] is not group:
            self._forget(known[2])
        trim_oldest(self._by_socket, MAX_GROUPS)
        self._by_socket[number] = socket.local, socket.peer, group
        return group

    def _group_of_packet(self, packet: Packet) -> _Group:
        ends = packet.source, packet.destination
        group = self._by_ends.get(ends)
        if group is None:
            trim_oldest(self._by_ends, MAX_GROUPS)
            group = self._by_ends[ends] = self._group(frozenset(ends))
        return group

    def _group(self, key: object) -> _Group:
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) > MAX_GROUPS:
                for each in list(self._groups)[: MAX_GROUPS // 4]:
                    if self._groups[each].leader is None and not self._groups[each].folds_visits:
                        del self._groups[each]
            self._count += 1
            group = self._groups[key] = _Group(self._count)
        return group

    def _forget(self, group: _Group) -> None:
        """A socket has left a group: its sequences must not keep the others from being folded."""
        group.sequences.clear()


def _group_key(socket: Socket) -> object:
    if socket.family in ("inet", "inet6") and socket.local is not None and socket.peer is not None:
        return frozenset((socket.local, socket.peer))
    if socket.family in ("unix", "pipe") and socket.inode and socket.peer_inode:
        return frozenset((socket.inode, socket.peer_inode))
    return "socket", socket.number


class FoldedRows:
    """What has been folded since the last row that was drawn, and the text that says so."""

    def __init__(self) -> None:
        self.points = 0
        self.first: Point | None = None
        self._counts: dict[tuple[Kind, str], int] = {}
        self._times: dict[tuple[Kind, str], tuple[int, int]] = {}
        self._groups: set[int] = set()

    def add(self, decision: Decision) -> None:
        """Add points that are folded."""
        self.points += len(decision.points)
        if self.first is None:
            self.first = decision.points[0]
        if decision.unit is not None:
            self.add_unit(decision.unit)

    def add_unit(self, unit: Unit) -> None:
        """Count a folded period."""
        key = unit.kind, unit.name if unit.kind == "calls" else ""
        self._counts[key] = self._counts.get(key, 0) + 1
        low, high = self._times.get(key, (unit.duration, unit.duration))
        self._times[key] = min(low, unit.duration), max(high, unit.duration)
        self._groups.add(unit.group)

    def text(self) -> str:
        """Return the text, as in "19,980 more round trips like this one, 38 to 95 us"."""
        if not self._counts:
            return f"{self.points:,} more rows like these"
        parts = []
        for (kind, name), count in self._counts.items():
            low, high = self._times[kind, name]
            time = formatting.duration_range(low, high)
            like = "like this one" if len(self._groups) == 1 else "like these"
            what = f"calls of {name}()" if kind == "calls" else kind
            what = what if count > 1 else what.replace("round trips", "round trip").replace("calls", "call")
            if kind == "requests":
                what, time = ("requests" if count > 1 else "request"), f"answered in {time}"
            elif kind == "connections":
                what = "connections" if count > 1 else "connection"
            elif kind == "packets":
                what, time = ("packets" if count > 1 else "packet"), f"{time} apart"
            elif kind == "calls":
                time = f"{time} each" if count > 1 else time
            parts.append(f"{count:,} more {what} {like}, {time}")
        on = f", on {len(self._groups)} connections" if len(self._groups) > 1 else ""
        return "; ".join(parts) + on
