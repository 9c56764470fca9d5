"""reorder: some are overtaken by those behind them.

Of every `gap` messages the last is a candidate, and with the `probability` it is held back for `delay`; what
comes meanwhile goes ahead of it. How many that are depends on how close together they come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import PASS, Decision, Delivery, LinkContext, Medium, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class Reorder(Toxic):
    """Some are held back for a moment, and the others overtake them."""

    type = "reorder"
    summary = "some are held back for a moment, and the others overtake them"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.DATAGRAMS: "datagrams are overtaken by others of the same client",
        Medium.PACKETS: "packets are overtaken by others; TCP above puts them in order",
    }
    incompatibility = (
        "it is in order by its nature, and whoever reads it relies on that: bothends wire reorders packets"
    )
    short_form = ("probability",)

    probability: float = attribute(1, "share", "of the candidates, what is held back")
    gap: int = attribute(1, "count", "every so-manieth is a candidate", minimum=1)
    delay: float = attribute(10, "ms", "for how long it is held back")

    def unsupported_reason(self, medium: Medium) -> str:
        if self.probability == 1 and self.gap == 1:
            return "all would be held back alike: give a probability, or a gap above 1"
        return super().unsupported_reason(medium)

    def new_state(self, link: LinkContext) -> ToxicState:
        return _ReorderState(self, link)


class _ReorderState(ToxicState):
    def __init__(self, toxic: Reorder, link: LinkContext) -> None:
        self._probability = toxic.probability
        self._random = link.random.random
        self._gap = toxic.gap
        self._count = 0
        self._delayed: Decision = (Delivery(toxic.delay / 1000),)

    def decide(self, now: float, size: int) -> Decision:
        self._count = (self._count + 1) % self._gap
        return self._delayed if not self._count and self._random() < self._probability else PASS
