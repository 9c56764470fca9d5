"""Packets: UNIX SOCK_SEQPACKET, which is connected like a stream and keeps messages like datagrams."""

from __future__ import annotations

from bothends.events import CloseReason
from bothends.testing.contract.base import ContractBase, check_cause
from bothends.testing.services import EchoService, pattern


class SeqpacketContract(ContractBase):
    """Part of the suite: connections that keep their messages apart."""

    def test_packet_boundaries_are_preserved(self) -> None:
        """One packet in, one out, however many wait. Mistake: they are joined, or cut."""
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
        """More than one read of the usual size. Mistake: the rest of a packet is thrown away."""
        self.require_transports("unix+seqpacket")
        client = self.connect(self.serve(EchoService, "unix+seqpacket"))
        client.send(pattern(100_000))
        assert client.receive_message() == pattern(100_000)

    def test_packet_boundaries_under_backpressure(self) -> None:
        """A queue of packets is still packets. Mistake: what waits to be sent is joined."""
        self.require_transports("unix+seqpacket")
        running = self.serve(EchoService, "unix+seqpacket")
        client = self.connect(running)
        words = [pattern(1000 + number) for number in range(600)]
        said = heard = 0
        while heard < len(words):
            if said < len(words) and said < heard + 400:
                said += bool(client.send_until_blocked(words[said], timeout=0))
            if client.is_readable(0):
                assert client.receive_message() == words[heard]
                heard += 1

    def test_packet_peer_close_is_answered_then_closed(self) -> None:
        """Its close is seen, and what it said before is answered. Mistake: waiting for ever."""
        self.require_transports("unix+seqpacket")
        running = self.serve(EchoService, "unix+seqpacket")
        client = self.connect(running)
        client.send(b"last")
        client.shutdown_write()
        assert client.receive_message() == b"last"
        assert client.receive_message() == b""
        client.close()
        check_cause(running, client, CloseReason.PEER)
