"""`print`: shows what arrives, answers nothing. Showing is the carrier's work: see `shows`."""

from __future__ import annotations

from bothends.services.base import Conversation, Peer, Post, Service


class Print(Service):
    """Shows what arrives, answers nothing."""

    name = "print"
    summary = "shows what arrives, answers nothing"
    shows = True

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Listening()


class _Listening(Conversation):
    def receive(self, data: bytes) -> bytes:
        return b""
