"""TLS as a conversation: dialogues in memory, cut anywhere."""

from __future__ import annotations

import functools
import random
import ssl
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.errors import HandshakeFailed, PeerError, StreamBroken
from bothends.layers import TlsLayer, self_signed
from bothends.services.base import Conversation, Peer, Post, nowhere
from bothends.testing.tls_client import TlsEnd
from tests.layers.keys import Keys
from tests.layers.sans_io_peer import PEER, Dialogue, Script, single, whole

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Opened:
    """An opener that remembers what it opened."""

    def __init__(self, make: Callable[[Peer, Post], Conversation] = Script) -> None:
        self.make = make
        self.all: list[Conversation] = []

    def __call__(self, peer: Peer, post: Post) -> Conversation:
        made = self.make(peer, post)
        self.all.append(made)
        return made

    @property
    def only(self) -> Script:
        (one,) = self.all
        assert isinstance(one, Script)
        return one


def talk(
    keys: Keys,
    opened: Opened | None = None,
    *,
    most: ssl.TLSVersion | None = None,
    cut: Callable[[bytes], Iterator[bytes]] = whole,
    post: Post = nowhere,
) -> tuple[Dialogue, Opened]:
    """A dialogue after its handshake."""
    opened = opened or Opened()
    server = TlsLayer(keys.server_side()).wrap(opened)(PEER, post)
    dialogue = Dialogue(server, TlsEnd(keys.client_side(most=most)), cut)
    dialogue.run()
    return dialogue, opened


def reason(conversation: Conversation) -> str:
    assert isinstance(conversation.failure, HandshakeFailed | StreamBroken)
    return conversation.failure.reason


# How it begins -----------------------------------------------------------------------------------


def test_nothing_is_opened_before_the_handshake_is_over(keys: Keys) -> None:
    opened = Opened()
    server = TlsLayer(keys.server_side()).wrap(opened)(PEER, nowhere)
    client = TlsEnd(keys.client_side())
    assert server.handshaking
    assert server.start() == b""
    client.incoming.write(server.receive(client.step()))
    assert server.handshaking
    assert not opened.all
    server.receive(client.step())
    assert not server.handshaking
    assert opened.only.who == PEER
    assert server.agreed == "TLS 1.3, SNI example.org"
    server.closed()
    assert opened.only.closes == 1


def test_the_service_speaks_first(keys: Keys) -> None:
    class Greeter(Script):
        def start(self) -> bytes:
            return b"welcome"

    dialogue, _ = talk(keys, Opened(Greeter))
    assert dialogue.client.heard == b"welcome"


@pytest.mark.parametrize("most", [TLS12, TLS13])
def test_what_is_agreed_is_told(keys: Keys, most: ssl.TLSVersion) -> None:
    context = keys.server_side(asks=True, alpn=("h2", "echo/1"))
    server = TlsLayer(context).wrap(Opened())(PEER, nowhere)
    client = TlsEnd(keys.client_side(show=keys.client, alpn=("echo/1",), most=most), "localhost")
    Dialogue(server, client).run()
    version = "TLS 1.2" if most is TLS12 else "TLS 1.3"
    assert server.agreed == f"{version}, SNI localhost, ALPN echo/1, client CN=alice"


def test_a_servers_own_callback_for_names_is_still_called(keys: Keys) -> None:
    context, asked = keys.server_side(), []
    context.sni_callback = lambda _tls, name, _context: asked.append(name)
    server = TlsLayer(context).wrap(Opened())(PEER, nowhere)
    Dialogue(server, TlsEnd(keys.client_side())).run()
    assert asked == ["example.org"]
    assert "SNI example.org" in server.agreed


# What is said ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [whole, single])
@pytest.mark.parametrize("most", [TLS12, TLS13])
def test_bytes_go_both_ways(
    keys: Keys, most: ssl.TLSVersion, cut: Callable[[bytes], Iterator[bytes]]
) -> None:
    dialogue, opened = talk(keys, most=most, cut=cut)
    for message in (b"a", b"bc" * 10_000, b"\0"):
        dialogue.say(message)
    assert opened.only.heard == dialogue.client.heard == b"a" + b"bc" * 10_000 + b"\0"
    assert dialogue.server.passed is not None
    heard = b"".join(data for was_heard, data in dialogue.server.passed if was_heard)
    assert heard == opened.only.heard
    assert b"".join(data for was_heard, data in dialogue.server.passed if not was_heard) == heard


def test_cut_in_two_at_every_place(keys: Keys) -> None:
    layer, context = TlsLayer(keys.server_side()), keys.client_side()

    def cut_at(place: int, data: bytes) -> Iterator[bytes]:
        yield from filter(None, (data[:place], data[place:]))

    longest = 0
    place = 1
    while place <= longest + 1:
        server = layer.wrap(Opened())(PEER, nowhere)
        client = TlsEnd(context)
        lengths: list[int] = []

        def cut(data: bytes, place: int = place, lengths: list[int] = lengths) -> Iterator[bytes]:
            lengths.append(len(data))
            return cut_at(place, data)

        dialogue = Dialogue(server, client, cut)
        dialogue.run()
        dialogue.say(b"hello")
        dialogue.finish()
        assert client.heard == b"hello"
        assert client.ended
        assert server.done
        assert server.failure is None
        longest = max(lengths)
        place += 1 if place < 32 else 7
    assert longest > 200


def test_all_in_one_chunk(keys: Keys) -> None:
    server = TlsLayer(keys.server_side()).wrap(opened := Opened())(PEER, nowhere)
    client = TlsEnd(keys.client_side())
    client.incoming.write(server.receive(client.step()))
    last = client.step() + client.say(b"question") + client.finish()
    client.incoming.write(server.receive(last))
    client.step()
    assert (client.heard, client.ended) == (b"question", True)
    assert (opened.only.heard, opened.only.ends, server.done) == (b"question", 1, True)
    assert list(server.passed or ()) == [(True, b"question"), (False, b"question"), (True, b"")]


def test_a_megabyte_at_once(keys: Keys) -> None:
    dialogue, _ = talk(keys)
    data = random.Random(1).randbytes(1 << 20)
    view = memoryview(data)
    while view:
        view = view[dialogue.client.tls.write(view) :]
    dialogue.run()
    assert dialogue.client.heard == data


# How it ends -------------------------------------------------------------------------------------


def test_tls13_half_close_leaves_our_direction_open(keys: Keys) -> None:
    dialogue, opened = talk(keys, most=TLS13)
    opened.only.last = b"the last word"
    dialogue.finish()
    assert opened.only.ends == 1
    assert dialogue.client.heard == b"the last word"
    assert dialogue.client.ended
    assert dialogue.server.done
    assert dialogue.server.failure is None


def test_tls13_half_close_and_a_conversation_that_pulls(keys: Keys) -> None:
    class Counting(Script):
        left = 3

        def more(self) -> bytes:
            if not self.ends:
                return b""
            self.left -= 1
            return b"%d" % self.left if self.left >= 0 else b""

    dialogue, opened = talk(keys, Opened(Counting), most=TLS13)
    assert dialogue.server.pulls
    dialogue.finish()
    assert dialogue.client.heard == b"210"
    assert dialogue.client.ended
    assert dialogue.server.done
    assert opened.only.ends == 1


def test_tls12_half_close_ends_both_and_says_what_is_lost(keys: Keys) -> None:
    dialogue, opened = talk(keys, most=TLS12)
    opened.only.last = b"the last word"
    dialogue.finish()
    assert opened.only.ends == 1
    assert dialogue.client.heard == b""
    assert dialogue.client.ended
    assert "13 bytes of answer had to be left unsaid" in reason(dialogue.server)


def test_tls12_close_with_nothing_to_say_is_no_failure(keys: Keys) -> None:
    dialogue, _ = talk(keys, most=TLS12)
    dialogue.say(b"x")
    dialogue.finish()
    assert dialogue.client.ended
    assert dialogue.server.done
    assert dialogue.server.failure is None


@pytest.mark.parametrize("most", [TLS12, TLS13])
def test_the_end_of_the_connection_alone_is_a_cut(keys: Keys, most: ssl.TLSVersion) -> None:
    dialogue, opened = talk(keys, most=most)
    dialogue.say(b"half a mess")
    dialogue.end()
    assert opened.only.ends == 0
    assert dialogue.server.done
    assert "without close_notify" in reason(dialogue.server)
    assert dialogue.client.ended


def test_a_service_that_is_done_says_so(keys: Keys) -> None:
    class Once(Script):
        def receive(self, data: bytes) -> bytes:
            self.done = True
            return b"bye"

    dialogue, _ = talk(keys, Opened(Once))
    dialogue.say(b"x")
    assert dialogue.client.heard == b"bye"
    assert dialogue.client.ended
    assert dialogue.server.done
    assert dialogue.server.failure is None


@pytest.mark.parametrize("step", ["open", "start", "receive"])
def test_a_service_that_raises_is_told_and_ends_in_order(keys: Keys, step: str) -> None:
    class Bad(Script):
        def __init__(self, peer: Peer, post: Post) -> None:
            super().__init__(peer, post)
            self._at("open")

        def _at(self, now: str) -> bytes:
            if now == step:
                raise ZeroDivisionError(now)
            return b""

        def start(self) -> bytes:
            return self._at("start")

        def receive(self, data: bytes) -> bytes:
            return self._at("receive")

    dialogue, _ = talk(keys, Opened(Bad))
    if not dialogue.server.done:
        dialogue.say(b"x")
    assert isinstance(dialogue.server.failure, ZeroDivisionError)
    assert dialogue.server.done
    assert dialogue.client.ended


def test_a_limit_is_no_cut(keys: Keys) -> None:
    dialogue, opened = talk(keys)
    opened.only.last = b"time is up"
    dialogue.client.incoming.write(dialogue.server.leave())
    dialogue.client.step()
    assert (opened.only.leaves, opened.only.ends) == (1, 0)
    assert dialogue.client.heard == b"time is up"
    assert dialogue.client.ended
    assert dialogue.server.failure is None


def test_a_limit_during_the_handshake(keys: Keys) -> None:
    server = TlsLayer(keys.server_side()).wrap(opened := Opened())(PEER, nowhere)
    server.receive(TlsEnd(keys.client_side()).step())
    assert server.leave() == b""
    assert server.done
    assert server.handshaking
    assert server.failure is None
    server.closed()
    assert not opened.all


# What goes wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.0\r\n\r\n", b"h", b"\n", b"\x80\x2e\x01\x00\x02", b"SSH-2.0-x\r\n", b"\x1b[2J"]
)
def test_what_is_not_tls_is_known_by_its_first_byte(keys: Keys, first: bytes) -> None:
    server = TlsLayer(keys.server_side()).wrap(opened := Opened())(PEER, nowhere)
    assert server.receive(first) == b""
    assert server.done
    assert reason(server).startswith('not TLS: it began with "')
    assert "\x1b" not in reason(server)
    assert not opened.all
    assert server.end() == b""


def test_who_only_looks_whether_the_port_is_open_has_done_nothing_wrong(keys: Keys) -> None:
    server = TlsLayer(keys.server_side()).wrap(Opened())(PEER, nowhere)
    assert server.end() == b""
    assert server.done
    assert server.failure is None


def test_who_leaves_in_the_middle_of_the_handshake(keys: Keys) -> None:
    server = TlsLayer(keys.server_side()).wrap(Opened())(PEER, nowhere)
    server.receive(TlsEnd(keys.client_side()).step()[:50])
    server.end()
    assert "in the middle of it" in reason(server)


def fails(keys: Keys, server: ssl.SSLContext, client: ssl.SSLContext, name: str = "example.org") -> str:
    """The server's reason; the client, if it finds nothing wrong itself, is told by an alert."""
    conversation = TlsLayer(server).wrap(opened := Opened())(PEER, nowhere)
    end = TlsEnd(client, name)
    for _ in range(4):
        try:
            out = end.step()
        except ssl.SSLError:
            out = end.outgoing.read()
        said = conversation.receive(out) if out and not conversation.done else b""
        end.incoming.write(said)
    assert conversation.done
    assert not opened.all
    return reason(conversation)


def test_a_client_that_does_not_believe_us_is_quoted(keys: Keys) -> None:
    context, _ = self_signed(["example.org"])
    assert "it does not trust our certificate's issuer" in fails(keys, context, keys.client_side())


def test_a_client_that_wants_another_host(keys: Keys) -> None:
    assert "it does not accept our certificate" in fails(
        keys, keys.server_side(), keys.client_side(), "another.example"
    )


def test_a_client_without_a_certificate_where_one_is_asked_for(keys: Keys) -> None:
    assert reason_without(keys, None) == "it shows no certificate, and one is asked for"


def test_a_client_with_a_certificate_of_another_issuer(keys: Keys) -> None:
    assert "its certificate does not hold: unable to get" in reason_without(keys, keys.other)


def reason_without(keys: Keys, show: object) -> str:
    context = keys.client_side()
    if show is not None:
        context.load_cert_chain(keys.other)
    return fails(keys, keys.server_side(asks=True), context)


def test_the_alert_reaches_the_client(keys: Keys) -> None:
    server = TlsLayer(keys.server_side(asks=True)).wrap(Opened())(PEER, nowhere)
    dialogue = Dialogue(server, TlsEnd(keys.client_side(most=TLS12)))
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        dialogue.run()
    assert server.done


def test_no_common_cipher(keys: Keys) -> None:
    server, client = keys.server_side(), keys.client_side(most=TLS12)
    server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    assert fails(keys, server, client) == "no cipher that both know"


@pytest.mark.parametrize("most", [TLS12, TLS13])
def test_a_record_that_was_changed_ends_it(keys: Keys, most: ssl.TLSVersion) -> None:
    dialogue, opened = talk(keys, most=most)
    record = bytearray(dialogue.client.say(b"transfer 1 euro"))
    record[-1] ^= 1
    said = dialogue.server.receive(bytes(record))
    assert opened.only.heard == b""
    assert reason(dialogue.server) == "a record was changed on its way"
    dialogue.client.incoming.write(said)
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        dialogue.client.step()


def test_what_came_before_the_changed_record_is_heard(keys: Keys) -> None:
    dialogue, opened = talk(keys)
    good, bad = dialogue.client.say(b"good"), bytearray(dialogue.client.say(b"bad"))
    bad[-1] ^= 1
    dialogue.server.receive(good + bytes(bad))
    assert opened.only.heard == b"good"
    assert dialogue.server.done


def test_a_record_larger_than_any_is_refused(keys: Keys) -> None:
    dialogue, _ = talk(keys)
    dialogue.server.receive(struct.pack("!BHH", 0x17, 0x0303, 0xFFFF))
    assert dialogue.server.done
    assert reason(dialogue.server)


def test_a_hello_larger_than_any_is_refused(keys: Keys) -> None:
    server = TlsLayer(keys.server_side()).wrap(Opened())(PEER, nowhere)
    # A ClientHello that says it has 16 MiB, in records that are full (RFC 8446, section 4).
    hello = b"\x01\xff\xff\xff" + b"\x03\x03" + bytes(16_000)
    sent = 0
    while not server.done and sent < 64:
        server.receive(struct.pack("!BHH", 0x16, 0x0301, len(hello)) + hello)
        hello = bytes(16_000)
        sent += 1
    assert server.done
    assert sent < 20
    assert reason(server)


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=8), st.booleans())
def test_whatever_comes_in_place_of_a_handshake(noise: list[bytes], begin: bool) -> None:
    server = TlsLayer(_context()).wrap(opened := Opened())(PEER, nowhere)
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


# Posts -------------------------------------------------------------------------------------------


def test_where_a_service_posts_everything_is_posted_in_order(keys: Keys) -> None:
    posted: list[bytes] = []
    server = TlsLayer(keys.server_side()).wrap(opened := Opened())(PEER, posted.append)
    client = TlsEnd(keys.client_side())

    def deliver() -> None:
        client.incoming.write(b"".join(posted))
        posted.clear()

    out = client.step()
    while out:
        assert server.receive(out) == b""
        deliver()
        out = client.step()
    opened.only.post(b"one ")
    assert server.receive(client.say(b"two ")) == b""
    opened.only.post(b"three ")
    opened.only.post(b"")
    deliver()
    client.step()
    assert client.heard == b"one two three "
    server.receive(client.finish())
    opened.only.post(b"too late")
    deliver()
    client.step()
    assert client.heard == b"one two three "
    assert client.ended


def test_posts_of_many_threads_stay_whole_and_decipherable(keys: Keys) -> None:
    posted: list[bytes] = []
    server = TlsLayer(keys.server_side()).wrap(opened := Opened())(PEER, posted.append)
    client = TlsEnd(keys.client_side())
    out = client.step()
    while out:
        server.receive(out)
        client.incoming.write(b"".join(posted))
        posted.clear()
        out = client.step()
    start = threading.Barrier(5)

    def member(letter: bytes) -> None:
        start.wait(10)
        for _ in range(200):
            opened.only.post(letter * 50)

    threads = [threading.Thread(target=member, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    start.wait(10)
    for _ in range(100):
        server.receive(client.say(b"e" * 50))
    for thread in threads:
        thread.join(10)
    client.incoming.write(b"".join(posted))
    client.step()
    assert len(client.heard) == 900 * 50
    words = [client.heard[at : at + 50] for at in range(0, len(client.heard), 50)]
    assert all(len(set(word)) == 1 for word in words)
    assert sorted({word[:1] for word in words}) == [b"a", b"b", b"c", b"d", b"e"]
