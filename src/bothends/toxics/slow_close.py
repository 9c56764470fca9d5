"""slow_close: the end comes late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import PASS, Behaviour, Decision, Link, Medium, Piece, Toxic


@dataclass(frozen=True, kw_only=True)
class SlowClose(Toxic):
    """The end of what one side says is passed on after `delay`."""

    type = "slow_close"
    summary = "the end of what one side says is passed on late"
    meaning: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "the FIN comes later than the last byte",
        Medium.MESSAGES: "the end comes later than the last message",
    }
    refusal = "it has no end that could come late"
    short = ("delay",)
    of_theirs = True

    delay: float = attribute(0, "ms", "how much later", theirs=True)

    def behaviour(self, link: Link) -> Behaviour:
        return _Late(self)


class _Late(Behaviour):
    def __init__(self, toxic: SlowClose) -> None:
        self._delay = toxic.delay / 1000

    def decide(self, now: float, size: int) -> Decision:
        return PASS

    def end(self, now: float) -> Decision:
        return (Piece(self._delay),)
