"""Datagrams: each is whole, each has a sender, and none of them ends the server."""

from __future__ import annotations

import socket

from bothends.endpoints import Endpoint
from bothends.events import DatagramDropped, ServiceFailed
from bothends.testing.clients import Client
from bothends.testing.contract.base import ContractBase, of_client
from bothends.testing.harness import Harness
from bothends.testing.services import DatagramFaults, EchoService, UppercaseLines, pattern

# The most that UDP over IPv4 carries: 65,535 less the headers of IP and UDP.
_MAX_UDP_PAYLOAD = 65_507


class DatagramContract(ContractBase):
    """Part of the suite: UDP and UNIX datagram sockets."""

    def test_datagram_is_answered_once_to_its_sender(self, datagram_transport: str) -> None:
        """One comes, one goes back to where it came from. Mistake: a peer that is hard-coded."""
        client = self.connect(self.serve(UppercaseLines, datagram_transport))
        client.send(b"hello\n")
        assert client.receive_message() == b"HELLO\n"
        assert not client.is_readable(0.05)

    def test_empty_datagram(self, datagram_transport: str) -> None:
        """Nothing is something: a datagram of no bytes (RFC 768). Mistakes: taken for EOF, by us or by
        the library that we wait with; its empty answer taken for none."""
        client = self.connect(self.serve(EchoService, datagram_transport))
        client.send(b"")
        assert client.receive_message() == b""
        assert client.request(b"next") == b"next"

    def test_largest_datagram(self, datagram_transport: str) -> None:
        """The most that fits comes back whole. Mistake: a small buffer, which truncates in silence."""
        client = self.connect(self.serve(EchoService, datagram_transport))
        client.send(pattern(_MAX_UDP_PAYLOAD))
        assert client.receive_message() == pattern(_MAX_UDP_PAYLOAD)

    def test_queued_datagrams_are_all_answered(self, datagram_transport: str) -> None:
        """Three come, three go. Mistakes: reading one for each readiness that was reported once; joining
        them, as a stream would. (In which order they go, UDP promises nobody.)"""
        running = self.serve(EchoService, datagram_transport)
        client = self.connect(running)
        with running.suspended():
            for word in (b"one", b"two", b"three"):
                client.send(word)
        assert {client.receive_message() for _ in range(3)} == {b"one", b"two", b"three"}

    def test_two_clients_interleaved(self, datagram_transport: str) -> None:
        """Each hears its own. Mistake: one variable for the sender of the last one."""
        running = self.serve(EchoService, datagram_transport)
        clients = [self.connect(running) for _ in range(3)]
        with running.suspended():
            for round_ in range(3):
                for number, client in enumerate(clients):
                    client.send(b"client %d, round %d" % (number, round_))
        for number, client in enumerate(clients):
            heard = {client.receive_message() for _ in range(3)}
            assert heard == {b"client %d, round %d" % (number, round_) for round_ in range(3)}

    def test_client_closed_before_answer_does_not_stop_server(self, datagram_transport: str) -> None:
        """An answer that reaches nobody comes back as an error, at a later call (udp(7)). Mistake:
        ECONNREFUSED ends the loop."""
        running = self.serve(EchoService, datagram_transport)
        with running.suspended():
            for _ in range(3):
                with Client(running.endpoints[0]) as client:
                    client.send(b"and away")
            patient = self.connect(running)
            patient.send(b"hello")
        assert patient.receive_message() == b"hello"
        assert patient.request(b"again") == b"again"

    def test_service_error_drops_one_datagram(self, datagram_transport: str) -> None:
        """One datagram gets no answer, the next one does. Mistake: an exception ends the loop."""
        running = self.serve(DatagramFaults, datagram_transport)
        client = self.connect(running)
        client.send(b"raise")
        assert str(running.wait_event(ServiceFailed, of_client(client)).error) == "answer"
        assert client.request(b"next") == b"next"

    def test_no_answer_sends_no_datagram(self, datagram_transport: str) -> None:
        """None is no datagram, which is not an empty one. Mistake: answering with nothing."""
        client = self.connect(self.serve(DatagramFaults, datagram_transport))
        client.send(b"nothing")
        client.send(b"something")
        assert client.receive_message() == b"something"

    def test_oversized_answer_is_dropped_and_reported(self, datagram_transport: str) -> None:
        """EMSGSIZE is that answer's end, and is told. Mistake: it is the server's."""
        running = self.serve(DatagramFaults, datagram_transport)
        client = self.connect(running)
        client.send(b"huge")
        running.wait_event(DatagramDropped, of_client(client))
        assert client.request(b"next") == b"next"

    def test_burst_does_not_stop_server(self, datagram_transport: str) -> None:
        """A thousand at once: some may be lost, the server isn't. Mistakes: assuming that none is;
        blocking on a client that doesn't read its answers."""
        running = self.serve(EchoService, datagram_transport)
        with Client(running.endpoints[0]) as client:
            for number in range(1000):
                client.send(b"%d" % number)
        self._check_still_answering(running)

    def test_full_unix_receive_queue_does_not_block(self) -> None:
        """A UNIX datagram socket that isn't connected takes some ten datagrams, and then the sender waits
        or is told EAGAIN (net.unix.max_dgram_qlen). The answer is dropped, others are served. Mistake:
        a blocking send."""
        self.require_transports("unix+dgram")
        running = self.serve(EchoService, "unix+dgram")
        deaf = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        deaf.bind("")
        for number in range(100):
            deaf.sendto(b"%d" % number, running.endpoints[0].path)
        running.wait_event(DatagramDropped)
        assert self.connect(running).request(b"me?") == b"me?"

    def test_unbound_sender_is_not_answered(self) -> None:
        """A UNIX datagram socket that isn't bound has no address to answer to. Mistake: sending to
        None."""
        self.require_transports("unix+dgram")
        running = self.serve(EchoService, "unix+dgram")
        self.connect(running, autobind=False).send(b"who am I?")
        running.wait_event(DatagramDropped)
        assert self.connect(running).request(b"next") == b"next"

    def test_answer_source_is_requested_address(self) -> None:
        """A socket on every interface has many addresses, and a client that asked one of them takes no
        answer from another. Mistake: the kernel chooses the answer's source, by its route."""
        self.require_transports("udp")
        running = self.serve(EchoService, "udp://0.0.0.0:0", "udp://:0")
        for endpoint in running.endpoints:
            for host in ("127.0.0.1", "127.0.0.2"):
                client = self._stack.enter_context(Client(_ipv4(endpoint, host)))
                assert client.request(b"who are you?") == b"who are you?"

    def test_datagram_queued_before_run_is_answered_from_requested_address(self) -> None:
        """A bound socket takes datagrams, whether anybody looks or not, and the kernel notes the address
        that was asked only if it has been told to. Mistake: telling it after binding, so that the
        first answers come from an address that nobody asked."""
        self.require_transports("udp")
        running = self.serve(EchoService, "udp://0.0.0.0:0", start_paused=True)
        client = self._stack.enter_context(Client(_ipv4(running.endpoints[0], "127.0.0.2")))
        client.send(b"early")
        running.resume()
        assert client.receive_exactly(5) == b"early"

    def test_datagrams_and_streams_are_served_together(self) -> None:
        """One engine, both kinds: a port is often served over TCP and UDP. Mistake: waiting for one
        kind only."""
        self.require_transports("tcp", "udp")
        running = self.serve(EchoService, "tcp", "udp", "unix+dgram")
        udp, unix = self.connect(running, 1), self.connect(running, 2)
        for word in (b"one", b"two"):
            assert udp.request(word) == word
            assert unix.request(word) == word
            with Client(running.endpoints[0]) as stream:
                assert stream.request(word) == word
                if self.engine_class().concurrent:
                    assert udp.request(word) == word

    def _check_still_answering(self, running: Harness) -> None:
        """Somebody new is answered, though what it says may be lost at first."""
        with Client(running.endpoints[0]) as client:

            def is_answered() -> bool:
                client.send(b"alive?")
                return client.is_readable(0.2) and client.receive_message() == b"alive?"

            running.wait_for(is_answered)


def _ipv4(endpoint: Endpoint, host: str) -> Endpoint:
    return Endpoint(endpoint.scheme, host=host, port=endpoint.port)
