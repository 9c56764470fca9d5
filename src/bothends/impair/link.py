"""One direction of a connection: data from one end, through the toxics, to the other end.

    feed() ──> pipeline ──> queue ──> sink
                                └─ data that the kernel does not accept yet

Sans-IO: the owner reads and calls `feed`, and a `Sink` sends. Without toxics, and while the sink accepts
everything, data passes straight through without a copy: one call in, one call out.

Backpressure: `wants_more` is False while the queue or the toxics hold too much. On a stream the owner then
stops reading, the kernel's buffers fill, and the sender blocks as it would without a proxy. Further datagrams
are dropped; queued data never is.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from typing import Final, Protocol

from bothends.osutil.event_loop import EventLoop
from bothends.toxics.base import Medium, Signal
from bothends.toxics.pipeline import Item, Pipeline

# Bytes queued for a blocked sink: about the size of two socket buffers. A larger queue would hide a slow
# receiver from the sender.
QUEUE_LIMIT: Final = 256 * 1024
_MAX_IOVECS: Final = 64  # buffers in one sendmsg(2); far below IOV_MAX


class Sink(Protocol):
    """The destination of a link."""

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """Send the pieces of a stream, or the first piece as one message.

        Returns the number of bytes accepted; -1 if none can be sent now. Raises OSError if the peer is gone.
        """

    def send_eof(self) -> None:
        """Half-close: no more data follows."""


class LinkOwner(Protocol):
    """The connection or session that a link belongs to."""

    loop: EventLoop

    def eof_forwarded(self, link: ToxicLink) -> None:
        """Called after the link has forwarded its sender's EOF."""

    def close(self) -> None:
        """Close the connection (FIN), because of a toxic or after `feed_reset`."""

    def reset(self) -> None:
        """Reset the connection (RST), because of a toxic."""

    def sink_lost(self, link: ToxicLink) -> None:
        """Called when sending failed because the peer is gone."""

    def update_interest(self) -> None:
        """Called when `wants_more` or `is_blocked` of the link may have changed."""


class ToxicLink:
    """One direction: a pipeline of toxics, and a queue in front of the sink."""

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
        """Datagrams dropped because the queue was full, rather than by a toxic."""
        self.source_eof = False
        """Whether the source has sent EOF or was reset."""
        self._is_closed = False
        self._owner = owner
        self._sink = sink
        self._message_oriented = pipeline.medium is not Medium.STREAM
        self._may_drop = pipeline.medium is Medium.DATAGRAMS
        self._queue: deque[bytes | memoryview | Signal] = deque()

    @property
    def wants_more(self) -> bool:
        """Whether the owner should read from the source."""
        return self.queued < QUEUE_LIMIT and not (self.pipeline.stages and self.pipeline.is_full)

    @property
    def is_blocked(self) -> bool:
        """Whether data is queued for the sink."""
        return bool(self._queue)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued, held, closed or at EOF."""
        return not (self._queue or self.pipeline.stages or self.source_eof or self._is_closed)

    def begin(self) -> None:
        """Start the toxics when the connection opens."""
        if self.pipeline.stages:
            self._forward(self.pipeline.begin(self._owner.loop.now))

    def feed(self, data: bytes) -> None:
        """Accept data from the source: a chunk of a stream, or one whole message."""
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
        # Messages read in one event-loop iteration need their own arrival times, or they would leave early.
        now = self._owner.loop.update_time()
        if self.pipeline.due <= now:
            self._forward(self.pipeline.advance(now))
        self._forward(self.pipeline.put(now, data))

    def feed_eof(self) -> None:
        """Accept EOF from the source."""
        self.source_eof = True
        now = self._owner.loop.update_time()
        if self.pipeline.due <= now:
            self._forward(self.pipeline.advance(now))
        self._forward(self.pipeline.put(now, Signal.END))

    def feed_reset(self) -> None:
        """Accept a reset of the source. The owner closes once the data received before it has been sent."""
        self.source_eof = True
        if not self._is_closed:
            self._forward(self.pipeline.put(self._owner.loop.update_time(), Signal.CLOSE))

    def on_timer(self, now: float) -> None:
        """Send the items of the pipeline that are due."""
        self._forward(self.pipeline.advance(now))
        self._owner.update_interest()

    def toxics_changed(self, items: list[Item]) -> None:
        """Send the items that a change of the toxics released."""
        self._forward(items)
        self._owner.update_interest()

    def flush(self) -> None:
        """Send queued data until the sink blocks."""
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
                accepted = self._sink.send(batch)
            except OSError:
                self._owner.sink_lost(self)
                return
            if accepted < 0:
                return
            self._consume_sent(accepted)

    def discard(self) -> None:
        """Close the link and discard its queue."""
        self._is_closed = True
        self._queue.clear()
        self.queued = 0
        self.pipeline.stages.clear()
        self.wake_at = math.inf

    def _consume_sent(self, count: int) -> None:
        queue = self._queue
        self.sent += count
        if self._message_oriented:
            message = queue.popleft()
            assert not isinstance(message, Signal)
            self.queued -= len(message)
            return
        self.queued -= count
        while count:
            piece = queue[0]
            assert not isinstance(piece, Signal)
            if count < len(piece):
                queue[0] = memoryview(piece)[count:]
                return
            count -= len(piece)
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
        """Send directly, because the queue is empty; queue the rest."""
        try:
            accepted = self._sink.send([data])
        except OSError:
            self._owner.sink_lost(self)
            return
        if accepted < 0:
            self._enqueue(data)
            return
        self.sent += accepted
        if accepted < len(data) and not self._message_oriented:
            self._enqueue(memoryview(data)[accepted:])

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
