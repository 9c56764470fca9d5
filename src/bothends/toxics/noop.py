"""noop: changes nothing. Toxiproxy has it; a test can put it where it will have another toxic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.base import PASS, Decision, LinkContext, Medium, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class Noop(Toxic):
    """Passes everything on at once."""

    type = "noop"
    summary = "changes nothing, but counts what passes"
    effects: ClassVar[Mapping[Medium, str]] = dict.fromkeys(Medium, "everything passes at once")
    in_toxiproxy = True

    def new_state(self, link: LinkContext) -> ToxicState:
        return _NoopState()


class _NoopState(ToxicState):
    def decide(self, now: float, size: int) -> Decision:
        return PASS
