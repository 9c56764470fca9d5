"""TLS as a conversation: exchanges in memory, split at every offset."""

from __future__ import annotations

import functools
import random
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.errors import HandshakeFailed, PeerError, ProtocolViolation
from bothends.layers import TlsLayer, self_signed
from bothends.services.base import Conversation, Peer, Push, discard_push
from bothends.testing.tls_client import SansIoTlsClient
from tests.layers.keys import CertificateFiles
from tests.layers.sans_io_peer import PEER, InMemoryExchange, RecordingConversation, one_chunk, single_bytes

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class RecordingOpener:
    """A factory that records the conversations it opens."""

    def __init__(self, factory: Callable[[Peer, Push], Conversation] = RecordingConversation) -> None:
        self.factory = factory
        self.all: list[Conversation] = []

    def __call__(self, peer: Peer, push: Push) -> Conversation:
        conversation = self.factory(peer, push)
        self.all.append(conversation)
        return conversation

    @property
    def only(self) -> RecordingConversation:
        (one,) = self.all
        assert isinstance(one, RecordingConversation)
        return one


def connect_in_memory(
    keys: CertificateFiles,
    opened: RecordingOpener | None = None,
    *,
    max_version: ssl.TLSVersion | None = None,
    chunker: Callable[[bytes], Iterator[bytes]] = one_chunk,
    push: Push = discard_push,
) -> tuple[InMemoryExchange, RecordingOpener]:
    """Return an exchange after its handshake."""
    opened = opened or RecordingOpener()
    server = TlsLayer(keys.server_context()).wrap(opened)(PEER, push)
    exchange = InMemoryExchange(
        server, SansIoTlsClient(keys.client_context(max_version=max_version)), chunker
    )
    exchange.run()
    return exchange, opened


def failure_reason(conversation: Conversation) -> str:
    assert isinstance(conversation.failure, HandshakeFailed | ProtocolViolation)
    return conversation.failure.reason


# Handshake ---------------------------------------------------------------------------------------


def test_service_opened_only_after_handshake(keys: CertificateFiles) -> None:
    opened = RecordingOpener()
    server = TlsLayer(keys.server_context()).wrap(opened)(PEER, discard_push)
    client = SansIoTlsClient(keys.client_context())
    assert server.handshaking
    assert server.start() == b""
    client.incoming.write(server.receive(client.step()))
    assert server.handshaking
    assert not opened.all
    server.receive(client.step())
    assert not server.handshaking
    assert opened.only.peer == PEER
    assert server.handshake_info == "TLS 1.3, SNI example.org"
    server.closed()
    assert opened.only.closed_calls == 1


def test_service_greeting_after_handshake(keys: CertificateFiles) -> None:
    class Greeter(RecordingConversation):
        def start(self) -> bytes:
            return b"hello"

    exchange, _ = connect_in_memory(keys, RecordingOpener(Greeter))
    assert exchange.client.received == b"hello"


@pytest.mark.parametrize("max_version", [TLS12, TLS13])
def test_handshake_info(keys: CertificateFiles, max_version: ssl.TLSVersion) -> None:
    context = keys.server_context(request_client_certificate=True, alpn=("h2", "echo/1"))
    server = TlsLayer(context).wrap(RecordingOpener())(PEER, discard_push)
    client = SansIoTlsClient(
        keys.client_context(certificate=keys.client, alpn=("echo/1",), max_version=max_version), "localhost"
    )
    InMemoryExchange(server, client).run()
    version = "TLS 1.2" if max_version is TLS12 else "TLS 1.3"
    assert server.handshake_info == f"{version}, SNI localhost, ALPN echo/1, client CN=alice"


def test_existing_sni_callback_is_called(keys: CertificateFiles) -> None:
    context, names = keys.server_context(), []
    context.sni_callback = lambda _tls, name, _context: names.append(name)
    server = TlsLayer(context).wrap(RecordingOpener())(PEER, discard_push)
    InMemoryExchange(server, SansIoTlsClient(keys.client_context())).run()
    assert names == ["example.org"]
    assert "SNI example.org" in server.handshake_info


# Data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunker", [one_chunk, single_bytes])
@pytest.mark.parametrize("max_version", [TLS12, TLS13])
def test_data_in_both_directions(
    keys: CertificateFiles, max_version: ssl.TLSVersion, chunker: Callable[[bytes], Iterator[bytes]]
) -> None:
    exchange, opened = connect_in_memory(keys, max_version=max_version, chunker=chunker)
    for message in (b"a", b"bc" * 10_000, b"\0"):
        exchange.send(message)
    assert opened.only.received == exchange.client.received == b"a" + b"bc" * 10_000 + b"\0"
    assert exchange.server.inner_traffic is not None
    received = b"".join(data for is_received, data in exchange.server.inner_traffic if is_received)
    assert received == opened.only.received
    assert (
        b"".join(data for is_received, data in exchange.server.inner_traffic if not is_received) == received
    )


def test_handshake_and_data_split_at_every_offset(keys: CertificateFiles) -> None:
    layer, context = TlsLayer(keys.server_context()), keys.client_context()

    def split_at(offset: int, data: bytes) -> Iterator[bytes]:
        yield from filter(None, (data[:offset], data[offset:]))

    max_size = 0
    offset = 1
    while offset <= max_size + 1:
        server = layer.wrap(RecordingOpener())(PEER, discard_push)
        client = SansIoTlsClient(context)
        lengths: list[int] = []

        def split(data: bytes, offset: int = offset, lengths: list[int] = lengths) -> Iterator[bytes]:
            lengths.append(len(data))
            return split_at(offset, data)

        exchange = InMemoryExchange(server, client, split)
        exchange.run()
        exchange.send(b"hello")
        exchange.finish()
        assert client.received == b"hello"
        assert client.close_notify_received
        assert server.done
        assert server.failure is None
        max_size = max(lengths)
        offset += 1 if offset < 32 else 7
    assert max_size > 200


def test_finished_data_and_close_notify_in_one_chunk(keys: CertificateFiles) -> None:
    server = TlsLayer(keys.server_context()).wrap(opened := RecordingOpener())(PEER, discard_push)
    client = SansIoTlsClient(keys.client_context())
    client.incoming.write(server.receive(client.step()))
    last = client.step() + client.encrypt(b"question") + client.close_notify()
    client.incoming.write(server.receive(last))
    client.step()
    assert (client.received, client.close_notify_received) == (b"question", True)
    assert (opened.only.received, opened.only.end_calls, server.done) == (b"question", 1, True)
    assert list(server.inner_traffic or ()) == [(True, b"question"), (False, b"question"), (True, b"")]


def test_one_megabyte_in_one_flight(keys: CertificateFiles) -> None:
    exchange, _ = connect_in_memory(keys)
    data = random.Random(1).randbytes(1 << 20)
    view = memoryview(data)
    while view:
        view = view[exchange.client.ssl_object.write(view) :]
    exchange.run()
    assert exchange.client.received == data


# Closing -----------------------------------------------------------------------------------------


def test_tls13_close_notify_leaves_server_direction_open(keys: CertificateFiles) -> None:
    exchange, opened = connect_in_memory(keys, max_version=TLS13)
    opened.only.final_reply = b"the last reply"
    exchange.finish()
    assert opened.only.end_calls == 1
    assert exchange.client.received == b"the last reply"
    assert exchange.client.close_notify_received
    assert exchange.server.done
    assert exchange.server.failure is None


def test_tls13_close_notify_with_pull_producer(keys: CertificateFiles) -> None:
    class Counting(RecordingConversation):
        left = 3

        def produce(self) -> bytes:
            if not self.end_calls:
                return b""
            self.left -= 1
            return b"%d" % self.left if self.left >= 0 else b""

    exchange, opened = connect_in_memory(keys, RecordingOpener(Counting), max_version=TLS13)
    assert exchange.server.wants_pull
    exchange.finish()
    assert exchange.client.received == b"210"
    assert exchange.client.close_notify_received
    assert exchange.server.done
    assert opened.only.end_calls == 1


def test_tls12_close_notify_reports_discarded_reply(keys: CertificateFiles) -> None:
    exchange, opened = connect_in_memory(keys, max_version=TLS12)
    opened.only.final_reply = b"the last reply"
    exchange.finish()
    assert opened.only.end_calls == 1
    assert exchange.client.received == b""
    assert exchange.client.close_notify_received
    assert "14 bytes of output could not be sent" in failure_reason(exchange.server)


def test_tls12_close_notify_without_pending_reply_is_clean(keys: CertificateFiles) -> None:
    exchange, _ = connect_in_memory(keys, max_version=TLS12)
    exchange.send(b"x")
    exchange.finish()
    assert exchange.client.close_notify_received
    assert exchange.server.done
    assert exchange.server.failure is None


@pytest.mark.parametrize("max_version", [TLS12, TLS13])
def test_eof_without_close_notify_is_truncation(keys: CertificateFiles, max_version: ssl.TLSVersion) -> None:
    exchange, opened = connect_in_memory(keys, max_version=max_version)
    exchange.send(b"half a mess")
    exchange.end()
    assert opened.only.end_calls == 0
    assert exchange.server.done
    assert "without close_notify" in failure_reason(exchange.server)
    assert exchange.client.close_notify_received


def test_service_done_sends_close_notify(keys: CertificateFiles) -> None:
    class ClosingConversation(RecordingConversation):
        def receive(self, data: bytes) -> bytes:
            self.done = True
            return b"bye"

    exchange, _ = connect_in_memory(keys, RecordingOpener(ClosingConversation))
    exchange.send(b"x")
    assert exchange.client.received == b"bye"
    assert exchange.client.close_notify_received
    assert exchange.server.done
    assert exchange.server.failure is None


@pytest.mark.parametrize("step", ["open", "start", "receive"])
def test_service_exception_is_failure_and_sends_close_notify(keys: CertificateFiles, step: str) -> None:
    class FailingConversation(RecordingConversation):
        def __init__(self, peer: Peer, push: Push) -> None:
            super().__init__(peer, push)
            self._enter("open")

        def _enter(self, current: str) -> bytes:
            if current == step:
                raise ZeroDivisionError(current)
            return b""

        def start(self) -> bytes:
            return self._enter("start")

        def receive(self, data: bytes) -> bytes:
            return self._enter("receive")

    exchange, _ = connect_in_memory(keys, RecordingOpener(FailingConversation))
    if not exchange.server.done:
        exchange.send(b"x")
    assert isinstance(exchange.server.failure, ZeroDivisionError)
    assert exchange.server.done
    assert exchange.client.close_notify_received


def test_close_after_handshake_is_clean(keys: CertificateFiles) -> None:
    exchange, opened = connect_in_memory(keys)
    opened.only.final_reply = b"time is up"
    exchange.client.incoming.write(exchange.server.close())
    exchange.client.step()
    assert (opened.only.close_calls, opened.only.end_calls) == (1, 0)
    assert exchange.client.received == b"time is up"
    assert exchange.client.close_notify_received
    assert exchange.server.failure is None


def test_close_during_handshake_is_clean(keys: CertificateFiles) -> None:
    server = TlsLayer(keys.server_context()).wrap(opened := RecordingOpener())(PEER, discard_push)
    server.receive(SansIoTlsClient(keys.client_context()).step())
    assert server.close() == b""
    assert server.done
    assert server.handshaking
    assert server.failure is None
    server.closed()
    assert not opened.all


# Failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.0\r\n\r\n", b"h", b"\n", b"\x80\x2e\x01\x00\x02", b"SSH-2.0-x\r\n", b"\x1b[2J"]
)
def test_non_tls_data_is_rejected_by_first_byte(keys: CertificateFiles, first: bytes) -> None:
    server = TlsLayer(keys.server_context()).wrap(opened := RecordingOpener())(PEER, discard_push)
    assert server.receive(first) == b""
    assert server.done
    assert failure_reason(server).startswith('not TLS: it began with "')
    assert "\x1b" not in failure_reason(server)
    assert not opened.all
    assert server.end() == b""


def test_eof_without_data_is_no_failure(keys: CertificateFiles) -> None:
    server = TlsLayer(keys.server_context()).wrap(RecordingOpener())(PEER, discard_push)
    assert server.end() == b""
    assert server.done
    assert server.failure is None


def test_eof_within_handshake_fails(keys: CertificateFiles) -> None:
    server = TlsLayer(keys.server_context()).wrap(RecordingOpener())(PEER, discard_push)
    server.receive(SansIoTlsClient(keys.client_context()).step()[:50])
    server.end()
    assert "during the handshake" in failure_reason(server)


def handshake_failure_reason(
    keys: CertificateFiles, server: ssl.SSLContext, client: ssl.SSLContext, name: str = "example.org"
) -> str:
    """Return the server's reason for a failed handshake, which either side may detect."""
    conversation = TlsLayer(server).wrap(opened := RecordingOpener())(PEER, discard_push)
    end = SansIoTlsClient(client, name)
    for _ in range(4):
        try:
            out = end.step()
        except ssl.SSLError:
            out = end.outgoing.read()
        output = conversation.receive(out) if out and not conversation.done else b""
        end.incoming.write(output)
    assert conversation.done
    assert not opened.all
    return failure_reason(conversation)


def test_unknown_ca_alert_is_reported(keys: CertificateFiles) -> None:
    context, _ = self_signed(["example.org"])
    assert "the peer does not trust the local certificate's issuer" in handshake_failure_reason(
        keys, context, keys.client_context()
    )


def test_hostname_mismatch_alert_is_reported(keys: CertificateFiles) -> None:
    assert "the peer rejected the local certificate" in handshake_failure_reason(
        keys, keys.server_context(), keys.client_context(), "another.example"
    )


def test_missing_client_certificate_fails(keys: CertificateFiles) -> None:
    assert (
        failure_reason_with_client_certificate(keys, None)
        == "the peer sent no certificate, and one is required"
    )


def test_client_certificate_of_other_issuer_fails(keys: CertificateFiles) -> None:
    assert "certificate verification failed: unable to get" in failure_reason_with_client_certificate(
        keys, keys.other
    )


def failure_reason_with_client_certificate(keys: CertificateFiles, certificate: Path | None) -> str:
    context = keys.client_context()
    if certificate is not None:
        context.load_cert_chain(certificate)
    return handshake_failure_reason(keys, keys.server_context(request_client_certificate=True), context)


def test_handshake_alert_is_sent_to_client(keys: CertificateFiles) -> None:
    server = TlsLayer(keys.server_context(request_client_certificate=True)).wrap(RecordingOpener())(
        PEER, discard_push
    )
    exchange = InMemoryExchange(server, SansIoTlsClient(keys.client_context(max_version=TLS12)))
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        exchange.run()
    assert server.done


def test_no_shared_cipher_fails(keys: CertificateFiles) -> None:
    server, client = keys.server_context(), keys.client_context(max_version=TLS12)
    server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    assert handshake_failure_reason(keys, server, client) == "no common cipher"


@pytest.mark.parametrize("max_version", [TLS12, TLS13])
def test_modified_record_ends_conversation(keys: CertificateFiles, max_version: ssl.TLSVersion) -> None:
    exchange, opened = connect_in_memory(keys, max_version=max_version)
    record = bytearray(exchange.client.encrypt(b"transfer 1 euro"))
    record[-1] ^= 1
    output = exchange.server.receive(bytes(record))
    assert opened.only.received == b""
    assert failure_reason(exchange.server) == "a record was modified in transit"
    exchange.client.incoming.write(output)
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        exchange.client.step()


def test_data_before_modified_record_is_delivered(keys: CertificateFiles) -> None:
    exchange, opened = connect_in_memory(keys)
    good, bad = exchange.client.encrypt(b"good"), bytearray(exchange.client.encrypt(b"bad"))
    bad[-1] ^= 1
    exchange.server.receive(good + bytes(bad))
    assert opened.only.received == b"good"
    assert exchange.server.done


def test_oversized_record_is_rejected(keys: CertificateFiles) -> None:
    exchange, _ = connect_in_memory(keys)
    exchange.server.receive(struct.pack("!BHH", 0x17, 0x0303, 0xFFFF))
    assert exchange.server.done
    assert failure_reason(exchange.server)


def test_oversized_client_hello_is_rejected(keys: CertificateFiles) -> None:
    server = TlsLayer(keys.server_context()).wrap(RecordingOpener())(PEER, discard_push)
    # A ClientHello with a length field of 16 MiB, in full records (RFC 8446, section 4).
    hello = b"\x01\xff\xff\xff" + b"\x03\x03" + bytes(16_000)
    sent = 0
    while not server.done and sent < 64:
        server.receive(struct.pack("!BHH", 0x16, 0x0301, len(hello)) + hello)
        hello = bytes(16_000)
        sent += 1
    assert server.done
    assert sent < 20
    assert failure_reason(server)


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=8), st.booleans())
def test_arbitrary_data_instead_of_handshake_ends_cleanly(noise: list[bytes], begin: bool) -> None:
    server = TlsLayer(_context()).wrap(opened := RecordingOpener())(PEER, discard_push)
    for chunk in ([b"\x16\x03\x01"] if begin else []) + noise:
        if server.done:
            break
        server.receive(chunk)
    if not server.done:
        server.end()
    assert server.done
    assert server.failure is None or isinstance(server.failure, PeerError)
    assert not opened.all


@functools.cache
def _context() -> ssl.SSLContext:
    return self_signed(["example.org"])[0]


# Pushes ------------------------------------------------------------------------------------------


def test_pushing_service_output_is_pushed_in_order(keys: CertificateFiles) -> None:
    pushed: list[bytes] = []
    server = TlsLayer(keys.server_context()).wrap(opened := RecordingOpener())(PEER, pushed.append)
    client = SansIoTlsClient(keys.client_context())

    def deliver() -> None:
        client.incoming.write(b"".join(pushed))
        pushed.clear()

    out = client.step()
    while out:
        assert server.receive(out) == b""
        deliver()
        out = client.step()
    opened.only.push(b"one ")
    assert server.receive(client.encrypt(b"two ")) == b""
    opened.only.push(b"three ")
    opened.only.push(b"")
    deliver()
    client.step()
    assert client.received == b"one two three "
    server.receive(client.close_notify())
    opened.only.push(b"too late")
    deliver()
    client.step()
    assert client.received == b"one two three "
    assert client.close_notify_received


def test_push_of_another_thread_waits_while_a_reply_is_sent(keys: CertificateFiles) -> None:
    sent: list[bytes] = []
    others: list[threading.Thread] = []

    def push(data: bytes) -> None:
        if opened.all and opened.only.received and not others:
            others.append(threading.Thread(target=opened.only.push, args=(b"second",)))
            others[0].start()
            others[0].join(0.2)
        sent.append(data)

    server = TlsLayer(keys.server_context()).wrap(opened := RecordingOpener())(PEER, push)
    client = SansIoTlsClient(keys.client_context())
    while out := client.step():
        server.receive(out)
        client.incoming.write(b"".join(sent))
        sent.clear()
    server.receive(client.encrypt(b"first "))
    others[0].join()
    client.incoming.write(b"".join(sent))
    client.step()
    assert client.received == b"first second"


def test_concurrent_pushes_stay_intact(keys: CertificateFiles) -> None:
    pushed: list[bytes] = []
    server = TlsLayer(keys.server_context()).wrap(opened := RecordingOpener())(PEER, pushed.append)
    client = SansIoTlsClient(keys.client_context())
    out = client.step()
    while out:
        server.receive(out)
        client.incoming.write(b"".join(pushed))
        pushed.clear()
        out = client.step()
    start = threading.Barrier(5)

    def push_blocks(letter: bytes) -> None:
        start.wait(10)
        for _ in range(200):
            opened.only.push(letter * 50)

    threads = [threading.Thread(target=push_blocks, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    start.wait(10)
    for _ in range(100):
        server.receive(client.encrypt(b"e" * 50))
    for thread in threads:
        thread.join(10)
    client.incoming.write(b"".join(pushed))
    client.step()
    assert len(client.received) == 900 * 50
    blocks = [client.received[at : at + 50] for at in range(0, len(client.received), 50)]
    assert all(len(set(block)) == 1 for block in blocks)
    assert sorted({block[:1] for block in blocks}) == [b"a", b"b", b"c", b"d", b"e"]
