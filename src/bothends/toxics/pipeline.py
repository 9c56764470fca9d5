"""Carry out the decisions of toxics on one direction of a connection.

    put() ──> stage ──> stage ──> ... ──> output items: bytes, END, CLOSE, RESET

Sans-IO: the caller owns the clock, calls `put` on arrival, and `advance` once `due` has passed.

1. A stage receives each item at the time it was due in the previous stage, not at the time the caller woke
   up. So inaccuracies do not accumulate, and the same arrivals give the same departures however late the
   caller is.
2. On a stream, and between the messages of a connection, items leave in order of arrival whatever their
   delays are.
3. Removing or replacing a stage releases the items it holds, in order. No byte of a stream is lost, unless
   the toxic had already dropped bytes: then the connection is closed, because a stream with a gap must not
   continue.
4. `is_full` asks the caller to stop reading. Only the sender of a stream can be made to wait; toxics drop
   datagrams that exceed their queue.
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
"""Maximum bytes held in one direction: a tenth of a second at 640 Mbit/s. Above it the sender of a stream
waits and datagrams are dropped, as in a router."""

DecisionRecorder: TypeAlias = Callable[[int, int, Decision], object]
"""Called with each decision: its position (see `Stage.position`), the size in bytes, and the decision. The
size is END_SIZE for the sender's EOF and BEGIN_SIZE for the timers of `ToxicState.begin`."""

END_SIZE: Final = -1
BEGIN_SIZE: Final = -2

_HELD: Final[Decision] = (Delivery(HOLD),)
_UNCHANGED: Final = Delivery()[1:]  # the whole item, unmodified and without a signal, at any delay
_ORDERED_MEDIA: Final = frozenset({Medium.STREAM, Medium.MESSAGES})


@dataclass(slots=True)
class ToxicCounters:
    """Effects of a toxic over all links, in messages, or in chunks on a stream."""

    seen: int = 0
    dropped: int = 0
    delayed: int = 0
    doubled: int = 0
    cut: int = 0
    corrupted: int = 0
    closed: int = 0


class Stage:
    """One toxic's state and the items it holds."""

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
        record: DecisionRecorder | None = None,
    ) -> None:
        self.name = name
        self.state = state
        self.in_order = medium in _ORDERED_MEDIA
        self.counters = counters if counters is not None else ToxicCounters()
        self.record = record
        self.held = 0
        self.position = 0
        """Offset of the next decision in the link: bytes on a stream, messages otherwise."""
        self._heap: list[tuple[float, int, Item]] = []
        self._sequence = 0
        self._own_signals: set[int] = set()
        """Heap sequence numbers of signals that this toxic generated, which `release` discards."""
        self._last_due = -math.inf

    @property
    def due(self) -> float:
        """When the next item leaves; infinity if none is scheduled."""
        return self._heap[0][0] if self._heap else math.inf

    @property
    def is_full(self) -> bool:
        """Whether it holds more than the capacity of its state."""
        return self.held > self.state.capacity

    def begin(self, now: float) -> list[tuple[float, Item]]:
        """Start the toxic on the link. Returns the items that leave at once, each with its time."""
        decision = self.state.begin(now)
        if decision and self.record is not None:
            self.record(self.position, BEGIN_SIZE, decision)
        out: list[tuple[float, Item]] = []
        for piece in decision:
            if piece.then is not None:
                self._emit(now + piece.delay, now, piece.then, out, is_timer=True)
        return out

    def put(self, at: float, item: Item, stream: bool) -> list[tuple[float, Item]]:
        """Process an arrival. Returns the items that leave at once, each with its time."""
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
        """Yield the items that are due, in order, each with its due time."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, number, item = heapq.heappop(heap)
            if self._own_signals:
                self._own_signals.discard(number)
            if isinstance(item, bytes):
                self.held -= len(item)
            yield due, item

    def release(self) -> list[Item]:
        """Empty the stage. Returns the held items in order, without the toxic's own signals."""
        held = sorted(self._heap, key=lambda entry: entry[:2])
        released = [item for _, number, item in held if number not in self._own_signals]
        self._heap.clear()
        self._own_signals.clear()
        self.held = 0
        self._last_due = -math.inf
        return released

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
        """Output an item now, or schedule it. A timer of the toxic does not wait behind held items."""
        if self.in_order and not is_timer:
            # A held item (due at infinity) holds everything behind it, because max() keeps infinity.
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
        counters = self.counters
        pieces = [piece for piece in decision if piece.stop != 0]
        delivered = sum((size if piece.stop is None else piece.stop) - piece.start for piece in pieces)
        if not pieces or delivered < size:
            counters.dropped += 1
        elif len(pieces) > 1:
            if pieces[1].start:
                counters.cut += 1
            else:
                counters.doubled += 1
        counters.delayed += any(piece.delay > 0 for piece in pieces)
        counters.corrupted += any(piece.flips for piece in pieces)
        counters.closed += any(piece.then is not None for piece in decision)


class Pipeline:
    """The stages of one direction, in processing order."""

    def __init__(self, medium: Medium, stages: Iterable[Stage] = ()) -> None:
        self.medium = medium
        self.stages = list(stages)
        self.output_position = 0
        """Output so far, in the unit of `Stage.position`: the initial position of an added stage."""
        self.overflowed = 0
        """Datagrams dropped because MAX_HELD_BYTES was reached, rather than by a toxic."""
        self._is_stream = medium is Medium.STREAM
        self._may_drop = medium not in _ORDERED_MEDIA

    @property
    def due(self) -> float:
        """When to call `advance` next; infinity if nothing is scheduled."""
        soonest = math.inf
        for stage in self.stages:
            if (due := stage.due) < soonest:
                soonest = due
        return soonest

    @property
    def held(self) -> int:
        """Bytes held by all stages."""
        held = 0
        for stage in self.stages:
            held += stage.held
        return held

    @property
    def is_full(self) -> bool:
        """Whether the caller should stop reading from the source."""
        return self.held > MAX_HELD_BYTES or any(stage.is_full for stage in self.stages)

    def begin(self, now: float) -> list[Item]:
        """Start all stages. Returns the items that leave at once."""
        out: list[Item] = []
        for index, stage in enumerate(self.stages):
            self._push(index + 1, stage.begin(now), out)
        return out

    def put(self, now: float, item: Item) -> list[Item]:
        """Process an arrival: bytes (one whole message, unless on a stream) or a signal.

        Returns the items that leave at once.
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
        """Return the items that are due by `now`."""
        out: list[Item] = []
        for index, stage in enumerate(self.stages):
            if stage.due <= now:
                self._push(index + 1, stage.pop_due(now), out)
        return out

    def add(self, stage: Stage, now: float) -> list[Item]:
        """Append a stage to a connection in progress. Returns the items that leave at once."""
        stage.position = self.output_position
        self.stages.append(stage)
        out: list[Item] = []
        self._push(len(self.stages), stage.begin(now), out)
        return out

    def remove(self, name: str, now: float) -> list[Item]:
        """Remove a toxic's stage, if there is one. Returns the items that leave at once."""
        for index, stage in enumerate(self.stages):
            if stage.name == name:
                released = [*stage.release(), stage.state.removed()]
                del self.stages[index]
                out: list[Item] = []
                self._push(index, [(now, item) for item in released if item is not None], out)
                return out
        return []

    def replace(self, name: str, state: ToxicState, now: float) -> list[Item]:
        """Replace the state of a toxic whose attributes changed. Returns the items that leave at once."""
        for index, stage in enumerate(self.stages):
            if stage.name == name:
                released = stage.release()
                state.resume_from(stage.state)
                stage.state = state
                out: list[Item] = []
                self._push(index + 1, [(now, item) for item in released], out)
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
                out.append(item)  # a reset bypasses the queues
            elif passed := stage.put(at, item, self._is_stream):
                self._push(index + 1, passed, out)


def flip_bits(data: bytes, bits: tuple[int, ...]) -> bytes:
    """Return `data` with the given bits inverted (bit n is bit n % 8 of byte n // 8).

    Bits after its end are ignored: a message may be shorter in a replay than it was when it was recorded.
    """
    if not bits:
        return data
    changed = bytearray(data)
    for bit in bits:
        if bit < 8 * len(changed):
            changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
