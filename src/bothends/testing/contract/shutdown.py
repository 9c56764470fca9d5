"""Leaving: draining lets conversations end, aborting doesn't, and nothing stays behind."""

from __future__ import annotations

import functools
import itertools
import time

import pytest

from bothends.engines.base import DRAIN_QUIET, Limits
from bothends.events import Cause, Closed, Received
from bothends.testing.clients import Client
from bothends.testing.contract.base import SMALL, ContractBase, check_cause, closed, of, opened
from bothends.testing.harness import Harness
from bothends.testing.services import Echo, Large, Lines, Pulled, pattern

# Well below the limit to drain, and well above what a loaded machine needs.
_SOON = 20.0

# A drain limit that a test never waits for.
_LONG = 60.0

# More than the buffers of both ends hold, so that something is owed. Not much more: with windows as small as
# these the kernel may wait for a delayed acknowledgement (40 ms) after each of them.
_OWED = 600_000

_SMALL_BUFFERS = f"?sndbuf={SMALL}&rcvbuf={SMALL}"


class LeavingContract(ContractBase):
    """Part of the suite: the two stages of stopping."""

    def test_drain_with_nobody_there(self) -> None:
        """Nothing to wait for, so nothing is waited for. Mistake: the whole drain limit passes."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp", limits=Limits(drain=_LONG))
        running.drain()
        self.check_end(running.wait_exit(_SOON))

    def test_drain_ends_idle_connections(self, connection_over: str) -> None:
        """A connection at rest is finished, by EOF, though its peer does nothing. Mistakes: waiting
        for a client that never leaves (python/cpython#113538); resetting it."""
        running = self.serve(Echo, connection_over, limits=Limits(drain=_LONG, linger=0.05))
        client = self.dial(running)
        assert client.ask(b"hello") == b"hello"
        running.drain()
        assert client.hear_all() == b""
        check_cause(running, client, Cause.DRAINED)
        self.check_end(running.wait_exit(_SOON))

    def test_drain_ends_many_idle_connections_together(self) -> None:
        """As many as are served at once take no longer than one. Mistake: waiting for each in turn."""
        self.needs("tcp")
        self.needs_concurrency()
        running = self.serve(Echo, "tcp", limits=Limits(drain=_LONG))
        with Client(running.endpoints[0]) as first:
            assert first.ask(b"hello") == b"hello"
        closed(running, first)
        running.settle()
        clients = [self.dial(running) for _ in range(len(running.children()) or 30)]
        for client in clients:
            assert client.ask(b"hello") == b"hello"
        running.drain()
        for client in clients:
            assert client.hear_end() == b""
            client.close()
        self.check_end(running.wait_exit(_SOON))
        ends = [each.at / 1e9 for each in running.seen(Closed)[1:]]
        assert max(ends) - min(ends) < DRAIN_QUIET * max(2, len(clients) / 4)

    def test_drain_lets_a_slow_exchange_end(self) -> None:
        """While a message is arriving, its conversation goes on: it is answered in full. Mistake:
        cutting off whoever is there."""
        self.needs("tcp")
        for _ in range(5):
            if self._drain_while_dripping():
                return
        pytest.fail("this machine is too busy to say a byte every 30 ms")

    def _drain_while_dripping(self) -> bool:
        """One try; False if the bytes came too late, which is no fault of the engine."""
        running = self.serve(Lines, "tcp", limits=Limits(drain=_LONG, linger=0.05))
        client = self.dial(running)
        client.say(b"slow")
        running.wait_event(Received, of(client))
        running.drain()
        word = b"ly it goes\n"
        try:
            client.drip(word, every=DRAIN_QUIET / 5)
            answer = client.hear_all()
        except OSError:
            answer = b""
        running.wait_exit(_LONG)
        times = [each.at for each in running.seen(Received, of(client))]
        gaps = [(late - early) / 1e9 for early, late in itertools.pairwise(times)]
        if answer != b"SLOWLY IT GOES\n" and (len(times) < 2 or max(gaps) > DRAIN_QUIET / 2):
            return False
        assert answer == b"SLOWLY IT GOES\n"
        check_cause(running, client, Cause.DRAINED)
        return True

    def test_drain_sends_what_is_owed(self) -> None:
        """A long answer on its way to who reads is sent to its end. Mistake: silence of the peer taken
        for rest, while we are the ones who speak."""
        self.needs("tcp")
        size = _OWED
        running = self.serve(
            functools.partial(Large, size),
            "tcp",
            options=_SMALL_BUFFERS,
            limits=Limits(drain=_LONG, linger=0.05),
        )
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        heard = client.hear(10_000)
        running.drain()
        until = time.monotonic() + 1.5 * DRAIN_QUIET
        while time.monotonic() < until:
            heard += client.hear(4000)
            client.is_lost(DRAIN_QUIET / 20)
        heard += client.hear_all()
        assert heard == pattern(size)
        check_cause(running, client, Cause.DRAINED)

    def test_drain_ends_an_endless_service(self, bytes_over: str) -> None:
        """Who would speak for ever is told that it is over. Mistake: waiting until all is said."""
        running = self.serve(Pulled, bytes_over, options=_SMALL_BUFFERS, limits=Limits(drain=_LONG))
        client = self.dial(running, rcvbuf=SMALL)
        assert client.hear(100_000)
        running.drain()
        assert client.sip(DRAIN_QUIET / 30)
        client.close()
        self.check_end(running.wait_exit(_SOON))

    def test_drain_cuts_off_who_never_reads(self) -> None:
        """The limit holds for who is owed something and doesn't take it. Mistake: waiting for ever."""
        self.needs("tcp")
        running = self.serve(
            functools.partial(Large, 4_000_000), "tcp", options=_SMALL_BUFFERS, limits=Limits(drain=0.25)
        )
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        assert client.is_readable(10)
        running.drain()
        self.check_end(running.wait_exit(_SOON))
        check_cause(running, client, Cause.ABORTED)

    def test_drain_serves_those_who_wait_already(self) -> None:
        """Who is in the queue has been welcomed by the kernel, and may have spoken already. Mistake:
        closing the listener over them, which resets them."""
        self.needs("tcp")
        running = self.serve(Lines, "tcp", limits=Limits(drain=_LONG))
        assert self._says_hello(running)
        with running.frozen():
            clients = [self.dial(running) for _ in range(3)]
            for number, client in enumerate(clients):
                client.say(b"early %d\n" % number)
                client.finish()
            running.drain()
        for number, client in enumerate(clients):
            assert client.hear_all() == b"EARLY %d\n" % number
            client.close()
        self.check_end(running.wait_exit(_SOON))

    def test_drain_refuses_newcomers(self) -> None:
        """While somebody is still there, the door is closed already. Mistakes: the listener is left
        open, here or in a child, so that newcomers wait in a queue that nobody looks at."""
        self.needs("tcp")
        self.needs_concurrency()
        running = self.serve(
            functools.partial(Large, _OWED), "tcp", options=_SMALL_BUFFERS, limits=Limits(drain=_LONG)
        )
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        assert client.is_readable(10)
        running.drain()
        running.wait_for(lambda: self._is_refused(running), _SOON)
        assert client.hear(_OWED) == pattern(_OWED)
        client.close()
        self.check_end(running.wait_exit(_SOON))

    def test_drain_ends_datagrams(self, datagrams_over: str) -> None:
        """What has arrived is answered, then the socket is closed. Mistake: nobody is connected, so
        nobody is thought of."""
        running = self.serve(Echo, datagrams_over, limits=Limits(drain=_LONG))
        client = self.dial(running)
        assert client.ask(b"hello") == b"hello"
        with running.frozen():
            client.say(b"in time")
            running.drain()
        assert client.hear_message() == b"in time"
        self.check_end(running.wait_exit(_SOON))

    @pytest.mark.parametrize("state", ["idle", "in the middle", "owed"])
    def test_abort(self, state: str, bytes_over: str) -> None:
        """Whatever they are doing, all are cut off at once. Mistakes: a blocked call that nothing
        wakes; a child that hears of nothing."""
        running = self.serve(
            functools.partial(Large, 4_000_000) if state == "owed" else Lines,
            bytes_over,
            options=_SMALL_BUFFERS,
            limits=Limits(drain=_LONG, linger=_LONG),
        )
        client = self.dial(running, rcvbuf=SMALL)
        opened(running, client)
        if state != "idle":
            client.say(b"half a line")
            running.wait_event(Received, of(client))
        running.abort()
        self.check_end(running.wait_exit(_SOON))
        # Aborting begins with draining, which finds who has been quiet for long, and finishes with it.
        check_cause(running, client, Cause.ABORTED, *([] if state == "owed" else [Cause.DRAINED]))
        client.hear_end()

    def test_abort_while_draining(self) -> None:
        """Who has asked nicely may lose patience. Mistake: a drain that hears of nothing else."""
        self.needs("tcp")
        running = self.serve(
            functools.partial(Large, 4_000_000), "tcp", options=_SMALL_BUFFERS, limits=Limits(drain=_LONG)
        )
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        assert client.is_readable(10)
        running.drain()
        used = running.cpu_over(0.2, enough=0.1)
        assert used <= 0.1, f"{used:g} s of processor time while draining, with nothing to be done"
        assert running.is_alive()
        running.abort()
        self.check_end(running.wait_exit(_SOON))
        check_cause(running, client, Cause.ABORTED)

    def test_abort_while_lingering(self) -> None:
        """Waiting for the peer's last FIN is not worth more than being told to go. Mistake: the
        linger limit is waited out."""
        self.needs("tcp")
        running = self.serve(Lines, "tcp", limits=Limits(drain=_LONG, linger=_LONG))
        client = self.dial(running)
        client.say(b"!\n")
        assert client.hear_all() == b"bye\n"
        running.abort()
        self.check_end(running.wait_exit(_SOON))

    # Helpers -------------------------------------------------------------------------------------

    def _says_hello(self, running: Harness) -> bool:
        with Client(running.endpoints[0]) as client:
            return client.ask(b"hello\n") == b"HELLO\n"

    def _is_refused(self, running: Harness) -> bool:
        try:
            with Client(running.endpoints[0]) as client:
                client.say(b"too late")
        except ConnectionRefusedError:
            return True
        except (ConnectionResetError, BrokenPipeError):
            return False  # the queue was closed over us
        return False
