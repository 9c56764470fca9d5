"""A service that never returns, so that the engine has to abandon or kill it."""

from __future__ import annotations

import time

from bothends.services.base import Conversation, Peer, Push, Service


class HangingService(Service):
    """Never returns from `receive`."""

    name = "test-stuck"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _HangingConversation()


class _HangingConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        while True:
            time.sleep(1)
