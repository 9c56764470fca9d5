"""A path with toxics, in virtual time: what is said when, and what arrives when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from random import Random

from bothends.toxics.base import LinkContext, Medium, Signal, Toxic
from bothends.toxics.pipeline import Item, Pipeline, RecordingSocket, Stage

Arrivals = list[tuple[float, Item]]

STREAM, MESSAGES, DATAGRAMS, PACKETS = Medium


def stage(
    toxic: Toxic, medium: Medium, seed: int = 1, *, ordinal: int = 1, record: RecordingSocket | None = None
) -> Stage:
    """A toxic at work, called by its type."""
    return Stage(
        toxic.type, toxic.new_state(LinkContext(medium, Random(seed), ordinal)), medium, record=record
    )


class ToxicPath:
    """One direction. Times are seconds from its beginning."""

    def __init__(self, medium: Medium, *toxics: Toxic, seed: int = 1, ordinal: int = 1) -> None:
        stages = [stage(each, medium, seed + n, ordinal=ordinal) for n, each in enumerate(toxics)]
        self.pipeline = Pipeline(medium, stages)
        self.arrived: Arrivals = [(0.0, item) for item in self.pipeline.begin(0.0)]

    def advance_to(self, now: float) -> None:
        """Let time pass, waking at each moment at which something is due."""
        while self.pipeline.due <= now:
            due = self.pipeline.due
            self.arrived += [(due, item) for item in self.pipeline.advance(due)]

    def send(self, at: float, item: Item) -> None:
        """Something comes in."""
        self.advance_to(at)
        self.arrived += [(at, out) for out in self.pipeline.put(at, item)]

    def run(self, sent: Iterable[tuple[float, Item]], until: float = 1e6) -> Arrivals:
        """All of it, and the time after it."""
        for at, item in sent:
            self.send(at, item)
        self.advance_to(until)
        return self.arrived


def data_of(arrived: Arrivals) -> bytes:
    """The bytes of a stream, joined."""
    return b"".join(item for _, item in arrived if isinstance(item, bytes))


def messages_of(arrived: Arrivals) -> list[bytes]:
    """The messages, in the order in which they arrived."""
    return [item for _, item in arrived if isinstance(item, bytes)]


def signals_of(arrived: Arrivals) -> list[tuple[float, Signal]]:
    """What arrived beside bytes, and when."""
    return [(at, item) for at, item in arrived if isinstance(item, Signal)]


def numbered(count: int, spacing: float = 0.001, size: int = 100) -> list[tuple[float, bytes]]:
    """Messages that can be told apart, evenly spaced."""
    return [(number * spacing, number.to_bytes(4).rjust(size, b".")) for number in range(count)]


def numbers(messages: Sequence[bytes]) -> list[int]:
    """Which of `numbered` they are."""
    return [int.from_bytes(each[-4:]) for each in messages]


def delays(sent: Sequence[tuple[float, bytes]], arrived: Arrivals) -> list[float]:
    """How much later each message of `numbered` arrived; infinity for one that didn't."""
    times = {int.from_bytes(item[-4:]): at for at, item in arrived if isinstance(item, bytes)}
    return [times.get(number, math.inf) - at for number, (at, _) in enumerate(sent)]
