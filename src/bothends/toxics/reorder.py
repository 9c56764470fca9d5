"""reorder: hold some messages back so that later ones overtake them.

The last of every `gap` messages is a candidate. A candidate is delayed by `delay` with `probability`, and
messages that arrive in the meantime go first. Their number depends on the spacing of the messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import PASS, Decision, Delivery, LinkContext, Medium, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class Reorder(Toxic):
    """Delays some messages briefly, so that later ones overtake them."""

    type = "reorder"
    summary = "delays some messages briefly, so that later ones overtake them"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.DATAGRAMS: "datagrams are overtaken by others of the same client",
        Medium.PACKETS: "packets are overtaken by others; TCP restores their order",
    }
    incompatibility = "the transport guarantees order to its receiver: use bothends wire to reorder packets"
    short_form = ("probability",)

    probability: float = attribute(1, "share", "candidates that are delayed")
    gap: int = attribute(1, "count", "every gap-th message is a candidate", minimum=1)
    delay: float = attribute(10, "ms", "the delay")

    def unsupported_reason(self, medium: Medium) -> str:
        if self.probability == 1 and self.gap == 1:
            return "every message would be delayed alike: give a probability below 1, or a gap above 1"
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
