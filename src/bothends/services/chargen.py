"""`chargen`: characters without end, for as long as the peer takes them (RFC 864).

Over a connection, lines of 72 characters, each beginning one character later in the ring of the 95
that can be printed. They are said by `more()`, so a peer that reads slowly slows them down, and one
that has finished sending stops them. Over datagrams, one of a random length for each that came.
"""

from __future__ import annotations

from random import Random
from typing import Final

from bothends.services.base import Conversation, Peer, Push, Service

_PRINTABLE: Final = bytes(range(0x20, 0x7F))
_WIDTH: Final = 72
PATTERN: Final = b"".join(
    (_PRINTABLE + _PRINTABLE)[at : at + _WIDTH] + b"\r\n" for at in range(len(_PRINTABLE))
)
"""One turn of the ring, 95 lines: after it the pattern begins anew."""

MAX_DATAGRAM: Final = 512

# What is said at a time: eight turns are about 56 KB, what one write to a socket likely takes.
_BLOCK: Final = PATTERN * 8


class Chargen(Service):
    """Characters without end."""

    name = "chargen"
    summary = "characters without end; 0 to 512 of them for a datagram (RFC 864)"
    answers_per_second = 50.0  # an answer of up to 512 bytes for a datagram of none

    def __init__(self, random: Random | None = None) -> None:
        self.random = random or Random()

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _ChargenConversation()

    def answer(self, datagram: bytes, peer: Peer) -> bytes:
        return PATTERN[: self.random.randint(0, MAX_DATAGRAM)]


class _ChargenConversation(Conversation):
    def start(self) -> bytes:
        return _BLOCK

    def receive(self, data: bytes) -> bytes:
        return b""

    def produce(self) -> bytes:
        return b"" if self.done else _BLOCK

    def end(self) -> bytes:
        self.done = True
        return b""
