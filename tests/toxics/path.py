"""Run toxics in virtual time: timed input items in, timed output items out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from random import Random

from bothends.toxics.base import LinkContext, Medium, Signal, Toxic
from bothends.toxics.pipeline import DecisionRecorder, Item, Pipeline, Stage

Arrivals = list[tuple[float, Item]]

STREAM, MESSAGES, DATAGRAMS, PACKETS = Medium


def stage(
    toxic: Toxic, medium: Medium, seed: int = 1, *, ordinal: int = 1, record: DecisionRecorder | None = None
) -> Stage:
    """Build the stage of a toxic, named after its type."""
    return Stage(
        toxic.type, toxic.new_state(LinkContext(medium, Random(seed), ordinal)), medium, record=record
    )


class ToxicPath:
    """A pipeline of toxics in virtual time. Times are seconds from its start."""

    def __init__(self, medium: Medium, *toxics: Toxic, seed: int = 1, ordinal: int = 1) -> None:
        stages = [stage(each, medium, seed + n, ordinal=ordinal) for n, each in enumerate(toxics)]
        self.pipeline = Pipeline(medium, stages)
        self.arrived: Arrivals = [(0.0, item) for item in self.pipeline.begin(0.0)]

    def advance_to(self, now: float) -> None:
        """Advance the clock, waking at each due time."""
        while self.pipeline.due <= now:
            due = self.pipeline.due
            self.arrived += [(due, item) for item in self.pipeline.advance(due)]

    def send(self, at: float, item: Item) -> None:
        """Put an item into the pipeline at a time."""
        self.advance_to(at)
        self.arrived += [(at, out) for out in self.pipeline.put(at, item)]

    def run(self, sent: Iterable[tuple[float, Item]], until: float = 1e6) -> Arrivals:
        """Send timed items, then advance to `until`. Returns everything that arrived."""
        for at, item in sent:
            self.send(at, item)
        self.advance_to(until)
        return self.arrived


def data_of(arrived: Arrivals) -> bytes:
    """Return the concatenated bytes."""
    return b"".join(item for _, item in arrived if isinstance(item, bytes))


def messages_of(arrived: Arrivals) -> list[bytes]:
    """Return the messages in order of arrival."""
    return [item for _, item in arrived if isinstance(item, bytes)]


def signals_of(arrived: Arrivals) -> list[tuple[float, Signal]]:
    """Return the signals and their times."""
    return [(at, item) for at, item in arrived if isinstance(item, Signal)]


def numbered(count: int, spacing: float = 0.001, size: int = 100) -> list[tuple[float, bytes]]:
    """Return evenly spaced messages that contain their index."""
    return [(number * spacing, number.to_bytes(4).rjust(size, b".")) for number in range(count)]


def numbers(messages: Sequence[bytes]) -> list[int]:
    """Return the indices that `numbered` put into the messages."""
    return [int.from_bytes(each[-4:]) for each in messages]


def delays(sent: Sequence[tuple[float, bytes]], arrived: Arrivals) -> list[float]:
    """Return the delay of each message of `numbered`; infinity if it did not arrive."""
    times = {int.from_bytes(item[-4:]): at for at, item in arrived if isinstance(item, bytes)}
    return [times.get(number, math.inf) - at for number, (at, _) in enumerate(sent)]
