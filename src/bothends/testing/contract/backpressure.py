"""Pressure: peers that read slowly or not at all, and answers larger than any buffer."""

from __future__ import annotations

import functools

from bothends.engines.base import Limits
from bothends.events import Cause
from bothends.testing.contract.base import QUIET, SMALL, ContractBase, check_cause, of
from bothends.testing.services import Echo, Large, Pulled, pattern

_SMALL_BUFFERS = f"?sndbuf={SMALL}&rcvbuf={SMALL}"

# What a server may hold for one peer here: limits.unsent, a chunk, the kernel's four buffers (a UNIX
# socket's has 208 KiB whatever is asked), and as much again. An unbounded one passes it in no time.
_BOUND = 2_000_000

# More than the small buffers of both ends hold. Not much more: with windows as small as these the kernel may
# wait for a delayed acknowledgement (40 ms) after each of them.
_LARGE = 600_000


class PressureContract(ContractBase):
    """Part of the suite: backpressure, short writes, and services that have more to say."""

    def test_who_never_reads_is_read_no_more(self, bytes_over: str) -> None:
        """An echo to who doesn't read: at some point nothing more is taken from it, while others are
        served, and later it gets every byte. Mistakes: a queue without bound; a send() that
        blocks everybody; output that is lost when the queue was full."""
        running = self.serve(Echo, bytes_over, options=_SMALL_BUFFERS, limits=Limits(unsent=64 * 1024))
        client = self.dial(running, rcvbuf=SMALL, sndbuf=SMALL)
        data = pattern(8_000_000)
        taken = client.push(data, within=QUIET)
        assert taken < _BOUND, f"{taken} bytes were taken from a peer that reads nothing"
        if self.engine_class().concurrent:
            other = self.dial(running)
            assert other.ask(b"and me?") == b"and me?"
        assert client.hear(taken) == data[:taken]
        assert client.ask(b"still there?") == b"still there?"
        client.finish()
        assert client.hear_all() == b""

    def test_large_answer_to_a_fast_reader(self, bytes_over: str) -> None:
        """send() takes what fits. Mistake: taking it for done after the first send()."""
        running = self.serve(functools.partial(Large, 10_000_000), bytes_over)
        client = self.dial(running)
        assert client.ask(b"go", 10_000_000) == pattern(10_000_000)

    def test_large_answer_to_a_slow_reader(self, bytes_over: str) -> None:
        """As above, in thousands of small steps, and then the end. Mistakes: the rest is sent
        twice, or in the wrong place; closing cuts off what is unsent."""
        service = functools.partial(Large, _LARGE, done=True)
        running = self.serve(service, bytes_over, options=_SMALL_BUFFERS)
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        heard = bytearray()
        while data := client.hear(1000):
            heard += data
        assert heard == pattern(_LARGE)
        client.close()
        check_cause(running, client, Cause.SERVICE)

    def test_large_answer_after_half_close(self, bytes_over: str) -> None:
        """All that is owed is sent to who has finished sending. Mistake: closing as soon as both the
        peer and the service have finished, with output still queued."""
        running = self.serve(functools.partial(Large, _LARGE), bytes_over, options=_SMALL_BUFFERS)
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        client.finish()
        assert client.hear_all() == pattern(_LARGE)
        assert check_cause(running, client, Cause.PEER).sent == _LARGE

    def test_large_question(self, bytes_over: str) -> None:
        """Ten megabytes each way, read while they are written. Mistake: a deadlock in which both wait
        for room, or for input."""
        running = self.serve(Echo, bytes_over)
        client = self.dial(running)
        data = pattern(10_000_000)
        heard, said = bytearray(), 0
        while len(heard) < len(data):
            said += client.push(data[said : said + 500_000], within=0)
            if client.is_readable(0.001):
                heard += client.socket.recv(500_000)
        assert heard == data

    def test_service_with_more_to_say(self, connection_over: str) -> None:
        """`more` is asked until there is nothing more. Mistakes: asking once; asking while what was
        said before is unsent, and sending it out of order."""
        running = self.serve(functools.partial(Pulled, 2_000_000), connection_over)
        client = self.dial(running, rcvbuf=SMALL)
        assert client.hear_all() == pattern(2_000_000)
        client.close()
        check_cause(running, client, Cause.SERVICE)

    def test_endless_service_goes_at_the_peers_pace(self) -> None:
        """Who has no end says the next piece when the last one is sent. Mistakes: queueing without
        end; spinning while the peer doesn't read; serving nobody else."""
        self.needs("tcp")
        running = self.serve(Pulled, "tcp", options=f"?sndbuf={SMALL}")
        client = self.dial(running, rcvbuf=SMALL)
        assert client.hear(200_000)
        used = running.cpu_over(0.3, enough=0.15)
        assert used <= 0.15, f"{used:g} s of processor time, for a peer that doesn't read"
        if self.engine_class().concurrent:
            assert self.dial(running, rcvbuf=SMALL).hear(200_000)
        client.close()
        check_cause(running, client, Cause.RESET, Cause.PEER)

    def test_endless_service_leaves_others_their_turn(self, bytes_over: str) -> None:
        """A peer that reads as fast as it can is one of many. Mistake: asking for more for as long as
        the socket takes it."""
        self.needs_concurrency()
        running = self.serve(Pulled, bytes_over)
        greedy, other = self.dial(running), self.dial(running)
        for _ in range(20):
            assert greedy.hear(500_000)
            assert other.hear(1000)

    def test_endless_service_hears_its_peer(self, bytes_over: str) -> None:
        """While much is being said, the peer is listened to. Mistake: a write loop that never reads."""
        running = self.serve(Pulled, bytes_over, options=f"?sndbuf={SMALL}")
        client = self.dial(running, rcvbuf=SMALL)
        assert client.hear(100_000)
        client.say(b"enough")
        client.finish()
        assert client.hear_all(most=16_000_000)
        assert check_cause(running, client, Cause.PEER).received == 6

    def test_waiting_costs_nothing(self) -> None:
        """A peer that has finished sending and doesn't read is waited for. Mistake: EOF keeps a
        socket readable, and a loop that goes on asking about it spins."""
        self.needs("tcp")
        running = self.serve(functools.partial(Large, 10_000_000), "tcp", options=_SMALL_BUFFERS)
        client = self.dial(running, rcvbuf=SMALL)
        client.say(b"go")
        client.finish()
        running.wait_for(lambda: [each for each in running.events if of(client)(each)])
        assert client.hear(100)
        used = running.cpu_over(0.3, enough=0.15)
        assert used <= 0.15, f"{used:g} s of processor time, waiting for a peer to read"
