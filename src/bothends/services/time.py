"""`time`: the time as a binary number, once (RFC 868).

The seconds since 1900 in UTC, as 32 bits in network byte order. The number wraps on 7 February 2036 at
06:28:16. Then it counts from that moment; a client must determine the era in another way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from bothends.services.base import Conversation, OneShot, Peer, Push, Service

EPOCH_OFFSET: Final = 2_208_988_800
"""Seconds: 70 years, 17 of them leap years (RFC 868)."""


class Time(Service):
    """Sends the time as a binary number, once. `now` returns seconds since 1970."""

    name = "time"
    summary = "sends the seconds since 1900 as 32 bits, once (RFC 868); wraps in 2036"
    answers_per_second = 1000.0

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now

    def open(self, peer: Peer, push: Push) -> Conversation:
        seconds = int(self.now()) + EPOCH_OFFSET
        return OneShot((seconds % (1 << 32)).to_bytes(4, "big"))
