"""Pressure: peers that read slowly or not at all, and answers larger than any buffer."""

from __future__ import annotations

import functools

from bothends.engines.base import Limits
from bothends.events import CloseReason
from bothends.testing.contract.base import QUIET_PERIOD, SMALL_BUFFER, ContractBase, check_cause, of_client
from bothends.testing.services import EchoService, LargeReply, PullProducer, pattern

_SMALL_BUFFERS = f"?sndbuf={SMALL_BUFFER}&rcvbuf={SMALL_BUFFER}"

# What a server may hold for one peer here: limits.unsent, a chunk, the kernel's four buffers (a UNIX
# socket's has 208 KiB whatever is asked), and as much again. An unbounded one passes it in no time.
_MAX_BUFFERED = 2_000_000

# More than the small buffers of both ends hold. Not much more: with windows as small as these the kernel may
# wait for a delayed acknowledgement (40 ms) after each of them.
_UNSENT_SIZE = 600_000


class BackpressureContract(ContractBase):
    """Part of the suite: backpressure, short writes, and services that have more to say."""

    def test_peer_that_never_reads_pauses_reading(self, stream_transport: str) -> None:
        """An echo to who doesn't read: at some point nothing more is taken from it, while others are
        served, and later it gets every byte. Mistakes: a queue without bound; a send() that
        blocks everybody; output that is lost when the queue was full."""
        running = self.serve(
            EchoService, stream_transport, options=_SMALL_BUFFERS, limits=Limits(unsent=64 * 1024)
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER, sndbuf=SMALL_BUFFER)
        data = pattern(8_000_000)
        taken = client.send_until_blocked(data, timeout=QUIET_PERIOD)
        assert taken < _MAX_BUFFERED, f"{taken} bytes were taken from a peer that reads nothing"
        if self.engine_class().concurrent:
            other = self.connect(running)
            assert other.request(b"and me?") == b"and me?"
        assert client.receive_exactly(taken) == data[:taken]
        assert client.request(b"still there?") == b"still there?"
        client.shutdown_write()
        assert client.receive_until_eof() == b""

    def test_large_reply_to_fast_reader(self, stream_transport: str) -> None:
        """send() takes what fits. Mistake: taking it for done after the first send()."""
        running = self.serve(functools.partial(LargeReply, 10_000_000), stream_transport)
        client = self.connect(running)
        assert client.request(b"go", 10_000_000) == pattern(10_000_000)

    def test_large_reply_to_slow_reader(self, stream_transport: str) -> None:
        """As above, in thousands of small steps, and then the end. Mistakes: the rest is sent
        twice, or in the wrong place; closing cuts off what is unsent."""
        service = functools.partial(LargeReply, _UNSENT_SIZE, done=True)
        running = self.serve(service, stream_transport, options=_SMALL_BUFFERS)
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        heard = bytearray()
        while data := client.receive_exactly(1000):
            heard += data
        assert heard == pattern(_UNSENT_SIZE)
        client.close()
        check_cause(running, client, CloseReason.SERVICE)

    def test_large_reply_after_half_close(self, stream_transport: str) -> None:
        """All that is owed is sent to who has finished sending. Mistake: closing as soon as both the
        peer and the service have finished, with output still queued."""
        running = self.serve(
            functools.partial(LargeReply, _UNSENT_SIZE), stream_transport, options=_SMALL_BUFFERS
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        client.shutdown_write()
        assert client.receive_until_eof() == pattern(_UNSENT_SIZE)
        assert check_cause(running, client, CloseReason.PEER).sent == _UNSENT_SIZE

    def test_large_echo_in_both_directions(self, stream_transport: str) -> None:
        """Ten megabytes each way, read while they are written. Mistake: a deadlock in which both wait
        for room, or for input."""
        running = self.serve(EchoService, stream_transport)
        client = self.connect(running)
        data = pattern(10_000_000)
        heard, said = bytearray(), 0
        while len(heard) < len(data):
            said += client.send_until_blocked(data[said : said + 500_000], timeout=0)
            if client.is_readable(0.001):
                heard += client.socket.recv(500_000)
        assert heard == data

    def test_pull_producer_is_called_until_done(self, connection_transport: str) -> None:
        """`more` is asked until there is nothing more. Mistakes: asking once; asking while what was
        said before is unsent, and sending it out of order."""
        running = self.serve(functools.partial(PullProducer, 2_000_000), connection_transport)
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        assert client.receive_until_eof() == pattern(2_000_000)
        client.close()
        check_cause(running, client, CloseReason.SERVICE)

    def test_endless_producer_stops_for_slow_reader(self) -> None:
        """Who has no end says the next piece when the last one is sent. Mistakes: queueing without
        end; spinning while the peer doesn't read; serving nobody else."""
        self.require_transports("tcp")
        running = self.serve(PullProducer, "tcp", options=f"?sndbuf={SMALL_BUFFER}")
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        assert client.receive_exactly(200_000)
        used = running.cpu_used(0.3, limit=0.15)
        assert used <= 0.15, f"{used:g} s of processor time, for a peer that doesn't read"
        if self.engine_class().concurrent:
            assert self.connect(running, rcvbuf=SMALL_BUFFER).receive_exactly(200_000)
        client.close()
        check_cause(running, client, CloseReason.RESET, CloseReason.PEER)

    def test_endless_producer_does_not_starve_others(self, stream_transport: str) -> None:
        """A peer that reads as fast as it can is one of many. Mistake: asking for more for as long as
        the socket takes it."""
        self.require_concurrency()
        running = self.serve(PullProducer, stream_transport)
        greedy, other = self.connect(running), self.connect(running)
        for _ in range(20):
            assert greedy.receive_exactly(500_000)
            assert other.receive_exactly(1000)

    def test_endless_producer_still_receives(self, stream_transport: str) -> None:
        """While much is being said, the peer is listened to. Mistake: a write loop that never reads."""
        running = self.serve(PullProducer, stream_transport, options=f"?sndbuf={SMALL_BUFFER}")
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        assert client.receive_exactly(100_000)
        client.send(b"enough")
        client.shutdown_write()
        assert client.receive_until_eof(limit=16_000_000)
        assert check_cause(running, client, CloseReason.PEER).received == 6

    def test_unread_reply_after_half_close_uses_no_cpu(self) -> None:
        """A peer that has finished sending and doesn't read is waited for. Mistake: EOF keeps a
        socket readable, and a loop that goes on asking about it spins."""
        self.require_transports("tcp")
        running = self.serve(functools.partial(LargeReply, 10_000_000), "tcp", options=_SMALL_BUFFERS)
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        client.shutdown_write()
        running.wait_for(lambda: [each for each in running.events if of_client(client)(each)])
        assert client.receive_exactly(100)
        used = running.cpu_used(0.3, limit=0.15)
        assert used <= 0.15, f"{used:g} s of processor time, waiting for a peer to read"
