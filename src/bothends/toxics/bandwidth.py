"""bandwidth: a rate limit with a bounded queue in front of it.

A token bucket of `burst` bytes, refilled at the rate and computed in virtual time: `_free_at` is when the
line will have transmitted everything queued so far. It may lie in the past by at most the time that `burst`
bytes take. So within any t seconds at most burst + rate * t bytes leave, plus one message if it is larger
than the bucket. Datagrams that exceed the queue are dropped at its tail, as in a router; on a stream the
sender waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import DROP, PASS, Decision, Delivery, LinkContext, Medium, Toxic, ToxicState

_CHUNK_SECONDS = 0.02  # seconds of line time per delivered chunk, so that a stream trickles as on a slow line
_CHUNK_LIMITS = (64, 16 * 1024)  # bytes: minimum and maximum size of such a chunk


@dataclass(frozen=True, kw_only=True)
class Bandwidth(Toxic):
    """Limits throughput to `rate` kilobytes (of 1,000 bytes) per second; 0 is no limit."""

    type = "bandwidth"
    summary = "limits the throughput, with a bounded queue in front"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "bytes leave at the rate; when the queue is full the sender waits, nothing is lost",
        Medium.MESSAGES: "messages leave at the rate; when the queue is full the sender waits",
        Medium.DATAGRAMS: "datagrams leave at the rate; when the queue is full they are dropped",
        Medium.PACKETS: "packets leave at the rate; when the queue is full they are dropped",
    }
    short_form = ("rate",)
    in_toxiproxy = True

    rate: float = attribute(0, "KB/s", "throughput; 0: unlimited", in_toxiproxy=True)
    queue: int = attribute(64 * 1024, "bytes", "length of the queue", minimum=1)
    burst: int = attribute(0, "bytes", "size of the token bucket: sent at once after an idle period")

    def new_state(self, link: LinkContext) -> ToxicState:
        return _BandwidthState(self, link)


class _BandwidthState(ToxicState):
    def __init__(self, toxic: Bandwidth, link: LinkContext) -> None:
        self._rate = toxic.rate * 1000
        self._queue_limit = toxic.queue
        self._burst_seconds = toxic.burst / self._rate if self._rate else 0.0
        self._drops_overflow = link.medium in (Medium.DATAGRAMS, Medium.PACKETS)
        self._chunk_size = 0
        if link.medium is Medium.STREAM:
            self._chunk_size = max(_CHUNK_LIMITS[0], min(_CHUNK_LIMITS[1], int(self._rate * _CHUNK_SECONDS)))
        self._free_at = 0.0
        if self._rate:
            self.capacity = toxic.queue

    def decide(self, now: float, size: int) -> Decision:
        if not self._rate:
            return PASS
        waiting = (self._free_at - now) * self._rate
        if self._drops_overflow and waiting > 0 and waiting + size > self._queue_limit:
            return DROP
        self._free_at = max(self._free_at, now - self._burst_seconds)
        if not self._chunk_size or size <= self._chunk_size:
            return (Delivery(self._transmit(now, size)),)
        return tuple(
            Delivery(
                self._transmit(now, min(self._chunk_size, size - start)),
                start,
                min(start + self._chunk_size, size),
            )
            for start in range(0, size, self._chunk_size)
        )

    def _transmit(self, now: float, size: int) -> float:
        """Put `size` bytes on the line. Returns the delay in seconds until they have left."""
        self._free_at += size / self._rate
        return max(0.0, self._free_at - now)
