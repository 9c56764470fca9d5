"""Layers: TLS and the PROXY header around a conversation, over real sockets."""

from __future__ import annotations

import functools
import importlib.util
import ssl
import zlib
from typing import Final

import pytest

from bothends.endpoints import Address
from bothends.engines.base import Limits
from bothends.events import Closed, CloseReason, HandshakeCompleted, PeerEof, Received, ServiceFailed
from bothends.layers import TlsSettings, encode_header
from bothends.testing.clients import Client
from bothends.testing.contract.base import ContractBase, check_cause, of_client, wait_closed, wait_opened
from bothends.testing.harness import Harness
from bothends.testing.ipc import ServiceMaker
from bothends.testing.services import (
    BroadcastChat,
    Digest,
    EchoService,
    UppercaseLines,
    WhoAmI,
    digest,
    pattern,
)
from bothends.testing.tls_client import TlsClient, insecure_context

_TLS: Final = "tls://127.0.0.1:0"
_PROXY: Final = "proxyprotocol+tcp://127.0.0.1:0"
_PROXY_TLS: Final = "proxyprotocol+tls://127.0.0.1:0"

_TLS12, _TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

_PROXIED_ADDRESSES: Final = (Address("inet6", "2001:db8::9", 56324), Address("inet6", "2001:db8::1", 443))

# The first bytes of a handshake that is never completed.
_PARTIAL_CLIENT_HELLO: Final = b"\x16\x03\x01"

# Seconds, from accept().
_HANDSHAKE_TIMEOUT: Final = 0.2


class TlsAndProxyContract(ContractBase):
    """Part of the suite: handshakes, their events and timeouts, and the ends of TLS connections."""

    @pytest.mark.parametrize("max_version", [_TLS12, _TLS13], ids=["TLS 1.2", "TLS 1.3"])
    def test_tls_events_show_plaintext_and_parameters(self, max_version: ssl.TLSVersion) -> None:
        """Events have the plaintext, and the parameters of the handshake. Bug: ciphertext in the log."""
        running = self._serve(EchoService, _TLS)
        with TlsClient(running.endpoints[0], insecure_context(max_version)) as client:
            client.send(b"hello")
            assert client.receive_exactly(5) == b"hello"
            client.shutdown_write()
            assert client.receive_until_eof() == b"hello"
        assert wait_closed(running, client).sent > 5
        version = "TLS 1.2" if max_version is _TLS12 else "TLS 1.3"
        assert [each.agreed for each in running.events_of(HandshakeCompleted)] == [
            f"{version}, SNI localhost"
        ]
        assert [each.data for each in running.events_of(Received)] == [b"hello"]
        assert not running.events_of(ServiceFailed)

    @pytest.mark.parametrize("max_version", [_TLS12, _TLS13], ids=["TLS 1.2", "TLS 1.3"])
    def test_tls_reply_after_half_close(self, max_version: ssl.TLSVersion) -> None:
        """close_notify closes one direction in TLS 1.3 and both in TLS 1.2 (RFC 5246, 7.2.1), where the last
        reply is dropped and reported. Bugs: dropping it silently; sending it after close_notify."""
        running = self._serve(Digest, _TLS)
        with TlsClient(running.endpoints[0], insecure_context(max_version)) as client:
            client.send(b"hello")
            client.shutdown_write()
            received = client.receive_until_eof()
        wait_closed(running, client)
        assert running.events_of(PeerEof)
        if max_version is _TLS13:
            assert received == digest(5, zlib.crc32(b"hello"))
            assert not running.events_of(ServiceFailed)
        else:
            assert received == b""
            assert "could not be sent" in str(running.events_of(ServiceFailed)[0].error)

    def test_tls_large_echo_in_both_directions(self) -> None:
        """Many records, split anywhere, are echoed. Bug: records out of order when some are queued."""
        data = pattern(300_000)
        running = self._serve(EchoService, _TLS)
        with TlsClient(running.endpoints[0]) as client:
            client.send(data)
            client.shutdown_write()
            assert client.receive_until_eof() == data
        check_cause(running, client, CloseReason.PEER)

    def test_plaintext_client_on_tls_listener(self) -> None:
        """A plaintext client is recognized and reported, and receives only EOF."""
        running = self._serve(EchoService, _TLS)
        with Client(running.endpoints[0]) as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            client.shutdown_write()
            assert client.receive_until_eof() == b""
        failed = running.wait_event(ServiceFailed)
        assert 'not TLS: it began with "GET / HTTP/1.0' in str(failed.error)
        check_cause(running, client, CloseReason.BROKEN)

    def test_tls_eof_without_close_notify_is_reported(self) -> None:
        """EOF without close_notify may be a truncation attack, so it is reported. Bug: taking truncated input
        for complete input."""
        running = self._serve(EchoService, _TLS)
        with TlsClient(running.endpoints[0]) as client:
            client.send(b"half")
            assert client.receive_exactly(4) == b"half"
            client.socket.shutdown(1)
            client.receive_until_eof()
        wait_closed(running, client)
        (failed,) = running.events_of(ServiceFailed)
        assert "without close_notify" in str(failed.error)

    def test_stalled_handshake_does_not_block_others(self) -> None:
        """A handshake does not block the engine. Bug: completing it before the next accept()."""
        self.require_concurrency()
        running = self._serve(EchoService, _TLS, limits=Limits(handshake=30))
        stalled = self.connect(running)
        stalled.send(_PARTIAL_CLIENT_HELLO)
        wait_opened(running, stalled)
        with TlsClient(running.endpoints[0]) as client:
            client.send(b"x")
            assert client.receive_exactly(1) == b"x"
        assert not running.events_of(Closed, of_client(stalled))

    @pytest.mark.parametrize("delivery", ["stalled", "bytewise"])
    def test_handshake_timeout_counts_from_accept(self, delivery: str) -> None:
        """The handshake timeout counts from accept(), whatever arrives, and then releases the slot. Bugs:
        each byte prolongs it, as it does the idle timeout; without any data it has no effect."""
        running = self._serve(EchoService, _TLS, limits=Limits(handshake=_HANDSHAKE_TIMEOUT, linger=0.1))
        with Client(running.endpoints[0]) as client:
            client.send(_PARTIAL_CLIENT_HELLO)
            if delivery == "bytewise":
                for byte in b"\x40\x00" + bytes(1000):
                    if client.is_readable(_HANDSHAKE_TIMEOUT / 10):
                        break
                    client.send(bytes([byte]))
            assert client.receive_until_eof() == b""
        event = check_cause(running, client, CloseReason.HANDSHAKE)
        assert event.received == 3 if delivery == "stalled" else event.received < 1000
        running.wait_for(lambda: self._completes_handshake(running))

    def test_drain_sends_close_notify(self) -> None:
        """Draining ends an idle TLS connection with close_notify. Bug: a FIN alone looks like truncation."""
        running = self._serve(UppercaseLines, _TLS, limits=Limits(linger=0.1))
        with TlsClient(running.endpoints[0]) as client:
            client.send(b"x\nrest")
            assert client.receive_exactly(2) == b"X\n"
            running.drain()
            assert client.receive_until_eof() == b"X\nREST"
        check_cause(running, client, CloseReason.DRAINED)
        assert not running.events_of(ServiceFailed)

    def test_push_over_tls_keeps_record_order(self) -> None:
        """Pushes and replies keep the order of their TLS records. Bug: encrypted first and sent second."""
        self.require_push()
        running = self._serve(BroadcastChat, _TLS)
        members = [self._stack.enter_context(TlsClient(running.endpoints[0])) for _ in range(3)]
        for member in members:
            assert member.receive_exactly(6) == b"hello\n"
        words = [b"%d" % number * 3000 for number in range(3)]
        for _ in range(5):
            for member, word in zip(members, words, strict=True):
                member.send(word)
        for member in members:
            member.flush()
        for member, own in zip(members, words, strict=True):
            others = [each for each in words if each is not own]
            member.wait_until(functools.partial(_has_received, member, others))
        assert not running.events_of(ServiceFailed)

    @pytest.mark.parametrize("version", [1, 2])
    def test_proxy_header_sets_peer_address(self, version: int) -> None:
        """The address in a PROXY header is the peer's address, for the service and in the events. Bug: the
        proxy's address in the log."""
        running = self._serve(WhoAmI, _PROXY_TLS)
        with TlsClient(running.endpoints[0], prefix=encode_header(version, *_PROXIED_ADDRESSES)) as client:
            assert client.receive_until_eof() == b"2001:db8::9#56324 at 2001:db8::1#443"
        established = running.wait_event(HandshakeCompleted)
        assert established.agreed == f"PROXY v{version}, TLS 1.3, SNI localhost"
        assert (established.peer, established.was) == (_PROXIED_ADDRESSES[0], client.address)
        assert running.wait_event(Closed).peer == _PROXIED_ADDRESSES[0]

    def test_connection_limit_with_proxy_header_is_released(self) -> None:
        """The limits count the proxy's address, both on accept and on close. Bug: releasing the address of
        the header."""
        running = self._serve(WhoAmI, _PROXY, limits=Limits(connections=1, per_address=1))
        for number in range(3):
            with Client(running.endpoints[0]) as client:
                client.send(encode_header(1 + number % 2, *_PROXIED_ADDRESSES))
                assert client.receive_until_eof() == b"2001:db8::9#56324 at 2001:db8::1#443"
            running.wait_for(functools.partial(_has_closed, running, number + 1))

    def test_missing_proxy_header_closes_connection(self) -> None:
        """A client without a PROXY header receives only EOF, and is reported. One that sends nothing is not
        reported, because it is probably a health check. Bug: serving it anyway."""
        running = self._serve(EchoService, _PROXY)
        for data in (b"GET / HTTP/1.0\r\n\r\n", b""):
            with Client(running.endpoints[0]) as client:
                if data:
                    client.send(data)
                client.shutdown_write()
                assert client.receive_until_eof() == b""
            wait_closed(running, client)
        (failed,) = running.events_of(ServiceFailed)
        assert "no PROXY header" in str(failed.error)
        assert not running.events_of(HandshakeCompleted)

    # Helpers -------------------------------------------------------------------------------------

    def _completes_handshake(self, running: Harness) -> bool:
        """Whether a new client completes the handshake in time. A busy machine may need several tries."""
        try:
            with TlsClient(running.endpoints[0]) as client:
                client.send(b"x")
                return client.receive_exactly(1) == b"x"
        except (AssertionError, OSError):
            return False

    def _serve(self, service: ServiceMaker, endpoint: str, *, limits: Limits | None = None) -> Harness:
        self.require_transports("tcp")
        if "tls" in endpoint and importlib.util.find_spec("cryptography") is None:
            pytest.skip("making a certificate needs the `cryptography` library")
        return self.serve(service, endpoint, limits=limits, tls=TlsSettings(self_signed=True))


def _has_received(member: TlsClient, words: list[bytes]) -> bool:
    return all(member.received.count(word) == 5 for word in words)


def _has_closed(running: Harness, count: int) -> bool:
    return len(running.events_of(Closed)) == count
