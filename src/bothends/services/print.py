"""`print`: shows what arrives, answers nothing. Showing is the carrier's work: see `shows`."""

from __future__ import annotations

from bothends.services.base import Conversation, Peer, Push, Service


class Print(Service):
    """Shows what arrives, answers nothing."""

    name = "print"
    summary = "shows what arrives, answers nothing"
    log_messages = True

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _PrintConversation()


class _PrintConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        return b""
