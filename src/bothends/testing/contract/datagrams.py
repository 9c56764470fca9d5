"""Datagrams: each is received whole and answered to its sender, and none stops the server."""

from __future__ import annotations

import socket

from bothends.endpoints import Endpoint
from bothends.events import DatagramDropped, RejectReason, ServiceFailed
from bothends.services.loop_guard import MATCHES
from bothends.testing.clients import Client
from bothends.testing.contract.base import ContractBase, of_client
from bothends.testing.harness import Harness
from bothends.testing.services import DatagramFaults, EchoService, UppercaseLines, pattern

# Bytes: the maximum payload of UDP over IPv4, 65,535 less the IP and UDP headers.
_MAX_UDP_PAYLOAD = 65_507


class DatagramContract(ContractBase):
    """Part of the suite: UDP and UNIX datagram sockets."""

    def test_datagram_is_answered_once_to_its_sender(self, datagram_transport: str) -> None:
        """A datagram gets one answer, to its sender. Bug: a hard-coded peer address."""
        client = self.connect(self.serve(UppercaseLines, datagram_transport))
        client.send(b"hello\n")
        assert client.receive_message() == b"HELLO\n"
        assert not client.is_readable(0.05)

    def test_empty_datagram(self, datagram_transport: str) -> None:
        """A datagram without data is a datagram (RFC 768). Bugs: taking it for EOF, in the engine or in a
        library; taking its empty answer for no answer."""
        client = self.connect(self.serve(EchoService, datagram_transport))
        client.send(b"")
        assert client.receive_message() == b""
        assert client.request(b"next") == b"next"

    def test_largest_datagram(self, datagram_transport: str) -> None:
        """The largest datagram is answered whole. Bug: a small buffer, which truncates it silently."""
        client = self.connect(self.serve(EchoService, datagram_transport))
        client.send(pattern(_MAX_UDP_PAYLOAD))
        assert client.receive_message() == pattern(_MAX_UDP_PAYLOAD)

    def test_queued_datagrams_are_all_answered(self, datagram_transport: str) -> None:
        """Three queued datagrams get three answers. Bugs: reading one for each edge-triggered event; joining
        them, as in a stream. (UDP guarantees no order.)"""
        running = self.serve(EchoService, datagram_transport)
        client = self.connect(running)
        with running.suspended():
            for word in (b"one", b"two", b"three"):
                client.send(word)
        assert {client.receive_message() for _ in range(3)} == {b"one", b"two", b"three"}

    def test_two_clients_interleaved(self, datagram_transport: str) -> None:
        """Each client receives its own answers. Bug: one variable for the last sender."""
        running = self.serve(EchoService, datagram_transport)
        clients = [self.connect(running) for _ in range(3)]
        with running.suspended():
            for round_ in range(3):
                for number, client in enumerate(clients):
                    client.send(b"client %d, round %d" % (number, round_))
        for number, client in enumerate(clients):
            received = {client.receive_message() for _ in range(3)}
            assert received == {b"client %d, round %d" % (number, round_) for round_ in range(3)}

    def test_client_closed_before_answer_does_not_stop_server(self, datagram_transport: str) -> None:
        """An answer to a closed socket makes a later call fail (udp(7)). Bug: ECONNREFUSED ends the loop."""
        running = self.serve(EchoService, datagram_transport)
        with running.suspended():
            for _ in range(3):
                with Client(running.endpoints[0]) as client:
                    client.send(b"and away")
            other = self.connect(running)
            other.send(b"hello")
        assert other.receive_message() == b"hello"
        assert other.request(b"again") == b"again"

    def test_service_error_drops_one_datagram(self, datagram_transport: str) -> None:
        """If the service raises, one datagram gets no answer, and the next one does. Bug: the exception ends
        the loop."""
        running = self.serve(DatagramFaults, datagram_transport)
        client = self.connect(running)
        client.send(b"raise")
        assert str(running.wait_event(ServiceFailed, of_client(client)).error) == "answer"
        assert client.request(b"next") == b"next"

    def test_no_answer_sends_no_datagram(self, datagram_transport: str) -> None:
        """None sends no datagram. Bug: sending an empty one."""
        client = self.connect(self.serve(DatagramFaults, datagram_transport))
        client.send(b"nothing")
        client.send(b"something")
        assert client.receive_message() == b"something"

    def test_oversized_answer_is_dropped_and_reported(self, datagram_transport: str) -> None:
        """EMSGSIZE drops one answer, and is reported. Bug: it ends the loop."""
        running = self.serve(DatagramFaults, datagram_transport)
        client = self.connect(running)
        client.send(b"huge")
        running.wait_event(DatagramDropped, of_client(client))
        assert client.request(b"next") == b"next"

    def test_burst_does_not_stop_server(self, datagram_transport: str) -> None:
        """After a thousand datagrams at once, some of which may be lost, the server still answers. Bug:
        blocking on a client that does not read its answers."""
        running = self.serve(EchoService, datagram_transport)
        with Client(running.endpoints[0]) as client:
            for number in range(1000):
                client.send(b"%d" % number)
        self._check_still_answering(running)

    def test_loop_with_a_reflector_ends(self, datagram_transport: str) -> None:
        """A peer that returns each answer, as after a forged datagram, is not answered forever. Bug: no
        limit."""
        running = self.serve(UppercaseLines, datagram_transport)
        client = self.connect(running)
        for number in range(10):
            client.send(b"DATAGRAM %d" % number)
        returned = 0
        while client.is_readable(1.0):
            client.send(client.receive_message())
            returned += 1
            # After a pause longer than PAUSE, as on a busy machine, the server counts from 0 again.
            assert returned < 64 * MATCHES, "the loop goes on"
        assert running.wait_event(DatagramDropped, of_client(client)).why is RejectReason.LOOP
        assert client.request(b"NEXT") == b"NEXT"

    def test_fast_client_is_not_taken_for_a_loop(self, datagram_transport: str) -> None:
        """A client in a closed loop whose requests are not our answers is never limited."""
        running = self.serve(UppercaseLines, datagram_transport)
        client = self.connect(running)
        for number in range(2 * MATCHES):
            assert client.request(b"ping %d" % number) == b"PING %d" % number
        assert not running.events_of(DatagramDropped)

    def test_full_unix_receive_queue_does_not_block(self) -> None:
        """The receive queue of an unconnected UNIX datagram socket holds some ten datagrams, then send()
        blocks or fails with EAGAIN (net.unix.max_dgram_qlen). The answer is dropped, and others are served.
        Bug: a blocking send."""
        self.require_transports("unix+dgram")
        running = self.serve(EchoService, "unix+dgram")
        stalled = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        stalled.bind("")
        for number in range(100):
            stalled.sendto(b"%d" % number, running.endpoints[0].path)
        running.wait_event(DatagramDropped)
        assert self.connect(running).request(b"next") == b"next"

    def test_unbound_sender_is_not_answered(self) -> None:
        """An unbound UNIX datagram socket has no address to answer to. Bug: sending to None."""
        self.require_transports("unix+dgram")
        running = self.serve(EchoService, "unix+dgram")
        self.connect(running, autobind=False).send(b"unbound")
        running.wait_event(DatagramDropped)
        assert self.connect(running).request(b"next") == b"next"

    def test_answer_source_is_requested_address(self) -> None:
        """A wildcard socket has many addresses, and a client accepts answers only from the one that it sent
        to. Bug: the kernel selects the source address of the answer by the route."""
        self.require_transports("udp")
        running = self.serve(EchoService, "udp://0.0.0.0:0", "udp://:0")
        for endpoint in running.endpoints:
            for host in ("127.0.0.1", "127.0.0.2"):
                client = self._stack.enter_context(Client(_ipv4(endpoint, host)))
                assert client.request(b"hello") == b"hello"

    def test_datagram_queued_before_run_is_answered_from_requested_address(self) -> None:
        """A bound socket queues datagrams before the engine runs, and the kernel records their destination
        address only if IP_PKTINFO is set. Bug: setting it after bind(), so that the first answers have
        another source address."""
        self.require_transports("udp")
        running = self.serve(EchoService, "udp://0.0.0.0:0", start_paused=True)
        client = self._stack.enter_context(Client(_ipv4(running.endpoints[0], "127.0.0.2")))
        client.send(b"early")
        running.resume()
        assert client.receive_exactly(5) == b"early"

    def test_datagrams_and_streams_are_served_together(self) -> None:
        """One engine serves TCP and UDP at the same time. Bug: waiting for one kind of socket only."""
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
        """Check that a new client is answered. Its first datagrams may be lost."""
        with Client(running.endpoints[0]) as client:

            def is_answered() -> bool:
                client.send(b"alive?")
                return client.is_readable(0.2) and client.receive_message() == b"alive?"

            running.wait_for(is_answered)


def _ipv4(endpoint: Endpoint, host: str) -> Endpoint:
    return Endpoint(endpoint.scheme, host=host, port=endpoint.port)
