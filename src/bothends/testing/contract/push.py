"""Posting: what one peer says reaches others who are silent."""

from __future__ import annotations

from bothends.engines.base import Limits
from bothends.events import Cause, Closed
from bothends.testing.clients import Client
from bothends.testing.contract.base import SMALL, ContractBase, check_cause, of
from bothends.testing.harness import Harness
from bothends.testing.services import Chat, pattern


class PostingContract(ContractBase):
    """Part of the suite: services that speak unasked."""

    def _join(self, running: Harness, **options: int) -> Client:
        client = self.dial(running, **options)
        assert client.hear_line() == b"hello\n"
        return client

    def test_reaches_the_silent(self, posted_over: str) -> None:
        """Who waits in silence is told at once. Mistake: posts are looked at when the peer speaks."""
        running = self.serve(Chat, posted_over)
        speaker, *others = [self._join(running) for _ in range(4)]
        for word in (b"one\n", b"two\n"):
            speaker.say(word)
            assert speaker.hear(3) == b"ok\n"
            for other in others:
                assert other.hear(len(word)) == word
        speaker.close()
        for other in others:
            assert other.hear(7) == b"(left)\n"

    def test_who_does_not_read_is_cut_off(self, posted_over: str) -> None:
        """One who doesn't read is no burden to the others, up to a limit, and then it is gone. Mistakes:
        everyone waits for the slowest; a queue without bound."""
        limits = Limits(posted=64 * 1024)
        running = self.serve(Chat, posted_over, options=f"?sndbuf={SMALL}", limits=limits)
        speaker, listener = self._join(running), self._join(running)
        deaf = self._join(running, rcvbuf=SMALL)
        word = pattern(8000)
        heard = b""
        said = 0
        while said < 200 and not running.seen(Closed, of(deaf)):
            speaker.say(word)
            heard += listener.hear(len(word))
            said += 1
        check_cause(running, deaf, Cause.STALLED)
        listener.finish()
        heard += listener.hear_all()
        assert heard.count(b"(left)\n") == 1
        assert heard.replace(b"(left)\n", b"") == word * said
        speaker.finish()
        answers = speaker.hear_all()
        assert answers.replace(b"(left)\n", b"") == b"ok\n" * said

    def test_many_leave_together(self) -> None:
        """Each end is told to the rest, who are ending too. Mistake: one end inside another, as deep
        as there are members."""
        self.needs_posts()
        self.needs("tcp")
        running = self.serve(Chat, "tcp")
        witness = self._join(running)
        members = [self._join(running) for _ in range(40)]
        with running.frozen():
            for member in members:
                member.reset()
        assert witness.hear(7 * 40) == b"(left)\n" * 40
        assert witness.ask(b"anybody?", 3) == b"ok\n"

    def test_post_and_half_close(self) -> None:
        """Who has finished sending is finished with, as it could not be heard any more. The others are
        told. Mistake: a member that never leaves."""
        self.needs_posts()
        self.needs("tcp")
        running = self.serve(Chat, "tcp")
        witness, leaver = self._join(running), self._join(running)
        leaver.finish()
        assert leaver.hear_all() == b""
        assert witness.hear(7) == b"(left)\n"

    def test_drain_ends_a_chat(self) -> None:
        """Members at rest are sent home. Mistake: they wait for each other."""
        self.needs_posts()
        self.needs("tcp")
        running = self.serve(Chat, "tcp", limits=Limits(drain=60, linger=0.2))
        members = [self._join(running) for _ in range(5)]
        running.drain()
        for member in members:
            assert member.hear_all() in {b"(left)\n" * count for count in range(5)}
        self.check_end(running.wait_exit(3))
