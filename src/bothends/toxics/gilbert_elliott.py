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
from bothends.toxics.base import DROP, PASS, Behaviour, Decision, Link, Medium, Toxic
from bothends.toxics.loss import REFUSAL
from bothends.toxics.random_processes import TwoStates


@dataclass(frozen=True, kw_only=True)
class GilbertElliott(Toxic):
    """Loss with the chances of two states."""

    type = "gilbert_elliott"
    summary = "loss in bursts: a good and a bad state, each with its own loss"
    meaning: ClassVar[Mapping[Medium, str]] = {
        Medium.MESSAGES: "messages of a reliable socket vanish, as they would in a faulty program",
        Medium.DATAGRAMS: "datagrams vanish",
        Medium.PACKETS: "packets vanish; TCP above repeats them",
    }
    refusal = REFUSAL

    enter: float = attribute(0.01, "share", "the chance of going from good to bad, at each message")
    leave: float = attribute(0.25, "share", "the chance of going from bad to good")
    bad: float = attribute(1, "share", "what is lost in the bad state")
    good: float = attribute(0, "share", "what is lost in the good state")

    def behaviour(self, link: Link) -> Behaviour:
        return _Bursts(self, link)


class _Bursts(Behaviour):
    def __init__(self, toxic: GilbertElliott, link: Link) -> None:
        self._random = link.random
        self._states = TwoStates(link.random, toxic.enter, toxic.leave)
        self._chances = (toxic.good, toxic.bad)

    def decide(self, now: float, size: int) -> Decision:
        chance = self._chances[self._states.step()]
        return DROP if self._random.random() < chance else PASS
