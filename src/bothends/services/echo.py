"""`echo`: sends back all data (RFC 862)."""

from __future__ import annotations

from bothends.services.base import Conversation, Peer, Push, Service


class Echo(Service):
    """Sends back all data."""

    name = "echo"
    summary = "sends back all data (RFC 862)"
    answers_per_second = 1000.0  # a forged source address would start an endless loop: amplification_guard.py

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _EchoConversation()

    def answer(self, datagram: bytes, peer: Peer) -> bytes:
        return datagram


class _EchoConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        return data
