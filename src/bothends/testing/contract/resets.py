"""Resets: a peer may reset its connection at any point, which ends that conversation only."""

from __future__ import annotations

from bothends.events import CloseReason, Received
from bothends.testing.clients import Client
from bothends.testing.contract.base import (
    SMALL_BUFFER,
    ContractBase,
    check_cause,
    of_client,
    wait_closed,
    wait_opened,
)
from bothends.testing.harness import Harness
from bothends.testing.services import EchoService, LargeReply, UppercaseLines


class ResetContract(ContractBase):
    """Part of the suite: peers that reset, or close without reading the reply."""

    def _connect_other(self, running: Harness) -> Client | None:
        """Connect another client, if the engine is concurrent."""
        if not self.engine_class().concurrent:
            return None
        client = self.connect(running)
        assert client.request(b"witness\n") in (b"witness\n", b"WITNESS\n")
        return client

    def _check_unaffected(self, running: Harness, other: Client | None) -> None:
        """Check that the other client's connection works, and that a new one is served."""
        for client in filter(None, (other, self.connect(running))):
            assert client.request(b"fine\n") in (b"fine\n", b"FINE\n")

    def test_reset_before_first_byte(self) -> None:
        """Bug: ECONNRESET, from accept() or the first read, ends the loop."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp")
        witness = self._connect_other(running)
        client = self.connect(running)
        wait_opened(running, client)
        client.reset()
        check_cause(running, client, CloseReason.RESET)
        self._check_unaffected(running, witness)

    def test_reset_in_partial_message(self) -> None:
        """Bug: an uncaught ECONNRESET ends the server."""
        self.require_transports("tcp")
        running = self.serve(UppercaseLines, "tcp")
        witness = self._connect_other(running)
        client = self.connect(running)
        client.send(b"hal")
        running.wait_event(Received, of_client(client))
        client.reset()
        check_cause(running, client, CloseReason.RESET)
        self._check_unaffected(running, witness)

    def test_close_with_unread_reply_is_reset(self, stream_transport: str) -> None:
        """If a peer closes with unread input, its kernel sends RST. Bug: SIGPIPE or EPIPE ends the server."""
        running = self.serve(EchoService, stream_transport)
        witness = self._connect_other(running)
        client = self.connect(running)
        client.send(b"x" * 10_000)
        assert client.is_readable(10)
        client.close()
        check_cause(running, client, CloseReason.RESET)
        self._check_unaffected(running, witness)

    def test_reset_during_large_reply(self) -> None:
        """Bugs: an uncaught EPIPE; keeping the rest of the reply for a closed connection."""
        self.require_transports("tcp")
        running = self.serve(self.ten_megabyte_reply, "tcp", options=f"?sndbuf={SMALL_BUFFER}")
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        assert client.receive_exactly(100_000)
        client.reset()
        check_cause(running, client, CloseReason.RESET)
        with Client(running.endpoints[0], rcvbuf=SMALL_BUFFER) as other:
            other.send(b"go")
            assert other.receive_exactly(1000)

    def test_reset_during_large_reply_after_half_close(self) -> None:
        """After the peer's EOF only a write shows that the peer is gone. Bugs: nothing watches the
        connection, so it is leaked; a busy loop on an unhandled error."""
        self.require_transports("tcp")
        running = self.serve(self.ten_megabyte_reply, "tcp", options=f"?sndbuf={SMALL_BUFFER}")
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        client.shutdown_write()
        assert client.receive_exactly(100_000)
        client.reset()
        check_cause(running, client, CloseReason.RESET)

    def test_reset_while_reading_is_paused(self) -> None:
        """A reset is noticed even while reading is paused by backpressure. Bug: waiting for space in the send
        buffer of a connection that was reset."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", options=f"?sndbuf={SMALL_BUFFER}&rcvbuf={SMALL_BUFFER}")
        client = self.connect(running, rcvbuf=SMALL_BUFFER, sndbuf=SMALL_BUFFER)
        client.send_until_blocked(b"x" * 4_000_000, timeout=0.2)
        client.reset()
        check_cause(running, client, CloseReason.RESET)

    def test_reset_while_lingering(self) -> None:
        """A reset ends the wait for the peer's FIN. Bug: another cause, or a leaked connection."""
        self.require_transports("tcp")
        running = self.serve(UppercaseLines, "tcp")
        client = self.connect(running)
        client.send(b"!\n")
        assert client.receive_until_eof() == b"bye\n"
        client.reset()
        wait_closed(running, client)
        self._check_unaffected(running, None)

    def test_reset_in_accept_queue(self) -> None:
        """The kernel completes handshakes on its own, and a client may reset before accept(). Bugs: an error
        of accept() ends the loop; a blocking accept() waits for a connection that is gone."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp")
        with running.suspended():
            for word in (b"", b"half a line", b""):
                early = self.connect(running)
                if word:
                    early.send(word)
                early.reset()
            other = self.connect(running)
            other.send(b"hello")
        assert other.receive_exactly(5) == b"hello"

    @staticmethod
    def ten_megabyte_reply() -> LargeReply:
        """Create a service with a large reply."""
        return LargeReply(10_000_000)
