"""`hello`: one request, one answer, then close: the first exchange of a course on sockets.

Any input is answered, and so is an immediate EOF. On a stream the answer ends with a newline, for a client
that reads lines; a message (datagram, seqpacket) needs none.
"""

from __future__ import annotations

from typing import Final

from bothends.services.base import Conversation, Peer, Push, Service

ANSWER: Final = b"back to ya client"


class Hello(Service):
    """Sends one answer to any input, then closes."""

    name = "hello"
    summary = 'answers the first message with "back to ya client", then closes'
    answers_per_second = 1000.0

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _HelloConversation(ANSWER if peer.message_oriented else ANSWER + b"\n")


class _HelloConversation(Conversation):
    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def receive(self, data: bytes) -> bytes:
        self.done = True
        return self._answer

    def end(self) -> bytes:
        return self.receive(b"")
