"""`daytime`: the date and time for a reader, once (RFC 867).

The RFC leaves the form open; this is the first that it proposes, in UTC:
`Tuesday, February 23, 1982 01:37:43-UTC`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from bothends.services.base import Conversation, Peer, Push, Service
from bothends.services.one_shot import OneShot

# Not by strftime: its names follow the locale, and the RFC asks for ASCII.
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class Daytime(Service):
    """The date and time for a reader. `now` gives seconds since 1970."""

    name = "daytime"
    summary = "date and time for a reader, in UTC, once (RFC 867)"
    answers_per_second = 1000.0

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now

    def open(self, peer: Peer, push: Push) -> Conversation:
        at = time.gmtime(self.now())
        day = f"{_DAYS[at.tm_wday]}, {_MONTHS[at.tm_mon - 1]} {at.tm_mday}, {at.tm_year}"
        clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}-UTC"
        return OneShot(f"{day} {clock}\r\n".encode("ascii"))
