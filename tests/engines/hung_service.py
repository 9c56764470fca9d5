"""A service that computes for ever: what is left then is for the engine to end."""

from __future__ import annotations

import time

from bothends.services.base import Conversation, Peer, Post, Service


class Stuck(Service):
    """Computes for ever when it hears something."""

    name = "test-stuck"

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Stuck()


class _Stuck(Conversation):
    def receive(self, data: bytes) -> bytes:
        while True:
            time.sleep(1)
