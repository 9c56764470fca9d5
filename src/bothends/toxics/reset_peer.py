"""reset_peer: the connection is reset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import DROP, Behaviour, Decision, Link, Medium, Piece, Signal, Toxic


@dataclass(frozen=True, kw_only=True)
class ResetPeer(Toxic):
    """Resets the connection `timeout` after the first that is said in this direction, which is lost.

    So does Toxiproxy: a connection on which nothing is said stays.
    """

    type = "reset_peer"
    summary = "resets the connection when something is said"
    meaning: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "both ends get a RST (on a UNIX socket a close); what was on its way is lost",
        Medium.MESSAGES: "both ends are closed at once; what was on its way is lost",
    }
    refusal = "there is no connection that could be reset"
    short = ("timeout",)
    of_theirs = True

    timeout: float = attribute(0, "ms", "from the first that is said", theirs=True)

    def behaviour(self, link: Link) -> Behaviour:
        return _Resetter(self)


class _Resetter(Behaviour):
    def __init__(self, toxic: ResetPeer) -> None:
        self._timeout = toxic.timeout / 1000
        self._is_due = False

    def decide(self, now: float, size: int) -> Decision:
        if self._is_due:
            return DROP
        self._is_due = True
        return (Piece(self._timeout, stop=0, then=Signal.RESET),)

    def end(self, now: float) -> Decision:
        return self.decide(now, 0)

    def removed(self) -> Signal | None:
        return Signal.CLOSE if self._is_due else None
