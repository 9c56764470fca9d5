"""Round trips: numbered probes to a host or an echo service, and what became of each.

How this file works:

1. `ProbeTracker` is pure: when the next probe is due, which are lost, late, duplicate, reordered; a clock
   is passed in.
2. `Pinger` joins it to a `Wire`, which sends probes and receives answers. Those of sockets are in `wires`;
   tests pass one of their own, whose waiting moves the clock.
3. A probe's payload holds its number, its time of sending and a pattern, and is compared with what was
   sent, byte for byte.
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

PROBE_HEADER: Final = struct.Struct("!IIQ")  # token of the run, number of the probe, time of sending in ns
MAX_TRACKED_PROBES: Final = (
    icmp.SEQUENCE_MODULUS
)  # probes remembered: as many as ICMP's 16-bit numbers can tell apart
TOKEN_BITS: Final = 32
DUPLICATE_WAIT: Final = (
    0.01  # seconds, and the longest round trip: how far behind its original a duplicate may be
)


# What becomes of a probe


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """An answer. `size` in bytes, `seconds` the round trip; `flaw` says what came back wrong, if anything."""

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
    """An error instead of an answer: an ICMP error from `source`, or of this machine (`source` is "")."""

    number: int | None
    reason: str
    source: str
    errno: int


@dataclass(frozen=True, slots=True)
class ProbeTimeout:
    """No answer within the time limit."""

    number: int


@dataclass(frozen=True, slots=True)
class UnexpectedReply:
    """Something that is no answer to a probe of ours. `size` in bytes."""

    size: int
    source: str


ProbeEvent = ProbeReply | ProbeFailure | ProbeTimeout | UnexpectedReply


@dataclass(frozen=True, slots=True)
class RttStatistics:
    """Round trips in seconds. `mdev` is their standard deviation, under the name that ping gives it."""

    min: float
    median: float
    mean: float
    max: float
    mdev: float

    @classmethod
    def from_samples(cls, samples: Sequence[float]) -> RttStatistics | None:
        """Of all round trips; None where there are none."""
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
    """What became of all probes: `sent` = `received` + `lost` + `waiting`.

    `received` counts each probe once, corrupted and late answers included; `intact` those that were
    answered byte for byte; `lost` never answered, ICMP errors included; `waiting` still in time when the
    run was ended. `duplicates` are answers beyond the first, `reordered` came after one to a later probe
    (RFC 4737 section 3.3), `late` after the time limit, `corrupted` differ from what was sent. `errors` are
    ICMP errors and probes that this machine could not send; `strays` are nobody's answers.
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
        """The lost share of those whose fate is known, 0 to 1."""
        known = self.sent - self.waiting
        return self.lost / known if known else 0.0


@dataclass(slots=True)
class Probe:
    """One probe: its number from 1 on, and when it was sent."""

    number: int
    sent_at: float
    pending: bool = True  # still awaited
    answered: bool = False
    intact: bool = False


class ProbeTracker:
    """When to send, and what became of each probe. Pure: `now` is the clock, in seconds.

    `count` probes (None: without end), one each `interval` seconds, each awaited for `timeout` seconds.
    After a pause (the program was stopped) sending goes on from now: no burst makes up for it. When the
    fate of all is known, one more round trip is waited for, lest the last one's duplicates be missed.
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
        """Seconds until a probe is due, or one is lost if nothing comes; None when all is known."""
        while self._pending and not self._pending[0].pending:
            self._pending.popleft()
        times = [self._pending[0].sent_at + self._timeout] if self._pending else []
        if self._count is None or self.sent < self._count:
            times.append(self._next_send)
        if times:
            return max(0.0, min(times) - self._now())
        linger = min(self._timeout, DUPLICATE_WAIT + self._max_rtt) if self._round_trips else 0.0
        left = self._last_completed + linger - self._now()
        return left if left > 0 else None

    def start_probe(self) -> Probe | None:
        """The probe that is to be sent now, counted as sent; None if none is due."""
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
        """The probe of that number, if it was sent and isn't too long ago."""
        return None if number is None else self._probes.get(number)

    def record_reply(self, probe: Probe, received_at: float, mismatch: str = "") -> ProbeReply:
        """An answer came `at` a time of the clock; `flaw` is what differs from what was sent."""
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
        """An error came instead of an answer: the probe is no longer awaited. None: for which isn't known."""
        if probe is not None:
            self._complete(probe)
        self._increment(errors=True)

    def record_unexpected(self) -> None:
        """Something came that is no answer."""
        self._increment(strays=True)

    def pop_expired(self) -> list[ProbeTimeout]:
        """The probes whose time has passed since the last call."""
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
        """What is known so far."""
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
        for name, one in counters.items():
            self._counters[name] += one


# What a probe holds


def build_payload(token: int, probe: Probe, size: int) -> bytes:
    """The payload of a probe, `size` bytes: a head that is no other probe's, then each byte its own place.

    With less room than the head takes, there is only the pattern.
    """
    head = PROBE_HEADER.pack(token, probe.number & 0xFFFFFFFF, int(probe.sent_at * 1e9) & (2**64 - 1))
    if size < PROBE_HEADER.size:
        head = b""
    return head + bytes(place & 0xFF for place in range(len(head), size))


def parse_probe_number(token: int, payload: bytes, last_number: int) -> int | None:
    """The number of the probe that a payload, whole or cut short, was sent in; None for nobody's."""
    if len(payload) < 8 or payload[:4] != token.to_bytes(4, "big"):
        return None
    number = int.from_bytes(payload[4:8], "big")
    return last_number - (last_number - number) % 2**32


def describe_mismatch(received: bytes, sent: bytes) -> str:
    """What differs between the two, in words; empty for nothing."""
    for place, (its, ours) in enumerate(zip(received, sent, strict=False)):
        if its != ours:
            return f"byte {place} is 0x{its:02x}, not 0x{ours:02x}"
    if len(received) != len(sent):
        return f"{len(received)} bytes came back of {len(sent)}"
    return ""


# Wires


@dataclass(frozen=True, slots=True)
class RawReply:
    """What a wire received: the payload of probe `number` (None: it can't be told), `at` in clock seconds."""

    number: int | None
    payload: bytes
    size: int
    source: str
    ttl: int | None
    received_at: float


class ProbeTransport(Protocol):
    """Where probes go and answers come from."""

    description: str
    """What carries the probes, in words."""
    address: str
    """Where they go."""

    def send(self, number: int, payload: bytes) -> None:
        """Send one probe. Raises OSError."""

    def wait(self, timeout: float) -> None:
        """Until something can be received, or so long."""

    def receive(self) -> list[RawReply | ProbeFailure]:
        """What has come, without waiting."""
        ...

    def close(self) -> None:
        """Free it."""


class Pinger:
    """Sends probes over a wire until all is known, and tells each event as it happens."""

    def __init__(self, transport: ProbeTransport, tracker: ProbeTracker, *, token: int, size: int) -> None:
        self._transport = transport
        self._tracker = tracker
        self._token = token
        self._size = size

    def run(self) -> Iterator[ProbeEvent]:
        """Until each of the probes is answered, failed or lost. An interruption leaves the book as it is."""
        while (wait := self._tracker.next_timeout()) is not None:
            self._transport.wait(wait)
            yield from self.run_once()

    def run_once(self) -> Iterator[ProbeEvent]:
        """What can be done now: receive first, for what has come in time isn't lost."""
        for arrival in self._transport.receive():
            yield self._classify(arrival)
        yield from self._tracker.pop_expired()
        if probe := self._tracker.start_probe():
            try:
                self._transport.send(probe.number, build_payload(self._token, probe, self._size))
            except OSError as error:
                self._tracker.record_failure(probe)
                number = error.errno or 0
                yield ProbeFailure(probe.number, f"could not be sent: {errno_text(number)}", "", number)

    def _classify(self, arrival: RawReply | ProbeFailure) -> ProbeEvent:
        probe = self._tracker.find(arrival.number)
        if isinstance(arrival, ProbeFailure):
            self._tracker.record_failure(probe)
            return arrival
        if probe is None:
            self._tracker.record_unexpected()
            return UnexpectedReply(arrival.size, arrival.source)
        flaw = describe_mismatch(arrival.payload, build_payload(self._token, probe, self._size))
        kept = self._tracker.record_reply(probe, arrival.received_at, flaw)
        return replace(kept, size=arrival.size, source=arrival.source, ttl=arrival.ttl)
