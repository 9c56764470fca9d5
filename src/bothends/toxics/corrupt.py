"""corrupt: flip bits.

Two rates. `bit_errors` is the probability of each bit to flip. The distance between two flipped bits is then
geometrically distributed, so the distance is drawn: no work per bit, and the result does not depend on how a
stream is chunked. `probability` is the share of messages in which one bit flips.
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
    """Inverts bits."""

    type = "corrupt"
    summary = "flips bits"
    effects: ClassVar[Mapping[Medium, str]] = {
        Medium.STREAM: "bits of the payload flip; TCP checksums are valid, so only applications notice",
        Medium.MESSAGES: "bits of messages flip",
        Medium.DATAGRAMS: "bits of the payload flip; UDP checksums are valid, so only applications notice",
        Medium.PACKETS: "bits flip, in headers too; receivers discard packets with an invalid checksum",
    }
    short_form = ("probability",)

    probability: float = attribute(0, "share", "messages in which one bit flips")
    bit_errors: float = attribute(0, "share", "probability of each bit to flip")

    def unsupported_reason(self, medium: Medium) -> str:
        if medium is Medium.STREAM and self.probability:
            return (
                "probability counts messages, and a stream has none: use bit_errors, such as bit_errors=1e-6"
            )
        return super().unsupported_reason(medium)

    def new_state(self, link: LinkContext) -> ToxicState:
        return _CorruptState(self, link)


class _CorruptState(ToxicState):
    def __init__(self, toxic: Corrupt, link: LinkContext) -> None:
        self._random = link.random
        self._probability = toxic.probability
        self._bit_errors = toxic.bit_errors
        self._next_error = self._bits_to_next_error()
        """Unchanged bits before the next flipped one."""

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
        """Draw the number of unchanged bits before the next flipped one."""
        if not self._bit_errors:
            return math.inf
        if self._bit_errors == 1:
            return 0
        drawn = math.log(1 - self._random.random()) / math.log1p(-self._bit_errors)
        return math.floor(drawn) if drawn < math.inf else drawn
