"""Scarcity: limits that are set, and descriptors that run out."""

from __future__ import annotations

import errno
import functools
import itertools
import time

import pytest

from bothends.engines.base import Limits
from bothends.events import Accepted, AcceptPaused, AcceptResumed, Closed, CloseReason, ConnectionRejected
from bothends.testing.clients import Client
from bothends.testing.contract.base import SMALL_BUFFER, ContractBase, check_cause, of_client, wait_closed
from bothends.testing.harness import Harness
from bothends.testing.services import EchoService, LargeReply, pattern

_IDLE = 0.5


class ResourceLimitContract(ContractBase):
    """Part of the suite: EMFILE, the connection limit, the idle limit."""

    # Descriptors ---------------------------------------------------------------------------------

    def test_emfile_pauses_accepting_and_recovers(self) -> None:
        """At the limit accept() fails and the client stays in the queue, so the listener stays
        readable. Told once, waited out, then the client is served. Mistakes: EMFILE ends the
        server; a loop that tries again at once spins; one that never tries again is deaf."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp")
        self._warm_up(running)
        restore = running.limit_descriptors(0)
        client = self.connect(running)
        client.send(b"hello")
        assert running.wait_event(AcceptPaused).errno == errno.EMFILE
        used = running.cpu_used(0.3, limit=0.15)
        assert used <= 0.15, f"{used:g} s of processor time, with nothing to be done"
        assert len(running.events_of(AcceptPaused)) <= len(running.processes())
        assert not running.events_of(AcceptResumed)
        restore()
        assert client.receive_exactly(5) == b"hello"
        client.close()
        self._warm_up(running)  # should the client have got a descriptor that was given back just then
        running.wait_event(AcceptResumed)

    def test_connections_beyond_descriptor_limit_are_served_later(self) -> None:
        """Those who don't fit wait, and come in as others leave. Mistake: the one who gives a
        descriptor back doesn't wake the one who waits for it."""
        self.require_transports("tcp")
        self.require_concurrency()
        running = self.serve(EchoService, "tcp")
        self._warm_up(running)
        with Client(running.endpoints[0]) as probe:
            assert probe.request(b"probe") == b"probe"
            apart = bool(running.children())
        if apart:
            pytest.skip("its connections are in processes of their own, with descriptors of their own")
        wait_closed(running, probe)
        running.limit_descriptors(3)
        clients = [self.connect(running) for _ in range(12)]
        for number, client in enumerate(clients):
            client.send(b"%02d" % number)
        running.wait_event(AcceptPaused)
        for number, client in enumerate(clients):
            assert client.receive_exactly(2) == b"%02d" % number
            client.close()
        told = [type(each) for each in running.events if isinstance(each, AcceptPaused | AcceptResumed)]
        assert all(one is not other for one, other in itertools.pairwise(told)), told

    # The connection limit ------------------------------------------------------------------------

    def test_connection_limit_defer_leaves_in_queue(self) -> None:
        """At the limit newcomers wait in the queue, and are served when somebody leaves. Mistakes: the
        limit is not kept; the one who leaves wakes nobody; the loop spins on the queue."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=Limits(connections=1))
        inside = self._fill_to_limit(running)
        outside = self.connect(running)
        outside.send(b"hello")
        used = running.cpu_used(0.2, limit=0.1)
        assert used <= 0.1, f"{used:g} s of processor time, with nothing to be done"
        for client in inside:
            assert client.request(b"still here") == b"still here"
        assert not outside.is_readable(), "it was served beyond the limit"
        assert not running.events_of(Accepted, of_client(outside))
        inside[0].close()
        assert outside.receive_exactly(5) == b"hello"

    def test_connection_limit_refuse_closes_at_once(self) -> None:
        """At the limit newcomers are told so, by a close, at once. Mistake: they wait after all."""
        self.require_transports("tcp")
        if not self.engine_class().rejects_when_full:
            pytest.skip(self.engine_class().why_not["rejects_when_full"])
        running = self.serve(EchoService, "tcp", limits=Limits(connections=1, when_full="refuse"))
        inside = self._fill_to_limit(running)
        outside = self.connect(running)
        assert outside.receive_until_closed() == b""
        running.wait_event(ConnectionRejected, of_client(outside))
        for client in inside:
            assert client.request(b"still here") == b"still here"
        for client in inside:
            client.close()
            wait_closed(running, client)
        running.wait_for(lambda: self._is_served(running))

    def test_connection_limit_slot_is_released_on_any_close(self) -> None:
        """Whoever leaves, however, makes room. Mistake: a count that only some ways out lower."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=Limits(connections=1))
        for number in range(12):
            client = self.connect(running)
            assert client.request(b"x" * 100) == b"x" * 100
            if number % 3 == 0:
                client.close()
            elif number % 3 == 1:
                client.reset()
            else:
                client.send(b"unread")
                client.is_readable(10)
                client.close()

    # The idle limit ------------------------------------------------------------------------------

    def test_idle_connection_is_closed_with_eof(self) -> None:
        """Where nothing moves for too long, it ends: by EOF, not by RST. Mistake: it stays for ever."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=Limits(idle=_IDLE / 2, linger=0.05))
        client = self.connect(running)
        assert client.request(b"hello") == b"hello"
        started = time.monotonic()
        assert client.receive_until_eof() == b""
        assert time.monotonic() - started >= _IDLE / 4
        check_cause(running, client, CloseReason.IDLE)

    def test_active_connection_is_not_idle(self) -> None:
        """Each byte counts anew. Mistake: the limit counts from the start of the connection."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=Limits(idle=_IDLE))
        client = self.connect(running)
        until = time.monotonic() + 1.25 * _IDLE
        while time.monotonic() < until:
            assert client.request(b".") == b"."
            assert not client.is_readable(_IDLE / 20)

    def test_slow_reader_is_not_idle(self) -> None:
        """Bytes that leave count as those that come. Mistake: only what is heard counts, so who
        listens to a long answer is cut off."""
        self.require_transports("tcp")
        for _ in range(5):
            if self._read_slowly():
                return
        pytest.fail(f"this machine is too busy to read something every {_IDLE / 50:g} s")

    def _read_slowly(self) -> bool:
        """One try; False if it was us who paused for too long, which is no fault of the engine."""
        size = 4_000_000
        running = self.serve(
            functools.partial(LargeReply, size),
            "tcp",
            options=f"?sndbuf={SMALL_BUFFER}",
            limits=Limits(idle=_IDLE),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        heard = bytearray()
        started = latest = time.monotonic()
        pause = 0.0
        while latest < started + 1.25 * _IDLE:
            heard += client.receive_exactly(4000)
            lost = client.is_hung_up(_IDLE / 50)
            pause = max(pause, time.monotonic() - latest)
            latest = time.monotonic()
            if lost and pause > _IDLE / 3:
                return False
            assert not lost
        assert heard + client.receive_exactly(size - len(heard)) == pattern(size)
        return True

    def test_peer_that_never_reads_is_idle(self) -> None:
        """Bytes that don't leave are no activity. Mistake: what waits to be sent counts as moving."""
        self.require_transports("tcp")
        running = self.serve(
            functools.partial(LargeReply, 4_000_000),
            "tcp",
            options=f"?sndbuf={SMALL_BUFFER}",
            limits=Limits(idle=_IDLE / 2),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        check_cause(running, client, CloseReason.IDLE)

    # Helpers -------------------------------------------------------------------------------------

    def _warm_up(self, running: Harness) -> None:
        """So that whatever is opened or started at the first connection is there."""
        with Client(running.endpoints[0]) as client:
            assert client.request(b"first") == b"first"
        wait_closed(running, client)
        running.wait_for_stable_children()

    def _fill_to_limit(self, running: Harness) -> list[Client]:
        """Connections up to the limit of 1, which counts in each process that accepts."""
        running.wait_for(lambda: self._is_served(running))
        running.wait_for_stable_children()
        workers = max(1, len(running.children()))
        inside: list[Client] = []

        def one_more() -> bool:
            client = self.connect(running)
            client.send(b"in?")
            if client.is_readable(0.2) and client.try_receive(3) == b"in?":
                inside.append(client)
            else:
                client.close()
            return len(inside) == workers

        running.wait_for(one_more)
        return inside

    def _is_served(self, running: Harness) -> bool:
        """One connection, from begin to end."""
        with Client(running.endpoints[0]) as client:
            client.send(b"!")
            served = client.try_receive(1) == b"!"
        if served:
            running.wait_event(Closed, of_client(client))
        return served
