"""reset_peer: the connection is reset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import DROP, Decision, Delivery, LinkContext, Medium, Signal, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class ResetPeer(Toxic):
    """Resets the connection `timeout` after the first that is said in this direction, which is lost.

    So does Toxiproxy: a connection on which nothing is said stays.
    """

    type = "reset_peer"
    summary = "resets the connection when something is said"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "both ends get a RST (on a UNIX socket a close); what was on its way is lost",
        Medium.MESSAGES: "both ends are closed at once; what was on its way is lost",
    }
    incompatibility = "there is no connection that could be reset"
    short_form = ("timeout",)
    in_toxiproxy = True

    timeout: float = attribute(0, "ms", "from the first that is said", in_toxiproxy=True)

    def new_state(self, link: LinkContext) -> ToxicState:
        return _ResetPeerState(self)


class _ResetPeerState(ToxicState):
    def __init__(self, toxic: ResetPeer) -> None:
        self._timeout = toxic.timeout / 1000
        self._is_scheduled = False

    def decide(self, now: float, size: int) -> Decision:
        if self._is_scheduled:
            return DROP
        self._is_scheduled = True
        return (Delivery(self._timeout, stop=0, then=Signal.RESET),)

    def end(self, now: float) -> Decision:
        return self.decide(now, 0)

    def removed(self) -> Signal | None:
        return Signal.CLOSE if self._is_scheduled else None
