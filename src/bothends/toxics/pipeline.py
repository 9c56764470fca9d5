"""Carries out what toxics decide, on one direction of one connection: bytes in, bytes out, later.

    put() ──> stage ──> stage ──> ... ──> what leaves: bytes, END, CLOSE, RESET

Pure: the caller has the clock, calls `put` when something arrives, and `advance` when `due` has come.

1. Each stage gets what the one before it lets go, at the moment at which it was due there and not at that at
   which somebody woke up for it. So delays don't add up their inaccuracies, and the same arrivals
   give the same departures however late the caller is.
2. On a stream, and for messages of a connection, what came first leaves first, whatever the delays.
3. Taking a stage away, or putting another in its place, lets go what it holds, in order. Nothing of a stream
   is lost by it, unless its toxic had lost bytes before: then the connection is closed, for a stream with a
   hole must not go on.
4. `is_full`: the caller should read no more. Only a stream's sender can be made to wait; for datagrams
   toxics drop by themselves what is too much.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from bothends.toxics.base import HOLD, PASS, Decision, Delivery, Medium, Signal, ToxicState

Item: TypeAlias = bytes | Signal

MAX_HELD_BYTES: Final = 8 * 1024 * 1024
"""Bytes that one direction holds at most: a tenth of a second at 640 Mbit/s. Above it a stream's sender waits
and datagrams are dropped, as by any router."""

RecordingSocket: TypeAlias = Callable[[int, int, Decision], object]
"""Told of each decision: where it applies (see `Stage.place`), of how many bytes, and what it was. The
sender's end has the size END_SIZE, what happens without data BEGIN_SIZE."""

END_SIZE: Final = -1
BEGIN_SIZE: Final = -2

_HELD: Final[Decision] = (Delivery(HOLD),)
_UNCHANGED: Final = Delivery()[1:]  # all of it, unchanged, and nothing follows: however late
_ORDERED_MEDIA: Final = frozenset({Medium.STREAM, Medium.MESSAGES})


@dataclass(slots=True)
class ToxicCounters:
    """What a toxic has done, over all links: messages, or on a stream the chunks that it was given."""

    seen: int = 0
    dropped: int = 0
    delayed: int = 0
    doubled: int = 0
    cut: int = 0
    corrupted: int = 0
    closed: int = 0


class Stage:
    """One behaviour and what it holds."""

    __slots__ = (
        "_heap",
        "_last_due",
        "_own_signals",
        "_sequence",
        "counters",
        "held",
        "in_order",
        "name",
        "position",
        "record",
        "state",
    )

    def __init__(
        self,
        name: str,
        state: ToxicState,
        medium: Medium,
        counters: ToxicCounters | None = None,
        record: RecordingSocket | None = None,
    ) -> None:
        self.name = name
        self.state = state
        self.in_order = medium in _ORDERED_MEDIA
        self.counters = counters if counters is not None else ToxicCounters()
        self.record = record
        self.held = 0
        self.position = 0
        """Where in the link the next decision applies: in bytes on a stream, else in messages."""
        self._heap: list[tuple[float, int, Item]] = []
        self._sequence = 0
        self._own_signals: set[int] = set()
        """Which of these are signals of this toxic's own."""
        self._last_due = -math.inf

    @property
    def due(self) -> float:
        """When the next thing leaves; infinity if nothing will by itself."""
        return self._heap[0][0] if self._heap else math.inf

    @property
    def is_full(self) -> bool:
        """Whether it holds as much as its behaviour wants to."""
        return self.held > self.state.capacity

    def begin(self, now: float) -> list[tuple[float, Item]]:
        """The link begins, or the toxic comes to it."""
        decision = self.state.begin(now)
        if decision and self.record is not None:
            self.record(self.position, BEGIN_SIZE, decision)
        out: list[tuple[float, Item]] = []
        for piece in decision:
            if piece.then is not None:
                self._emit(now + piece.delay, now, piece.then, out, is_timer=True)
        return out

    def put(self, at: float, item: Item, stream: bool) -> list[tuple[float, Item]]:
        """Something arrives; what leaves at once."""
        out: list[tuple[float, Item]] = []
        if not isinstance(item, bytes):
            decision = self.state.end(at) if item is Signal.END else self.state.close(at)
            if item is Signal.END and self.record is not None and decision is not PASS:
                self.record(self.position, END_SIZE, decision)
            for piece in decision or _HELD:
                self._emit(at + piece.delay, at, piece.then or item, out, is_own=piece.then is not None)
            return out
        size = len(item)
        decision = self.state.decide(at, size)
        self.counters.seen += 1
        if decision is PASS:
            self.position += size if stream else 1
            self._emit(at, at, item, out)
            return out
        if self.record is not None:
            self.record(self.position, size, decision)
        self.position += size if stream else 1
        if len(decision) == 1 and decision[0][1:] == _UNCHANGED:  # most toxics, most of the time
            delay = decision[0].delay
            self.counters.delayed += delay > 0
            self._emit(at + delay, at, item, out)
            return out
        self._count_effects(size, decision)
        for piece in decision:
            if piece.stop != 0:
                part = item if piece.stop is None and not piece.start else item[piece.start : piece.stop]
                self._emit(at + piece.delay, at, flip_bits(part, piece.flips), out)
            if piece.then is not None:
                self._emit(at + piece.delay, at, piece.then, out, is_own=True)
        return out

    def pop_due(self, now: float) -> Iterable[tuple[float, Item]]:
        """What has become due, in order, each with the moment at which it was."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, number, item = heapq.heappop(heap)
            if self._own_signals:
                self._own_signals.discard(number)
            if isinstance(item, bytes):
                self.held -= len(item)
            yield due, item

    def release(self) -> list[Item]:
        """All that it holds, in order; it is then empty. What it would have done to the connection is off."""
        held = sorted(self._heap, key=lambda entry: entry[:2])
        left = [item for _, number, item in held if number not in self._own_signals]
        self._heap.clear()
        self._own_signals.clear()
        self.held = 0
        self._last_due = -math.inf
        return left

    def _emit(
        self,
        due: float,
        at: float,
        item: Item,
        out: list[tuple[float, Item]],
        *,
        is_own: bool = False,
        is_timer: bool = False,
    ) -> None:
        """Something leaves, now or when it is due. A timer of the toxic's own waits behind nothing."""
        if self.in_order and not is_timer:
            # What is held, without a moment, holds all behind it: infinity stays the greatest.
            due = self._last_due = max(due, self._last_due, at)
        if due <= at and (not self._heap or not self.in_order or self._heap[0][0] > at):
            out.append((at, item))
            return
        self._sequence += 1
        if is_own or is_timer:
            self._own_signals.add(self._sequence)
        heapq.heappush(self._heap, (due, self._sequence, item))
        if isinstance(item, bytes):
            self.held += len(item)

    def _count_effects(self, size: int, decision: Decision) -> None:
        tally = self.counters
        left = [piece for piece in decision if piece.stop != 0]
        kept = sum((size if piece.stop is None else piece.stop) - piece.start for piece in left)
        if not left or kept < size:
            tally.dropped += 1
        elif len(left) > 1:
            if left[1].start:
                tally.cut += 1
            else:
                tally.doubled += 1
        tally.delayed += any(piece.delay > 0 for piece in left)
        tally.corrupted += any(piece.flips for piece in left)
        tally.closed += any(piece.then is not None for piece in decision)


class Pipeline:
    """The stages of one direction, in the order in which they act."""

    def __init__(self, medium: Medium, stages: Iterable[Stage] = ()) -> None:
        self.medium = medium
        self.stages = list(stages)
        self.output_position = 0
        """What has left, as `Stage.place` counts it: where a stage that comes last begins."""
        self.overflowed = 0
        """Datagrams that were dropped for want of room, by no toxic."""
        self._is_stream = medium is Medium.STREAM
        self._may_drop = medium not in _ORDERED_MEDIA

    @property
    def due(self) -> float:
        """When `advance` has something to do; infinity if nothing will happen by itself."""
        soonest = math.inf
        for stage in self.stages:
            if (due := stage.due) < soonest:
                soonest = due
        return soonest

    @property
    def held(self) -> int:
        """Bytes that wait inside."""
        held = 0
        for stage in self.stages:
            held += stage.held
        return held

    @property
    def is_full(self) -> bool:
        """Whether whoever feeds it should wait."""
        return self.held > MAX_HELD_BYTES or any(stage.is_full for stage in self.stages)

    def begin(self, now: float) -> list[Item]:
        """The connection begins; what leaves at once."""
        out: list[Item] = []
        for index, stage in enumerate(self.stages):
            self._push(index + 1, stage.begin(now), out)
        return out

    def put(self, now: float, item: Item) -> list[Item]:
        """Something arrives: bytes (a whole message where there are messages), or the sender's END.

        Returns what leaves at once.
        """
        out: list[Item] = []
        if (
            self._may_drop
            and self.stages
            and isinstance(item, bytes)
            and self.held + len(item) > MAX_HELD_BYTES
        ):
            self.overflowed += 1
            return out
        self._push(0, [(now, item)], out)
        return out

    def advance(self, now: float) -> list[Item]:
        """What has become due leaves."""
        out: list[Item] = []
        for index, stage in enumerate(self.stages):
            if stage.due <= now:
                self._push(index + 1, stage.pop_due(now), out)
        return out

    def add(self, stage: Stage, now: float) -> list[Item]:
        """A toxic comes to a connection that is under way, behind all others; what leaves at once."""
        stage.position = self.output_position
        self.stages.append(stage)
        out: list[Item] = []
        self._push(len(self.stages), stage.begin(now), out)
        return out

    def remove(self, name: str, now: float) -> list[Item]:
        """A toxic is taken away; what leaves because of it."""
        for index, stage in enumerate(self.stages):
            if stage.name == name:
                left = [*stage.release(), stage.state.removed()]
                del self.stages[index]
                out: list[Item] = []
                self._push(index, [(now, item) for item in left if item is not None], out)
                return out
        return []

    def replace(self, name: str, state: ToxicState, now: float) -> list[Item]:
        """A toxic gets other attributes; what leaves because of it."""
        for index, stage in enumerate(self.stages):
            if stage.name == name:
                left = stage.release()
                state.resume_from(stage.state)
                stage.state = state
                out: list[Item] = []
                self._push(index + 1, [(now, item) for item in left], out)
                self._push(index + 1, stage.begin(now), out)
                return out
        return []

    def _push(self, index: int, items: Iterable[tuple[float, Item]], out: list[Item]) -> None:
        if index == len(self.stages):
            for _, item in items:
                if isinstance(item, bytes):
                    self.output_position += len(item) if self._is_stream else 1
                out.append(item)
            return
        stage = self.stages[index]
        for at, item in items:
            if item is Signal.RESET:
                out.append(item)  # a reset waits for nobody
            elif left := stage.put(at, item, self._is_stream):
                self._push(index + 1, left, out)


def flip_bits(data: bytes, bits: tuple[int, ...]) -> bytes:
    """The data with these bits inverted."""
    if not bits:
        return data
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
