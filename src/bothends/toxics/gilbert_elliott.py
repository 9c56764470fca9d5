"""gilbert_elliott: bursty loss, by the model of Gilbert (1960) and Elliott (1963).

    good ──enter──> bad      a message is lost with probability `good` in the good state and `bad` in the
    good <──leave── bad      bad state; the state may change after each message

The long-run loss is (leave * good + enter * bad) / (enter + leave). The bad state lasts 1 / leave messages
on average.
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
    """Drops messages with a probability that depends on a two-state Markov chain."""

    type = "gilbert_elliott"
    summary = "drops messages in bursts: a good and a bad state, each with its own loss"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.MESSAGES: "messages of a reliable socket are dropped, as by a faulty program",
        Medium.DATAGRAMS: "datagrams are dropped",
        Medium.PACKETS: "packets are dropped; TCP retransmits them",
    }
    incompatibility = INCOMPATIBILITY

    enter: float = attribute(0.01, "share", "probability of going from good to bad, at each message")
    leave: float = attribute(0.25, "share", "probability of going from bad to good, at each message")
    bad: float = attribute(1, "share", "loss in the bad state")
    good: float = attribute(0, "share", "loss in the good state")

    def new_state(self, link: LinkContext) -> ToxicState:
        return _GilbertElliottState(self, link)


class _GilbertElliottState(ToxicState):
    def __init__(self, toxic: GilbertElliott, link: LinkContext) -> None:
        self._random = link.random
        self._markov = TwoStateMarkov(link.random, toxic.enter, toxic.leave)
        self._loss_probabilities = (toxic.good, toxic.bad)

    def decide(self, now: float, size: int) -> Decision:
        probability = self._loss_probabilities[self._markov.step()]
        return DROP if self._random.random() < probability else PASS
