"""corrupt: bits flip.

Two ways to say how many. `bit_errors` is the chance of each single bit, whatever it is a part of: the
distance from one to the next is then geometric, which is what is drawn, so nothing is counted bit by bit
and a stream's cuts change nothing. `probability` is the share of messages in which one bit flips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import PASS, Decision, Delivery, LinkContext, Medium, Toxic, ToxicState


@dataclass(frozen=True, kw_only=True)
class Corrupt(Toxic):
    """Bits are inverted."""

    type = "corrupt"
    summary = "bits flip"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "bits of what is said flip (no checksum finds it: the proxy's own are right)",
        Medium.MESSAGES: "bits of messages flip",
        Medium.DATAGRAMS: "bits of the payload flip, and the checksum is right: a receiver must look itself",
        Medium.PACKETS: "bits of packets flip, headers included; receivers discard what fails its checksum",
    }
    short_form = ("probability",)

    probability: float = attribute(0, "share", "messages in which one bit flips")
    bit_errors: float = attribute(0, "share", "the chance of each bit to flip")

    def unsupported_reason(self, medium: Medium) -> str:
        if medium is Medium.STREAM and self.probability:
            return "a stream has no messages of which a share could be hit: give bit_errors=1e-6, say"
        return super().unsupported_reason(medium)

    def new_state(self, link: LinkContext) -> ToxicState:
        return _CorruptState(self, link)


class _CorruptState(ToxicState):
    def __init__(self, toxic: Corrupt, link: LinkContext) -> None:
        self._random = link.random
        self._probability = toxic.probability
        self._bit_errors = toxic.bit_errors
        self._next_error = self._bits_to_next_error()
        """Bits until the next one that flips."""

    def decide(self, now: float, size: int) -> Decision:
        flips = []
        while self._next_error < size * 8:
            flips.append(int(self._next_error))
            self._next_error += 1 + self._bits_to_next_error()
        self._next_error -= size * 8
        if self._probability and size and self._random.random() < self._probability:
            flips.append(self._random.randrange(size * 8))
        return (Delivery(flips=tuple(flips)),) if flips else PASS

    def _bits_to_next_error(self) -> float:
        """How many bits stay right before the next one that doesn't."""
        if not self._bit_errors:
            return math.inf
        if self._bit_errors == 1:
            return 0
        return math.floor(math.log(1 - self._random.random()) / math.log1p(-self._bit_errors))
