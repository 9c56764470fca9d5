"""`reply`: a conversation: one fixed answer to each message, until the peer has finished.

On a stream a "message" is here whatever one read gave, as it is in the programs of many a course. That
is its lesson: a client that sends twice may be answered once, and one that sends once twice, for a
stream has no messages. It is the one service whose answer depends on how the bytes were cut. For
each line one answer, whatever the network does, take `@message`.
"""

from __future__ import annotations

from typing import Final

from bothends.services.base import Conversation, Peer, Push, Service

ANSWER: Final = b"I am server and this is my message"


class Reply(Service):
    """One fixed answer to each message."""

    name = "reply"
    summary = 'answers each read with "I am server and this is my message"'
    answers_per_second = 1000.0

    depends_on_chunks = "it answers reads, not bytes, to show that a stream has no messages"
    """Why it is no part of the test that cuts every service's input at every place."""

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _ReplyConversation(ANSWER if peer.message_oriented else ANSWER + b"\n")

    def answer(self, datagram: bytes, peer: Peer) -> bytes:
        return ANSWER


class _ReplyConversation(Conversation):
    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def receive(self, data: bytes) -> bytes:
        return self._answer
