"""Resource limits: descriptors that run out, the connection limit, the idle timeout."""

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
    """Part of the suite: EMFILE, the connection limit, the idle timeout."""

    # Descriptors ---------------------------------------------------------------------------------

    def test_emfile_pauses_accepting_and_recovers(self) -> None:
        """At the descriptor limit accept() fails and the client stays in the queue, so the listener stays
        readable. The engine reports it once, pauses accepting, and serves the client later. Bugs: EMFILE ends
        the server; it retries in a busy loop; it never retries."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp")
        self._warm_up(running)
        restore = running.limit_descriptors(0)
        client = self.connect(running)
        client.send(b"hello")
        assert running.wait_event(AcceptPaused).errno == errno.EMFILE
        used = running.cpu_used(0.3, limit=0.15)
        assert used <= 0.15, f"{used:g} s of CPU time while accepting is paused"
        assert len(running.events_of(AcceptPaused)) <= len(running.processes())
        assert not running.events_of(AcceptResumed)
        restore()
        assert client.receive_exactly(5) == b"hello"
        client.close()
        self._warm_up(running)  # in case the client got a descriptor that was closed just before the retry
        running.wait_event(AcceptResumed)

    def test_connections_beyond_descriptor_limit_are_served_later(self) -> None:
        """Connections beyond the descriptor limit wait, and are accepted as others close. Bug: closing a
        connection does not resume accepting."""
        self.require_transports("tcp")
        self.require_concurrency()
        running = self.serve(EchoService, "tcp")
        self._warm_up(running)
        with Client(running.endpoints[0]) as probe:
            assert probe.request(b"probe") == b"probe"
            has_children = bool(running.children())
        if has_children:
            pytest.skip("each connection has its own process, with its own descriptor limit")
        wait_closed(running, probe)
        running.limit_descriptors(3)
        clients = [self.connect(running) for _ in range(12)]
        for number, client in enumerate(clients):
            client.send(b"%02d" % number)
        running.wait_event(AcceptPaused)
        for number, client in enumerate(clients):
            assert client.receive_exactly(2) == b"%02d" % number
            client.close()
        types = [type(each) for each in running.events if isinstance(each, AcceptPaused | AcceptResumed)]
        assert all(one is not other for one, other in itertools.pairwise(types)), types

    # The connection limit ------------------------------------------------------------------------

    def test_connection_limit_defer_leaves_in_queue(self) -> None:
        """At the limit new connections wait in the accept queue, and are served when others close. Bugs: the
        limit has no effect; closing a connection does not resume accepting; a busy loop on the queue."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=Limits(connections=1))
        accepted = self._fill_to_limit(running)
        deferred = self.connect(running)
        deferred.send(b"hello")
        used = running.cpu_used(0.2, limit=0.1)
        assert used <= 0.1, f"{used:g} s of CPU time at the connection limit"
        for client in accepted:
            assert client.request(b"still here") == b"still here"
        assert not deferred.is_readable(), "it was served beyond the limit"
        assert not running.events_of(Accepted, of_client(deferred))
        accepted[0].close()
        assert deferred.receive_exactly(5) == b"hello"

    def test_connection_limit_refuse_closes_at_once(self) -> None:
        """With `refuse`, connections beyond the limit are closed at once. Bug: they wait in the queue."""
        self.require_transports("tcp")
        if not self.engine_class().rejects_when_full:
            pytest.skip(self.engine_class().why_not["rejects_when_full"])
        running = self.serve(EchoService, "tcp", limits=Limits(connections=1, when_full="refuse"))
        accepted = self._fill_to_limit(running)
        rejected = self.connect(running)
        assert rejected.receive_until_closed() == b""
        running.wait_event(ConnectionRejected, of_client(rejected))
        for client in accepted:
            assert client.request(b"still here") == b"still here"
        for client in accepted:
            client.close()
            wait_closed(running, client)
        running.wait_for(lambda: self._is_served(running))

    def test_connection_limit_slot_is_released_on_any_close(self) -> None:
        """Every kind of close releases a slot. Bug: some paths do not decrement the count."""
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

    # The idle timeout ----------------------------------------------------------------------------

    def test_idle_connection_is_closed_with_eof(self) -> None:
        """The idle timeout ends a connection by EOF, not by RST. Bug: the connection stays open forever."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=Limits(idle=_IDLE / 2, linger=0.05))
        client = self.connect(running)
        assert client.request(b"hello") == b"hello"
        started = time.monotonic()
        assert client.receive_until_eof() == b""
        assert time.monotonic() - started >= _IDLE / 4
        check_cause(running, client, CloseReason.IDLE)

    def test_active_connection_is_not_idle(self) -> None:
        """Each byte restarts the idle timeout. Bug: the timeout counts from accept()."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=Limits(idle=_IDLE))
        client = self.connect(running)
        until = time.monotonic() + 1.25 * _IDLE
        while time.monotonic() < until:
            assert client.request(b".") == b"."
            assert not client.is_readable(_IDLE / 20)

    def test_slow_reader_is_not_idle(self) -> None:
        """Sent bytes count as activity, too. Bug: only received bytes count, so a peer that reads a long
        reply is disconnected."""
        self.require_transports("tcp")
        for _ in range(5):
            if self._read_slowly():
                return
        pytest.fail(f"this machine is too busy to read every {_IDLE / 50:g} s")

    def _read_slowly(self) -> bool:
        """Try once. Returns False if the test itself paused for too long."""
        size = 4_000_000
        running = self.serve(
            functools.partial(LargeReply, size),
            "tcp",
            options=f"?sndbuf={SMALL_BUFFER}",
            limits=Limits(idle=_IDLE),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        received = bytearray()
        started = latest = time.monotonic()
        pause = 0.0
        while latest < started + 1.25 * _IDLE:
            try:
                received += client.receive_exactly(4000)
                closed = client.is_hung_up(_IDLE / 50)
            except ConnectionResetError:
                closed = True
            pause = max(pause, time.monotonic() - latest)
            latest = time.monotonic()
            if closed and pause > _IDLE / 3:
                return False
            assert not closed
        assert received + client.receive_exactly(size - len(received)) == pattern(size)
        return True

    def test_peer_that_never_reads_is_idle(self) -> None:
        """Unsent data is not activity. Bug: a non-empty write buffer counts as activity."""
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
        """Serve one connection, so that everything that the engine opens or starts on first use exists."""
        with Client(running.endpoints[0]) as client:
            assert client.request(b"first") == b"first"
        wait_closed(running, client)
        running.wait_for_stable_children()

    def _fill_to_limit(self, running: Harness) -> list[Client]:
        """Open connections up to the limit of 1, which applies to each process that accepts."""
        running.wait_for(lambda: self._is_served(running))
        running.wait_for_stable_children()
        workers = max(1, len(running.children()))
        accepted: list[Client] = []

        def connect_one_more() -> bool:
            client = self.connect(running)
            client.send(b"in?")
            if client.is_readable(0.2) and client.try_receive(3) == b"in?":
                accepted.append(client)
            else:
                client.close()
            return len(accepted) == workers

        running.wait_for(connect_one_more)
        return accepted

    def _is_served(self, running: Harness) -> bool:
        """Whether a new connection is served. Waits until it is closed."""
        with Client(running.endpoints[0]) as client:
            client.send(b"!")
            served = client.try_receive(1) == b"!"
        if served:
            running.wait_event(Closed, of_client(client))
        return served
