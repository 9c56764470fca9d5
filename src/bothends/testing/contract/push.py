"""Posting: what one peer says reaches others who are silent."""

from __future__ import annotations

from bothends.engines.base import Limits
from bothends.events import Closed, CloseReason
from bothends.testing.clients import Client
from bothends.testing.contract.base import SMALL_BUFFER, ContractBase, check_cause, of_client
from bothends.testing.harness import Harness
from bothends.testing.services import BroadcastChat, pattern


class PushContract(ContractBase):
    """Part of the suite: services that speak unasked."""

    def _join(self, running: Harness, **options: int) -> Client:
        client = self.connect(running, **options)
        assert client.receive_line() == b"hello\n"
        return client

    def test_push_reaches_idle_peer(self, push_transport: str) -> None:
        """Who waits in silence is told at once. Mistake: posts are looked at when the peer speaks."""
        running = self.serve(BroadcastChat, push_transport)
        speaker, *others = [self._join(running) for _ in range(4)]
        for word in (b"one\n", b"two\n"):
            speaker.send(word)
            assert speaker.receive_exactly(3) == b"ok\n"
            for other in others:
                assert other.receive_exactly(len(word)) == word
        speaker.close()
        for other in others:
            assert other.receive_exactly(7) == b"(left)\n"

    def test_push_to_peer_that_never_reads_aborts_it(self, push_transport: str) -> None:
        """One who doesn't read is no burden to the others, up to a limit, and then it is gone. Mistakes:
        everyone waits for the slowest; a queue without bound."""
        limits = Limits(posted=64 * 1024)
        running = self.serve(BroadcastChat, push_transport, options=f"?sndbuf={SMALL_BUFFER}", limits=limits)
        speaker, listener = self._join(running), self._join(running)
        deaf = self._join(running, rcvbuf=SMALL_BUFFER)
        word = pattern(8000)
        heard = b""
        said = 0
        while said < 200 and not running.events_of(Closed, of_client(deaf)):
            speaker.send(word)
            heard += listener.receive_exactly(len(word))
            said += 1
        check_cause(running, deaf, CloseReason.STALLED)
        listener.shutdown_write()
        heard += listener.receive_until_eof()
        assert heard.count(b"(left)\n") == 1
        assert heard.replace(b"(left)\n", b"") == word * said
        speaker.shutdown_write()
        answers = speaker.receive_until_eof()
        assert answers.replace(b"(left)\n", b"") == b"ok\n" * said

    def test_push_on_simultaneous_resets_reaches_remaining_peer(self) -> None:
        """Each end is told to the rest, who are ending too. Mistake: one end inside another, as deep
        as there are members."""
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
        """Who has finished sending is finished with, as it could not be heard any more. The others are
        told. Mistake: a member that never leaves."""
        self.require_push()
        self.require_transports("tcp")
        running = self.serve(BroadcastChat, "tcp")
        witness, leaver = self._join(running), self._join(running)
        leaver.shutdown_write()
        assert leaver.receive_until_eof() == b""
        assert witness.receive_exactly(7) == b"(left)\n"

    def test_drain_closes_idle_chat_members(self) -> None:
        """Members at rest are sent home. Mistake: they wait for each other."""
        self.require_push()
        self.require_transports("tcp")
        running = self.serve(BroadcastChat, "tcp", limits=Limits(drain=60, linger=0.2))
        members = [self._join(running) for _ in range(5)]
        running.drain()
        for member in members:
            assert member.receive_until_eof() in {b"(left)\n" * count for count in range(5)}
        self.check_clean_exit(running.wait_exit(3))
