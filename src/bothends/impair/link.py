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

from bothends.osutil.event_loop import EventLoop
from bothends.toxics.base import Medium, Signal
from bothends.toxics.pipeline import Item, Pipeline

# Bytes that wait for a sink that takes nothing: about what two socket buffers hold. More would hide the
# receiver's slowness from the sender.
QUEUE_LIMIT: Final = 256 * 1024
_MAX_IOVECS: Final = 64  # pieces in one sendmsg(2); far below IOV_MAX


class Sink(Protocol):
    """Where a direction leads."""

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """Send pieces of a stream, or the first of them as one message.

        Returns the bytes that were taken; -1 if nothing can be taken now. Raises OSError when it is gone.
        """

    def send_eof(self) -> None:
        """Say that no more will come."""


class LinkOwner(Protocol):
    """Whose directions they are."""

    loop: EventLoop

    def eof_forwarded(self, link: ToxicLink) -> None:
        """The end of what one side says has been passed on."""

    def close(self) -> None:
        """A toxic closes the connection, in good order."""

    def reset(self) -> None:
        """A toxic resets the connection."""

    def sink_lost(self, link: ToxicLink) -> None:
        """The sink of a direction is gone."""

    def update_interest(self) -> None:
        """`wants_more` or `is_blocked` of a direction may have changed."""


class ToxicLink:
    """From one end to the other."""

    __slots__ = (
        "_is_closed",
        "_may_drop",
        "_message_oriented",
        "_owner",
        "_queue",
        "_sink",
        "overflowed",
        "pipeline",
        "queued",
        "received",
        "sent",
        "source_eof",
        "wake_at",
    )

    def __init__(self, owner: LinkOwner, sink: Sink, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.wake_at = math.inf
        self.received = 0
        self.sent = 0
        self.queued = 0
        self.overflowed = 0
        """Datagrams that were dropped for want of room, not by a toxic."""
        self.source_eof = False
        """Whether its source has finished."""
        self._is_closed = False
        self._owner = owner
        self._sink = sink
        self._message_oriented = pipeline.medium is not Medium.STREAM
        self._may_drop = pipeline.medium is Medium.DATAGRAMS
        self._queue: deque[bytes | memoryview | Signal] = deque()

    @property
    def wants_more(self) -> bool:
        """Whether there is room for more from the source."""
        return self.queued < QUEUE_LIMIT and not (self.pipeline.stages and self.pipeline.is_full)

    @property
    def is_blocked(self) -> bool:
        """Whether it waits for the sink to take something."""
        return bool(self._queue)

    @property
    def is_idle(self) -> bool:
        """Whether all that came has left, and nothing else is to be done."""
        return not (self._queue or self.pipeline.stages or self.source_eof or self._is_closed)

    def begin(self) -> None:
        """The connection begins."""
        if self.pipeline.stages:
            self._forward(self.pipeline.begin(self._owner.loop.now))

    def feed(self, data: bytes) -> None:
        """The source has said this: a chunk of a stream, or one whole message."""
        self.received += len(data)
        if self._is_closed:
            return
        if self._may_drop and self.queued > QUEUE_LIMIT:
            self.overflowed += 1
            return
        if not self.pipeline.stages:
            self.pipeline.output_position += 1 if self._message_oriented else len(data)
            if self._queue:
                self._enqueue(data)
            else:
                self._write(data)
            return
        # Of many that are read in one turn, each has come at its own moment: none may leave early.
        now = self._owner.loop.update_time()
        if self.pipeline.due <= now:
            self._forward(self.pipeline.advance(now))
        self._forward(self.pipeline.put(now, data))

    def feed_eof(self) -> None:
        """The source has finished."""
        self.source_eof = True
        now = self._owner.loop.update_time()
        if self.pipeline.due <= now:
            self._forward(self.pipeline.advance(now))
        self._forward(self.pipeline.put(now, Signal.END))

    def feed_reset(self) -> None:
        """The source has been reset. That too comes behind what it said before: then the owner closes."""
        self.source_eof = True
        if not self._is_closed:
            self._forward(self.pipeline.put(self._owner.loop.update_time(), Signal.CLOSE))

    def on_timer(self, now: float) -> None:
        """Something may be due in the pipeline."""
        self._forward(self.pipeline.advance(now))
        self._owner.update_interest()

    def toxics_changed(self, items: list[Item]) -> None:
        """The toxics have changed, and this left because of it."""
        self._forward(items)
        self._owner.update_interest()

    def flush(self) -> None:
        """The sink may take something again."""
        queue = self._queue
        while queue:
            first = queue[0]
            if isinstance(first, Signal):
                queue.popleft()
                self._deliver_signal(first)
                continue
            batch = [first]
            if not self._message_oriented:
                for piece in itertools.islice(queue, 1, _MAX_IOVECS):
                    if isinstance(piece, Signal):
                        break
                    batch.append(piece)
            try:
                taken = self._sink.send(batch)
            except OSError:
                self._owner.sink_lost(self)
                return
            if taken < 0:
                return
            self._consume_sent(taken)

    def discard(self) -> None:
        """The connection is over: nothing more leaves."""
        self._is_closed = True
        self._queue.clear()
        self.queued = 0
        self.pipeline.stages.clear()
        self.wake_at = math.inf

    def _consume_sent(self, taken: int) -> None:
        queue = self._queue
        self.sent += taken
        if self._message_oriented:
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

    def _forward(self, items: list[Item]) -> None:
        for item in items:
            if self._is_closed:
                return
            if item is Signal.RESET:
                self._owner.reset()
            elif self._queue:
                self._enqueue(item)
            elif isinstance(item, Signal):
                self._deliver_signal(item)
            else:
                self._write(item)
        due = self.pipeline.due
        if due < math.inf and not self._is_closed:
            self._owner.loop.schedule_wakeup(self, due)

    def _write(self, data: bytes) -> None:
        """Send at once, as nothing waits before it; queue what is not taken."""
        try:
            taken = self._sink.send([data])
        except OSError:
            self._owner.sink_lost(self)
            return
        if taken < 0:
            self._enqueue(data)
            return
        self.sent += taken
        if taken < len(data) and not self._message_oriented:
            self._enqueue(memoryview(data)[taken:])

    def _enqueue(self, item: bytes | memoryview | Signal) -> None:
        if not isinstance(item, Signal):
            self.queued += len(item)
        self._queue.append(item)

    def _deliver_signal(self, signal: Signal) -> None:
        if signal is Signal.END:
            self._sink.send_eof()
            self._owner.eof_forwarded(self)
        else:
            self._owner.close()
