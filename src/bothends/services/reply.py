"""`reply`: one fixed answer to each message, until the peer's EOF.

On a stream, a "message" is the data of one read, as in the programs of many courses. That is the lesson: a
client that sends twice may get one answer, and one that sends once may get two, because a stream has no
messages. It is the only service whose output depends on how the bytes are cut into chunks. For one answer to
each line, use `@message`.
"""

from __future__ import annotations

from typing import Final

from bothends.services.base import Conversation, Peer, Push, Service

ANSWER: Final = b"I am server and this is my message"


class Reply(Service):
    """Sends one fixed answer to each message."""

    name = "reply"
    summary = 'answers each read with "I am server and this is my message"'
    answers_per_second = 1000.0

    depends_on_chunks = "it answers each read, to show that a stream has no messages"
    """Why the tests do not check that the output is independent of how the input is cut into chunks."""

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _ReplyConversation(ANSWER if peer.message_oriented else ANSWER + b"\n")

    def answer(self, datagram: bytes, peer: Peer) -> bytes:
        return ANSWER


class _ReplyConversation(Conversation):
    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def receive(self, data: bytes) -> bytes:
        return self._answer
