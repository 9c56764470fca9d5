"""Shutdown: draining lets conversations end, aborting aborts them, and no resource is left open."""

from __future__ import annotations

import functools
import itertools
import time

import pytest

from bothends.engines.base import DRAIN_IDLE, Limits
from bothends.events import Closed, CloseReason, Received
from bothends.testing.clients import Client
from bothends.testing.contract.base import (
    SMALL_BUFFER,
    ContractBase,
    check_cause,
    of_client,
    wait_closed,
    wait_opened,
)
from bothends.testing.harness import Harness
from bothends.testing.services import EchoService, LargeReply, PullProducer, UppercaseLines, pattern

# Seconds: well below _LONG_DRAIN, and more than enough on a busy machine.
_EXIT_TIMEOUT = 20.0

# Seconds: a drain timeout that never expires in a test.
_LONG_DRAIN = 60.0

# Bytes: more than the buffers of both ends hold, so that data is unsent, but not much more, because with such
# a small window the kernel may wait for a delayed acknowledgement (40 ms) after each window.
_UNSENT_SIZE = 600_000

_SMALL_BUFFERS = f"?sndbuf={SMALL_BUFFER}&rcvbuf={SMALL_BUFFER}"


class ShutdownContract(ContractBase):
    """Part of the suite: the two stages of stopping."""

    def test_drain_without_connections_exits_at_once(self) -> None:
        """Without connections the engine exits at once. Bug: it waits for the drain timeout."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp", limits=Limits(drain=_LONG_DRAIN))
        running.drain()
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))

    def test_drain_closes_idle_connections_with_eof(self, connection_transport: str) -> None:
        """An idle connection is closed with EOF, even if its peer does nothing. Bugs: waiting for a client
        that never closes (python/cpython#113538); resetting it."""
        running = self.serve(EchoService, connection_transport, limits=Limits(drain=_LONG_DRAIN, linger=0.05))
        client = self.connect(running)
        assert client.request(b"hello") == b"hello"
        running.drain()
        assert client.receive_until_eof() == b""
        check_cause(running, client, CloseReason.DRAINED)
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))

    def test_drain_closes_idle_connections_concurrently(self) -> None:
        """Closing many idle connections takes no longer than closing one. Bug: waiting for each in turn."""
        self.require_transports("tcp")
        self.require_concurrency()
        running = self.serve(EchoService, "tcp", limits=Limits(drain=_LONG_DRAIN))
        with Client(running.endpoints[0]) as first:
            assert first.request(b"hello") == b"hello"
        wait_closed(running, first)
        running.wait_for_stable_children()
        clients = [self.connect(running) for _ in range(len(running.children()) or 30)]
        for client in clients:
            assert client.request(b"hello") == b"hello"
        running.drain()
        for client in clients:
            assert client.receive_until_closed() == b""
            client.close()
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))
        ends = [each.at / 1e9 for each in running.events_of(Closed)[1:]]
        assert max(ends) - min(ends) < DRAIN_IDLE * max(2, len(clients) / 4)

    def test_drain_waits_for_partial_message(self) -> None:
        """While a message is arriving, its conversation continues, and gets its reply. Bug: closing all
        connections at once."""
        self.require_transports("tcp")
        for _ in range(5):
            if self._drain_while_sending_bytewise():
                return
        pytest.fail("this machine is too busy to send a byte every 30 ms")

    def _drain_while_sending_bytewise(self) -> bool:
        """Try once. Returns False if the test itself sent the bytes too late."""
        running = self.serve(UppercaseLines, "tcp", limits=Limits(drain=_LONG_DRAIN, linger=0.05))
        client = self.connect(running)
        client.send(b"slow")
        running.wait_event(Received, of_client(client))
        running.drain()
        word = b"ly it goes\n"
        try:
            client.send_bytewise(word, interval=DRAIN_IDLE / 5)
            reply = client.receive_until_eof()
        except OSError:
            reply = b""
        running.wait_exit(_LONG_DRAIN)
        times = [
            each.at for kind in (Received, Closed) for each in running.events_of(kind, of_client(client))
        ]
        gaps = [(late - early) / 1e9 for early, late in itertools.pairwise(times)]
        if reply != b"SLOWLY IT GOES\n" and (len(times) < 2 or max(gaps) > DRAIN_IDLE / 2):
            return False
        assert reply == b"SLOWLY IT GOES\n"
        check_cause(running, client, CloseReason.DRAINED)
        return True

    def test_drain_flushes_unsent_data(self) -> None:
        """A peer that reads receives a long reply to its end. Bug: a connection counts as idle because the
        peer sends nothing, although the server is sending."""
        self.require_transports("tcp")
        size = _UNSENT_SIZE
        running = self.serve(
            functools.partial(LargeReply, size),
            "tcp",
            options=_SMALL_BUFFERS,
            limits=Limits(drain=_LONG_DRAIN, linger=0.05),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        received = client.receive_exactly(10_000)
        running.drain()
        until = time.monotonic() + 1.5 * DRAIN_IDLE
        while time.monotonic() < until:
            received += client.receive_exactly(4000)
            client.is_hung_up(DRAIN_IDLE / 20)
        received += client.receive_until_eof()
        assert received == pattern(size)
        check_cause(running, client, CloseReason.DRAINED)

    def test_drain_stops_endless_producer(self, stream_transport: str) -> None:
        """Draining stops an endless producer. Bug: waiting until it is done."""
        running = self.serve(
            PullProducer, stream_transport, options=_SMALL_BUFFERS, limits=Limits(drain=_LONG_DRAIN)
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        assert client.receive_exactly(100_000)
        running.drain()
        assert client.discard_slowly(DRAIN_IDLE / 30)
        client.close()
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))

    def test_drain_timeout_aborts_peer_that_never_reads(self) -> None:
        """After the drain timeout a peer that does not read is aborted. Bug: waiting forever."""
        self.require_transports("tcp")
        running = self.serve(
            functools.partial(LargeReply, 4_000_000), "tcp", options=_SMALL_BUFFERS, limits=Limits(drain=0.25)
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        assert client.is_readable(10)
        running.drain()
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))
        check_cause(running, client, CloseReason.ABORTED)

    def test_drain_serves_accept_queue(self) -> None:
        """Connections in the accept queue are established, and may have sent data, so they are served. Bug:
        closing the listener without accepting them, which resets them."""
        self.require_transports("tcp")
        running = self.serve(UppercaseLines, "tcp", limits=Limits(drain=_LONG_DRAIN))
        assert self._is_served_once(running)
        with running.suspended():
            clients = [self.connect(running) for _ in range(3)]
            for number, client in enumerate(clients):
                client.send(b"early %d\n" % number)
                client.shutdown_write()
            running.drain()
        for number, client in enumerate(clients):
            assert client.receive_until_eof() == b"EARLY %d\n" % number
            client.close()
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))

    def test_drain_refuses_new_connections(self) -> None:
        """While a connection is still open, new ones are refused. Bug: a listener is left open, here or in a
        child, so that clients wait in a queue that is never read."""
        self.require_transports("tcp")
        self.require_concurrency()
        running = self.serve(
            functools.partial(LargeReply, _UNSENT_SIZE),
            "tcp",
            options=_SMALL_BUFFERS,
            limits=Limits(drain=_LONG_DRAIN),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        assert client.is_readable(10)
        running.drain()
        running.wait_for(lambda: self._is_connection_refused(running), _EXIT_TIMEOUT)
        assert client.receive_exactly(_UNSENT_SIZE) == pattern(_UNSENT_SIZE)
        client.close()
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))

    def test_drain_answers_queued_datagrams(self, datagram_transport: str) -> None:
        """Queued datagrams are answered before the socket is closed. Bug: exiting at once, because there are
        no connections."""
        running = self.serve(EchoService, datagram_transport, limits=Limits(drain=_LONG_DRAIN))
        client = self.connect(running)
        assert client.request(b"hello") == b"hello"
        with running.suspended():
            client.send(b"in time")
            running.drain()
        assert client.receive_message() == b"in time"
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))

    @pytest.mark.parametrize("state", ["idle", "partial message", "unsent reply"])
    def test_abort_closes_connections_at_once(self, state: str, stream_transport: str) -> None:
        """An abort closes all connections at once, whatever their state. Bugs: a blocked call that is not
        woken; a child that is not notified."""
        running = self.serve(
            functools.partial(LargeReply, 4_000_000) if state == "unsent reply" else UppercaseLines,
            stream_transport,
            options=_SMALL_BUFFERS,
            limits=Limits(drain=_LONG_DRAIN, linger=_LONG_DRAIN),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        wait_opened(running, client)
        if state != "idle":
            client.send(b"half a line")
            running.wait_event(Received, of_client(client))
        running.abort()
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))
        # An abort starts with draining, which may already close a connection that has been idle for long
        # enough.
        causes = [CloseReason.ABORTED]
        if state != "unsent reply":
            causes.append(CloseReason.DRAINED)
        check_cause(running, client, *causes)
        client.receive_until_closed()

    def test_abort_while_draining(self) -> None:
        """An abort ends a drain. Bug: a draining engine does not notice it."""
        self.require_transports("tcp")
        running = self.serve(
            functools.partial(LargeReply, 4_000_000),
            "tcp",
            options=_SMALL_BUFFERS,
            limits=Limits(drain=_LONG_DRAIN),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        assert client.is_readable(10)
        running.drain()
        used = running.cpu_used(0.2, limit=0.1)
        assert used <= 0.1, f"{used:g} s of CPU time while draining"
        assert running.is_alive()
        running.abort()
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))
        check_cause(running, client, CloseReason.ABORTED)

    def test_abort_while_lingering(self) -> None:
        """An abort ends the wait for the peer's FIN. Bug: waiting for the linger timeout."""
        self.require_transports("tcp")
        running = self.serve(UppercaseLines, "tcp", limits=Limits(drain=_LONG_DRAIN, linger=_LONG_DRAIN))
        client = self.connect(running)
        client.send(b"!\n")
        assert client.receive_until_eof() == b"bye\n"
        running.abort()
        self.check_clean_exit(running.wait_exit(_EXIT_TIMEOUT))

    # Helpers -------------------------------------------------------------------------------------

    def _is_served_once(self, running: Harness) -> bool:
        with Client(running.endpoints[0]) as client:
            return client.request(b"hello\n") == b"HELLO\n"

    def _is_connection_refused(self, running: Harness) -> bool:
        try:
            with Client(running.endpoints[0]) as client:
                client.send(b"too late")
        except ConnectionRefusedError:
            return True
        except (ConnectionResetError, BrokenPipeError):
            return False  # the listener was closed while the connection was in its queue
        return False
