"""withhold_end: one side has finished, and the other never hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.base import DROP, PASS, Decision, LinkContext, Medium, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class WithholdEnd(Toxic):
    """The half-close is kept back until the toxic is taken away; all bytes pass."""

    type = "withhold_end"
    summary = "the end of what one side says is not passed on"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "bytes pass, the FIN doesn't: whoever reads to the end waits for ever",
        Medium.MESSAGES: "messages pass, the end doesn't",
    }
    incompatibility = "it has no end that could be kept back"

    def new_state(self, link: LinkContext) -> ToxicState:
        return _WithholdEndState()


class _WithholdEndState(ToxicState):
    def decide(self, now: float, size: int) -> Decision:
        return PASS

    def end(self, now: float) -> Decision:
        return DROP

    def close(self, now: float) -> Decision:
        return PASS
