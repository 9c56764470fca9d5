"""loss: some never arrive, each on its own or several in a row.

In a row it is Gilbert's model (1960): a good state in which nothing is lost and a bad one in which everything
is, left with the chance 1/burst, so that losses come in runs of that mean length, and entered so rarely that
the share of all that is lost is the probability that was asked for. All four parameters: `gilbert_elliott`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import DROP, PASS, Decision, LinkContext, Medium, Toxic, ToxicState
from bothends.toxics.random_processes import TwoStateMarkov

INCOMPATIBILITY = (
    "a proxy has what TCP has repaired already, and cannot lose a segment: to lose packets under a stream, "
    "bothends wire; to lose a stream's rest, limit_data or blackhole"
)


@dataclass(frozen=True, kw_only=True)
class Loss(Toxic):
    """A share of `probability` is lost, in runs of `burst` on average."""

    type = "loss"
    summary = "a share of the messages never arrives"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.MESSAGES: "messages of a reliable socket vanish, as they would in a faulty program",
        Medium.DATAGRAMS: "datagrams vanish",
        Medium.PACKETS: "packets vanish; TCP above repeats them",
    }
    incompatibility = INCOMPATIBILITY
    short_form = ("probability",)

    probability: float = attribute(0, "share", "what is lost of all")
    burst: int = attribute(1, "count", "how many in a row on average; 1: each on its own", minimum=1)

    def new_state(self, link: LinkContext) -> ToxicState:
        return _IndependentLossState(self, link) if self.burst == 1 else _BurstLossState(self, link)


class _IndependentLossState(ToxicState):
    def __init__(self, toxic: Loss, link: LinkContext) -> None:
        self._probability = toxic.probability
        self._random = link.random.random

    def decide(self, now: float, size: int) -> Decision:
        return DROP if self._random() < self._probability else PASS


class _BurstLossState(ToxicState):
    def __init__(self, toxic: Loss, link: LinkContext) -> None:
        leave = 1 / toxic.burst
        # The share of time in the bad state is enter / (enter + leave). With enter above 1 there would be
        # no more room between the runs: then they grow.
        share = toxic.probability
        enter = leave * share / (1 - share) if share < 1 else 1.0
        if enter > 1:
            enter, leave = 1.0, (1 - share) / share
        self._markov = TwoStateMarkov(link.random, enter, leave if share < 1 else 0.0)

    def decide(self, now: float, size: int) -> Decision:
        return DROP if self._markov.step() else PASS
