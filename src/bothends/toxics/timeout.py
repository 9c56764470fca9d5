"""timeout: discard data, and close the connection after a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import DROP, Decision, Delivery, LinkContext, Medium, Signal, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class Timeout(Toxic):
    """Discards data and closes the connection after `timeout`; 0 never closes it.

    Removing the toxic closes every connection that has lost bytes, because a stream with a gap must not
    continue.
    """

    type = "timeout"
    summary = "discards data, and closes the connection after a time"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "bytes are discarded, and the connection is closed (FIN) after the timeout",
        Medium.MESSAGES: "messages are discarded, and the connection is closed after the timeout",
    }
    incompatibility = "there is no connection to close: use blackhole to discard everything"
    short_form = ("timeout",)
    in_toxiproxy = True

    timeout: float = attribute(
        0, "ms", "time from opening the connection to closing it; 0: never", in_toxiproxy=True
    )

    def new_state(self, link: LinkContext) -> ToxicState:
        return _TimeoutState(self)


class _TimeoutState(ToxicState):
    def __init__(self, toxic: Timeout) -> None:
        self._timeout = toxic.timeout / 1000
        self._has_dropped = False

    def begin(self, now: float) -> Decision:
        return (Delivery(self._timeout, stop=0, then=Signal.CLOSE),) if self._timeout else DROP

    def decide(self, now: float, size: int) -> Decision:
        self._has_dropped = True
        return DROP

    def removed(self) -> Signal | None:
        return Signal.CLOSE if self._has_dropped else None
