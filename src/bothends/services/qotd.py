"""`qotd`: the quote of the day, once (RFC 865).

The quote depends on nothing but the day, in UTC.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from bothends.services.base import Conversation, OneShot, Peer, Push, Service

MAX_QUOTE: Final = 511  # "less than 512 characters"

QUOTES: Final = (
    # The first two are in the public domain; the others were written for this file.
    "What hath God wrought. (Samuel Morse's first telegram from Washington to Baltimore, 24 May 1844)",
    "Mr. Watson, come here, I want to see you. (Alexander Graham Bell, by telephone, 10 March 1876)",
    "A stream has no messages. If you found one, you brought it with you.",
    "One send is not one recv.",
    "The network is the part you did not write.",
    "A connection is two halves; say goodbye to each.",
    "TCP delivers in order. UDP delivers once, twice, or never.",
    "A timeout is a guess about a stranger.",
    "A read without a timeout can wait forever, and one day it will.",
    "The other end always runs an older version than you think.",
    "No answer is the hardest answer to interpret.",
    "It works on localhost, where no packet is ever lost.",
)


class Qotd(Service):
    """Sends the quote of the day, once. `now` returns seconds since 1970."""

    name = "qotd"
    summary = "sends the quote of the day, once (RFC 865)"
    answers_per_second = 50.0  # about a hundred bytes for an empty datagram

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now

    def open(self, peer: Peer, push: Push) -> Conversation:
        day = int(self.now() // 86_400)
        return OneShot(f"{QUOTES[day % len(QUOTES)]}\r\n".encode("ascii"))
