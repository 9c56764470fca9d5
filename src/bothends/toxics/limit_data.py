"""limit_data: after so many bytes it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import DROP, PASS, Behaviour, Decision, Link, Medium, Piece, Signal, Toxic


@dataclass(frozen=True, kw_only=True)
class LimitData(Toxic):
    """Passes `bytes` bytes, then closes."""

    type = "limit_data"
    summary = "closes the connection after so many bytes"
    meaning: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "exactly so many bytes pass, then the connection is closed in good order",
        Medium.MESSAGES: "whole messages pass as long as they fit, then the connection is closed",
        Medium.DATAGRAMS: "whole datagrams pass as long as they fit, then none does",
        Medium.PACKETS: "whole packets pass as long as they fit, then none does",
    }
    short = ("bytes",)
    of_theirs = True

    bytes: int = attribute(0, "bytes", "what passes", theirs=True)

    def behaviour(self, link: Link) -> Behaviour:
        return _Meter(self, link)


class _Meter(Behaviour):
    def __init__(self, toxic: LimitData, link: Link) -> None:
        self._limit = toxic.bytes
        self._passed = 0
        self._cuts = link.medium is Medium.STREAM
        self._closes = link.medium in (Medium.STREAM, Medium.MESSAGES)
        self._is_over = False

    def decide(self, now: float, size: int) -> Decision:
        if self._is_over:
            return DROP
        left = max(0, self._limit - self._passed)
        if size < left or (size == left and not self._closes):
            self._passed += size
            return PASS
        self._is_over = True
        if not self._closes:
            return DROP
        stop = left if self._cuts or size == left else 0
        return (Piece(stop=stop, then=Signal.CLOSE),)

    def take_over(self, before: Behaviour) -> None:
        if isinstance(before, _Meter):
            self._passed = before._passed
