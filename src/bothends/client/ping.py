"""Measure round trips: send numbered probes to a host or an echo service, and track the outcome of each.

How this file works:

1. `ProbeTracker` is pure. It decides when the next probe is due and which probes are lost, late, duplicate or
   reordered; the clock is passed in.
2. `Pinger` connects it to a `ProbeTransport`, which sends probes and receives replies. `ping_transports` has
   those for sockets; tests pass their own, whose waiting advances the clock.
3. The payload of a probe holds its number, its send time and a pattern, and is compared byte by byte with the
   reply.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from bothends.client import icmp
from bothends.errors import errno_text

PROBE_HEADER: Final = struct.Struct("!IIQ")  # token of the run, number of the probe, send time in ns
MAX_TRACKED_PROBES: Final = icmp.SEQUENCE_MODULUS  # as many as 16-bit sequence numbers can distinguish
TOKEN_BITS: Final = 32
DUPLICATE_WAIT: Final = 0.01  # seconds, plus the longest round trip: how late a duplicate may arrive


# Outcomes


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """A reply. `size` in bytes; `seconds`: the round trip; `mismatch`: the difference to the probe."""

    number: int
    size: int
    source: str
    ttl: int | None
    seconds: float
    duplicate: bool = False
    reordered: bool = False
    late: bool = False
    mismatch: str = ""


@dataclass(frozen=True, slots=True)
class ProbeFailure:
    """An error instead of a reply: an ICMP error from `source`, or a local error (`source` is "")."""

    number: int | None
    reason: str
    source: str
    errno: int


@dataclass(frozen=True, slots=True)
class ProbeTimeout:
    """No reply within the timeout."""

    number: int


@dataclass(frozen=True, slots=True)
class UnexpectedReply:
    """A packet that is not a reply to any probe of this run. `size` in bytes."""

    size: int
    source: str


ProbeEvent = ProbeReply | ProbeFailure | ProbeTimeout | UnexpectedReply


@dataclass(frozen=True, slots=True)
class RttStatistics:
    """Round trips in seconds. `mdev` is their standard deviation; ping(8) uses this name."""

    min: float
    median: float
    mean: float
    max: float
    mdev: float

    @classmethod
    def from_samples(cls, samples: Sequence[float]) -> RttStatistics | None:
        """Compute the statistics of all round trips. Returns None if there are none."""
        if not samples:
            return None
        ordered = sorted(samples)
        half = len(ordered) // 2
        median = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
        mean = math.fsum(ordered) / len(ordered)
        variance = math.fsum((each - mean) ** 2 for each in ordered) / len(ordered)
        return cls(ordered[0], median, mean, ordered[-1], math.sqrt(variance))


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcomes of all probes: `sent` = `received` + `lost` + `waiting`.

    `received`: probes with a reply, corrupted and late replies included. `intact`: probes whose reply was
    identical. `lost`: probes without a reply, ICMP errors included. `waiting`: probes still within their
    timeout when the run ended. `duplicates`: replies beyond the first. `reordered`: replies after one to a
    later probe (RFC 4737 section 3.3). `late`: replies after the timeout. `corrupted`: replies that differ
    from the probe. `errors`: ICMP errors, and probes that could not be sent. `strays`: unexpected packets.
    """

    sent: int
    received: int
    intact: int
    lost: int
    waiting: int
    duplicates: int
    reordered: int
    late: int
    corrupted: int
    errors: int
    strays: int
    round_trips: RttStatistics | None

    @property
    def loss(self) -> float:
        """The lost fraction of all completed probes, 0 to 1."""
        completed = self.sent - self.waiting
        return self.lost / completed if completed else 0.0


@dataclass(slots=True)
class Probe:
    """One probe: its number, from 1, and its send time."""

    number: int
    sent_at: float
    pending: bool = True  # still waiting for a reply
    answered: bool = False
    intact: bool = False


class ProbeTracker:
    """Schedule probes and track their outcomes. Pure: `now` is the clock, in seconds.

    `count` probes (None: unlimited), one every `interval` seconds, each with a timeout of `timeout` seconds.
    After a pause (the process was stopped) the schedule restarts from now, without a burst to catch up. When
    all probes are complete, it waits for one more round trip, in order to count late duplicates.
    """

    def __init__(
        self, *, count: int | None, interval: float, timeout: float, now: Callable[[], float]
    ) -> None:
        self._count = count
        self._interval = interval
        self._timeout = timeout
        self._now = now
        self._next_send = now()
        self._probes: dict[int, Probe] = {}
        self._pending: deque[Probe] = deque()
        self._round_trips = array("d")
        self._highest_answered = 0
        self._max_rtt = 0.0
        self._last_completed = now()
        self._pending_count = 0
        self.sent = 0
        self._counters = dict.fromkeys(
            ("received", "intact", "duplicates", "reordered", "late", "corrupted", "errors", "strays"), 0
        )

    def next_timeout(self) -> float | None:
        """Return the seconds until the next probe or timeout is due; None when all probes are complete."""
        while self._pending and not self._pending[0].pending:
            self._pending.popleft()
        times = [self._pending[0].sent_at + self._timeout] if self._pending else []
        if self._count is None or self.sent < self._count:
            times.append(self._next_send)
        if times:
            return max(0.0, min(times) - self._now())
        linger = min(self._timeout, DUPLICATE_WAIT + self._max_rtt) if self._round_trips else 0.0
        remaining = self._last_completed + linger - self._now()
        return remaining if remaining > 0 else None

    def start_probe(self) -> Probe | None:
        """Return the probe to send now, and count it as sent; None if none is due."""
        now = self._now()
        if now < self._next_send or (self._count is not None and self.sent >= self._count):
            return None
        self._next_send += self._interval
        if self._next_send < now:
            self._next_send = now + self._interval
        self.sent += 1
        probe = self._probes[self.sent] = Probe(self.sent, now)
        self._probes.pop(self.sent - MAX_TRACKED_PROBES, None)
        self._pending.append(probe)
        self._pending_count += 1
        return probe

    def find(self, number: int | None) -> Probe | None:
        """Return the probe with that number, or None if it was not sent or is no longer tracked."""
        return None if number is None else self._probes.get(number)

    def record_reply(self, probe: Probe, received_at: float, mismatch: str = "") -> ProbeReply:
        """Record a reply received at clock time `received_at`. `mismatch`: its difference to the probe."""
        seconds = max(0.0, received_at - probe.sent_at)
        duplicate = probe.answered
        late = not duplicate and seconds > self._timeout
        reordered = not duplicate and probe.number < self._highest_answered
        self._highest_answered = max(self._highest_answered, probe.number)
        self._complete(probe)
        probe.answered = True
        if not duplicate:
            self._round_trips.append(seconds)
            self._max_rtt = max(self._max_rtt, seconds)
        self._increment(received=not duplicate, duplicates=duplicate, late=late, reordered=reordered)
        self._increment(corrupted=bool(mismatch), intact=not mismatch and not probe.intact)
        probe.intact = probe.intact or not mismatch
        return ProbeReply(probe.number, 0, "", None, seconds, duplicate, reordered, late, mismatch)

    def record_failure(self, probe: Probe | None) -> None:
        """Record an error, which completes the probe. None: the error does not identify its probe."""
        if probe is not None:
            self._complete(probe)
        self._increment(errors=True)

    def record_unexpected(self) -> None:
        """Record a packet that is not a reply."""
        self._increment(strays=True)

    def pop_expired(self) -> list[ProbeTimeout]:
        """Return the probes that have timed out since the last call."""
        found = []
        now = self._now()
        while self._pending and (
            not self._pending[0].pending or now >= self._pending[0].sent_at + self._timeout
        ):
            probe = self._pending.popleft()
            if probe.pending:
                self._complete(probe)
                found.append(ProbeTimeout(probe.number))
        return found

    def summary(self) -> Summary:
        """Return the outcomes so far."""
        lost = self.sent - self._counters["received"] - self._pending_count
        return Summary(
            sent=self.sent,
            lost=lost,
            waiting=self._pending_count,
            round_trips=RttStatistics.from_samples(self._round_trips),
            **self._counters,
        )

    def _complete(self, probe: Probe) -> None:
        if probe.pending:
            self._pending_count -= 1
            self._last_completed = self._now()
        probe.pending = False

    def _increment(self, **counters: bool) -> None:
        for name, increment in counters.items():
            self._counters[name] += increment


# Payloads


def build_payload(token: int, probe: Probe, size: int) -> bytes:
    """Build the payload of a probe, `size` bytes: a unique header, then a pattern of byte offsets.

    If `size` is smaller than the header, there is only the pattern.
    """
    header = PROBE_HEADER.pack(token, probe.number & 0xFFFFFFFF, int(probe.sent_at * 1e9) & (2**64 - 1))
    if size < PROBE_HEADER.size:
        header = b""
    return header + bytes(offset & 0xFF for offset in range(len(header), size))


def parse_probe_number(token: int, payload: bytes, last_number: int) -> int | None:
    """Return the probe number in a payload, which may be truncated; None if it is not from this run."""
    if len(payload) < 8 or payload[:4] != token.to_bytes(4, "big"):
        return None
    number = int.from_bytes(payload[4:8], "big")
    return last_number - (last_number - number) % 2**32


def describe_mismatch(received: bytes, sent: bytes) -> str:
    """Describe the first difference between a reply and its probe; "" if they are identical."""
    for offset, (actual, expected) in enumerate(zip(received, sent, strict=False)):
        if actual != expected:
            return f"byte {offset} is 0x{actual:02x}, not 0x{expected:02x}"
    if len(received) != len(sent):
        return f"received {len(received)} bytes of {len(sent)}"
    return ""


# Transports


@dataclass(frozen=True, slots=True)
class RawReply:
    """A packet from a transport: the payload of probe `number` (None if unknown); times in clock seconds."""

    number: int | None
    payload: bytes
    size: int
    source: str
    ttl: int | None
    received_at: float


class ProbeTransport(Protocol):
    """Sends probes and receives replies."""

    description: str
    """The kind of transport, for users."""
    address: str
    """The destination."""

    def send(self, number: int, payload: bytes) -> None:
        """Send one probe. Raises OSError."""

    def wait(self, timeout: float) -> None:
        """Wait until a packet can be received, at most `timeout` seconds."""

    def receive(self) -> list[RawReply | ProbeFailure]:
        """Return the packets received so far, without waiting."""
        ...

    def close(self) -> None:
        """Close the sockets."""


class Pinger:
    """Send probes over a transport, and yield each outcome as it happens."""

    def __init__(self, transport: ProbeTransport, tracker: ProbeTracker, *, token: int, size: int) -> None:
        self._transport = transport
        self._tracker = tracker
        self._token = token
        self._size = size

    def run(self) -> Iterator[ProbeEvent]:
        """Run until every probe is answered, failed or lost. The tracker stays valid if it is interrupted."""
        while (timeout := self._tracker.next_timeout()) is not None:
            self._transport.wait(timeout)
            yield from self.run_once()

    def run_once(self) -> Iterator[ProbeEvent]:
        """Do all work that is due. Receive first, so that a reply in time is not counted as lost."""
        for packet in self._transport.receive():
            yield self._classify(packet)
        yield from self._tracker.pop_expired()
        if probe := self._tracker.start_probe():
            try:
                self._transport.send(probe.number, build_payload(self._token, probe, self._size))
            except OSError as error:
                self._tracker.record_failure(probe)
                number = error.errno or 0
                yield ProbeFailure(probe.number, f"could not be sent: {errno_text(number)}", "", number)

    def _classify(self, packet: RawReply | ProbeFailure) -> ProbeEvent:
        probe = self._tracker.find(packet.number)
        if isinstance(packet, ProbeFailure):
            self._tracker.record_failure(probe)
            return packet
        if probe is None:
            self._tracker.record_unexpected()
            return UnexpectedReply(packet.size, packet.source)
        mismatch = describe_mismatch(packet.payload, build_payload(self._token, probe, self._size))
        reply = self._tracker.record_reply(probe, packet.received_at, mismatch)
        return replace(reply, size=packet.size, source=packet.source, ttl=packet.ttl)
