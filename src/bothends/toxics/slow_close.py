"""slow_close: delay the end of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import PASS, Decision, Delivery, LinkContext, Medium, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class SlowClose(Toxic):
    """Forwards a sender's EOF after `delay`."""

    type = "slow_close"
    summary = "delays the sender's EOF (FIN)"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "the FIN is sent later than the last byte",
        Medium.MESSAGES: "EOF is sent later than the last message",
    }
    incompatibility = "there is no EOF to delay"
    short_form = ("delay",)
    in_toxiproxy = True

    delay: float = attribute(0, "ms", "delay of the EOF", in_toxiproxy=True)

    def new_state(self, link: LinkContext) -> ToxicState:
        return _SlowCloseState(self)


class _SlowCloseState(ToxicState):
    def __init__(self, toxic: SlowClose) -> None:
        self._delay = toxic.delay / 1000

    def decide(self, now: float, size: int) -> Decision:
        return PASS

    def end(self, now: float) -> Decision:
        return (Delivery(self._delay),)
