"""Resets: a peer may be gone at any point, and only its own conversation ends by that."""

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
    """Part of the suite: peers that leave by RST, or without reading what they asked for."""

    def _connect_other(self, running: Harness) -> Client | None:
        """Somebody else's connection, where there can be one beside."""
        if not self.engine_class().concurrent:
            return None
        client = self.connect(running)
        assert client.request(b"witness\n") in (b"witness\n", b"WITNESS\n")
        return client

    def _check_unaffected(self, running: Harness, other: Client | None) -> None:
        """The witness goes on, and the next one is served."""
        for client in filter(None, (other, self.connect(running))):
            assert client.request(b"fine\n") in (b"fine\n", b"FINE\n")

    def test_reset_before_first_byte(self) -> None:
        """Mistake: ECONNRESET, at accept() or at the first read, ends the loop."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp")
        witness = self._connect_other(running)
        client = self.connect(running)
        wait_opened(running, client)
        client.reset()
        check_cause(running, client, CloseReason.RESET)
        self._check_unaffected(running, witness)

    def test_reset_in_partial_message(self) -> None:
        """Mistake: ECONNRESET uncaught, so that everybody's server is gone."""
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
        """A peer that closes without reading is gone: the kernel resets for it. Mistake: SIGPIPE or
        EPIPE ends the server."""
        running = self.serve(EchoService, stream_transport)
        witness = self._connect_other(running)
        client = self.connect(running)
        client.send(b"x" * 10_000)
        assert client.is_readable(10)
        client.close()
        check_cause(running, client, CloseReason.RESET)
        self._check_unaffected(running, witness)

    def test_reset_during_large_reply(self) -> None:
        """Mistakes: EPIPE uncaught; the rest of the answer kept for somebody who is gone."""
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
        """After its EOF a peer is only written to, and that is where its end is met. Mistakes: nobody
        looks any more, and the connection stays; a loop that spins on the error it doesn't handle."""
        self.require_transports("tcp")
        running = self.serve(self.ten_megabyte_reply, "tcp", options=f"?sndbuf={SMALL_BUFFER}")
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        client.shutdown_write()
        assert client.receive_exactly(100_000)
        client.reset()
        check_cause(running, client, CloseReason.RESET)

    def test_reset_while_reading_is_paused(self) -> None:
        """Under backpressure nothing is read from the peer; its reset must be noticed all the same.
        Mistake: waiting for room in a socket that will never have any."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", options=f"?sndbuf={SMALL_BUFFER}&rcvbuf={SMALL_BUFFER}")
        client = self.connect(running, rcvbuf=SMALL_BUFFER, sndbuf=SMALL_BUFFER)
        client.send_until_blocked(b"x" * 4_000_000, timeout=0.2)
        client.reset()
        check_cause(running, client, CloseReason.RESET)

    def test_reset_while_lingering(self) -> None:
        """We have said all and wait for the peer's end: a reset is an end. Mistake: taking it for
        another cause, or not at all."""
        self.require_transports("tcp")
        running = self.serve(UppercaseLines, "tcp")
        client = self.connect(running)
        client.send(b"!\n")
        assert client.receive_until_eof() == b"bye\n"
        client.reset()
        wait_closed(running, client)
        self._check_unaffected(running, None)

    def test_reset_in_accept_queue(self) -> None:
        """The kernel makes connections without us, and a client may be gone before accept(). Mistakes:
        an error of accept() ends the loop; a blocking accept() waits for a connection that is gone."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp")
        with running.suspended():
            for word in (b"", b"half a line", b""):
                early = self.connect(running)
                if word:
                    early.send(word)
                early.reset()
            patient = self.connect(running)
            patient.send(b"hello")
        assert patient.receive_exactly(5) == b"hello"

    @staticmethod
    def ten_megabyte_reply() -> LargeReply:
        """A service with a lot to say."""
        return LargeReply(10_000_000)
