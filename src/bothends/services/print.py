"""`print`: shows all messages, answers nothing. The log shows them: see `Service.log_messages`."""

from __future__ import annotations

from bothends.services.base import Conversation, Peer, Push, Service


class Print(Service):
    """Shows all messages, answers nothing."""

    name = "print"
    summary = "shows all messages, answers nothing"
    log_messages = True

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _PrintConversation()


class _PrintConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        return b""
