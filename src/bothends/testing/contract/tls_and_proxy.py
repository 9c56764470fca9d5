"""Wrapped: TLS and the PROXY header around a conversation, over real sockets."""

from __future__ import annotations

import functools
import importlib.util
import ssl
import zlib
from typing import Final

import pytest

from bothends.endpoints import Address
from bothends.engines.base import Limits
from bothends.events import Cause, Closed, Ended, Established, Failed, Received
from bothends.layers import TlsSettings, encode
from bothends.testing.clients import Client
from bothends.testing.contract.base import ContractBase, check_cause, closed, of, opened
from bothends.testing.harness import Harness
from bothends.testing.ipc import ServiceMaker
from bothends.testing.services import Chat, Digest, Echo, Lines, Who, digest, pattern
from bothends.testing.tls_client import TlsClient, trusting

_TLS: Final = "tls://127.0.0.1:0"
_PROXY: Final = "proxyprotocol+tcp://127.0.0.1:0"
_BOTH: Final = "proxyprotocol+tls://127.0.0.1:0"

_TLS12, _TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

_FAR: Final = (Address("inet6", "2001:db8::9", 56324), Address("inet6", "2001:db8::1", 443))

# The begin of a handshake, of which the rest never comes.
_BEGUN: Final = b"\x16\x03\x01"

# Waited for by a test, from the beginning of a connection.
_HANDSHAKE: Final = 0.2


class WrappedContract(ContractBase):
    """Part of the suite: handshakes, and what is told of them; ends that are told apart."""

    @pytest.mark.parametrize("most", [_TLS12, _TLS13], ids=["TLS 1.2", "TLS 1.3"])
    def test_tls(self, most: ssl.TLSVersion) -> None:
        """What is said inside is told, and what hands were shaken on. Mistake: ciphertext in the log."""
        running = self._serve(Echo, _TLS)
        with TlsClient(running.endpoints[0], trusting(most)) as client:
            client.say(b"hello")
            assert client.hear(5) == b"hello"
            client.finish()
            assert client.hear_all() == b"hello"
        assert closed(running, client).sent > 5
        version = "TLS 1.2" if most is _TLS12 else "TLS 1.3"
        assert [each.agreed for each in running.seen(Established)] == [f"{version}, SNI localhost"]
        assert [each.data for each in running.seen(Received)] == [b"hello"]
        assert not running.seen(Failed)

    @pytest.mark.parametrize("most", [_TLS12, _TLS13], ids=["TLS 1.2", "TLS 1.3"])
    def test_tls_answers_after_half_close(self, most: ssl.TLSVersion) -> None:
        """TLS 1.3 closes one direction, TLS 1.2 both (RFC 5246, 7.2.1), so there the last word is left
        unsaid, which is told. Mistakes: the answer is lost in silence; it is sent after close_notify."""
        running = self._serve(Digest, _TLS)
        with TlsClient(running.endpoints[0], trusting(most)) as client:
            client.say(b"hello")
            client.finish()
            heard = client.hear_all()
        closed(running, client)
        assert running.seen(Ended)
        if most is _TLS13:
            assert heard == digest(5, zlib.crc32(b"hello"))
            assert not running.seen(Failed)
        else:
            assert heard == b""
            assert "left unsaid" in str(running.seen(Failed)[0].error)

    def test_tls_both_ways_at_once(self) -> None:
        """Many records, cut anywhere. Mistake: records out of order, as soon as some wait to be sent."""
        data = pattern(300_000)
        running = self._serve(Echo, _TLS)
        with TlsClient(running.endpoints[0]) as client:
            client.say(data)
            client.finish()
            assert client.hear_all() == data
        check_cause(running, client, Cause.PEER)

    def test_not_tls(self) -> None:
        """A client without TLS is told apart, and hears nothing but a clean close."""
        running = self._serve(Echo, _TLS)
        with Client(running.endpoints[0]) as client:
            client.say(b"GET / HTTP/1.0\r\n\r\n")
            client.finish()
            assert client.hear_all() == b""
        failed = running.wait_event(Failed)
        assert 'not TLS: it began with "GET / HTTP/1.0' in str(failed.error)
        check_cause(running, client, Cause.BROKEN)

    def test_tls_that_is_cut(self) -> None:
        """A connection that ends without close_notify was cut by somebody, which is told. Mistake: half
        of what was to come taken for all of it."""
        running = self._serve(Echo, _TLS)
        with TlsClient(running.endpoints[0]) as client:
            client.say(b"half")
            assert client.hear(4) == b"half"
            client.socket.shutdown(1)
            client.hear_all()
        closed(running, client)
        (failed,) = running.seen(Failed)
        assert "without close_notify" in str(failed.error)

    def test_a_stalled_handshake_holds_up_nobody(self) -> None:
        """Shaking hands is waiting for a peer like any other. Mistake: a handshake before the next
        accept()."""
        self.needs_concurrency()
        running = self._serve(Echo, _TLS, limits=Limits(handshake=30))
        stalled = self.dial(running)
        stalled.say(_BEGUN)
        opened(running, stalled)
        with TlsClient(running.endpoints[0]) as client:
            client.say(b"x")
            assert client.hear(1) == b"x"
        assert not running.seen(Closed, of(stalled))

    @pytest.mark.parametrize("way", ["stalled", "in drops"])
    def test_handshake_limit(self, way: str) -> None:
        """It counts from the beginning, whatever comes in; then the place is free. Mistakes: every byte
        prolongs it, as it does the idle limit; none has no limit at all."""
        running = self._serve(Echo, _TLS, limits=Limits(handshake=_HANDSHAKE, linger=0.1))
        with Client(running.endpoints[0]) as client:
            client.say(_BEGUN)
            if way == "in drops":
                for drop in b"\x40\x00" + bytes(1000):
                    if client.is_readable(_HANDSHAKE / 10):
                        break
                    client.say(bytes([drop]))
            assert client.hear_all() == b""
        event = check_cause(running, client, Cause.HANDSHAKE)
        assert event.received == 3 if way == "stalled" else event.received < 1000
        running.wait_for(lambda: self._shakes_hands(running))

    def test_drain_says_close_notify(self) -> None:
        """A connection at rest is ended as a peer of TLS may expect it. Mistake: a FIN, which looks like a
        cut."""
        running = self._serve(Lines, _TLS, limits=Limits(linger=0.1))
        with TlsClient(running.endpoints[0]) as client:
            client.say(b"x\nrest")
            assert client.hear(2) == b"X\n"
            running.drain()
            assert client.hear_all() == b"X\nREST"
        check_cause(running, client, Cause.DRAINED)
        assert not running.seen(Failed)

    def test_posts_are_encrypted_in_order(self) -> None:
        """Records are numbered, and what is posted mixes with what is answered. Mistake: a post that is
        encrypted first and sent second."""
        self.needs_posts()
        running = self._serve(Chat, _TLS)
        members = [self._stack.enter_context(TlsClient(running.endpoints[0])) for _ in range(3)]
        for member in members:
            assert member.hear(6) == b"hello\n"
        words = [b"%d" % number * 3000 for number in range(3)]
        for _ in range(5):
            for member, word in zip(members, words, strict=True):
                member.say(word)
        for member in members:
            member.deliver()
        for member, own in zip(members, words, strict=True):
            heard = functools.partial(_has_heard, member, [each for each in words if each is not own])
            member.wait_until(heard)
        assert not running.seen(Failed)

    @pytest.mark.parametrize("version", [1, 2])
    def test_behind_a_proxy(self, version: int) -> None:
        """Who a trusted proxy says that it calls for is the peer, for the service and for the events.
        Mistake: the proxy's own address in the log."""
        running = self._serve(Who, _BOTH)
        with TlsClient(running.endpoints[0], before=encode(version, *_FAR)) as client:
            assert client.hear_all() == b"2001:db8::9#56324 at 2001:db8::1#443"
        established = running.wait_event(Established)
        assert established.agreed == f"PROXY v{version}, TLS 1.3, SNI localhost"
        assert (established.peer, established.was) == (_FAR[0], client.address)
        assert running.wait_event(Closed).peer == _FAR[0]

    def test_places_behind_a_proxy_are_given_back(self) -> None:
        """Who came in is who leaves, whoever the header says it is. Mistake: a count under another name."""
        running = self._serve(Who, _PROXY, limits=Limits(connections=1, per_address=1))
        for number in range(3):
            with Client(running.endpoints[0]) as client:
                client.say(encode(1 + number % 2, *_FAR))
                assert client.hear_all() == b"2001:db8::9#56324 at 2001:db8::1#443"
            running.wait_for(functools.partial(_has_closed, running, number + 1))

    def test_no_header(self) -> None:
        """Who sends none gets nothing but a clean close, and is told of; who sends nothing at all has only
        looked whether the port is open. Mistake: guessing."""
        running = self._serve(Echo, _PROXY)
        for said in (b"GET / HTTP/1.0\r\n\r\n", b""):
            with Client(running.endpoints[0]) as client:
                if said:
                    client.say(said)
                client.finish()
                assert client.hear_all() == b""
            closed(running, client)
        (failed,) = running.seen(Failed)
        assert "no PROXY header" in str(failed.error)
        assert not running.seen(Established)

    # Helpers -------------------------------------------------------------------------------------

    def _shakes_hands(self, running: Harness) -> bool:
        """Whether somebody does in time, which a busy machine may need several tries for."""
        try:
            with TlsClient(running.endpoints[0]) as client:
                client.say(b"x")
                return client.hear(1) == b"x"
        except (AssertionError, OSError):
            return False

    def _serve(self, service: ServiceMaker, endpoint: str, *, limits: Limits | None = None) -> Harness:
        self.needs("tcp")
        if "tls" in endpoint and importlib.util.find_spec("cryptography") is None:
            pytest.skip("making a certificate needs the `cryptography` library")
        return self.serve(service, endpoint, limits=limits, tls=TlsSettings(self_signed=True))


def _has_heard(member: TlsClient, words: list[bytes]) -> bool:
    return all(member.heard.count(word) == 5 for word in words)


def _has_closed(running: Harness, count: int) -> bool:
    return len(running.seen(Closed)) == count
