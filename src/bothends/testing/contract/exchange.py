"""Talking: what is said arrives, whole and in order, however it is cut, and both ends may stop first."""

from __future__ import annotations

import zlib

from bothends.engines.base import Limits
from bothends.events import Cause, Received
from bothends.testing.clients import Client
from bothends.testing.contract.base import ContractBase, check_cause, closed, of
from bothends.testing.services import Digest, Echo, Lines, Welcome, digest, pattern


class TalkingContract(ContractBase):
    """Part of the suite: ordinary conversations."""

    def test_answers(self, any_connection_over: str) -> None:
        """One thing said, one answer. An engine that fails here carries nothing yet."""
        client = self.dial(self.serve(Echo, any_connection_over))
        assert client.ask(b"hello\n") == b"hello\n"

    def test_several_messages_on_one_connection(self, connection_over: str) -> None:
        """A connection lives as long as both want it. Mistake: closing it after the first answer."""
        client = self.dial(self.serve(Lines, connection_over))
        for number in range(20):
            assert client.ask(b"line %d\n" % number) == b"LINE %d\n" % number

    def test_one_byte_at_a_time(self, bytes_over: str) -> None:
        """A message may come in any number of pieces. Mistake: one read taken for one message."""
        client = self.dial(self.serve(Lines, bytes_over))
        client.drip(b"hello\n", every=0.005)
        assert client.hear_line() == b"HELLO\n"

    def test_two_messages_in_one_write(self, bytes_over: str) -> None:
        """One read may hold several messages. Mistake: what follows the first is lost."""
        client = self.dial(self.serve(Lines, bytes_over))
        client.say(b"one\ntwo\nthr")
        assert client.hear_line() == b"ONE\n"
        assert client.hear_line() == b"TWO\n"
        assert client.ask(b"ee\n", 6) == b"THREE\n"

    def test_every_byte_arrives_as_it_is(self, connection_over: str) -> None:
        """Bytes are not text. Mistakes: ending at NUL, decoding chunks, of which one may end inside a
        character."""
        client = self.dial(self.serve(Echo, connection_over))
        everything = bytes(range(256)) * 4
        assert client.ask(everything) == everything
        for place in range(1, 4):
            character = "\N{SMILING FACE WITH SUNGLASSES}".encode()
            assert client.ask(character[:place]) == character[:place]
            assert client.ask(character[place:]) == character[place:]

    def test_sizes_around_common_buffers(self, bytes_over: str) -> None:
        """Every size is an ordinary size. Mistake: off by one at a buffer's end."""
        client = self.dial(self.serve(Echo, bytes_over, limits=Limits(chunk=4096)))
        for size in (511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 8192):
            assert client.ask(pattern(size)) == pattern(size)

    def test_answers_after_half_close(self, connection_over: str) -> None:
        """A peer that has finished sending still reads (RFC 9293, 3.6). Mistake: EOF taken for the end
        of the connection, so the answer that it asked for never comes."""
        running = self.serve(Digest, connection_over)
        client = self.dial(running)
        data = pattern(100_000)
        for start in range(0, len(data), 10_000):
            client.say(data[start : start + 10_000])
        client.finish()
        assert client.hear_all() == digest(len(data), zlib.crc32(data))
        assert check_cause(running, client, Cause.PEER).received == len(data)

    def test_service_stops_first(self, connection_over: str) -> None:
        """Who is done is hung up on: the last word, then EOF. Mistake: waiting for the peer to close."""
        running = self.serve(Lines, connection_over)
        client = self.dial(running)
        client.say(b"!\n")
        assert client.hear_all() == b"bye\n"
        client.close()
        check_cause(running, client, Cause.SERVICE)

    def test_service_is_done_before_it_hears_anything(self, connection_over: str) -> None:
        """A service may say something and leave. Mistake: waiting for the first bytes of the peer."""
        running = self.serve(Welcome, connection_over)
        client = self.dial(running)
        assert client.hear_all() == b"welcome and goodbye\n"
        client.close()
        check_cause(running, client, Cause.SERVICE)

    def test_last_word_survives_a_peer_that_still_writes(self, bytes_over: str) -> None:
        """close() with unread input, or input that comes after it, sends RST, which can destroy the
        last answer on its way (RFC 1122, 4.2.2.13): hang up one side only, and read on. Mistake:
        closing both sides at once."""
        running = self.serve(Lines, bytes_over, limits=Limits(chunk=1024))
        client = self.dial(running)
        client.say(b"!\n" + b"x" * 100_000)
        assert client.is_readable(10)
        client.say(b"y" * 10_000)
        assert client.hear_all() == b"bye\n"
        for _ in range(3):
            client.say(b"z" * 10_000)
            assert not client.is_lost(0.02), "reset by what it said after the last word"
        client.close()
        check_cause(running, client, Cause.SERVICE)

    def test_what_comes_after_done_is_ignored(self, bytes_over: str) -> None:
        """After `done` a conversation is called no more. Mistake: answering what comes too late."""
        client = self.dial(self.serve(Lines, bytes_over))
        client.say(b"!\n")
        assert client.is_readable(10)
        client.say(b"more\n!\n")
        client.finish()
        assert client.hear_all() == b"bye\n"

    def test_lingers_no_longer_than_its_limit(self, bytes_over: str) -> None:
        """A peer that never closes is not waited for without end. Mistake: leaking the connection."""
        running = self.serve(Lines, bytes_over, limits=Limits(linger=0.1))
        client = self.dial(running)
        client.say(b"!\n")
        assert client.hear_all() == b"bye\n"
        check_cause(running, client, Cause.SERVICE)

    def test_silent_visitor(self, connection_over: str) -> None:
        """Connect, say nothing, close. Mistakes: EOF taken for an error that ends the loop, or for an
        empty message that is answered without end."""
        running = self.serve(Echo, connection_over)
        with Client(running.endpoints[0]) as visitor:
            pass
        event = check_cause(running, visitor, Cause.PEER)
        assert (event.received, event.sent) == (0, 0)
        assert self.dial(running).ask(b"next") == b"next"

    def test_many_at_once(self, connection_over: str) -> None:
        """Fifty clients hear each their own. Mistake: a buffer that connections share."""
        running = self.serve(Digest, connection_over)
        clients = [self.dial(running) for _ in range(50)]
        words = [pattern(1000 + number) for number in range(50)]
        for client, word in zip(clients, words, strict=True):
            client.say(word[:500])
        for client, word in zip(clients, words, strict=True):
            client.say(word[500:])
            client.finish()
        for client, word in zip(clients, words, strict=True):
            assert client.hear_all() == digest(len(word), zlib.crc32(word))
            client.close()

    def test_many_one_after_another(self, connection_over: str) -> None:
        """Sixty connections leave nothing behind while the server goes on. Mistakes: a descriptor
        that leaks, a child that nobody waits for."""
        running = self.serve(Echo, connection_over)
        before = 0
        for number in range(60):
            with Client(running.endpoints[0]) as client:
                assert client.ask(b"%d" % number) == b"%d" % number
            if number == 10:
                closed(running, client)
                before = running.most_descriptors()
        closed(running, client)
        running.wait_for(lambda: not running.zombies())
        # A few more may be passing: of a connection, or a process, that is just being closed.
        running.wait_for(lambda: running.most_descriptors() <= before + 3)

    def test_two_connections_at_once(self, connection_over: str) -> None:
        """The second is served while the first is idle. Mistake: serving one at a time unawares."""
        self.needs_concurrency()
        running = self.serve(Echo, connection_over)
        first, second = self.dial(running), self.dial(running)
        assert first.ask(b"first") == b"first"
        assert second.ask(b"second") == b"second"
        assert first.ask(b"again") == b"again"

    def test_a_dripping_client_beside_another(self, bytes_over: str) -> None:
        """Half a message is nothing to wait for. Mistake: after readiness, reading until it is whole."""
        self.needs_concurrency()
        running = self.serve(Lines, bytes_over)
        slow, other = self.dial(running), self.dial(running)
        for letter in b"hello":
            slow.say(bytes([letter]))
            assert other.ask(b"quick\n") == b"QUICK\n"
        assert slow.ask(b"\n", 6) == b"HELLO\n"

    def test_several_listeners_at_once(self) -> None:
        """One engine serves all its endpoints. Mistake: the first, or those of one kind, only."""
        self.needs("tcp", "unix", "unix+seqpacket")
        running = self.serve(Echo, "tcp", "tcp", "unix", "unix+seqpacket")
        assert len(running.endpoints) == 4
        for round_ in (b"one", b"two"):
            for place in range(4):
                with Client(running.endpoints[place]) as client:
                    assert client.ask(round_) == round_

    def test_nobody_listens_to_its_events(self, bytes_over: str) -> None:
        """Without an observer everything works as with one. Mistake: calling None."""
        running = self.serve(Lines, bytes_over, observe=False)
        client = self.dial(running)
        client.say(b"hello\n!\n")
        assert client.hear_all() == b"HELLO\nbye\n"
        assert not running.events

    def test_events_tell_what_happened(self, bytes_over: str) -> None:
        """Opened, Received, Sent, Ended, Closed, with who and how much. Mistake: a log that lies."""
        running = self.serve(Echo, bytes_over)
        client = self.dial(running)
        assert client.ask(b"hello") == b"hello"
        client.finish()
        assert client.hear_all() == b""
        event = check_cause(running, client, Cause.PEER)
        assert (event.received, event.sent) == (5, 5)
        names = [type(each).__name__ for each in running.events if of(client)(each)]
        assert names == ["Opened", "Received", "Sent", "Ended", "Closed"]
        assert running.seen(Received, of(client))[0].data == b"hello"
        numbers = {getattr(each, "connection", 1) for each in running.events if of(client)(each)}
        assert numbers == {event.connection}
