"""The contract of toxics: a `Toxic` holds settings, a `ToxicState` decides on one direction of a connection.

Rank 1, pure: clock and random numbers are passed in, and there are no sockets. How it works:

1. A toxic is a frozen dataclass: its type, and attributes in the units of Toxiproxy's API. `effects`
   describes it on each medium. A medium on which the name would be misleading is rejected with
   `incompatibility`: a proxy cannot drop a TCP segment, for example.
2. A state gets the arrival time and the size of each item and returns a decision: the deliveries, each with
   its delay. No delivery drops the item, two duplicate it. A state never sees the bytes, so a peer cannot
   influence decisions, and decisions can be recorded and replayed.
3. The pipeline (`pipeline.py`) carries out decisions. It keeps a stream in order whatever the delays are.

How to write a toxic: docs/how-to/add-a-toxic.md.
"""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Final, NamedTuple, TypeAlias

__all__ = [
    "DROP",
    "HOLD",
    "PASS",
    "Decision",
    "Delivery",
    "LinkContext",
    "Medium",
    "Signal",
    "Toxic",
    "ToxicState",
]


class Medium(enum.StrEnum):
    """The kind of traffic on a link."""

    STREAM = "stream"
    """Ordered bytes with an EOF: TCP, UNIX stream sockets. The kernel has already repaired losses below."""

    MESSAGES = "messages"
    """Ordered messages with an EOF: UNIX sequenced-packet sockets, or a stream with a framing."""

    DATAGRAMS = "datagrams"
    """Independent messages without an EOF: UDP, UNIX datagram sockets."""

    PACKETS = "packets"
    """IP packets between the hosts of a wire."""


class Signal(enum.Enum):
    """A connection event that travels through a pipeline together with the bytes."""

    END = "end"
    """The sender's EOF (FIN). Queued behind the bytes."""

    CLOSE = "close"
    """Close the connection (FIN) once everything queued before has been sent."""

    RESET = "reset"
    """Reset the connection (RST) at once; queued data is discarded."""


HOLD: Final = math.inf
"""The delay of a delivery that is held until the toxic is removed."""


class Delivery(NamedTuple):
    """An outgoing slice of an item that arrived."""

    delay: float = 0.0  # seconds after the arrival; HOLD: until the toxic is removed
    start: int = 0  # offset of the first byte
    stop: int | None = None  # offset after the last byte; None: the end of the item
    flips: tuple[int, ...] = ()  # bits to invert: n is bit n % 8 of byte n // 8
    then: Signal | None = None  # sent after the slice


Decision: TypeAlias = tuple[Delivery, ...]

PASS: Final[Decision] = (Delivery(),)
DROP: Final[Decision] = ()


@dataclass(frozen=True, slots=True)
class LinkContext:
    """The properties of one direction of a connection that a toxic may depend on.

    `random` is used by this toxic on this link only, and seeded from the toxic, direction and connection.
    `ordinal` numbers the proxy's connections since the toxic was added, from 1; 0 for an older connection.
    """

    medium: Medium
    random: Random
    ordinal: int = 1


class ToxicState:
    """The state of a toxic on one link. Times are seconds of the caller's monotonic clock."""

    capacity: float = math.inf
    """Bytes to hold on a stream. Above this reading pauses, and the sender waits."""

    def begin(self, now: float) -> Decision:
        """Start when the link opens or the toxic is added. Returns timers: empty deliveries with a signal."""
        return DROP

    @abstractmethod
    def decide(self, now: float, size: int) -> Decision:
        """Decide on `size` bytes: a whole message, or one chunk of a stream."""

    def end(self, now: float) -> Decision:
        """Decide on the sender's EOF. DROP holds it until the toxic is removed."""
        return PASS

    def close(self, now: float) -> Decision:
        """Decide on a close or reset from upstream in the pipeline: by the sender or by another toxic."""
        return self.end(now)

    def resume_from(self, previous: ToxicState) -> None:
        """Take over the progress of `previous`, of any class, when the toxic's attributes change."""

    def removed(self) -> Signal | None:
        """Called when the toxic is removed. Returns a signal to send on the link, or None."""
        return None


@dataclass(frozen=True, kw_only=True)
class Toxic(ABC):
    """The settings of an impairment of one direction.

    A subclass is a frozen dataclass. Its fields are its attributes, declared by `attributes.attribute`.

    `type`             name in the API; the command line replaces underscores by dashes.
    `summary`          one line for option help and reference.
    `effects`          what it does, for each supported medium.
    `incompatibility`  why the other media are not supported, and what to use instead.
    `short_form`       the attributes that the short form gives by position: "50ms±10ms".
    `in_toxiproxy`     whether Toxiproxy has this toxic.
    """

    type: ClassVar[str]
    summary: ClassVar[str]
    effects: ClassVar[Mapping[Medium, str]]
    incompatibility: ClassVar[str] = ""
    short_form: ClassVar[tuple[str, ...]] = ()
    in_toxiproxy: ClassVar[bool] = False

    @abstractmethod
    def new_state(self, link: LinkContext) -> ToxicState:
        """Create the state for one link, whose medium is in `effects`."""

    def unsupported_reason(self, medium: Medium) -> str:
        """Return why the toxic cannot be used with these attributes on a medium; empty if it can."""
        return "" if medium in self.effects else self.incompatibility
