"""Resets: a peer may be gone at any point, and only its own conversation ends by that."""

from __future__ import annotations

from bothends.events import Cause, Received
from bothends.testing.clients import Client
from bothends.testing.contract.base import (
    SMALL,
    ContractBase,
    check_cause,
    closed,
    of,
    opened,
)
from bothends.testing.harness import Harness
from bothends.testing.services import Echo, Large, Lines


class ResetContract(ContractBase):
    """Part of the suite: peers that leave by RST, or without reading what they asked for."""

    def _witness(self, running: Harness) -> Client | None:
        """Somebody else's connection, where there can be one beside."""
        if not self.engine_class().concurrent:
            return None
        client = self.dial(running)
        assert client.ask(b"witness\n") in (b"witness\n", b"WITNESS\n")
        return client

    def _check_unaffected(self, running: Harness, witness: Client | None) -> None:
        """The witness goes on, and the next one is served."""
        for client in filter(None, (witness, self.dial(running))):
            assert client.ask(b"fine\n") in (b"fine\n", b"FINE\n")

    def test_before_anything_is_said(self) -> None:
        """Mistake: ECONNRESET, at accept() or at the first read, ends the loop."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp")
        witness = self._witness(running)
        client = self.dial(running)
        opened(running, client)
        client.reset()
        check_cause(running, client, Cause.RESET)
        self._check_unaffected(running, witness)

    def test_in_the_middle_of_a_message(self) -> None:
        """Mistake: ECONNRESET uncaught, so that everybody's server is gone."""
        self.needs("tcp")
        running = self.serve(Lines, "tcp")
        witness = self._witness(running)
        client = self.dial(running)
        client.say(b"hal")
        running.wait_event(Received, of(client))
        client.reset()
        check_cause(running, client, Cause.RESET)
        self._check_unaffected(running, witness)

    def test_with_the_answer_unread(self, bytes_over: str) -> None:
        """A peer that closes without reading is gone: the kernel resets for it. Mistake: SIGPIPE or
        EPIPE ends the server."""
        running = self.serve(Echo, bytes_over)
        witness = self._witness(running)
        client = self.dial(running)
        client.say(b"x" * 10_000)
        assert client.is_readable(10)
        client.close()
        check_cause(running, client, Cause.RESET)
        self._check_unaffected(running, witness)

    def test_while_much_is_being_sent(self) -> None:
        """Mistakes: EPIPE uncaught; the rest of the answer kept for somebody who is gone."""
        self.needs("tcp")
        running = self.serve(self.ten_megabytes, "tcp", options=f"?sndbuf={SMALL}")
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        assert client.hear(100_000)
        client.reset()
        check_cause(running, client, Cause.RESET)
        with Client(running.endpoints[0], rcvbuf=SMALL) as other:
            other.say(b"go")
            assert other.hear(1000)

    def test_while_much_is_owed_after_half_close(self) -> None:
        """After its EOF a peer is only written to, and that is where its end is met. Mistakes: nobody
        looks any more, and the connection stays; a loop that spins on the error it doesn't handle."""
        self.needs("tcp")
        running = self.serve(self.ten_megabytes, "tcp", options=f"?sndbuf={SMALL}")
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        client.finish()
        assert client.hear(100_000)
        client.reset()
        check_cause(running, client, Cause.RESET)

    def test_while_nothing_is_read_from_it(self) -> None:
        """Under backpressure nothing is read from the peer; its reset must be noticed all the same.
        Mistake: waiting for room in a socket that will never have any."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp", options=f"?sndbuf={SMALL}&rcvbuf={SMALL}")
        client = self.dial(running, rcvbuf=SMALL, sndbuf=SMALL)
        client.push(b"x" * 4_000_000, within=0.2)
        client.reset()
        check_cause(running, client, Cause.RESET)

    def test_while_lingering(self) -> None:
        """We have said all and wait for the peer's end: a reset is an end. Mistake: taking it for
        another cause, or not at all."""
        self.needs("tcp")
        running = self.serve(Lines, "tcp")
        client = self.dial(running)
        client.say(b"!\n")
        assert client.hear_all() == b"bye\n"
        client.reset()
        closed(running, client)
        self._check_unaffected(running, None)

    def test_in_the_accept_queue(self) -> None:
        """The kernel makes connections without us, and a client may be gone before accept(). Mistakes:
        an error of accept() ends the loop; a blocking accept() waits for a connection that is gone."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp")
        with running.frozen():
            for word in (b"", b"half a line", b""):
                early = self.dial(running)
                if word:
                    early.say(word)
                early.reset()
            patient = self.dial(running)
            patient.say(b"hello")
        assert patient.hear(5) == b"hello"

    @staticmethod
    def ten_megabytes() -> Large:
        """A service with a lot to say."""
        return Large(10_000_000)
