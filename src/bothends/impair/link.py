"""One direction of one connection: what one end says, through the toxics, to the other end.

    feed() ──> pipeline ──> queue ──> sink
                                └─ what the kernel does not take yet

No socket here: whoever reads calls `feed`, and a `Sink` takes what leaves. Without toxics and with a sink
that takes everything, bytes go straight through: one call in, one call out, nothing copied.

Backpressure: `wants_more` is False while the queue or the toxics hold too much. On a stream the owner then
stops reading, the kernel's buffers fill, and the sender feels it as it would without a proxy. Datagrams that
come all the same are dropped; what has been taken in is not.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from typing import Final, Protocol

from bothends.osutil.event_loop import Loop
from bothends.toxics.base import Medium, Signal
from bothends.toxics.pipeline import Item, Pipeline

# Bytes that wait for a sink that takes nothing: about what two socket buffers hold. More would hide the
# receiver's slowness from the sender.
QUEUE: Final = 256 * 1024
_AT_ONCE: Final = 64  # pieces in one sendmsg(2); far below IOV_MAX


class Sink(Protocol):
    """Where a direction leads."""

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """Send pieces of a stream, or the first of them as one message.

        Returns the bytes that were taken; -1 if nothing can be taken now. Raises OSError when it is gone.
        """

    def finish(self) -> None:
        """Say that no more will come."""


class Owner(Protocol):
    """Whose directions they are."""

    loop: Loop

    def delivered(self, direction: Pathway) -> None:
        """The end of what one side says has been passed on."""

    def close(self) -> None:
        """A toxic closes the connection, in good order."""

    def reset(self) -> None:
        """A toxic resets the connection."""

    def lost(self, direction: Pathway) -> None:
        """The sink of a direction is gone."""

    def settle(self) -> None:
        """`wants_more` or `is_blocked` of a direction may have changed."""


class Pathway:
    """From one end to the other."""

    __slots__ = (
        "_boundaries",
        "_is_over",
        "_may_drop",
        "_owner",
        "_queue",
        "_sink",
        "ended",
        "given_up",
        "pipeline",
        "queued",
        "received",
        "sent",
        "wake_at",
    )

    def __init__(self, owner: Owner, sink: Sink, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.wake_at = math.inf
        self.received = 0
        self.sent = 0
        self.queued = 0
        self.given_up = 0
        """Datagrams that were dropped for want of room, not by a toxic."""
        self.ended = False
        """Whether its source has finished."""
        self._is_over = False
        self._owner = owner
        self._sink = sink
        self._boundaries = pipeline.medium is not Medium.STREAM
        self._may_drop = pipeline.medium is Medium.DATAGRAMS
        self._queue: deque[bytes | memoryview | Signal] = deque()

    @property
    def wants_more(self) -> bool:
        """Whether there is room for more from the source."""
        return self.queued < QUEUE and not (self.pipeline.stages and self.pipeline.is_full)

    @property
    def is_blocked(self) -> bool:
        """Whether it waits for the sink to take something."""
        return bool(self._queue)

    @property
    def is_at_rest(self) -> bool:
        """Whether all that came has left, and nothing else is to be done."""
        return not (self._queue or self.pipeline.stages or self.ended or self._is_over)

    def begin(self) -> None:
        """The connection begins."""
        if self.pipeline.stages:
            self._pass_on(self.pipeline.begin(self._owner.loop.now))

    def feed(self, data: bytes) -> None:
        """The source has said this: a chunk of a stream, or one whole message."""
        self.received += len(data)
        if self._is_over:
            return
        if self._may_drop and self.queued > QUEUE:
            self.given_up += 1
            return
        if not self.pipeline.stages:
            self.pipeline.passed += 1 if self._boundaries else len(data)
            if self._queue:
                self._enqueue(data)
            else:
                self._say(data)
            return
        # Of many that are read in one turn, each has come at its own moment: none may leave early.
        now = self._owner.loop.tick()
        if self.pipeline.due <= now:
            self._pass_on(self.pipeline.advance(now))
        self._pass_on(self.pipeline.put(now, data))

    def end(self) -> None:
        """The source has finished."""
        self.ended = True
        now = self._owner.loop.tick()
        if self.pipeline.due <= now:
            self._pass_on(self.pipeline.advance(now))
        self._pass_on(self.pipeline.put(now, Signal.END))

    def fail(self) -> None:
        """The source has been reset. That too comes behind what it said before: then the owner closes."""
        self.ended = True
        if not self._is_over:
            self._pass_on(self.pipeline.put(self._owner.loop.tick(), Signal.CLOSE))

    def on_timer(self, now: float) -> None:
        """Something may be due in the pipeline."""
        self._pass_on(self.pipeline.advance(now))
        self._owner.settle()

    def changed(self, items: list[Item]) -> None:
        """The toxics have changed, and this left because of it."""
        self._pass_on(items)
        self._owner.settle()

    def flush(self) -> None:
        """The sink may take something again."""
        queue = self._queue
        while queue:
            first = queue[0]
            if isinstance(first, Signal):
                queue.popleft()
                self._signal(first)
                continue
            batch = [first]
            if not self._boundaries:
                for piece in itertools.islice(queue, 1, _AT_ONCE):
                    if isinstance(piece, Signal):
                        break
                    batch.append(piece)
            try:
                taken = self._sink.send(batch)
            except OSError:
                self._owner.lost(self)
                return
            if taken < 0:
                return
            self._drop_sent(taken)

    def clear(self) -> None:
        """The connection is over: nothing more leaves."""
        self._is_over = True
        self._queue.clear()
        self.queued = 0
        self.pipeline.stages.clear()
        self.wake_at = math.inf

    def _drop_sent(self, taken: int) -> None:
        queue = self._queue
        self.sent += taken
        if self._boundaries:
            message = queue.popleft()
            assert not isinstance(message, Signal)
            self.queued -= len(message)
            return
        self.queued -= taken
        while taken:
            piece = queue[0]
            assert not isinstance(piece, Signal)
            if taken < len(piece):
                queue[0] = memoryview(piece)[taken:]
                return
            taken -= len(piece)
            queue.popleft()

    def _pass_on(self, items: list[Item]) -> None:
        for item in items:
            if self._is_over:
                return
            if item is Signal.RESET:
                self._owner.reset()
            elif self._queue:
                self._enqueue(item)
            elif isinstance(item, Signal):
                self._signal(item)
            else:
                self._say(item)
        due = self.pipeline.due
        if due < math.inf and not self._is_over:
            self._owner.loop.wake(self, due)

    def _say(self, data: bytes) -> None:
        """Send at once, as nothing waits before it; queue what is not taken."""
        try:
            taken = self._sink.send([data])
        except OSError:
            self._owner.lost(self)
            return
        if taken < 0:
            self._enqueue(data)
            return
        self.sent += taken
        if taken < len(data) and not self._boundaries:
            self._enqueue(memoryview(data)[taken:])

    def _enqueue(self, item: bytes | memoryview | Signal) -> None:
        if not isinstance(item, Signal):
            self.queued += len(item)
        self._queue.append(item)

    def _signal(self, signal: Signal) -> None:
        if signal is Signal.END:
            self._sink.finish()
            self._owner.delivered(self)
        else:
            self._owner.close()
