"""duplicate: deliver some messages twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import PASS, Decision, Delivery, LinkContext, Medium, Toxic, ToxicState

_TWICE: Decision = (Delivery(), Delivery())


@dataclass(frozen=True, kw_only=True)
class Duplicate(Toxic):
    """Delivers a share of the messages twice, the copy right after the original."""

    type = "duplicate"
    summary = "delivers a share of the messages twice"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.MESSAGES: "messages arrive twice, as from a faulty program",
        Medium.DATAGRAMS: "datagrams arrive twice",
        Medium.PACKETS: "packets arrive twice; TCP discards the copy",
    }
    incompatibility = (
        "TCP discards duplicate segments, so a stream never repeats bytes: use bothends wire for packets"
    )
    short_form = ("probability",)

    probability: float = attribute(0, "share", "messages that arrive twice")

    def new_state(self, link: LinkContext) -> ToxicState:
        return _DuplicateState(self, link)


class _DuplicateState(ToxicState):
    def __init__(self, toxic: Duplicate, link: LinkContext) -> None:
        self._probability = toxic.probability
        self._random = link.random.random

    def decide(self, now: float, size: int) -> Decision:
        return _TWICE if self._random() < self._probability else PASS
