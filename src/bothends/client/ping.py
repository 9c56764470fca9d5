"""Round trips: numbered probes to a host or an echo service, and what became of each.

How this file works:

1. `Bookkeeping` is pure: when the next probe is due, which are lost, late, duplicate, reordered; a clock
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

HEAD: Final = struct.Struct("!IIQ")  # token of the run, number of the probe, time of sending in ns
KEPT: Final = icmp.SEQUENCES  # probes remembered: as many as ICMP's 16-bit numbers can tell apart
TOKEN_BITS: Final = 32
LINGER: Final = 0.01  # seconds, and the longest round trip: how far behind its original a duplicate may be


# What becomes of a probe


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `size` in bytes, `seconds` the round trip; `flaw` says what came back wrong, if anything."""

    number: int
    size: int
    source: str
    ttl: int | None
    seconds: float
    duplicate: bool = False
    reordered: bool = False
    late: bool = False
    flaw: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error instead of an answer: an ICMP error from `source`, or of this machine (`source` is "")."""

    number: int | None
    words: str
    source: str
    errno: int


@dataclass(frozen=True, slots=True)
class Missing:
    """No answer within the time limit."""

    number: int


@dataclass(frozen=True, slots=True)
class Stray:
    """Something that is no answer to a probe of ours. `size` in bytes."""

    size: int
    source: str


Event = Reply | Failure | Missing | Stray


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Round trips in seconds. `mdev` is their standard deviation, under the name that ping gives it."""

    min: float
    median: float
    mean: float
    max: float
    mdev: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> RoundTrips | None:
        """Of all round trips; None where there are none."""
        if not seconds:
            return None
        ordered = sorted(seconds)
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
    round_trips: RoundTrips | None

    @property
    def loss(self) -> float:
        """The lost share of those whose fate is known, 0 to 1."""
        known = self.sent - self.waiting
        return self.lost / known if known else 0.0


@dataclass(slots=True)
class Probe:
    """One probe: its number from 1 on, and when it was sent."""

    number: int
    at: float
    open: bool = True  # still awaited
    answered: bool = False
    intact: bool = False


class Bookkeeping:
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
        self._due = now()
        self._probes: dict[int, Probe] = {}
        self._awaited: deque[Probe] = deque()
        self._seconds = array("d")
        self._highest = 0
        self._longest = 0.0
        self._closed = now()
        self._waiting = 0
        self.sent = 0
        self._counted = dict.fromkeys(
            ("received", "intact", "duplicates", "reordered", "late", "corrupted", "errors", "strays"), 0
        )

    def wait(self) -> float | None:
        """Seconds until a probe is due, or one is lost if nothing comes; None when all is known."""
        while self._awaited and not self._awaited[0].open:
            self._awaited.popleft()
        times = [self._awaited[0].at + self._timeout] if self._awaited else []
        if self._count is None or self.sent < self._count:
            times.append(self._due)
        if times:
            return max(0.0, min(times) - self._now())
        linger = min(self._timeout, LINGER + self._longest) if self._seconds else 0.0
        left = self._closed + linger - self._now()
        return left if left > 0 else None

    def begin(self) -> Probe | None:
        """The probe that is to be sent now, counted as sent; None if none is due."""
        now = self._now()
        if now < self._due or (self._count is not None and self.sent >= self._count):
            return None
        self._due += self._interval
        if self._due < now:
            self._due = now + self._interval
        self.sent += 1
        probe = self._probes[self.sent] = Probe(self.sent, now)
        self._probes.pop(self.sent - KEPT, None)
        self._awaited.append(probe)
        self._waiting += 1
        return probe

    def find(self, number: int | None) -> Probe | None:
        """The probe of that number, if it was sent and isn't too long ago."""
        return None if number is None else self._probes.get(number)

    def answered(self, probe: Probe, at: float, flaw: str = "") -> Reply:
        """An answer came `at` a time of the clock; `flaw` is what differs from what was sent."""
        seconds = max(0.0, at - probe.at)
        duplicate = probe.answered
        late = not duplicate and seconds > self._timeout
        reordered = not duplicate and probe.number < self._highest
        self._highest = max(self._highest, probe.number)
        self._close(probe)
        probe.answered = True
        if not duplicate:
            self._seconds.append(seconds)
            self._longest = max(self._longest, seconds)
        self._add(received=not duplicate, duplicates=duplicate, late=late, reordered=reordered)
        self._add(corrupted=bool(flaw), intact=not flaw and not probe.intact)
        probe.intact = probe.intact or not flaw
        return Reply(probe.number, 0, "", None, seconds, duplicate, reordered, late, flaw)

    def failed(self, probe: Probe | None) -> None:
        """An error came instead of an answer: the probe is no longer awaited. None: for which isn't known."""
        if probe is not None:
            self._close(probe)
        self._add(errors=True)

    def strayed(self) -> None:
        """Something came that is no answer."""
        self._add(strays=True)

    def expired(self) -> list[Missing]:
        """The probes whose time has passed since the last call."""
        found = []
        now = self._now()
        while self._awaited and (not self._awaited[0].open or now >= self._awaited[0].at + self._timeout):
            probe = self._awaited.popleft()
            if probe.open:
                self._close(probe)
                found.append(Missing(probe.number))
        return found

    def summary(self) -> Summary:
        """What is known so far."""
        lost = self.sent - self._counted["received"] - self._waiting
        return Summary(
            sent=self.sent,
            lost=lost,
            waiting=self._waiting,
            round_trips=RoundTrips.of(self._seconds),
            **self._counted,
        )

    def _close(self, probe: Probe) -> None:
        if probe.open:
            self._waiting -= 1
            self._closed = self._now()
        probe.open = False

    def _add(self, **what: bool) -> None:
        for name, one in what.items():
            self._counted[name] += one


# What a probe holds


def payload_of(token: int, probe: Probe, size: int) -> bytes:
    """The payload of a probe, `size` bytes: a head that is no other probe's, then each byte its own place.

    With less room than the head takes, there is only the pattern.
    """
    head = HEAD.pack(token, probe.number & 0xFFFFFFFF, int(probe.at * 1e9) & (2**64 - 1))
    if size < HEAD.size:
        head = b""
    return head + bytes(place & 0xFF for place in range(len(head), size))


def number_of(token: int, payload: bytes, newest: int) -> int | None:
    """The number of the probe that a payload, whole or cut short, was sent in; None for nobody's."""
    if len(payload) < 8 or payload[:4] != token.to_bytes(4, "big"):
        return None
    number = int.from_bytes(payload[4:8], "big")
    return newest - (newest - number) % 2**32


def flaw_in(came: bytes, sent: bytes) -> str:
    """What differs between the two, in words; empty for nothing."""
    for place, (its, ours) in enumerate(zip(came, sent, strict=False)):
        if its != ours:
            return f"byte {place} is 0x{its:02x}, not 0x{ours:02x}"
    if len(came) != len(sent):
        return f"{len(came)} bytes came back of {len(sent)}"
    return ""


# Wires


@dataclass(frozen=True, slots=True)
class Answer:
    """What a wire received: the payload of probe `number` (None: it can't be told), `at` in clock seconds."""

    number: int | None
    payload: bytes
    size: int
    source: str
    ttl: int | None
    at: float


class Wire(Protocol):
    """Where probes go and answers come from."""

    how: str
    """What carries the probes, in words."""
    address: str
    """Where they go."""

    def send(self, number: int, payload: bytes) -> None:
        """Send one probe. Raises OSError."""

    def wait(self, seconds: float) -> None:
        """Until something can be received, or so long."""

    def receive(self) -> list[Answer | Failure]:
        """What has come, without waiting."""
        ...

    def close(self) -> None:
        """Free it."""


class Pinger:
    """Sends probes over a wire until all is known, and tells each event as it happens."""

    def __init__(self, wire: Wire, book: Bookkeeping, *, token: int, size: int) -> None:
        self._wire = wire
        self._book = book
        self._token = token
        self._size = size

    def run(self) -> Iterator[Event]:
        """Until each of the probes is answered, failed or lost. An interruption leaves the book as it is."""
        while (wait := self._book.wait()) is not None:
            self._wire.wait(wait)
            yield from self.turn()

    def turn(self) -> Iterator[Event]:
        """What can be done now: receive first, for what has come in time isn't lost."""
        for arrival in self._wire.receive():
            yield self._told(arrival)
        yield from self._book.expired()
        if probe := self._book.begin():
            try:
                self._wire.send(probe.number, payload_of(self._token, probe, self._size))
            except OSError as error:
                self._book.failed(probe)
                number = error.errno or 0
                yield Failure(probe.number, f"could not be sent: {errno_text(number)}", "", number)

    def _told(self, arrival: Answer | Failure) -> Event:
        probe = self._book.find(arrival.number)
        if isinstance(arrival, Failure):
            self._book.failed(probe)
            return arrival
        if probe is None:
            self._book.strayed()
            return Stray(arrival.size, arrival.source)
        flaw = flaw_in(arrival.payload, payload_of(self._token, probe, self._size))
        kept = self._book.answered(probe, arrival.at, flaw)
        return replace(kept, size=arrival.size, source=arrival.source, ttl=arrival.ttl)
