"""`echo`: sends back what came (RFC 862)."""

from __future__ import annotations

from bothends.services.base import Conversation, Peer, Push, Service


class Echo(Service):
    """Sends back what came."""

    name = "echo"
    summary = "sends back what came (RFC 862)"
    answers_per_second = (
        1000.0  # two that answer anything, told of each other, would never stop: amplification_guard.py
    )

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _EchoConversation()

    def answer(self, datagram: bytes, peer: Peer) -> bytes:
        return datagram


class _EchoConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        return data
