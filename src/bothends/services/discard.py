"""`discard`: takes everything, answers nothing (RFC 863)."""

from __future__ import annotations

from bothends.services.base import Conversation, Peer, Push, Service


class Discard(Service):
    """Takes everything, answers nothing."""

    name = "discard"
    summary = "takes everything, answers nothing (RFC 863)"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _DiscardConversation()


class _DiscardConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        return b""
