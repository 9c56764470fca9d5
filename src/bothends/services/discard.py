"""`discard`: takes everything, answers nothing (RFC 863)."""

from __future__ import annotations

from bothends.services.base import Conversation, Peer, Post, Service


class Discard(Service):
    """Takes everything, answers nothing."""

    name = "discard"
    summary = "takes everything, answers nothing (RFC 863)"

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Discarding()


class _Discarding(Conversation):
    def receive(self, data: bytes) -> bytes:
        return b""
