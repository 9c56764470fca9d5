"""timeout: nothing gets through, and after a while the connection is closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import DROP, Decision, Delivery, LinkContext, Medium, Signal, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class Timeout(Toxic):
    """Data is thrown away, and the connection is closed after `timeout`; 0 never closes it.

    When it is taken away from a connection that has lost bytes, that one is closed: a stream with a hole must
    not go on.
    """

    type = "timeout"
    summary = "nothing gets through, and after a while the connection is closed"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "bytes are thrown away, and the connection is closed in good order after the time",
        Medium.MESSAGES: "messages are thrown away, and the connection is closed after the time",
    }
    incompatibility = "it has nothing that could be closed: blackhole lets nothing through"
    short_form = ("timeout",)
    in_toxiproxy = True

    timeout: float = attribute(
        0, "ms", "from the connection's beginning to its close; 0: never", in_toxiproxy=True
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
