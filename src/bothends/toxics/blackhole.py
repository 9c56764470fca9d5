"""blackhole: an unplugged cable. Nothing arrives, and neither end gets an error.

When a real cable is plugged back in, TCP retransmits and the connection continues. So on a stream nothing is
discarded: bytes are held, the kernel's socket buffers fill, and the sender's writes succeed until the buffers
are full, as they would without a cable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.base import DROP, HOLD, Decision, Delivery, LinkContext, Medium, Toxic, ToxicState

_HOLD_ALL: Decision = (Delivery(HOLD),)


@dataclass(frozen=True, kw_only=True)
class Blackhole(Toxic):
    """Holds or drops everything, including EOF, until removed."""

    type = "blackhole"
    summary = "delivers nothing, not even a close: an unplugged cable"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "bytes and EOF are held; when the toxic is removed, every byte is delivered",
        Medium.MESSAGES: "messages and EOF are held; when the toxic is removed, every message is delivered",
        Medium.DATAGRAMS: "datagrams are dropped",
        Medium.PACKETS: "packets are dropped; TCP retransmits them once the toxic is removed",
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
