"""Packets: UNIX SOCK_SEQPACKET, which is connection-oriented and preserves message boundaries."""

from __future__ import annotations

from bothends.events import CloseReason
from bothends.testing.contract.base import ContractBase, check_cause
from bothends.testing.services import EchoService, pattern


class SeqpacketContract(ContractBase):
    """Part of the suite: message-oriented connections."""

    def test_packet_boundaries_are_preserved(self) -> None:
        """Each packet gets its own reply, however many are queued. Bug: joining or splitting packets."""
        self.require_transports("unix+seqpacket")
        running = self.serve(EchoService, "unix+seqpacket")
        client = self.connect(running)
        assert client.request(b"first") == b"first"
        words = [pattern(size) for size in (1, 1000, 7, 5000, 64, 1)]
        with running.suspended():
            for word in words:
                client.send(word)
        assert [client.receive_message() for _ in words] == words

    def test_large_packet_is_received_whole(self) -> None:
        """A packet larger than the usual read size is received whole. Bug: truncating it."""
        self.require_transports("unix+seqpacket")
        client = self.connect(self.serve(EchoService, "unix+seqpacket"))
        client.send(pattern(100_000))
        assert client.receive_message() == pattern(100_000)

    def test_packet_boundaries_under_backpressure(self) -> None:
        """Queued packets keep their boundaries. Bug: joining unsent data."""
        self.require_transports("unix+seqpacket")
        running = self.serve(EchoService, "unix+seqpacket")
        client = self.connect(running)
        words = [pattern(1000 + number) for number in range(600)]
        sent = received = 0
        while received < len(words):
            if sent < len(words) and sent < received + 400:
                sent += bool(client.send_until_blocked(words[sent], timeout=0))
            if client.is_readable(0):
                assert client.receive_message() == words[received]
                received += 1

    def test_packet_peer_close_is_answered_then_closed(self) -> None:
        """Packets before the peer's EOF are answered, then the connection is closed. Bug: waiting forever."""
        self.require_transports("unix+seqpacket")
        running = self.serve(EchoService, "unix+seqpacket")
        client = self.connect(running)
        client.send(b"last")
        client.shutdown_write()
        assert client.receive_message() == b"last"
        assert client.receive_message() == b""
        client.close()
        check_cause(running, client, CloseReason.PEER)
