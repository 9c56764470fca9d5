"""gilbert_elliott: loss in bursts, by the model of Gilbert (1960) and Elliott (1963).

    good ──enter──> bad      a message is lost with the chance `good` in the one state and `bad` in the
    good <──leave── bad      other; after each the state may change

The share that is lost in the long run is (leave * good + enter * bad) / (enter + leave); a stay in the bad
state lasts 1 / leave messages on average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import DROP, PASS, Decision, LinkContext, Medium, Toxic, ToxicState
from bothends.toxics.loss import INCOMPATIBILITY
from bothends.toxics.random_processes import TwoStateMarkov


@dataclass(frozen=True, kw_only=True)
class GilbertElliott(Toxic):
    """Loss with the chances of two states."""

    type = "gilbert_elliott"
    summary = "loss in bursts: a good and a bad state, each with its own loss"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.MESSAGES: "messages of a reliable socket vanish, as they would in a faulty program",
        Medium.DATAGRAMS: "datagrams vanish",
        Medium.PACKETS: "packets vanish; TCP above repeats them",
    }
    incompatibility = INCOMPATIBILITY

    enter: float = attribute(0.01, "share", "the chance of going from good to bad, at each message")
    leave: float = attribute(0.25, "share", "the chance of going from bad to good")
    bad: float = attribute(1, "share", "what is lost in the bad state")
    good: float = attribute(0, "share", "what is lost in the good state")

    def new_state(self, link: LinkContext) -> ToxicState:
        return _GilbertElliottState(self, link)


class _GilbertElliottState(ToxicState):
    def __init__(self, toxic: GilbertElliott, link: LinkContext) -> None:
        self._random = link.random
        self._markov = TwoStateMarkov(link.random, toxic.enter, toxic.leave)
        self._loss_probabilities = (toxic.good, toxic.bad)

    def decide(self, now: float, size: int) -> Decision:
        chance = self._loss_probabilities[self._markov.step()]
        return DROP if self._random.random() < chance else PASS
