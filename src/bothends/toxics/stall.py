"""stall: hold everything for a while, then deliver it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import PASS, Decision, Delivery, LinkContext, Medium, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class Stall(Toxic):
    """Holds everything for `duration`, starting `after` the connection opens or the toxic is added."""

    type = "stall"
    summary = "holds everything for a while, then delivers it"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "bytes are held for the duration; beyond 64 KiB the sender waits",
        Medium.MESSAGES: "messages are held for the duration; beyond 64 KiB the sender waits",
        Medium.DATAGRAMS: "datagrams are held for the duration, then sent all at once",
        Medium.PACKETS: "packets are held for the duration, then sent all at once",
    }
    short_form = ("duration",)

    duration: float = attribute(0, "ms", "length of the stall")
    after: float = attribute(
        0, "ms", "when it starts, from the opening of the connection or the toxic's addition"
    )

    def new_state(self, link: LinkContext) -> ToxicState:
        return _StallState(self)


class _StallState(ToxicState):
    capacity = 64 * 1024

    def __init__(self, toxic: Stall) -> None:
        self._after = toxic.after / 1000
        self._duration = toxic.duration / 1000
        self._starts_at = self._ends_at = 0.0

    def begin(self, now: float) -> Decision:
        self._starts_at = now + self._after
        self._ends_at = self._starts_at + self._duration
        return ()

    def decide(self, now: float, size: int) -> Decision:
        return (Delivery(self._ends_at - now),) if self._starts_at <= now < self._ends_at else PASS

    def end(self, now: float) -> Decision:
        return self.decide(now, 0)
