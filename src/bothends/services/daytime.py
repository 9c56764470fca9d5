"""`daytime`: the date and time as text, once (RFC 867).

The RFC leaves the format open; this is the first one that it suggests, in UTC: `Tuesday, February 23, 1982
01:37:43-UTC`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from bothends.services.base import Conversation, OneShot, Peer, Push, Service

# Not strftime, because its names depend on the locale and the RFC requires ASCII.
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class Daytime(Service):
    """Sends the date and time as text, once. `now` returns seconds since 1970."""

    name = "daytime"
    summary = "sends the date and time as text, in UTC, once (RFC 867)"
    answers_per_second = 1000.0

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now

    def open(self, peer: Peer, push: Push) -> Conversation:
        at = time.gmtime(self.now())
        day = f"{_DAYS[at.tm_wday]}, {_MONTHS[at.tm_mon - 1]} {at.tm_mday}, {at.tm_year}"
        clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}-UTC"
        return OneShot(f"{day} {clock}\r\n".encode("ascii"))
