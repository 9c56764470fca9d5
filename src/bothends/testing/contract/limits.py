"""Limits: who may come in, how long and how fast, and how much at once. Each is reached on purpose."""

from __future__ import annotations

import contextlib
import functools
import time

import pytest

from bothends.engines.access_control import parse_network
from bothends.engines.base import Limits
from bothends.events import Cause, Closed, Dropped, Failed, Opened, Refused, Slowed, Why
from bothends.testing.clients import Client
from bothends.testing.contract.base import SMALL, ContractBase, check_cause, closed, of
from bothends.testing.harness import Harness
from bothends.testing.services import UNLUCKY, Echo, Large, messages, pattern

_UNLUCKY_NETWORK = parse_network(f"{UNLUCKY}/32")
_OTHERS = parse_network("127.0.0.0/29")

# Long enough to say something in it, on a busy machine too; short enough to be waited for.
_LIFE = 0.15


class LimitContract(ContractBase):
    """Part of the suite: networks, connections of one address, life, rate, and the length of a message."""

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            (Limits(deny=(_UNLUCKY_NETWORK,)), f"its network {UNLUCKY}/32 is denied"),
            (Limits(allow=(_OTHERS,)), "its network is not among those allowed"),
        ],
        ids=["denied", "not allowed"],
    )
    def test_networks(self, limits: Limits, reason: str) -> None:
        """Who may not come in is closed at once, and each time told; others come in. Mistakes: it waits,
        or is heard first; the first of them shuts out everybody."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp", limits=limits)
        for _ in range(2):
            with Client(running.endpoints[0], source=UNLUCKY) as client:
                assert client.hear_end() == b""
            refused = running.wait_event(Refused, of(client))
            assert (refused.reason, refused.why) == (reason, Why.NETWORK)
            with Client(running.endpoints[0]) as client:
                assert client.ask(b"others") == b"others"
        assert len(running.seen(Refused)) == 2
        assert not running.seen(Opened, lambda event: event.peer.host == UNLUCKY)

    def test_networks_of_datagrams(self) -> None:
        """Where there are no connections, each datagram is looked at. Mistake: only accept() is guarded."""
        self.needs("udp")
        running = self.serve(Echo, "udp", limits=Limits(deny=(_UNLUCKY_NETWORK,)))
        denied = self.dial(running, source=UNLUCKY)
        denied.say(b"me")
        assert running.wait_event(Dropped, of(denied)).why is Why.NETWORK
        assert self.dial(running).ask(b"others") == b"others"
        assert not denied.is_readable()

    def test_connections_of_one_address(self) -> None:
        """Whose address has its share is told so by a close; another comes in, and so does the same one
        when there is room again. Mistakes: one address keeps out all; a place that is never given back."""
        self.needs("tcp")
        self.needs_concurrency()
        if not self.engine_class().turns_away:
            pytest.skip(self.engine_class().why_not["turns_away"])
        running = self.serve(Echo, "tcp", limits=Limits(per_address=2))
        inside = [self.dial(running) for _ in range(2)]
        for client in inside:
            assert client.ask(b"in") == b"in"
        with Client(running.endpoints[0]) as third:
            assert third.hear_end() == b""
        assert running.wait_event(Refused, of(third)).why is Why.ADDRESS
        assert self.dial(running, source=UNLUCKY).ask(b"another") == b"another"
        inside[0].reset()
        closed(running, inside[0])
        running.wait_for(lambda: self._is_let_in(running))
        assert inside[1].ask(b"still in") == b"still in"

    def test_life(self) -> None:
        """However busy it is, a connection ends when its time is over, by EOF; the next one has a time of
        its own. Mistake: what moves prolongs it, as it does the idle limit."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp", limits=Limits(life=_LIFE, linger=0.1))
        for _ in range(2):
            with Client(running.endpoints[0]) as client:
                began = time.monotonic()
                while not client.is_readable(_LIFE / 20):
                    client.say(b".")
                    if client.try_hear(1) != b".":
                        break
                    assert time.monotonic() < began + 10, "its life has no end"
                assert client.try_hear(1) == b""
            check_cause(running, client, Cause.LIFE)
        assert len(running.seen(Closed)) == 2
        assert not running.seen(Failed)

    def test_life_of_who_never_reads(self) -> None:
        """Nothing is owed any more to whose time is over. Mistake: a send() that blocks beyond it."""
        self.needs("tcp")
        running = self.serve(
            functools.partial(Large, 4_000_000), "tcp", options=f"?sndbuf={SMALL}", limits=Limits(life=_LIFE)
        )
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        check_cause(running, client, Cause.LIFE)

    def test_rate(self) -> None:
        """Who sends faster is read more slowly, loses nothing, and is told of once. Mistakes: what is too
        much is thrown away; everybody waits for the one who is too fast; it is told for each read."""
        self.needs("tcp")
        rate = 40_000
        running = self.serve(Echo, "tcp", limits=Limits(rate=rate))
        client = self.dial(running)
        data = pattern(rate + rate // 4)
        began = time.monotonic()
        client.say(data)
        running.wait_event(Slowed, of(client))
        if self.engine_class().concurrent:
            assert self.dial(running).ask(b"slowly") == b"slowly"
        assert client.hear(len(data)) == data
        # A second's worth may come at once; what is above it takes its time, which whoever comes next waits.
        assert client.ask(b".") == b"."
        assert time.monotonic() - began >= 0.2
        assert len(running.seen(Slowed)) == 1
        client.close()
        check_cause(running, client, Cause.PEER)

    def test_longest_message_of_a_stream(self) -> None:
        """A line at the limit passes; at one over it the conversation ends, in good order, and is told.
        Mistake: what is too long is kept, for as long as it goes on."""
        self.needs("tcp")
        running = self.serve(messages, "tcp", limits=Limits(message=100))
        client = self.dial(running)
        assert client.ask(b"x" * 100 + b"\n") == b"x" * 100 + b"\n"
        client.say(b"x" * 101 + b"\n")
        assert client.hear_all() == b""
        client.close()
        assert "the limit is 100" in str(running.wait_event(Failed, of(client)).error)
        check_cause(running, client, Cause.FAILED)
        assert self.dial(running).ask(b"next\n") == b"next\n"

    def test_longest_packet(self) -> None:
        """As above, where the system keeps messages apart. Mistake: the first part of a packet taken for
        all of it."""
        self.needs("unix+seqpacket")
        running = self.serve(Echo, "unix+seqpacket", limits=Limits(message=100))
        client = self.dial(running)
        assert client.ask(b"x" * 100) == b"x" * 100
        client.say(b"x" * 101)
        assert client.hear_message() == b""
        client.close()
        assert "the limit is 100" in str(running.wait_event(Failed, of(client)).error)
        assert self.dial(running).ask(b"next") == b"next"

    def test_longest_datagram(self) -> None:
        """As above: it is dropped, each time told, and the next one is answered."""
        self.needs("udp")
        running = self.serve(Echo, "udp", limits=Limits(message=100))
        client = self.dial(running)
        for count in (1, 2):
            client.say(b"x" * 101)
            running.wait_for(functools.partial(self._has_dropped, running, count))
            assert client.ask(b"x" * 100) == b"x" * 100
        assert {each.why for each in running.seen(Dropped)} == {Why.SIZE}

    # Helpers -------------------------------------------------------------------------------------

    def _is_let_in(self, running: Harness) -> bool:
        """Whether one more of our address is."""
        client = self.dial(running)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.say(b"!")
        return client.try_hear(1) == b"!"

    def _has_dropped(self, running: Harness, count: int) -> bool:
        return len(running.seen(Dropped)) == count
