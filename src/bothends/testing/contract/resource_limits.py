"""Scarcity: limits that are set, and descriptors that run out."""

from __future__ import annotations

import errno
import functools
import itertools
import time

import pytest

from bothends.engines.base import Limits
from bothends.events import Cause, Closed, Opened, Refused, Relieved, Strained
from bothends.testing.clients import Client
from bothends.testing.contract.base import SMALL, ContractBase, check_cause, closed, of
from bothends.testing.harness import Harness
from bothends.testing.services import Echo, Large, pattern

_IDLE = 0.5


class ScarcityContract(ContractBase):
    """Part of the suite: EMFILE, the connection limit, the idle limit."""

    # Descriptors ---------------------------------------------------------------------------------

    def test_no_descriptor_left(self) -> None:
        """At the limit accept() fails and the client stays in the queue, so the listener stays
        readable. Told once, waited out, then the client is served. Mistakes: EMFILE ends the
        server; a loop that tries again at once spins; one that never tries again is deaf."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp")
        self._one_exchange(running)
        restore = running.spare_descriptors(0)
        client = self.dial(running)
        client.say(b"hello")
        assert running.wait_event(Strained).errno == errno.EMFILE
        used = running.cpu_over(0.3, enough=0.15)
        assert used <= 0.15, f"{used:g} s of processor time, with nothing to be done"
        assert len(running.seen(Strained)) <= len(running.processes())
        assert not running.seen(Relieved)
        restore()
        assert client.hear(5) == b"hello"
        client.close()
        self._one_exchange(running)  # should the client have got a descriptor that was given back just then
        running.wait_event(Relieved)

    def test_flood_beyond_the_descriptors(self) -> None:
        """Those who don't fit wait, and come in as others leave. Mistake: the one who gives a
        descriptor back doesn't wake the one who waits for it."""
        self.needs("tcp")
        self.needs_concurrency()
        running = self.serve(Echo, "tcp")
        self._one_exchange(running)
        with Client(running.endpoints[0]) as probe:
            assert probe.ask(b"probe") == b"probe"
            apart = bool(running.children())
        if apart:
            pytest.skip("its connections are in processes of their own, with descriptors of their own")
        closed(running, probe)
        running.spare_descriptors(3)
        clients = [self.dial(running) for _ in range(12)]
        for number, client in enumerate(clients):
            client.say(b"%02d" % number)
        running.wait_event(Strained)
        for number, client in enumerate(clients):
            assert client.hear(2) == b"%02d" % number
            client.close()
        told = [type(each) for each in running.events if isinstance(each, Strained | Relieved)]
        assert all(one is not other for one, other in itertools.pairwise(told)), told

    # The connection limit ------------------------------------------------------------------------

    def test_limit_that_defers(self) -> None:
        """At the limit newcomers wait in the queue, and are served when somebody leaves. Mistakes: the
        limit is not kept; the one who leaves wakes nobody; the loop spins on the queue."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp", limits=Limits(connections=1))
        inside = self._fill(running)
        outside = self.dial(running)
        outside.say(b"hello")
        used = running.cpu_over(0.2, enough=0.1)
        assert used <= 0.1, f"{used:g} s of processor time, with nothing to be done"
        for client in inside:
            assert client.ask(b"still here") == b"still here"
        assert not outside.is_readable(), "it was served beyond the limit"
        assert not running.seen(Opened, of(outside))
        inside[0].close()
        assert outside.hear(5) == b"hello"

    def test_limit_that_refuses(self) -> None:
        """At the limit newcomers are told so, by a close, at once. Mistake: they wait after all."""
        self.needs("tcp")
        if not self.engine_class().turns_away:
            pytest.skip(self.engine_class().why_not["turns_away"])
        running = self.serve(Echo, "tcp", limits=Limits(connections=1, when_full="refuse"))
        inside = self._fill(running)
        outside = self.dial(running)
        assert outside.hear_end() == b""
        running.wait_event(Refused, of(outside))
        for client in inside:
            assert client.ask(b"still here") == b"still here"
        for client in inside:
            client.close()
            closed(running, client)
        running.wait_for(lambda: self._is_served(running))

    def test_places_are_given_back(self) -> None:
        """Whoever leaves, however, makes room. Mistake: a count that only some ways out lower."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp", limits=Limits(connections=1))
        for number in range(12):
            client = self.dial(running)
            assert client.ask(b"x" * 100) == b"x" * 100
            if number % 3 == 0:
                client.close()
            elif number % 3 == 1:
                client.reset()
            else:
                client.say(b"unread")
                client.is_readable(10)
                client.close()

    # The idle limit ------------------------------------------------------------------------------

    def test_idle_connection_is_closed(self) -> None:
        """Where nothing moves for too long, it ends: by EOF, not by RST. Mistake: it stays for ever."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp", limits=Limits(idle=_IDLE / 2, linger=0.05))
        client = self.dial(running)
        assert client.ask(b"hello") == b"hello"
        started = time.monotonic()
        assert client.hear_all() == b""
        assert time.monotonic() - started >= _IDLE / 4
        check_cause(running, client, Cause.IDLE)

    def test_active_connection_is_not_idle(self) -> None:
        """Each byte counts anew. Mistake: the limit counts from the start of the connection."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp", limits=Limits(idle=_IDLE))
        client = self.dial(running)
        until = time.monotonic() + 1.25 * _IDLE
        while time.monotonic() < until:
            assert client.ask(b".") == b"."
            assert not client.is_readable(_IDLE / 20)

    def test_slow_reader_is_not_idle(self) -> None:
        """Bytes that leave count as those that come. Mistake: only what is heard counts, so who
        listens to a long answer is cut off."""
        self.needs("tcp")
        for _ in range(5):
            if self._read_slowly():
                return
        pytest.fail(f"this machine is too busy to read something every {_IDLE / 50:g} s")

    def _read_slowly(self) -> bool:
        """One try; False if it was us who paused for too long, which is no fault of the engine."""
        size = 4_000_000
        running = self.serve(
            functools.partial(Large, size),
            "tcp",
            options=f"?sndbuf={SMALL}",
            limits=Limits(idle=_IDLE),
        )
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        heard = bytearray()
        started = latest = time.monotonic()
        pause = 0.0
        while latest < started + 1.25 * _IDLE:
            heard += client.hear(4000)
            lost = client.is_lost(_IDLE / 50)
            pause = max(pause, time.monotonic() - latest)
            latest = time.monotonic()
            if lost and pause > _IDLE / 3:
                return False
            assert not lost
        assert heard + client.hear(size - len(heard)) == pattern(size)
        return True

    def test_who_never_reads_is_idle(self) -> None:
        """Bytes that don't leave are no activity. Mistake: what waits to be sent counts as moving."""
        self.needs("tcp")
        running = self.serve(
            functools.partial(Large, 4_000_000),
            "tcp",
            options=f"?sndbuf={SMALL}",
            limits=Limits(idle=_IDLE / 2),
        )
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        check_cause(running, client, Cause.IDLE)

    # Helpers -------------------------------------------------------------------------------------

    def _one_exchange(self, running: Harness) -> None:
        """So that whatever is opened or started at the first connection is there."""
        with Client(running.endpoints[0]) as client:
            assert client.ask(b"first") == b"first"
        closed(running, client)
        running.settle()

    def _fill(self, running: Harness) -> list[Client]:
        """Connections up to the limit of 1, which counts in each process that accepts."""
        running.wait_for(lambda: self._is_served(running))
        running.settle()
        workers = max(1, len(running.children()))
        inside: list[Client] = []

        def one_more() -> bool:
            client = self.dial(running)
            client.say(b"in?")
            if client.is_readable(0.2) and client.try_hear(3) == b"in?":
                inside.append(client)
            else:
                client.close()
            return len(inside) == workers

        running.wait_for(one_more)
        return inside

    def _is_served(self, running: Harness) -> bool:
        """One connection, from begin to end."""
        with Client(running.endpoints[0]) as client:
            client.say(b"!")
            served = client.try_hear(1) == b"!"
        if served:
            running.wait_event(Closed, of(client))
        return served
