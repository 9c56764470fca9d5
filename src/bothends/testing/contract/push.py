"""Push: data that a service sends to peers that have not asked for it."""

from __future__ import annotations

from bothends.engines.base import Limits
from bothends.events import Closed, CloseReason
from bothends.testing.clients import Client
from bothends.testing.contract.base import SMALL_BUFFER, ContractBase, check_cause, of_client
from bothends.testing.harness import Harness
from bothends.testing.services import BroadcastChat, pattern


class PushContract(ContractBase):
    """Part of the suite: services that push."""

    def _join(self, running: Harness, **options: int) -> Client:
        client = self.connect(running, **options)
        assert client.receive_line() == b"hello\n"
        return client

    def test_push_reaches_idle_peer(self, push_transport: str) -> None:
        """An idle peer receives a push at once. Bug: pushed data waits until the peer sends something."""
        running = self.serve(BroadcastChat, push_transport)
        sender, *others = [self._join(running) for _ in range(4)]
        for word in (b"one\n", b"two\n"):
            sender.send(word)
            assert sender.receive_exactly(3) == b"ok\n"
            for other in others:
                assert other.receive_exactly(len(word)) == word
        sender.close()
        for other in others:
            assert other.receive_exactly(7) == b"(left)\n"

    def test_push_to_peer_that_never_reads_aborts_it(self, push_transport: str) -> None:
        """A member that does not read does not delay the others, and is aborted at the limit. Bugs: all wait
        for the slowest; an unbounded queue."""
        limits = Limits(posted=64 * 1024)
        running = self.serve(BroadcastChat, push_transport, options=f"?sndbuf={SMALL_BUFFER}", limits=limits)
        sender, reader = self._join(running), self._join(running)
        stalled = self._join(running, rcvbuf=SMALL_BUFFER)
        word = pattern(8000)
        received = b""
        count = 0
        while count < 200 and not running.events_of(Closed, of_client(stalled)):
            sender.send(word)
            received += reader.receive_exactly(len(word))
            count += 1
        check_cause(running, stalled, CloseReason.STALLED)
        reader.shutdown_write()
        received += reader.receive_until_eof()
        assert received.count(b"(left)\n") == 1
        assert received.replace(b"(left)\n", b"") == word * count
        sender.shutdown_write()
        replies = sender.receive_until_eof()
        assert replies.replace(b"(left)\n", b"") == b"ok\n" * count

    def test_push_on_simultaneous_resets_reaches_remaining_peer(self) -> None:
        """Each closed conversation pushes to the others, which are closing, too. Bug: a recursion as deep as
        there are members."""
        self.require_push()
        self.require_transports("tcp")
        running = self.serve(BroadcastChat, "tcp")
        witness = self._join(running)
        members = [self._join(running) for _ in range(40)]
        with running.suspended():
            for member in members:
                member.reset()
        assert witness.receive_exactly(7 * 40) == b"(left)\n" * 40
        assert witness.request(b"anybody?", 3) == b"ok\n"

    def test_push_service_half_close_ends_conversation(self) -> None:
        """A half-close ends a conversation that pushes, and the others are notified. Bug: the member stays
        forever."""
        self.require_push()
        self.require_transports("tcp")
        running = self.serve(BroadcastChat, "tcp")
        witness, leaving = self._join(running), self._join(running)
        leaving.shutdown_write()
        assert leaving.receive_until_eof() == b""
        assert witness.receive_exactly(7) == b"(left)\n"

    def test_drain_closes_idle_chat_members(self) -> None:
        """Draining closes idle members. Bug: members wait for each other."""
        self.require_push()
        self.require_transports("tcp")
        running = self.serve(BroadcastChat, "tcp", limits=Limits(drain=60, linger=0.2))
        members = [self._join(running) for _ in range(5)]
        running.drain()
        for member in members:
            assert member.receive_until_eof() in {b"(left)\n" * count for count in range(5)}
        self.check_clean_exit(running.wait_exit(3))
