"""Datagrams: each is whole, each has a sender, and none of them ends the server."""

from __future__ import annotations

import socket

from bothends.endpoints import Endpoint
from bothends.events import Dropped, Failed
from bothends.testing.clients import Client
from bothends.testing.contract.base import ContractBase, of
from bothends.testing.harness import Harness
from bothends.testing.services import Echo, Lines, Moody, pattern

# The most that UDP over IPv4 carries: 65,535 less the headers of IP and UDP.
_LARGEST = 65_507


class DatagramContract(ContractBase):
    """Part of the suite: UDP and UNIX datagram sockets."""

    def test_one_answer_to_its_sender(self, datagrams_over: str) -> None:
        """One comes, one goes back to where it came from. Mistake: a peer that is hard-coded."""
        client = self.dial(self.serve(Lines, datagrams_over))
        client.say(b"hello\n")
        assert client.hear_message() == b"HELLO\n"
        assert not client.is_readable(0.05)

    def test_empty_datagram(self, datagrams_over: str) -> None:
        """Nothing is something: a datagram of no bytes (RFC 768). Mistakes: taken for EOF, by us or by
        the library that we wait with; its empty answer taken for none."""
        client = self.dial(self.serve(Echo, datagrams_over))
        client.say(b"")
        assert client.hear_message() == b""
        assert client.ask(b"next") == b"next"

    def test_largest_datagram(self, datagrams_over: str) -> None:
        """The most that fits comes back whole. Mistake: a small buffer, which truncates in silence."""
        client = self.dial(self.serve(Echo, datagrams_over))
        client.say(pattern(_LARGEST))
        assert client.hear_message() == pattern(_LARGEST)

    def test_two_quick_ones(self, datagrams_over: str) -> None:
        """Three come, three go. Mistakes: reading one for each readiness that was reported once; joining
        them, as a stream would. (In which order they go, UDP promises nobody.)"""
        running = self.serve(Echo, datagrams_over)
        client = self.dial(running)
        with running.frozen():
            for word in (b"one", b"two", b"three"):
                client.say(word)
        assert {client.hear_message() for _ in range(3)} == {b"one", b"two", b"three"}

    def test_two_clients_interleaved(self, datagrams_over: str) -> None:
        """Each hears its own. Mistake: one variable for the sender of the last one."""
        running = self.serve(Echo, datagrams_over)
        clients = [self.dial(running) for _ in range(3)]
        with running.frozen():
            for round_ in range(3):
                for number, client in enumerate(clients):
                    client.say(b"client %d, round %d" % (number, round_))
        for number, client in enumerate(clients):
            heard = {client.hear_message() for _ in range(3)}
            assert heard == {b"client %d, round %d" % (number, round_) for round_ in range(3)}

    def test_client_gone_before_its_answer(self, datagrams_over: str) -> None:
        """An answer that reaches nobody comes back as an error, at a later call (udp(7)). Mistake:
        ECONNREFUSED ends the loop."""
        running = self.serve(Echo, datagrams_over)
        with running.frozen():
            for _ in range(3):
                with Client(running.endpoints[0]) as client:
                    client.say(b"and away")
            patient = self.dial(running)
            patient.say(b"hello")
        assert patient.hear_message() == b"hello"
        assert patient.ask(b"again") == b"again"

    def test_service_that_raises(self, datagrams_over: str) -> None:
        """One datagram gets no answer, the next one does. Mistake: an exception ends the loop."""
        running = self.serve(Moody, datagrams_over)
        client = self.dial(running)
        client.say(b"raise")
        assert str(running.wait_event(Failed, of(client)).error) == "answer"
        assert client.ask(b"next") == b"next"

    def test_service_that_does_not_answer(self, datagrams_over: str) -> None:
        """None is no datagram, which is not an empty one. Mistake: answering with nothing."""
        client = self.dial(self.serve(Moody, datagrams_over))
        client.say(b"nothing")
        client.say(b"something")
        assert client.hear_message() == b"something"

    def test_answer_that_is_too_large(self, datagrams_over: str) -> None:
        """EMSGSIZE is that answer's end, and is told. Mistake: it is the server's."""
        running = self.serve(Moody, datagrams_over)
        client = self.dial(running)
        client.say(b"huge")
        running.wait_event(Dropped, of(client))
        assert client.ask(b"next") == b"next"

    def test_burst(self, datagrams_over: str) -> None:
        """A thousand at once: some may be lost, the server isn't. Mistakes: assuming that none is;
        blocking on a client that doesn't read its answers."""
        running = self.serve(Echo, datagrams_over)
        with Client(running.endpoints[0]) as client:
            for number in range(1000):
                client.say(b"%d" % number)
        self._check_alive(running)

    def test_client_that_reads_nothing(self) -> None:
        """A UNIX datagram socket that isn't connected takes some ten datagrams, and then the sender waits
        or is told EAGAIN (net.unix.max_dgram_qlen). The answer is dropped, others are served. Mistake:
        a blocking send."""
        self.needs("unix+dgram")
        running = self.serve(Echo, "unix+dgram")
        deaf = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        deaf.bind("")
        for number in range(100):
            deaf.sendto(b"%d" % number, running.endpoints[0].path)
        running.wait_event(Dropped)
        assert self.dial(running).ask(b"me?") == b"me?"

    def test_sender_without_address(self) -> None:
        """A UNIX datagram socket that isn't bound has no address to answer to. Mistake: sending to
        None."""
        self.needs("unix+dgram")
        running = self.serve(Echo, "unix+dgram")
        self.dial(running, named=False).say(b"who am I?")
        running.wait_event(Dropped)
        assert self.dial(running).ask(b"next") == b"next"

    def test_answers_from_the_address_that_was_asked(self) -> None:
        """A socket on every interface has many addresses, and a client that asked one of them takes no
        answer from another. Mistake: the kernel chooses the answer's source, by its route."""
        self.needs("udp")
        running = self.serve(Echo, "udp://0.0.0.0:0", "udp://:0")
        for endpoint in running.endpoints:
            for host in ("127.0.0.1", "127.0.0.2"):
                client = self._stack.enter_context(Client(_ipv4(endpoint, host)))
                assert client.ask(b"who are you?") == b"who are you?"

    def test_what_came_before_it_ran(self) -> None:
        """A bound socket takes datagrams, whether anybody looks or not, and the kernel notes the address
        that was asked only if it has been told to. Mistake: telling it after binding, so that the
        first answers come from an address that nobody asked."""
        self.needs("udp")
        running = self.serve(Echo, "udp://0.0.0.0:0", held=True)
        client = self._stack.enter_context(Client(_ipv4(running.endpoints[0], "127.0.0.2")))
        client.say(b"early")
        running.go()
        assert client.hear(5) == b"early"

    def test_datagrams_beside_connections(self) -> None:
        """One engine, both kinds: a port is often served over TCP and UDP. Mistake: waiting for one
        kind only."""
        self.needs("tcp", "udp")
        running = self.serve(Echo, "tcp", "udp", "unix+dgram")
        udp, unix = self.dial(running, 1), self.dial(running, 2)
        for word in (b"one", b"two"):
            assert udp.ask(word) == word
            assert unix.ask(word) == word
            with Client(running.endpoints[0]) as stream:
                assert stream.ask(word) == word
                if self.engine_class().concurrent:
                    assert udp.ask(word) == word

    def _check_alive(self, running: Harness) -> None:
        """Somebody new is answered, though what it says may be lost at first."""
        with Client(running.endpoints[0]) as client:

            def is_answered() -> bool:
                client.say(b"alive?")
                return client.is_readable(0.2) and client.hear_message() == b"alive?"

            running.wait_for(is_answered)


def _ipv4(endpoint: Endpoint, host: str) -> Endpoint:
    return Endpoint(endpoint.scheme, host=host, port=endpoint.port)
