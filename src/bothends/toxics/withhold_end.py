"""withhold_end: do not forward a sender's EOF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.base import DROP, PASS, Decision, LinkContext, Medium, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class WithholdEnd(Toxic):
    """Holds the half-close until the toxic is removed; all bytes pass."""

    type = "withhold_end"
    summary = "does not forward the sender's EOF (FIN)"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "bytes pass, the FIN does not: a receiver that reads until EOF never finishes",
        Medium.MESSAGES: "messages pass, EOF does not",
    }
    incompatibility = "there is no EOF to withhold"

    def new_state(self, link: LinkContext) -> ToxicState:
        return _WithholdEndState()


class _WithholdEndState(ToxicState):
    def decide(self, now: float, size: int) -> Decision:
        return PASS

    def end(self, now: float) -> Decision:
        return DROP

    def close(self, now: float) -> Decision:
        return PASS
