"""limit_data: after so many bytes it is over."""

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
class LimitData(Toxic):
    """Passes `bytes` bytes, then closes."""

    type = "limit_data"
    summary = "closes the connection after so many bytes"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "exactly so many bytes pass, then the connection is closed in good order",
        Medium.MESSAGES: "whole messages pass as long as they fit, then the connection is closed",
        Medium.DATAGRAMS: "whole datagrams pass as long as they fit, then none does",
        Medium.PACKETS: "whole packets pass as long as they fit, then none does",
    }
    short_form = ("bytes",)
    in_toxiproxy = True

    bytes: int = attribute(0, "bytes", "what passes", in_toxiproxy=True)

    def new_state(self, link: LinkContext) -> ToxicState:
        return _LimitDataState(self, link)


class _LimitDataState(ToxicState):
    def __init__(self, toxic: LimitData, link: LinkContext) -> None:
        self._limit = toxic.bytes
        self._bytes_passed = 0
        self._splits_chunks = link.medium is Medium.STREAM
        self._closes_connection = link.medium in (Medium.STREAM, Medium.MESSAGES)
        self._is_exhausted = False

    def decide(self, now: float, size: int) -> Decision:
        if self._is_exhausted:
            return DROP
        left = max(0, self._limit - self._bytes_passed)
        if size < left or (size == left and not self._closes_connection):
            self._bytes_passed += size
            return PASS
        self._is_exhausted = True
        if not self._closes_connection:
            return DROP
        stop = left if self._splits_chunks or size == left else 0
        return (Delivery(stop=stop, then=Signal.CLOSE),)

    def resume_from(self, previous: ToxicState) -> None:
        if isinstance(previous, _LimitDataState):
            self._bytes_passed = previous._bytes_passed
