"""Exchange: data arrives whole and in order, however it is split, and either end may close first."""

from __future__ import annotations

import zlib

from bothends.engines.base import Limits
from bothends.events import CloseReason, Received
from bothends.testing.clients import Client
from bothends.testing.contract.base import ContractBase, check_cause, of_client, wait_closed
from bothends.testing.services import Digest, EchoService, Greeting, UppercaseLines, digest, pattern


class ExchangeContract(ContractBase):
    """Part of the suite: ordinary conversations."""

    def test_echo_replies(self, any_connection_transport: str) -> None:
        """One message gets one reply. An engine that fails here does not work at all yet."""
        client = self.connect(self.serve(EchoService, any_connection_transport))
        assert client.request(b"hello\n") == b"hello\n"

    def test_several_messages_on_one_connection(self, connection_transport: str) -> None:
        """A connection stays open until one end closes it. Bug: closing it after the first reply."""
        client = self.connect(self.serve(UppercaseLines, connection_transport))
        for number in range(20):
            assert client.request(b"line %d\n" % number) == b"LINE %d\n" % number

    def test_message_sent_bytewise(self, stream_transport: str) -> None:
        """A message may arrive in any number of pieces. Bug: taking one read for one message."""
        client = self.connect(self.serve(UppercaseLines, stream_transport))
        client.send_bytewise(b"hello\n", interval=0.005)
        assert client.receive_line() == b"HELLO\n"

    def test_two_messages_in_one_write(self, stream_transport: str) -> None:
        """One read may return several messages. Bug: losing all but the first."""
        client = self.connect(self.serve(UppercaseLines, stream_transport))
        client.send(b"one\ntwo\nthr")
        assert client.receive_line() == b"ONE\n"
        assert client.receive_line() == b"TWO\n"
        assert client.request(b"ee\n", 6) == b"THREE\n"

    def test_all_byte_values_are_preserved(self, connection_transport: str) -> None:
        """Data is bytes, not text. Bugs: stopping at NUL; decoding chunks that end inside a character."""
        client = self.connect(self.serve(EchoService, connection_transport))
        everything = bytes(range(256)) * 4
        assert client.request(everything) == everything
        for offset in range(1, 4):
            character = "\N{SMILING FACE WITH SUNGLASSES}".encode()
            assert client.request(character[:offset]) == character[:offset]
            assert client.request(character[offset:]) == character[offset:]

    def test_message_sizes_around_buffer_sizes(self, stream_transport: str) -> None:
        """Messages of about the size of a buffer work. Bug: an off-by-one error at the end of a buffer."""
        client = self.connect(self.serve(EchoService, stream_transport, limits=Limits(chunk=4096)))
        for size in (511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 8192):
            assert client.request(pattern(size)) == pattern(size)

    def test_reply_after_half_close(self, connection_transport: str) -> None:
        """A peer that has half-closed still reads (RFC 9293, 3.6). Bug: taking EOF for the end of the
        connection, so that the reply is lost."""
        running = self.serve(Digest, connection_transport)
        client = self.connect(running)
        data = pattern(100_000)
        for start in range(0, len(data), 10_000):
            client.send(data[start : start + 10_000])
        client.shutdown_write()
        assert client.receive_until_eof() == digest(len(data), zlib.crc32(data))
        assert check_cause(running, client, CloseReason.PEER).received == len(data)

    def test_service_done_closes_connection(self, connection_transport: str) -> None:
        """When the service is done, the peer receives the last reply, then EOF. Bug: waiting for the peer to
        close."""
        running = self.serve(UppercaseLines, connection_transport)
        client = self.connect(running)
        client.send(b"!\n")
        assert client.receive_until_eof() == b"bye\n"
        client.close()
        check_cause(running, client, CloseReason.SERVICE)

    def test_service_done_in_start_closes_connection(self, connection_transport: str) -> None:
        """A service may send data and be done at once. Bug: waiting for the peer's first bytes."""
        running = self.serve(Greeting, connection_transport)
        client = self.connect(running)
        assert client.receive_until_eof() == b"welcome and goodbye\n"
        client.close()
        check_cause(running, client, CloseReason.SERVICE)

    def test_final_reply_is_not_lost_to_reset(self, stream_transport: str) -> None:
        """close() with unread input, or input that arrives after it, makes the kernel send RST, which can
        destroy the last reply on its way (RFC 1122, 4.2.2.13). So half-close, and continue to read. Bug:
        closing both directions at once."""
        running = self.serve(UppercaseLines, stream_transport, limits=Limits(chunk=1024))
        client = self.connect(running)
        client.send(b"!\n" + b"x" * 100_000)
        assert client.is_readable(10)
        client.send(b"y" * 10_000)
        assert client.receive_until_eof() == b"bye\n"
        for _ in range(3):
            client.send(b"z" * 10_000)
            assert not client.is_hung_up(0.02), "reset by input after the last reply"
        client.close()
        check_cause(running, client, CloseReason.SERVICE)

    def test_input_after_done_is_ignored(self, stream_transport: str) -> None:
        """A conversation that is done receives nothing more. Bug: replying to late input."""
        client = self.connect(self.serve(UppercaseLines, stream_transport))
        client.send(b"!\n")
        assert client.is_readable(10)
        client.send(b"more\n!\n")
        client.shutdown_write()
        assert client.receive_until_eof() == b"bye\n"

    def test_linger_timeout_closes_connection(self, stream_transport: str) -> None:
        """The server waits for the peer's FIN only for a limited time. Bug: leaking the connection."""
        running = self.serve(UppercaseLines, stream_transport, limits=Limits(linger=0.1))
        client = self.connect(running)
        client.send(b"!\n")
        assert client.receive_until_eof() == b"bye\n"
        check_cause(running, client, CloseReason.SERVICE)

    def test_connect_and_close_without_data(self, connection_transport: str) -> None:
        """A client may connect and close without sending data. Bugs: EOF is taken for an error that ends the
        loop, or for an empty message that is answered in an endless loop."""
        running = self.serve(EchoService, connection_transport)
        with Client(running.endpoints[0]) as client:
            pass
        event = check_cause(running, client, CloseReason.PEER)
        assert (event.received, event.sent) == (0, 0)
        assert self.connect(running).request(b"next") == b"next"

    def test_fifty_concurrent_connections(self, connection_transport: str) -> None:
        """Each of fifty clients receives its own reply. Bug: a buffer shared by connections."""
        running = self.serve(Digest, connection_transport)
        clients = [self.connect(running) for _ in range(50)]
        words = [pattern(1000 + number) for number in range(50)]
        for client, word in zip(clients, words, strict=True):
            client.send(word[:500])
        for client, word in zip(clients, words, strict=True):
            client.send(word[500:])
            client.shutdown_write()
        for client, word in zip(clients, words, strict=True):
            assert client.receive_until_eof() == digest(len(word), zlib.crc32(word))
            client.close()

    def test_sixty_sequential_connections_leak_nothing(self, connection_transport: str) -> None:
        """After sixty connections the server has no more descriptors and no zombies. Bugs: a leaked
        descriptor; a child that is not reaped."""
        running = self.serve(EchoService, connection_transport)
        before = 0
        for number in range(60):
            with Client(running.endpoints[0]) as client:
                assert client.request(b"%d" % number) == b"%d" % number
            if number == 10:
                wait_closed(running, client)
                before = running.max_descriptors()
        wait_closed(running, client)
        running.wait_for(lambda: not running.zombies())
        # A few more may be open, for connections or processes that are just being closed.
        running.wait_for(lambda: running.max_descriptors() <= before + 3)

    def test_second_connection_is_served_while_first_is_idle(self, connection_transport: str) -> None:
        """A second connection is served while the first is idle. Bug: serving one at a time."""
        self.require_concurrency()
        running = self.serve(EchoService, connection_transport)
        first, second = self.connect(running), self.connect(running)
        assert first.request(b"first") == b"first"
        assert second.request(b"second") == b"second"
        assert first.request(b"again") == b"again"

    def test_partial_message_does_not_block_others(self, stream_transport: str) -> None:
        """The engine does not wait for the rest of a message. Bug: reading in a loop until it is complete."""
        self.require_concurrency()
        running = self.serve(UppercaseLines, stream_transport)
        slow, other = self.connect(running), self.connect(running)
        for letter in b"hello":
            slow.send(bytes([letter]))
            assert other.request(b"quick\n") == b"QUICK\n"
        assert slow.request(b"\n", 6) == b"HELLO\n"

    def test_all_listeners_are_served(self) -> None:
        """One engine serves all its endpoints. Bug: serving only the first, or only those of one kind."""
        self.require_transports("tcp", "unix", "unix+seqpacket")
        running = self.serve(EchoService, "tcp", "tcp", "unix", "unix+seqpacket")
        assert len(running.endpoints) == 4
        for round_ in (b"one", b"two"):
            for endpoint in running.endpoints:
                with Client(endpoint) as client:
                    assert client.request(round_) == round_

    def test_runs_without_observer(self, stream_transport: str) -> None:
        """An engine works without an observer. Bug: calling None."""
        running = self.serve(UppercaseLines, stream_transport, observe=False)
        client = self.connect(running)
        client.send(b"hello\n!\n")
        assert client.receive_until_eof() == b"HELLO\nbye\n"
        assert not running.events

    def test_events_report_connection(self, stream_transport: str) -> None:
        """The events Accepted, Received, Sent, PeerEof and Closed have the right peer and byte counts. Bug: a
        wrong log."""
        running = self.serve(EchoService, stream_transport)
        client = self.connect(running)
        assert client.request(b"hello") == b"hello"
        client.shutdown_write()
        assert client.receive_until_eof() == b""
        event = check_cause(running, client, CloseReason.PEER)
        assert (event.received, event.sent) == (5, 5)
        names = [type(each).__name__ for each in running.events if of_client(client)(each)]
        assert names == ["Accepted", "Received", "Sent", "PeerEof", "Closed"]
        assert running.events_of(Received, of_client(client))[0].data == b"hello"
        numbers = {getattr(each, "connection", 1) for each in running.events if of_client(client)(each)}
        assert numbers == {event.connection}
