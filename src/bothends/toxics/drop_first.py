"""drop_first: fail the first attempts, let the next ones succeed. Tests a client's retries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import (
    DROP,
    PASS,
    Decision,
    Delivery,
    LinkContext,
    Medium,
    Signal,
    Toxic,
    ToxicState,
)


@dataclass(frozen=True, kw_only=True)
class DropFirst(Toxic):
    """Drops the first `count` datagrams of each client, or resets the first `count` connections."""

    type = "drop_first"
    summary = "makes the first attempts fail and the next ones succeed"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "the first connections after the toxic is added are reset as soon as they are open",
        Medium.MESSAGES: "the first connections after the toxic is added are closed as soon as they are open",
        Medium.DATAGRAMS: "the first datagrams of each client are dropped",
        Medium.PACKETS: "the first packets are dropped",
    }
    short_form = ("count",)

    count: int = attribute(1, "count", "number of failures")

    def new_state(self, link: LinkContext) -> ToxicState:
        return (
            _DropFirstConnectionState(self, link)
            if link.medium in (Medium.STREAM, Medium.MESSAGES)
            else _DropFirstMessageState(self)
        )


class _DropFirstConnectionState(ToxicState):
    def __init__(self, toxic: DropFirst, link: LinkContext) -> None:
        self._is_dropped = 0 < link.ordinal <= toxic.count

    def begin(self, now: float) -> Decision:
        return (Delivery(stop=0, then=Signal.RESET),) if self._is_dropped else DROP

    def decide(self, now: float, size: int) -> Decision:
        return PASS


class _DropFirstMessageState(ToxicState):
    def __init__(self, toxic: DropFirst) -> None:
        self._remaining = toxic.count

    def decide(self, now: float, size: int) -> Decision:
        if not self._remaining:
            return PASS
        self._remaining -= 1
        return DROP
