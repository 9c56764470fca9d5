"""Limits: who may come in, how long and how fast, and how much at once. Each is reached on purpose."""

from __future__ import annotations

import contextlib
import functools
import time

import pytest

from bothends.engines.client_limits import parse_network
from bothends.engines.base import Limits
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

# Long enough to say something in it, on a busy machine too; short enough to be waited for.
_MAX_LIFETIME = 0.15


class LimitContract(ContractBase):
    """Part of the suite: networks, connections of one address, life, rate, and the length of a message."""

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            (Limits(deny=(_ALTERNATE_NETWORK,)), f"its network {ALTERNATE_SOURCE}/32 is denied"),
            (Limits(allow=(_DEFAULT_NETWORK,)), "its network is not among those allowed"),
        ],
        ids=["denied", "not allowed"],
    )
    def test_denied_network_is_closed_on_accept(self, limits: Limits, reason: str) -> None:
        """Who may not come in is closed at once, and each time told; others come in. Mistakes: it waits,
        or is heard first; the first of them shuts out everybody."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=limits)
        for _ in range(2):
            with Client(running.endpoints[0], source=ALTERNATE_SOURCE) as client:
                assert client.receive_until_closed() == b""
            refused = running.wait_event(ConnectionRejected, of_client(client))
            assert (refused.reason, refused.why) == (reason, RejectReason.NETWORK)
            with Client(running.endpoints[0]) as client:
                assert client.request(b"others") == b"others"
        assert len(running.events_of(ConnectionRejected)) == 2
        assert not running.events_of(Accepted, lambda event: event.peer.host == ALTERNATE_SOURCE)

    def test_denied_network_datagram_is_dropped(self) -> None:
        """Where there are no connections, each datagram is looked at. Mistake: only accept() is guarded."""
        self.require_transports("udp")
        running = self.serve(EchoService, "udp", limits=Limits(deny=(_ALTERNATE_NETWORK,)))
        denied = self.connect(running, source=ALTERNATE_SOURCE)
        denied.send(b"me")
        assert running.wait_event(DatagramDropped, of_client(denied)).why is RejectReason.NETWORK
        assert self.connect(running).request(b"others") == b"others"
        assert not denied.is_readable()

    def test_per_address_limit_rejects_and_recovers(self) -> None:
        """Whose address has its share is told so by a close; another comes in, and so does the same one
        when there is room again. Mistakes: one address keeps out all; a place that is never given back."""
        self.require_transports("tcp")
        self.require_concurrency()
        if not self.engine_class().rejects_when_full:
            pytest.skip(self.engine_class().why_not["rejects_when_full"])
        running = self.serve(EchoService, "tcp", limits=Limits(per_address=2))
        inside = [self.connect(running) for _ in range(2)]
        for client in inside:
            assert client.request(b"in") == b"in"
        with Client(running.endpoints[0]) as third:
            assert third.receive_until_closed() == b""
        assert running.wait_event(ConnectionRejected, of_client(third)).why is RejectReason.ADDRESS
        assert self.connect(running, source=ALTERNATE_SOURCE).request(b"another") == b"another"
        inside[0].reset()
        wait_closed(running, inside[0])
        running.wait_for(lambda: self._is_accepted(running))
        assert inside[1].request(b"still in") == b"still in"

    def test_lifetime_limit_closes_active_connection(self) -> None:
        """However busy it is, a connection ends when its time is over, by EOF; the next one has a time of
        its own. Mistake: what moves prolongs it, as it does the idle limit."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=Limits(life=_MAX_LIFETIME, linger=0.1))
        for _ in range(2):
            with Client(running.endpoints[0]) as client:
                began = time.monotonic()
                while not client.is_readable(_MAX_LIFETIME / 20):
                    client.send(b".")
                    if client.try_receive(1) != b".":
                        break
                    assert time.monotonic() < began + 10, "its life has no end"
                assert client.try_receive(1) == b""
            check_cause(running, client, CloseReason.LIFE)
        assert len(running.events_of(Closed)) == 2
        assert not running.events_of(ServiceFailed)

    def test_lifetime_limit_aborts_peer_that_never_reads(self) -> None:
        """Nothing is owed any more to whose time is over. Mistake: a send() that blocks beyond it."""
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
        """Who sends faster is read more slowly, loses nothing, and is told of once. Mistakes: what is too
        much is thrown away; everybody waits for the one who is too fast; it is told for each read."""
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
        # A second's worth may come at once; what is above it takes its time, which whoever comes next waits.
        assert client.request(b".") == b"."
        assert time.monotonic() - began >= 0.2
        assert len(running.events_of(RateLimited)) == 1
        client.close()
        check_cause(running, client, CloseReason.PEER)

    def test_oversized_line_fails_conversation(self) -> None:
        """A line at the limit passes; at one over it the conversation ends, in good order, and is told.
        Mistake: what is too long is kept, for as long as it goes on."""
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
        """As above, where the system keeps messages apart. Mistake: the first part of a packet taken for
        all of it."""
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
        """As above: it is dropped, each time told, and the next one is answered."""
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
        """Whether one more of our address is."""
        client = self.connect(running)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(b"!")
        return client.try_receive(1) == b"!"

    def _has_dropped(self, running: Harness, count: int) -> bool:
        return len(running.events_of(DatagramDropped)) == count
