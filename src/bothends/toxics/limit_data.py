"""limit_data: close the connection after a number of bytes."""

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
    """Lets `bytes` bytes pass, then closes the connection."""

    type = "limit_data"
    summary = "closes the connection after a number of bytes"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "exactly this number of bytes passes, then the connection is closed (FIN)",
        Medium.MESSAGES: "whole messages pass up to the limit, then the connection is closed",
        Medium.DATAGRAMS: "whole datagrams pass up to the limit, the rest is dropped",
        Medium.PACKETS: "whole packets pass up to the limit, the rest is dropped",
    }
    short_form = ("bytes",)
    in_toxiproxy = True

    bytes: int = attribute(0, "bytes", "the limit", in_toxiproxy=True)

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
        remaining = max(0, self._limit - self._bytes_passed)
        if size < remaining or (size == remaining and not self._closes_connection):
            self._bytes_passed += size
            return PASS
        self._is_exhausted = True
        if not self._closes_connection:
            return DROP
        stop = remaining if self._splits_chunks or size == remaining else 0
        return (Delivery(stop=stop, then=Signal.CLOSE),)

    def resume_from(self, previous: ToxicState) -> None:
        if isinstance(previous, _LimitDataState):
            self._bytes_passed = previous._bytes_passed
