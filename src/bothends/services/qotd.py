"""`qotd`: the quote of the day, once (RFC 865).

The same all day, in UTC, as the name says; and so the day is all that it depends on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from bothends.services.base import Conversation, Peer, Push, Service
from bothends.services.one_shot import OneShot

MAX_QUOTE: Final = 511  # "less than 512 characters"

QUOTES: Final = (
    # The first two are in the public domain by their age; the rest were written for this file.
    "What hath God wrought. (Samuel Morse's first telegram from Washington to Baltimore, 24 May 1844)",
    "Mr. Watson, come here, I want to see you. (Alexander Graham Bell, by telephone, 10 March 1876)",
    "A stream has no messages. Whoever finds one in it has brought it along.",
    "One send is not one recv.",
    "The network is the part that you did not write.",
    "A connection is two halves; say goodbye to each.",
    "What left in order may arrive in order. What left at once may arrive twice, or never.",
    "A time limit is a guess about a stranger.",
    "Whoever waits for bytes that nobody owes him waits long.",
    "The other end is always older than you think.",
    "Silence is the hardest answer to read.",
    "It works on localhost: nothing is lost there but the lesson.",
)


class Qotd(Service):
    """The quote of the day. `now` gives seconds since 1970."""

    name = "qotd"
    summary = "the quote of the day, once (RFC 865)"
    answers_per_second = 50.0  # an answer of a hundred bytes for a datagram of none

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now

    def open(self, peer: Peer, push: Push) -> Conversation:
        day = int(self.now() // 86_400)
        return OneShot(f"{QUOTES[day % len(QUOTES)]}\r\n".encode("ascii"))
