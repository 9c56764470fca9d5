"""blackhole: the unplugged cable. Nothing more arrives, and nobody is told.

Plugged in again, TCP repeats what was lost, and goes on. So on a stream nothing is thrown away: it is held,
the kernel's buffers fill up, and the sender's writes succeed until they do, as they would without a cable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.base import DROP, HOLD, Behaviour, Decision, Link, Medium, Piece, Toxic

_HELD: Decision = (Piece(HOLD),)


@dataclass(frozen=True, kw_only=True)
class Blackhole(Toxic):
    """Nothing passes, no end either, until it is taken away."""

    type = "blackhole"
    summary = "nothing more arrives, no close either: the unplugged cable"
    meaning: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "all is held, the end too; taken away, it goes on where it was, with every byte",
        Medium.MESSAGES: "all is held, the end too; taken away, it goes on with every message",
        Medium.DATAGRAMS: "datagrams vanish",
        Medium.PACKETS: "packets vanish; TCP above repeats them when they can pass again",
    }

    def behaviour(self, link: Link) -> Behaviour:
        return _Hold() if link.medium in (Medium.STREAM, Medium.MESSAGES) else _Vanish()


class _Hold(Behaviour):
    capacity = 0

    def decide(self, now: float, size: int) -> Decision:
        return _HELD

    def end(self, now: float) -> Decision:
        return _HELD


class _Vanish(Behaviour):
    def decide(self, now: float, size: int) -> Decision:
        return DROP
