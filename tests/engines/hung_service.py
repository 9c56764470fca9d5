"""A service that computes for ever: what is left then is for the engine to end."""

from __future__ import annotations

import time

from bothends.services.base import Conversation, Peer, Push, Service


class HangingService(Service):
    """Computes for ever when it hears something."""

    name = "test-stuck"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _HangingConversation()


class _HangingConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        while True:
            time.sleep(1)
