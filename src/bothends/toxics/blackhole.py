"""blackhole: the unplugged cable. Nothing more arrives, and nobody is told.

Plugged in again, TCP repeats what was lost, and goes on. So on a stream nothing is thrown away: it is held,
the kernel's buffers fill up, and the sender's writes succeed until they do, as they would without a cable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.base import DROP, HOLD, Decision, Delivery, LinkContext, Medium, Toxic, ToxicState

_HOLD_ALL: Decision = (Delivery(HOLD),)


@dataclass(frozen=True, kw_only=True)
class Blackhole(Toxic):
    """Nothing passes, no end either, until it is taken away."""

    type = "blackhole"
    summary = "nothing more arrives, no close either: the unplugged cable"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "all is held, the end too; taken away, it goes on where it was, with every byte",
        Medium.MESSAGES: "all is held, the end too; taken away, it goes on with every message",
        Medium.DATAGRAMS: "datagrams vanish",
        Medium.PACKETS: "packets vanish; TCP above repeats them when they can pass again",
    }

    def new_state(self, link: LinkContext) -> ToxicState:
        return (
            _BlackholeStreamState()
            if link.medium in (Medium.STREAM, Medium.MESSAGES)
            else _BlackholeDatagramState()
        )


class _BlackholeStreamState(ToxicState):
    capacity = 0

    def decide(self, now: float, size: int) -> Decision:
        return _HOLD_ALL

    def end(self, now: float) -> Decision:
        return _HOLD_ALL


class _BlackholeDatagramState(ToxicState):
    def decide(self, now: float, size: int) -> Decision:
        return DROP
