"""`clock`: the date and time with the zone, for each request: `2026-03-01 14:05:09 +0100`.

A request is any datagram, even an empty one, or any line of a stream, which stays open for the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, tzinfo

from bothends.services.base import Conversation, Peer, Push, Service
from bothends.services.functions import message


class Clock(Service):
    """Sends the time. `now` returns seconds since 1970; `zone` is by default the system's."""

    name = "clock"
    summary = "sends the date and time for each datagram or line"
    answers_per_second = 1000.0

    def __init__(self, now: Callable[[], float] = time.time, zone: tzinfo | None = None) -> None:
        self.now = now
        self.zone = zone
        self._line_service = message(self._format_time)

    def open(self, peer: Peer, push: Push) -> Conversation:
        return self._line_service.open(peer, push)

    def answer(self, datagram: bytes, peer: Peer) -> bytes:
        return self._format_time(datagram)

    def _format_time(self, _question: bytes) -> bytes:
        at = datetime.fromtimestamp(self.now(), self.zone).astimezone(self.zone)
        return at.strftime("%Y-%m-%d %H:%M:%S %z").encode("ascii")
