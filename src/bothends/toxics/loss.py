"""loss: drop messages, independently or in bursts.

Bursts follow Gilbert's model (1960): nothing is lost in the good state, everything in the bad state. The
probability of leaving the bad state is 1/burst, so runs of losses have that mean length. The probability of
entering it is chosen so that the overall loss is `probability`. `gilbert_elliott` has all four parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import DROP, PASS, Decision, LinkContext, Medium, Toxic, ToxicState
from bothends.toxics.random_processes import TwoStateMarkov

INCOMPATIBILITY = (
    "a proxy relays data that TCP has already repaired, and cannot drop a segment: use bothends wire to drop "
    "packets below a stream, or limit_data or blackhole to drop the rest of a stream"
)


@dataclass(frozen=True, kw_only=True)
class Loss(Toxic):
    """Drops a share of the messages, in runs of `burst` on average."""

    type = "loss"
    summary = "drops a share of the messages"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.MESSAGES: "messages of a reliable socket are dropped, as by a faulty program",
        Medium.DATAGRAMS: "datagrams are dropped",
        Medium.PACKETS: "packets are dropped; TCP retransmits them",
    }
    incompatibility = INCOMPATIBILITY
    short_form = ("probability",)

    probability: float = attribute(0, "share", "messages that are lost")
    burst: int = attribute(1, "count", "mean number lost in a row; 1: independent losses", minimum=1)

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
        # The share of messages in the bad state is enter / (enter + leave). It may need enter > 1, which no
        # probability can be: then the runs become longer than `burst` instead.
        share = toxic.probability
        enter = leave * share / (1 - share) if share < 1 else 1.0
        if enter > 1:
            enter, leave = 1.0, (1 - share) / share
        self._markov = TwoStateMarkov(link.random, enter, leave if share < 1 else 0.0)

    def decide(self, now: float, size: int) -> Decision:
        return DROP if self._markov.step() else PASS
