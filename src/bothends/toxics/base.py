"""What a toxic is: settings, and for each direction of each connection a `Behaviour` that decides.

Rank 1, pure: no socket, no clock and no random number that isn't passed in. How it works:

1. A toxic is a frozen value: its type, and attributes in the units of Toxiproxy's API. What it does on each
   medium is said in `meaning`; where it would be a lie (a proxy cannot lose a TCP segment) it is refused.
2. A behaviour is told what arrives, when, and how long it is, and answers with a decision: the pieces
   that leave, each with its delay. No piece: dropped. Two: doubled. It never sees the bytes, so nothing that
   a peer sends can change a decision, and a decision can be written down and replayed.
3. Who carries out decisions (`pipeline.py`) keeps a stream in order whatever they say.

How to write one: docs/how-to/add-a-toxic.md.
"""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Final, NamedTuple, TypeAlias


class Medium(enum.StrEnum):
    """What passes through."""

    STREAM = "stream"
    """Bytes in order, and an end: TCP, a UNIX stream. The kernel has repaired whatever happened below."""

    MESSAGES = "messages"
    """Whole messages in order, and an end: UNIX sequenced packets."""

    DATAGRAMS = "datagrams"
    """Whole messages, each on its own, and no end: UDP, UNIX datagrams."""

    PACKETS = "packets"
    """IP packets between the hosts of a wire."""


class Signal(enum.Enum):
    """What passes through a connection beside its bytes."""

    END = "end"
    """The sender has finished sending (a FIN). It waits its turn behind the bytes."""

    CLOSE = "close"
    """Close the connection in good order once all that came before has left."""

    RESET = "reset"
    """Reset the connection (a RST): at once, nothing that waits is delivered."""


HOLD: Final = math.inf
"""The delay of what stays until the toxic is taken away."""


class Delivery(NamedTuple):
    """A part of what arrived, on its way out."""

    delay: float = 0.0  # seconds after it arrived; HOLD: until the toxic is taken away
    start: int = 0  # bytes from its beginning
    stop: int | None = None  # None: to its end
    flips: tuple[int, ...] = ()  # bits that are inverted: n is bit n % 8 of byte n // 8
    then: Signal | None = None  # what follows it


Decision: TypeAlias = tuple[Delivery, ...]

PASS: Final[Decision] = (Delivery(),)
DROP: Final[Decision] = ()


@dataclass(frozen=True, slots=True)
class LinkContext:
    """One direction of one connection, as far as a toxic may know it.

    `random` is its own, seeded for this connection, direction and toxic: nobody else draws from it.
    `ordinal` counts the connections that its proxy has had since this toxic came, from 1;
    0 for one that was there before.
    """

    medium: Medium
    random: Random
    ordinal: int = 1


class ToxicState:
    """A toxic at work on one link. Times are seconds on the caller's clock and never go back."""

    capacity: float = math.inf
    """On a stream, the bytes that it wants to hold: above that nothing more is read, and the sender waits."""

    def begin(self, now: float) -> Decision:
        """The link begins: what will happen without any data, as pieces of nothing with a signal."""
        return DROP

    @abstractmethod
    def decide(self, now: float, size: int) -> Decision:
        """What becomes of `size` bytes: a whole message, or whatever a stream gave at once."""

    def end(self, now: float) -> Decision:
        """What becomes of the sender's end. DROP: it stays, until the toxic is taken away."""
        return PASS

    def close(self, now: float) -> Decision:
        """What becomes of a close or reset that comes from before: of the sender itself, or by a toxic."""
        return self.end(now)

    def resume_from(self, previous: ToxicState) -> None:
        """The toxic got other attributes: this goes on where `before`, of the same class or not, was."""

    def removed(self) -> Signal | None:
        """The toxic is taken away: what the link must suffer for it."""
        return None


@dataclass(frozen=True, kw_only=True)
class Toxic(ABC):
    """One impairment of one direction. A subclass is a frozen dataclass whose fields are its attributes,
    each made by `attributes.attribute`.

    `type`      its name in the API; on the command line it has dashes.
    `summary`   one line for whoever chooses.
    `meaning`   what it does on each medium that it goes with.
    `refusal`   why not on the others.
    `short`     the attributes that the short form of the command line gives: "50ms±10ms".
    `in_toxiproxy` whether Toxiproxy has it.
    """

    type: ClassVar[str]
    summary: ClassVar[str]
    effects: ClassVar[Mapping[Medium, str]]
    incompatibility: ClassVar[str] = ""
    short_form: ClassVar[tuple[str, ...]] = ()
    in_toxiproxy: ClassVar[bool] = False

    @abstractmethod
    def new_state(self, link: LinkContext) -> ToxicState:
        """A fresh behaviour for one link, whose medium is one of `meaning`."""

    def unsupported_reason(self, medium: Medium) -> str:
        """Why these attributes cannot be on a medium; empty if they can."""
        return "" if medium in self.effects else self.incompatibility
