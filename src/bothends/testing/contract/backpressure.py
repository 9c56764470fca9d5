"""Backpressure: peers that read slowly or not at all, and replies larger than any buffer."""

from __future__ import annotations

import functools

from bothends.engines.base import Limits
from bothends.events import CloseReason
from bothends.testing.contract.base import QUIET_PERIOD, SMALL_BUFFER, ContractBase, check_cause, of_client
from bothends.testing.services import EchoService, LargeReply, PullProducer, pattern

_SMALL_BUFFERS = f"?sndbuf={SMALL_BUFFER}&rcvbuf={SMALL_BUFFER}"

# Bytes that may be buffered for one peer here: limits.unsent, a chunk, the four kernel buffers (208 KiB for a
# UNIX socket, whatever size is requested), and twice that for safety. An unbounded queue exceeds it quickly.
_MAX_BUFFERED = 2_000_000

# Bytes: more than the small buffers of both ends hold, but not much more, because with such a small window
# the kernel may wait for a delayed acknowledgement (40 ms) after each window.
_UNSENT_SIZE = 600_000


class BackpressureContract(ContractBase):
    """Part of the suite: backpressure, short writes, and pull producers."""

    def test_peer_that_never_reads_pauses_reading(self, stream_transport: str) -> None:
        """While a peer does not read its echo, the server stops reading from it, and serves others. Later the
        peer receives every byte. Bugs: an unbounded queue; a send() that blocks all connections; lost output
        after the queue was full."""
        running = self.serve(
            EchoService, stream_transport, options=_SMALL_BUFFERS, limits=Limits(unsent=64 * 1024)
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER, sndbuf=SMALL_BUFFER)
        data = pattern(8_000_000)
        taken = client.send_until_blocked(data, timeout=QUIET_PERIOD)
        assert taken < _MAX_BUFFERED, f"{taken} bytes were read from a peer that reads nothing"
        if self.engine_class().concurrent:
            other = self.connect(running)
            assert other.request(b"and me?") == b"and me?"
        assert client.receive_exactly(taken) == data[:taken]
        assert client.request(b"still there?") == b"still there?"
        client.shutdown_write()
        assert client.receive_until_eof() == b""

    def test_large_reply_to_fast_reader(self, stream_transport: str) -> None:
        """send() may send only a part. Bug: the rest after the first send() is lost."""
        running = self.serve(functools.partial(LargeReply, 10_000_000), stream_transport)
        client = self.connect(running)
        assert client.request(b"go", 10_000_000) == pattern(10_000_000)

    def test_large_reply_to_slow_reader(self, stream_transport: str) -> None:
        """A large reply arrives in thousands of short writes, then EOF. Bugs: the rest of a short write is
        sent twice, or out of order; closing drops unsent data."""
        service = functools.partial(LargeReply, _UNSENT_SIZE, done=True)
        running = self.serve(service, stream_transport, options=_SMALL_BUFFERS)
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        received = bytearray()
        while data := client.receive_exactly(1000):
            received += data
        assert received == pattern(_UNSENT_SIZE)
        client.close()
        check_cause(running, client, CloseReason.SERVICE)

    def test_large_reply_after_half_close(self, stream_transport: str) -> None:
        """A peer that has half-closed receives the whole reply. Bug: closing when both the peer and the
        service have finished, with output still queued."""
        running = self.serve(
            functools.partial(LargeReply, _UNSENT_SIZE), stream_transport, options=_SMALL_BUFFERS
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        client.shutdown_write()
        assert client.receive_until_eof() == pattern(_UNSENT_SIZE)
        assert check_cause(running, client, CloseReason.PEER).sent == _UNSENT_SIZE

    def test_large_echo_in_both_directions(self, stream_transport: str) -> None:
        """Ten megabytes in each direction at the same time. Bug: a deadlock in which both ends wait for
        buffer space, or for input."""
        running = self.serve(EchoService, stream_transport)
        client = self.connect(running)
        data = pattern(10_000_000)
        received, sent = bytearray(), 0
        while len(received) < len(data):
            sent += client.send_until_blocked(data[sent : sent + 500_000], timeout=0)
            if client.is_readable(0.001):
                received += client.socket.recv(500_000)
        assert received == data

    def test_pull_producer_is_called_until_done(self, connection_transport: str) -> None:
        """`produce` is called until the conversation is done. Bugs: calling it once; calling it while earlier
        data is unsent, and sending out of order."""
        running = self.serve(functools.partial(PullProducer, 2_000_000), connection_transport)
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        assert client.receive_until_eof() == pattern(2_000_000)
        client.close()
        check_cause(running, client, CloseReason.SERVICE)

    def test_endless_producer_stops_for_slow_reader(self) -> None:
        """An endless producer is called only when its last piece has been sent. Bugs: an unbounded queue; a
        busy loop while the peer does not read; not serving other connections."""
        self.require_transports("tcp")
        running = self.serve(PullProducer, "tcp", options=f"?sndbuf={SMALL_BUFFER}")
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        assert client.receive_exactly(200_000)
        used = running.cpu_used(0.3, limit=0.15)
        assert used <= 0.15, f"{used:g} s of CPU time for a peer that does not read"
        if self.engine_class().concurrent:
            assert self.connect(running, rcvbuf=SMALL_BUFFER).receive_exactly(200_000)
        client.close()
        check_cause(running, client, CloseReason.RESET, CloseReason.PEER)

    def test_endless_producer_does_not_starve_others(self, stream_transport: str) -> None:
        """A fast reader does not monopolize the server. Bug: calling `produce` as long as the socket is
        writable."""
        self.require_concurrency()
        running = self.serve(PullProducer, stream_transport)
        fast, other = self.connect(running), self.connect(running)
        for _ in range(20):
            assert fast.receive_exactly(500_000)
            assert other.receive_exactly(1000)

    def test_endless_producer_still_receives(self, stream_transport: str) -> None:
        """While a producer sends, input is received. Bug: a write loop that never reads."""
        running = self.serve(PullProducer, stream_transport, options=f"?sndbuf={SMALL_BUFFER}")
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        assert client.receive_exactly(100_000)
        client.send(b"enough")
        client.shutdown_write()
        assert client.receive_until_eof(limit=16_000_000)
        assert check_cause(running, client, CloseReason.PEER).received == 6

    def test_unread_reply_after_half_close_uses_no_cpu(self) -> None:
        """The engine blocks while a peer that has half-closed does not read. Bug: a busy loop, because a
        socket at EOF stays readable."""
        self.require_transports("tcp")
        running = self.serve(functools.partial(LargeReply, 10_000_000), "tcp", options=_SMALL_BUFFERS)
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        client.shutdown_write()
        running.wait_for(lambda: [each for each in running.events if of_client(client)(each)])
        assert client.receive_exactly(100)
        used = running.cpu_used(0.3, limit=0.15)
        assert used <= 0.15, f"{used:g} s of CPU time while waiting for a peer to read"
