"""Limits: networks, connections per address, lifetime, rate, and message size."""

from __future__ import annotations

import contextlib
import functools
import time

import pytest

from bothends.engines.base import Limits
from bothends.engines.client_limits import parse_network
from bothends.events import (
    Accepted,
    Closed,
    CloseReason,
    ConnectionRejected,
    DatagramDropped,
    RateLimited,
    RejectReason,
    ServiceFailed,
)
from bothends.testing.clients import Client
from bothends.testing.contract.base import SMALL_BUFFER, ContractBase, check_cause, of_client, wait_closed
from bothends.testing.harness import Harness
from bothends.testing.services import ALTERNATE_SOURCE, EchoService, LargeReply, message_echo, pattern

_ALTERNATE_NETWORK = parse_network(f"{ALTERNATE_SOURCE}/32")
_DEFAULT_NETWORK = parse_network("127.0.0.0/29")

# Seconds: long enough to exchange data on a busy machine, short enough for a test to wait.
_MAX_LIFETIME = 0.15


class LimitContract(ContractBase):
    """Part of the suite: the limits that are not about resources."""

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            (Limits(deny=(_ALTERNATE_NETWORK,)), f"its network {ALTERNATE_SOURCE}/32 is denied"),
            (Limits(allow=(_DEFAULT_NETWORK,)), "its network is not among those allowed"),
        ],
        ids=["denied", "not allowed"],
    )
    def test_denied_network_is_closed_on_accept(self, limits: Limits, reason: str) -> None:
        """A connection from a denied network is closed at once and reported each time; others are served.
        Bugs: it stays open, or is read first; the first rejection stops the server from accepting."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=limits)
        for _ in range(2):
            with Client(running.endpoints[0], source=ALTERNATE_SOURCE) as client:
                assert client.receive_until_closed() == b""
            rejected = running.wait_event(ConnectionRejected, of_client(client))
            assert (rejected.reason, rejected.why) == (reason, RejectReason.NETWORK)
            with Client(running.endpoints[0]) as client:
                assert client.request(b"others") == b"others"
        assert len(running.events_of(ConnectionRejected)) == 2
        assert not running.events_of(Accepted, lambda event: event.peer.host == ALTERNATE_SOURCE)

    def test_denied_network_datagram_is_dropped(self) -> None:
        """The sender of each datagram is checked. Bug: only accept() checks addresses."""
        self.require_transports("udp")
        running = self.serve(EchoService, "udp", limits=Limits(deny=(_ALTERNATE_NETWORK,)))
        denied = self.connect(running, source=ALTERNATE_SOURCE)
        denied.send(b"me")
        assert running.wait_event(DatagramDropped, of_client(denied)).why is RejectReason.NETWORK
        assert self.connect(running).request(b"others") == b"others"
        assert not denied.is_readable()

    def test_per_address_limit_rejects_and_recovers(self) -> None:
        """At the limit of an address its connections are closed at once, and other addresses are served.
        After one closes, the address may connect again. Bugs: one address blocks all others; a slot is never
        released."""
        self.require_transports("tcp")
        self.require_concurrency()
        if not self.engine_class().rejects_when_full:
            pytest.skip(self.engine_class().why_not["rejects_when_full"])
        running = self.serve(EchoService, "tcp", limits=Limits(per_address=2))
        clients = [self.connect(running) for _ in range(2)]
        for client in clients:
            assert client.request(b"in") == b"in"
        with Client(running.endpoints[0]) as third:
            assert third.receive_until_closed() == b""
        assert running.wait_event(ConnectionRejected, of_client(third)).why is RejectReason.ADDRESS
        assert self.connect(running, source=ALTERNATE_SOURCE).request(b"another") == b"another"
        clients[0].reset()
        wait_closed(running, clients[0])
        running.wait_for(lambda: self._is_accepted(running))
        assert clients[1].request(b"still in") == b"still in"

    def test_lifetime_limit_closes_active_connection(self) -> None:
        """An active connection ends with EOF after its maximum lifetime, and the next one has its own. Bug:
        activity prolongs it, as it does the idle timeout."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=Limits(life=_MAX_LIFETIME, linger=0.1))
        for _ in range(2):
            with Client(running.endpoints[0]) as client:
                began = time.monotonic()
                while not client.is_readable(_MAX_LIFETIME / 20):
                    client.send(b".")
                    if client.try_receive(1) != b".":
                        break
                    assert time.monotonic() < began + 10, "the lifetime has no effect"
                assert client.try_receive(1) == b""
            check_cause(running, client, CloseReason.LIFE)
        assert len(running.events_of(Closed)) == 2
        assert not running.events_of(ServiceFailed)

    def test_lifetime_limit_aborts_peer_that_never_reads(self) -> None:
        """After its lifetime a connection is aborted, even with unsent data. Bug: send() blocks longer."""
        self.require_transports("tcp")
        running = self.serve(
            functools.partial(LargeReply, 4_000_000),
            "tcp",
            options=f"?sndbuf={SMALL_BUFFER}",
            limits=Limits(life=_MAX_LIFETIME),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        check_cause(running, client, CloseReason.LIFE)

    def test_rate_limit_slows_reading_without_loss(self) -> None:
        """A peer that sends too fast is read more slowly, loses nothing, and is reported once. Bugs: excess
        data is dropped; other connections wait, too; each read is reported."""
        self.require_transports("tcp")
        rate = 40_000
        running = self.serve(EchoService, "tcp", limits=Limits(rate=rate))
        client = self.connect(running)
        data = pattern(rate + rate // 4)
        began = time.monotonic()
        client.send(data)
        running.wait_event(RateLimited, of_client(client))
        if self.engine_class().concurrent:
            assert self.connect(running).request(b"slowly") == b"slowly"
        assert client.receive_exactly(len(data)) == data
        # One second's worth is read at once. The rest takes longer, and delays the next request.
        assert client.request(b".") == b"."
        assert time.monotonic() - began >= 0.2
        assert len(running.events_of(RateLimited)) == 1
        client.close()
        check_cause(running, client, CloseReason.PEER)

    def test_oversized_line_fails_conversation(self) -> None:
        """A line at the limit is answered; one byte more ends the conversation with EOF, and is reported.
        Bug: an endless line is buffered without a limit."""
        self.require_transports("tcp")
        running = self.serve(message_echo, "tcp", limits=Limits(message=100))
        client = self.connect(running)
        assert client.request(b"x" * 100 + b"\n") == b"x" * 100 + b"\n"
        client.send(b"x" * 101 + b"\n")
        assert client.receive_until_eof() == b""
        client.close()
        assert "exceeds the limit of 100" in str(running.wait_event(ServiceFailed, of_client(client)).error)
        check_cause(running, client, CloseReason.FAILED)
        assert self.connect(running).request(b"next\n") == b"next\n"

    def test_oversized_packet_fails_conversation(self) -> None:
        """A packet over the limit ends the conversation. Bug: taking its first part for the whole packet."""
        self.require_transports("unix+seqpacket")
        running = self.serve(EchoService, "unix+seqpacket", limits=Limits(message=100))
        client = self.connect(running)
        assert client.request(b"x" * 100) == b"x" * 100
        client.send(b"x" * 101)
        assert client.receive_message() == b""
        client.close()
        assert "exceeds the limit of 100" in str(running.wait_event(ServiceFailed, of_client(client)).error)
        assert self.connect(running).request(b"next") == b"next"

    def test_oversized_datagram_is_dropped(self) -> None:
        """A datagram over the limit is dropped and reported each time, and the next one is answered."""
        self.require_transports("udp")
        running = self.serve(EchoService, "udp", limits=Limits(message=100))
        client = self.connect(running)
        for count in (1, 2):
            client.send(b"x" * 101)
            running.wait_for(functools.partial(self._has_dropped, running, count))
            assert client.request(b"x" * 100) == b"x" * 100
        assert {each.why for each in running.events_of(DatagramDropped)} == {RejectReason.SIZE}

    # Helpers -------------------------------------------------------------------------------------

    def _is_accepted(self, running: Harness) -> bool:
        """Whether one more connection from the default address is served."""
        client = self.connect(running)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(b"!")
        return client.try_receive(1) == b"!"

    def _has_dropped(self, running: Harness, count: int) -> bool:
        return len(running.events_of(DatagramDropped)) == count
