"""Packets: UNIX SOCK_SEQPACKET, which is connected like a stream and keeps messages like datagrams."""

from __future__ import annotations

from bothends.events import Cause
from bothends.testing.contract.base import ContractBase, check_cause
from bothends.testing.services import Echo, pattern


class PacketContract(ContractBase):
    """Part of the suite: connections that keep their messages apart."""

    def test_packets_keep_their_boundaries(self) -> None:
        """One packet in, one out, however many wait. Mistake: they are joined, or cut."""
        self.needs("unix+seqpacket")
        running = self.serve(Echo, "unix+seqpacket")
        client = self.dial(running)
        assert client.ask(b"first") == b"first"
        words = [pattern(size) for size in (1, 1000, 7, 5000, 64, 1)]
        with running.frozen():
            for word in words:
                client.say(word)
        assert [client.hear_message() for _ in words] == words

    def test_large_packet(self) -> None:
        """More than one read of the usual size. Mistake: the rest of a packet is thrown away."""
        self.needs("unix+seqpacket")
        client = self.dial(self.serve(Echo, "unix+seqpacket"))
        client.say(pattern(100_000))
        assert client.hear_message() == pattern(100_000)

    def test_packets_under_pressure(self) -> None:
        """A queue of packets is still packets. Mistake: what waits to be sent is joined."""
        self.needs("unix+seqpacket")
        running = self.serve(Echo, "unix+seqpacket")
        client = self.dial(running)
        words = [pattern(1000 + number) for number in range(600)]
        said = heard = 0
        while heard < len(words):
            if said < len(words) and said < heard + 400:
                said += bool(client.push(words[said], within=0))
            if client.is_readable(0):
                assert client.hear_message() == words[heard]
                heard += 1

    def test_packet_peer_leaves(self) -> None:
        """Its close is seen, and what it said before is answered. Mistake: waiting for ever."""
        self.needs("unix+seqpacket")
        running = self.serve(Echo, "unix+seqpacket")
        client = self.dial(running)
        client.say(b"last")
        client.finish()
        assert client.hear_message() == b"last"
        assert client.hear_message() == b""
        client.close()
        check_cause(running, client, Cause.PEER)
