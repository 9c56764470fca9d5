"""reset_peer: reset the connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import DROP, Decision, Delivery, LinkContext, Medium, Signal, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class ResetPeer(Toxic):
    """Resets the connection `timeout` after the first data in this direction, and drops that data.

    As in Toxiproxy, a connection without data is not reset.
    """

    type = "reset_peer"
    summary = "resets the connection after the first data"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "both ends get a RST (a close on a UNIX socket); data in flight is lost",
        Medium.MESSAGES: "both ends are closed at once; messages in flight are lost",
    }
    incompatibility = "there is no connection to reset"
    short_form = ("timeout",)
    in_toxiproxy = True

    timeout: float = attribute(0, "ms", "time from the first data to the reset", in_toxiproxy=True)

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
