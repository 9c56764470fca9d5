"""`discard`: reads everything, answers nothing (RFC 863)."""

from __future__ import annotations

from bothends.services.base import Conversation, Peer, Push, Service


class Discard(Service):
    """Reads everything, answers nothing."""

    name = "discard"
    summary = "reads everything, answers nothing (RFC 863)"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _DiscardConversation()


class _DiscardConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        return b""
